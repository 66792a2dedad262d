"""Usage: a row for each answer and each job's end."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "usage_rows",
        sa.Column("id", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID),
        sa.Column("status", sa.Integer()),
        sa.Column("error_code", sa.Text()),
        sa.Column("model", sa.Text()),
        sa.Column("scale", sa.Integer()),
        sa.Column("format", sa.Text()),
        sa.Column("input_px", sa.BigInteger()),
        sa.Column("output_px", sa.BigInteger()),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("device_s", sa.Double()),
        sa.Column("answers", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_usage_rows"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_usage_rows_key_id"),
    )
    op.create_index("ix_usage_rows_at_s", "usage_rows", ["at_s"])
