"""Jobs: upscales that are accepted now and run later."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UNFINISHED = sa.text("state IN ('queued', 'running')")


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source_name", sa.Text()),
        sa.Column("image_url", sa.Text()),
        sa.Column("scale", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("is_metered", sa.Boolean(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("lease_id", sa.Text()),
        sa.Column("lease_until_s", sa.Double()),
        sa.Column("tiles_done", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("tiles_total", sa.Integer()),
        sa.Column("result_name", sa.Text()),
        sa.Column("result_media_type", sa.Text()),
        sa.Column("result_model", sa.Text()),
        sa.Column("error_code", sa.Text()),
        sa.Column("error_text", sa.Text()),
        sa.Column("created_at_s", sa.Double(), nullable=False),
        sa.Column("ended_at_s", sa.Double()),
        sa.PrimaryKeyConstraint("id", name="pk_jobs"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_jobs_key_id"),
        sa.CheckConstraint(
            "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')",
            name="state_is_known",
        ),
        sa.CheckConstraint(
            "(state = 'running') = (lease_id IS NOT NULL)", name="running_has_a_lease"
        ),
    )
    op.create_index("ix_jobs_ended_at_s", "jobs", ["ended_at_s"])
    op.create_index("ix_jobs_key_id_created_at_s", "jobs", ["key_id", "created_at_s"])
    op.create_index(
        "ix_jobs_unfinished",
        "jobs",
        ["created_at_s"],
        sqlite_where=_UNFINISHED,
        postgresql_where=_UNFINISHED,
    )
