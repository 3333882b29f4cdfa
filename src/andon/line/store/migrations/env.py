"""Run by alembic: applies the migrations on the connection that `connection.migrate` passes."""

from __future__ import annotations

from alembic import context

from andon.line.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
