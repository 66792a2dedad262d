"""Which process answers a request under an idempotency key."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    op.add_column("idempotency_keys", sa.Column("leased_by", sa.Text()))
