"""The tables, the same on SQLite and PostgreSQL; every change needs a migration.

Times are whole seconds since 1970 in UTC.
"""

from typing import Final

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, Double, ForeignKey, Index, Table, Text

# Constraints carry names, so that a later migration can change them on both databases.
METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite numbers rows by itself only in a column that is called INTEGER.
_ROW_ID: Final = BigInteger().with_variant(sa.Integer(), "sqlite")

API_KEYS: Final = Table(
    "api_keys",
    METADATA,
    Column("id", _ROW_ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("public_id", Text, nullable=False, unique=True),
    Column("secret_sha256", Text, nullable=False),
    Column("created_at_s", BigInteger, nullable=False),
    Column("revoked_at_s", BigInteger),
    Column("balance", BigInteger, nullable=False),
    # NULL: as the settings say.
    Column("rate_per_s", Double),
    Column("rate_burst", BigInteger),
    Column("expires_at_s", BigInteger),  # NULL: never
    Column("scopes", Text),  # NULL: all; see `upscaled.state.key_rows`
    sa.CheckConstraint("balance >= 0", name="balance_is_never_negative"),
)
# Only of keys that are not revoked: a revoked key keeps its row and its history, and its name may
# be given to a new key. The conditions of partial indexes stand in the migrations alone: to name
# PostgreSQL's here would import its dialect at every start on SQLite.
Index("uq_api_keys_active_name", API_KEYS.c.name, unique=True)

# The secrets that rotated keys had before, each valid until its time.
FORMER_SECRETS: Final = Table(
    "former_secrets",
    METADATA,
    Column("public_id", Text, primary_key=True),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("secret_sha256", Text, nullable=False),
    Column("valid_until_s", BigInteger, nullable=False),
)

# Append-only. For every key, sum(amount) = its balance.
CREDIT_ENTRIES: Final = Table(
    "credit_entries",
    METADATA,
    Column("id", _ROW_ID, primary_key=True),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False, index=True),
    Column("request_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("at_s", BigInteger, nullable=False),
    sa.UniqueConstraint("request_id", "kind"),
    sa.CheckConstraint(
        "(kind = 'grant' AND amount > 0) OR (kind IN ('hold', 'take') AND amount < 0)"
        " OR (kind = 'capture' AND amount = 0) OR (kind = 'release' AND amount > 0)",
        name="amount_fits_kind",
    ),
)

# The holds that are neither captured nor released yet. The process that deletes the row settles
# the hold, and only one can.
OPEN_HOLDS: Final = Table(
    "open_holds",
    METADATA,
    Column("request_id", Text, primary_key=True),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False),
    Column("holder_id", Text, nullable=False, index=True),
    Column("held_at_s", BigInteger, nullable=False),
)

# Which stored result a captured hold paid for: written with the capture, removed with the file.
# A request that is asked again (by an idempotency key, as a job) finds by its hold's id what was
# made and paid for, also where the process that made it died before it could answer.
STORED_RESULTS: Final = Table(
    "stored_results",
    METADATA,
    Column("request_id", Text, primary_key=True),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False),
    Column("file_name", Text, nullable=False, unique=True),
    Column("media_type", Text, nullable=False),
    Column("stored_at_s", BigInteger, nullable=False, index=True),
)

# The front ends of a PostgreSQL that may hold credits. `seen_at_s` is by the database's clock, and
# NULL once the front end was declared dead. Its row goes after its holds.
HOLDERS: Final = Table(
    "holders",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("seen_at_s", BigInteger),
    Column("auto_plans", Text),  # which it chooses by: see `upscaled.state.auto_choice`
)

# One row: what `auto` chooses by on all machines, as JSON.
AUTO_CHOICE: Final = Table(
    "auto_choice",
    METADATA,
    Column("id", sa.Integer, primary_key=True, autoincrement=False),
    Column("plans", Text, nullable=False),
    Column("ladders", Text, nullable=False),
    Column("written_at_s", BigInteger, nullable=False),
)

# One row: the database's clock at a sweep, and how long it was not set: see `SteadyClocks`.
CLOCK_RECORD: Final = Table(
    "clock_record",
    METADATA,
    Column("id", sa.Integer, primary_key=True, autoincrement=False),
    Column("seen_at_s", Double, nullable=False),
    Column("steady_s", Double, nullable=False),
)

# GCRA on PostgreSQL: when the allowance of each key is whole again, in nanoseconds since 1970 by
# the database's clock, and what one request took of it. Unlogged.
KEY_RATES: Final = Table(
    "key_rates",
    METADATA,
    Column("key_id", _ROW_ID, primary_key=True, autoincrement=False),
    Column("whole_at_ns", BigInteger, nullable=False),
    Column("interval_ns", BigInteger, nullable=False),
)

