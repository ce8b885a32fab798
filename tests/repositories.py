"""Stores in parts: repositories exchanged by a test, and the database under them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from app.agent.ports.store import Store
from app.store import open_store, store_over
from app.store.database.port import Database


def exchanged(store: Store, **repositories: Any) -> Store:
    """The same store with these repositories in the place of its own."""
    return replace(store, **repositories)


def database_of(store: Store) -> Database:
    """The database under the repositories."""
    database: Database = vars(store.signals)["database"]
    return database


async def open_narrow(database_url: str, *, narrow: bool = True) -> Store:
    """A store that writes narrow rows for healthy samples, or none, whichever database it is over."""
    return store_over(database_of(await open_store(database_url)), narrow_samples=narrow)
