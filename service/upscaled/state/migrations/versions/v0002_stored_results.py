"""Add the stored result that each captured hold paid for."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "stored_results",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=False),
        sa.Column("stored_at_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_stored_results"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_stored_results_key_id"),
        sa.UniqueConstraint("file_name", name="uq_stored_results_file_name"),
    )
    op.create_index("ix_stored_results_stored_at_s", "stored_results", ["stored_at_s"])
