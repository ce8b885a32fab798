"""The contract of incidents, history and budgets over the store in memory that benchmarks use."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.agent.ports.store import Store
from app.store import open_in_memory
from tests.contract.test_store_budgets import *  # noqa: F403 - the tests of the contract themselves
from tests.contract.test_store_history import *  # noqa: F403 - as above
from tests.contract.test_store_incidents import *  # noqa: F403 - as above


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    """An open store in memory."""
    opened = open_in_memory()
    yield opened
    await opened.close()


async def test_two_stores_in_memory_share_nothing() -> None:
    """Each begins empty, as a copy of one migrated database."""
    one, other = open_in_memory(), open_in_memory()
    await one.ping()
    await other.ping()
    assert await one.incidents.all_open() == ()
    await one.close()
    assert await other.incidents.all_open() == ()
    await other.close()
