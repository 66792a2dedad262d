"""Idempotency keys: requests that may be sent again without a second charge."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("is_job", sa.Boolean(), nullable=False),
        sa.Column("lease_until_s", sa.Double()),
        sa.Column("answer", sa.Text()),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "name", name="pk_idempotency_keys"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_idempotency_keys_key_id"),
    )
    op.create_index("ix_idempotency_keys_created_at_s", "idempotency_keys", ["created_at_s"])
