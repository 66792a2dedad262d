"""Run by alembic, on the connection and in the transaction that `migrate` gives it."""

from alembic import context

from upscaled.state.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    transactional_ddl=True,
)
context.run_migrations()
