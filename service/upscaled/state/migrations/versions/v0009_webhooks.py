"""Webhooks: what is called when a job has ended."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WAITING = sa.text("state = 'waiting'")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("base_url", sa.Text()))
    op.add_column("jobs", sa.Column("webhook_url", sa.Text()))
    op.create_table(
        "key_webhooks",
        sa.Column("key_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("url", sa.Text()),
        sa.Column("is_disabled", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_webhooks"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_key_webhooks_key_id"),
    )
    op.create_table(
        "webhook_deliveries",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("is_trusted", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("lease_id", sa.Text()),
        sa.Column("due_at_s", sa.Double(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False, server_default=""),
        sa.PrimaryKeyConstraint("job_id", name="pk_webhook_deliveries"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_webhook_deliveries_key_id"),
        sa.CheckConstraint(
            "state IN ('waiting', 'delivered', 'failed', 'gone')", name="state_is_known"
        ),
    )
    op.create_index(
        "ix_webhook_deliveries_waiting",
        "webhook_deliveries",
        ["due_at_s"],
        sqlite_where=_WAITING,
        postgresql_where=_WAITING,
    )
