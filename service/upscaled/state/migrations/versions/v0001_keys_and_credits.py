"""Version 0.1.0: API keys and the credit ledger."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_api_keys()
    _create_credit_entries()
    _create_open_holds()


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("public_id", sa.Text(), nullable=False),
        sa.Column("secret_sha256", sa.Text(), nullable=False),
        sa.Column("created_at_s", sa.BigInteger(), nullable=False),
        sa.Column("revoked_at_s", sa.BigInteger()),
        sa.Column("balance", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_api_keys"),
        sa.UniqueConstraint("public_id", name="uq_api_keys_public_id"),
        sa.CheckConstraint("balance >= 0", name=op.f("ck_api_keys_balance_is_never_negative")),
    )
    op.create_index(
        "uq_api_keys_active_name",
        "api_keys",
        ["name"],
        unique=True,
        sqlite_where=sa.text("revoked_at_s IS NULL"),
        postgresql_where=sa.text("revoked_at_s IS NULL"),
    )


def _create_credit_entries() -> None:
    op.create_table(
        "credit_entries",
        sa.Column("id", _ROW_ID, nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("at_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_credit_entries"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_credit_entries_key_id"),
        sa.UniqueConstraint("request_id", "kind", name="uq_credit_entries_request_id_kind"),
        sa.CheckConstraint(
            "(kind = 'grant' AND amount > 0) OR (kind = 'hold' AND amount < 0)"
            " OR (kind = 'capture' AND amount = 0) OR (kind = 'release' AND amount > 0)",
            name=op.f("ck_credit_entries_amount_fits_kind"),
        ),
    )
    op.create_index("ix_credit_entries_key_id", "credit_entries", ["key_id"])


def _create_open_holds() -> None:
    op.create_table(
        "open_holds",
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("key_id", _ROW_ID, nullable=False),
        sa.Column("holder_id", sa.Text(), nullable=False),
        sa.Column("held_at_s", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("request_id", name="pk_open_holds"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_open_holds_key_id"),
    )
    op.create_index("ix_open_holds_holder_id", "open_holds", ["holder_id"])
