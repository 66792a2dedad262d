"""Store the thresholds of `auto`, and which of them each front end uses."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    op.create_table(
        "auto_choice",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("plans", sa.Text(), nullable=False),
        sa.Column("ladders", sa.Text(), nullable=False),
        sa.Column("written_at_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_auto_choice"),
    )
    op.add_column("holders", sa.Column("auto_plans", sa.Text()))