# Which front end has the requests that a client named itself, so that any can show their progress.
# Who shows the token may read it there. Unlogged.
UNDER_WAY: Final = Table(
    "under_way",
    METADATA,
    Column("key_id", _ROW_ID, primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("front_end_url", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("begun_at_s", BigInteger, nullable=False),
)

# Upscales that are accepted now and run later; see `upscaled.state.jobs`. Times are of the
# database's clock, with fractions. `lease_id` is set while the job is running, and only then;
# `lease_until_s` is NULL once its process has ended, and of a queued job when it may be claimed
# again. `choice` is JSON: the arguments of an `OutputChoice`.
JOBS: Final = Table(
    "jobs",
    METADATA,
    Column("id", Text, primary_key=True),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False),
    Column("state", Text, nullable=False),
    Column("source_name", Text),
    Column("image_url", Text),
    Column("scale", sa.Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("choice", Text, nullable=False, server_default="{}"),
    Column("is_metered", Boolean, nullable=False),
    # By the request that submitted it: where its result's URL begins, and what to call at its end.
    Column("base_url", Text),
    Column("webhook_url", Text),
    Column("attempts", sa.Integer, nullable=False, server_default="0"),
    Column("lease_id", Text),
    Column("lease_until_s", Double),
    Column("tiles_done", sa.Integer, nullable=False, server_default="0"),
    Column("tiles_total", sa.Integer),
    Column("result_name", Text),
    Column("result_media_type", Text),
    Column("result_model", Text),
    Column("error_code", Text),
    Column("error_text", Text),
    Column("created_at_s", Double, nullable=False),
    Column("ended_at_s", Double, index=True),
    sa.CheckConstraint(
        "state IN ('queued', 'running', 'succeeded', 'failed', 'cancelled')", name="state_is_known"
    ),
    sa.CheckConstraint("(state = 'running') = (lease_id IS NOT NULL)", name="running_has_a_lease"),
    Index("ix_jobs_key_id_created_at_s", "key_id", "created_at_s"),
)
Index("ix_jobs_unfinished", JOBS.c.created_at_s)  # only of those queued or running

# The requests that a client named by an `Idempotency-Key`: see `upscaled.state.idempotency`.
# `request_id` is that of the credit's hold, or the job's id. `lease_until_s` is by the database's
# clock, and NULL where the request is not running.
IDEMPOTENCY_KEYS: Final = Table(
    "idempotency_keys",
    METADATA,
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("is_job", Boolean, nullable=False),
    Column("lease_until_s", Double),
    Column("leased_by", Text),
    Column("answer", Text),
    Column("created_at_s", Double, nullable=False, index=True),
)

# What signs the webhooks of a key, and where they are sent unless a job names another address.
# The secret is kept as it is: the key's owner verifies with the same one.
KEY_WEBHOOKS: Final = Table(
    "key_webhooks",
    METADATA,
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), primary_key=True, autoincrement=False),
    Column("secret", Text, nullable=False),
    Column("url", Text),
    Column("is_disabled", Boolean, nullable=False, server_default=sa.false()),
)

# Webhooks of jobs that ended, written with the job's end; see `upscaled.state.webhooks`. `due_at_s`
# is when the next attempt may begin, by the database's clock: of one under way, its lease's end.
WEBHOOK_DELIVERIES: Final = Table(
    "webhook_deliveries",
    METADATA,
    Column("job_id", Text, primary_key=True),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False),
    Column("url", Text, nullable=False),
    Column("is_trusted", Boolean, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempts", sa.Integer, nullable=False, server_default="0"),
    Column("lease_id", Text),
    Column("due_at_s", Double, nullable=False),
    Column("outcome", Text, nullable=False, server_default=""),
    sa.CheckConstraint(
        "state IN ('waiting', 'delivered', 'failed', 'gone')", name="state_is_known"
    ),
)
Index("ix_webhook_deliveries_waiting", WEBHOOK_DELIVERIES.c.due_at_s)  # only of those

# What was answered, and the jobs that ended: see `upscaled.state.usage`, whose `UsageRow` has the
# same columns. The id is random and the writer's, so that a row which is sent again is known. It is
# not INTEGER, so SQLite keeps the rows in the order in which they were written.
USAGE_ROWS: Final = Table(
    "usage_rows",
    METADATA,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("at_s", BigInteger, nullable=False, index=True),
    Column("kind", Text, nullable=False),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id")),
    Column("status", sa.Integer),
    Column("error_code", Text),
    Column("model", Text),
    Column("scale", sa.Integer),
    Column("format", Text),
    Column("input_px", BigInteger),
    Column("output_px", BigInteger),
    Column("credits", BigInteger, nullable=False),
    Column("device_s", Double),
    Column("answers", BigInteger, nullable=False),
)

# Finished days of usage_rows, added up: see `upscaled.state.usage_days`. They can be made again at
# any time. row_count: the rows that a group was added up from.
USAGE_DAYS: Final = Table(
    "usage_days",
    METADATA,
    Column("day", BigInteger, primary_key=True, autoincrement=False),
    Column("key_id", BigInteger, primary_key=True, autoincrement=False),
    Column("model", Text, primary_key=True),
    Column("row_count", BigInteger, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("images", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),
    Column("failed", BigInteger, nullable=False),
    Column("left", BigInteger, nullable=False),
    Column("credits", BigInteger, nullable=False),
    Column("input_px", BigInteger, nullable=False),
    Column("output_px", BigInteger, nullable=False),
    Column("device_s", Double, nullable=False),
)

# Append-only, but for old ones: see `upscaled.state.audit`. `details` is JSON.
AUDIT_ENTRIES: Final = Table(
    "audit_entries",
    METADATA,
    Column("id", _ROW_ID, primary_key=True),
    Column("at_s", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), nullable=False),
    Column("details", Text, nullable=False),
)

# Results by what they were made of: see `upscaled.state.reuse`.
REUSABLE_RESULTS: Final = Table(
    "reusable_results",
    METADATA,
    Column("key_id", _ROW_ID, ForeignKey("api_keys.id"), primary_key=True, autoincrement=False),
    Column("fingerprint", Text, primary_key=True),
    Column("result", Text, nullable=False),
    Column("stored_at_s", Double, nullable=False, index=True),
)
