"""Choices of an output that jobs carry, as JSON."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("choice", sa.Text(), nullable=False, server_default="{}"))
