"""Tables that several front ends of one PostgreSQL share; SQLite has them and leaves them empty."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
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
