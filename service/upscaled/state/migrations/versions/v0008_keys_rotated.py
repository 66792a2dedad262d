"""Keys that expire, secrets that are rotated, and credits that are taken back."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_AMOUNT_FITS_KIND = (
    "(kind = 'grant' AND amount > 0) OR (kind IN ('hold', 'take') AND amount < 0)"
    " OR (kind = 'capture' AND amount = 0) OR (kind = 'release' AND amount > 0)"
)


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("expires_at_s", sa.BigInteger()))
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
    # SQLite changes a constraint only by copying the table; alembic copies it without its checks.
    name = op.f("ck_credit_entries_amount_fits_kind")
    with op.batch_alter_table("credit_entries", recreate="auto") as entries:
        if op.get_bind().dialect.name != "sqlite":
            entries.drop_constraint(name, type_="check")
        entries.create_check_constraint(name, _AMOUNT_FITS_KIND)
