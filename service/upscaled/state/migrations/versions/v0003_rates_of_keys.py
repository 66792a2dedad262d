"""A rate of each key's own; NULL, as for every key so far, means that of the settings."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("rate_per_s", sa.Double()))
    op.add_column("api_keys", sa.Column("rate_burst", sa.BigInteger()))
