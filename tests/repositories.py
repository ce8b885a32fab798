"""Stores in parts: repositories exchanged by a test, and the database under them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.agent.ports.store import Store
from app.store.database.port import Database


def exchanged(store: Store, **repositories: Any) -> Store:
    """The same store with these repositories in the place of its own."""
    return replace(store, **repositories)


def database_of(store: Store) -> Database:
    """The database under the repositories."""
    database: Database = vars(store.signals)["database"]
    return database
