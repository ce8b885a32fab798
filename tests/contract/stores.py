"""Fixtures of the store's contract: every test that asks for `store` runs on both databases.

Use it as a plugin: `pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.agent.ports.store import Store
from app.store import open_store
from tests.sqlite_template import migrated


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return migrated(tmp_path / "heal.db")
    url: str = request.getfixturevalue("postgres_url")
    return url


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    """An open store over each database."""
    opened = await open_store(database_url)
    yield opened
    await opened.close()
