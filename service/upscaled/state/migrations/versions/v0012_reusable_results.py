"""Results that the same request of the same key may use again."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "reusable_results",
        sa.Column("key_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("result", sa.Text(), nullable=False),
        sa.Column("stored_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "fingerprint", name="pk_reusable_results"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_reusable_results_key_id"),
    )
    op.create_index("ix_reusable_results_stored_at_s", "reusable_results", ["stored_at_s"])
