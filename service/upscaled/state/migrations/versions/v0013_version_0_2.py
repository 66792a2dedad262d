"""What version 0.2.0 added to 0.1.0: rates, jobs, webhooks, usage, the audit log, and more."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0001"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_UNFINISHED = sa.text("state IN ('queued', 'running')")
_WAITING = sa.text("state = 'waiting'")
_AMOUNT_FITS_KIND = (
    "(kind = 'grant' AND amount > 0) OR (kind IN ('hold', 'take') AND amount < 0)"
    " OR (kind = 'capture' AND amount = 0) OR (kind = 'release' AND amount > 0)"
)


def upgrade() -> None:
    _extend_keys()
    _extend_credits()
    _create_front_ends()
    _create_jobs()
    _create_idempotency_keys()
    _create_webhooks()
    _create_usage_rows()
    _create_audit_entries()
    _create_reusable_results()


def _extend_keys() -> None:
    """Add columns that are NULL for the keys of 0.1.0: rates as set, no end, and all scopes."""
    op.add_column("api_keys", sa.Column("rate_per_s", sa.Double()))
    op.add_column("api_keys", sa.Column("rate_burst", sa.BigInteger()))
    op.add_column("api_keys", sa.Column("expires_at_s", sa.BigInteger()))
    op.add_column("api_keys", sa.Column("scopes", sa.Text()))
    op.create_table(
        "former_secrets",
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("valid_until_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("public_id", name="pk_former_secrets"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_former_secrets_key_id"),
    )
    op.create_index("ix_former_secrets_key_id", "former_secrets", ["key_id"])


def _extend_credits() -> None:
    # SQLite changes a constraint only by copying the table; alembic copies it without its checks.
    name = op.f("ck_credit_entries_amount_fits_kind")
    with op.batch_alter_table("credit_entries", recreate="auto") as entries:
        if op.get_bind().dialect.name != "sqlite":
            entries.drop_constraint(name, type_="check")
        entries.create_check_constraint(name, _AMOUNT_FITS_KIND)
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


def _create_front_ends() -> None:
    op.create_table(
        "holders",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("seen_at_s", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_holders"),
    )
    # After a crash of the server rates begin anew and progress is not found: worth no disk write.
    unlogged = ["UNLOGGED"] if op.get_bind().dialect.name == "postgresql" else []
    op.create_table(
        "key_rates",
        sa.Column("key_id", _ROW_ID, autoincrement=False, nullable=False),
        sa.Column("whole_at_ns", sa.BigInteger(), nullable=False),
        sa.Column("interval_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", name="pk_key_rates"),
        prefixes=unlogged,
    )
    op.create_table(
        "under_way",
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("front_end_url", sa.Text(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("begun_at_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_id", "request_id", name="pk_under_way"),
        prefixes=unlogged,
    )


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("source_name", sa.Text()),
        sa.Column("image_url", sa.Text()),
        sa.Column("scale", sa.Integer(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("choice", sa.Text(), nullable=False, server_default="{}"),
        sa.Column("is_metered", sa.Boolean(), nullable=False),
        sa.Column("base_url", sa.Text()),
        sa.Column("webhook_url", sa.Text()),
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


def _create_idempotency_keys() -> None:
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


def _create_webhooks() -> None:
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


def _create_usage_rows() -> None:
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


def _create_audit_entries() -> None:
    op.create_table(
        "audit_entries",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_entries"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_audit_entries_key_id"),
    )


def _create_reusable_results() -> None:
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
