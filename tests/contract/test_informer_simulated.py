"""The informer keeps its promises over the simulated collection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

pytest.register_assert_rewrite("tests.contract.informer_suite")

from app.agent.ids import JsonObject  # noqa: E402 - after the rewrite is registered
from app.connectors.kubernetes.api import Kind  # noqa: E402 - as above
from app.connectors.kubernetes.reading.informer import Informer  # noqa: E402 - as above
from app.connectors.kubernetes.reading.pruning import pruned  # noqa: E402 - as above
from app.errors import TransientError  # noqa: E402 - as above
from app.testing import VirtualClock  # noqa: E402 - as above
from tests.contract.collection import DOWN, Collection, ended, informer_of, kept  # noqa: E402 - as above
from tests.contract.informer_suite import *  # noqa: E402, F403 - the shared contract


@dataclass
class Simulated:
    """`InformerHarness` in virtual time."""

    collection: Collection
    informer: Informer
    clock: VirtualClock
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def begin(self) -> None:
        self.tasks.append(asyncio.create_task(self.informer.run()))

    async def put(self, name: str, value: str) -> None:
        self.collection.put(name, value)

    async def delete(self, name: str) -> None:
        self.collection.delete(name)

    async def cut(self) -> None:
        self.collection.refused = [TransientError("connection refused")] * DOWN
        self.collection.cut()
        await self.clock.advance(2)

    async def restore(self) -> None:
        self.collection.refused = []
        await self.clock.advance(60)

    async def expire(self) -> None:
        self.collection.compact()
        self.collection.cut()

    async def fresh(self) -> dict[str, JsonObject]:
        return dict(self.collection.objects)

    async def follows(self) -> None:
        wanted = {name: pruned(Kind.CONFIG_MAP, item) for name, item in self.collection.objects.items()}
        await self.clock.run_until(lambda: kept(self.informer) == wanted)

    def asked(self) -> tuple[int, int]:
        pages = sum(one == "list" for one in self.collection.asked)
        return pages, len(self.collection.asked) - pages


@pytest.fixture
async def shelf() -> AsyncIterator[Simulated]:
    """An empty collection and its informer at work."""
    collection, clock = Collection(), VirtualClock()
    informer = informer_of(collection, clock)
    made = Simulated(collection, informer, clock)
    yield made
    await ended(made.tasks)


async def test_an_informer_ages_while_it_hears_nothing(shelf: Simulated) -> None:
    """An outage of the API server shows as the age of what was heard last; then it is young again."""
    assert shelf.informer.heard_at is None
    await shelf.put("config", "a")
    await shelf.begin()
    await shelf.follows()
    heard = shelf.informer.heard_at
    assert heard == shelf.clock.now()
    await shelf.cut()
    await shelf.clock.advance(600)
    assert shelf.informer.heard_at == heard
    await shelf.restore()
    await shelf.clock.run_until(lambda: shelf.informer.heard_at != heard)
