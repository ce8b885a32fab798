"""Whatever happens to the objects and to the network, the store comes to equal a fresh list."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.ids import JsonObject
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import name
from app.connectors.kubernetes.reading.pruning import pruned
from app.errors import TransientError
from app.testing import VirtualClock
from tests.contract.collection import Collection, ended, informer_of, kept

NAMES = st.sampled_from(["a", "b", "c", "d", "e"])
OBJECTS = st.tuples(st.just("put"), NAMES, st.sampled_from("xyz")) | st.tuples(st.just("delete"), NAMES)
FAULTS = st.tuples(st.sampled_from(["cut", "compact", "refuse", "bookmark", "in a list"]))
TIME = st.tuples(st.just("wait"), st.sampled_from([0.0, 0.3, 5.0, 400.0]))
OUTAGES = st.tuples(st.just("outage"), st.lists(OBJECTS, max_size=4))
"""A cut, changes that no watch delivers, and a history that is compacted before the next one begins."""
STEPS = st.lists(OBJECTS | OBJECTS | FAULTS | TIME | OUTAGES, max_size=30)


@settings(deadline=None, max_examples=60)
@given(STEPS)
def test_the_store_equals_a_fresh_list_after_any_events(steps: list[tuple[object, ...]]) -> None:
    """Changes before, between and inside lists and watches, cuts, refusals and 410 in any order."""
    asyncio.run(_played(steps))


async def _played(steps: list[tuple[object, ...]]) -> None:
    collection, clock = Collection(page_size=2), VirtualClock()
    seen: dict[str, JsonObject] = {}

    def changed(_: Kind, item: JsonObject, present: bool) -> None:
        """What a listener knows from the reports alone."""
        seen.pop(name(item), None)
        if present:
            seen[name(item)] = pruned(Kind.CONFIG_MAP, item)

    informer = informer_of(collection, clock, changed=changed)
    task = asyncio.create_task(informer.run())
    for step in steps:
        await _done(step, collection, clock)
    collection.refused.clear()
    # The longest pause and the rest of a stream pass, and one cut shows what a silent stream missed.
    await clock.advance(600)
    await clock.settle()
    fresh = {each: pruned(Kind.CONFIG_MAP, item) for each, item in collection.objects.items()}
    assert kept(informer) == fresh
    assert seen == fresh
    await ended([task])


async def _done(step: tuple[object, ...], collection: Collection, clock: VirtualClock) -> None:
    match step:
        case ("put", str(each), str(value)):
            collection.put(each, value)
        case ("delete", str(each)):
            collection.delete(each)
        case ("wait", float(seconds)):
            await clock.advance(seconds)
        case ("outage", list(changes)):
            await clock.settle()
            collection.cut()
            for change in changes:
                await _done(change, collection, clock)
            collection.compact()
        case ("cut",):
            collection.cut()
        case ("compact",):
            collection.compact()
        case ("bookmark",):
            collection.bookmark()
        case ("refuse",):
            collection.refused += [TransientError("connection refused")] * 2
        case _:
            collection.between_pages = _once(collection)


def _once(collection: Collection) -> Callable[[], None]:
    """The history is compacted and an object changes in the middle of the next list."""

    def happen() -> None:
        collection.between_pages = lambda: None
        collection.put("a", "in a list")
        collection.compact()

    return happen
