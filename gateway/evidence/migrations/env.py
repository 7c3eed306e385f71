"""Run by Alembic: brings the database of an open connection to the newest revision."""

from __future__ import annotations

from alembic import context

from gateway.evidence.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite changes a column by copying its table
)
with context.begin_transaction():
    context.run_migrations()
