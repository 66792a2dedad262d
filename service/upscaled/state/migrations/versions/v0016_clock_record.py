"""For how long the database's clock was not set."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    op.create_table(
        "clock_record",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seen_at_s", sa.Double(), nullable=False),
        sa.Column("steady_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_clock_record"),
    )
