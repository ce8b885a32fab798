"""Run by alembic, never imported: hands on the connection that `app.store.database.migrate` brought along."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from app.store.database.tables import metadata

connection = context.config.attributes.get("connection")
if not isinstance(connection, Connection):
    raise TypeError(
        "migrations run through app.store.database.migrate.upgrade, which brings its connection along"
    )

context.configure(connection=connection, target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
