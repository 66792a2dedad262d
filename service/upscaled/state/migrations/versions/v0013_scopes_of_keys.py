"""What a key may be used for; NULL, as for every key so far, means everything."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("scopes", sa.Text()))
