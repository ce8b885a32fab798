"""Whatever changes, fails and dies, and in whatever order: nothing is lost, and a thread keeps its order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import Forbidden, TransientError, UnknownOutcome
from tests.announcing import Fuse, Killed, Theatre, theatre
from tests.contract.memory_channel import WELL, Fate, Fault, scripted

FAULTS = st.sampled_from(
    [
        WELL,
        Fault(fate=Fate.FAILED, error=TransientError("no listener")),
        Fault(fate=Fate.FAILED, error=TransientError("too many", retry_after=timedelta(seconds=20))),
        Fault(fate=Fate.FAILED, error=Forbidden("not you")),
        Fault(fate=Fate.FAILED, error=UnknownOutcome("no answer, and nothing arrived")),
        Fault(fate=Fate.FAILED),
        Fault(fate=Fate.FAILED, error=Killed()),
        Fault(fate=Fate.LOST, error=UnknownOutcome("no answer")),
        Fault(fate=Fate.LOST, error=RuntimeError("a defect")),
        Fault(fate=Fate.LOST),
        Fault(fate=Fate.LOST, error=Killed()),
    ]
)
CHANGES = st.tuples(st.sampled_from(["open", "note", "note", "announce", "ask", "close"]), st.integers(0, 5))
ROUNDS = st.tuples(
    st.just("round"), st.lists(FAULTS, max_size=6), st.none() | st.integers(0, 30), st.integers(1, 2)
)
WAITS = st.tuples(st.just("wait"), st.sampled_from([0.1, 1.0, 5.0, 30.0, 120.0, 1_000.0]))
STEPS = st.lists(st.one_of(CHANGES, ROUNDS, ROUNDS, WAITS), max_size=25)


@settings(max_examples=25)
@given(steps=STEPS, searchable=st.booleans())
def test_nothing_is_lost_and_a_thread_keeps_its_order(
    steps: Sequence[tuple[object, ...]], searchable: bool
) -> None:
    """Where the channel can be searched nothing is posted twice; once it works, everything is posted."""
    asyncio.run(_played(steps, searchable))


async def _played(steps: Sequence[tuple[object, ...]], searchable: bool) -> None:
    with theatre() as play:
        await play.store.notifications.due("memory", play.clock.now(), 1)
        for step in steps:
            match step:
                case ("round", list(faults), point, int(announcers)):
                    assert point is None or isinstance(point, int)
                    await _round(play, faults, point, announcers, searchable)
                case ("wait", float(seconds)):
                    await play.clock.advance(seconds)
                case (str(change), int(which)):
                    await _changed(play, change, which)
        for _ in range(60):  # refused four times in a row is waited for an hour
            await play.clock.advance(100)
            await play.clock.run_until(play.channel_sender(play.channel(searchable=searchable)).round())
        assert await play.complaints(once=searchable) == []


async def _round(
    play: Theatre, faults: Sequence[Fault], point: int | None, announcers: int, searchable: bool
) -> None:
    """One look by one announcer, or by two at once, each of which may die on the way."""
    channel = play.channel(searchable=searchable, fates=scripted(iter(faults)))
    rounds = [play.channel_sender(channel, Fuse(die_at=point)).round() for _ in range(announcers)]
    for ended in await play.clock.run_until(asyncio.gather(*rounds, return_exceptions=True), limit=10_000):
        assert ended is None or isinstance(ended, Killed), ended


async def _changed(play: Theatre, change: str, which: int) -> None:
    if change == "open" or not play.opened:
        await play.open()
        return
    incident = play.opened[which % len(play.opened)]
    if (await play.record(incident)).incident.state.closed:
        return
    match change:
        case "note":
            await play.note(incident, which + 1)
        case "announce":
            await play.announce(incident)
        case "ask":
            await play.ask(incident)
        case _:
            await play.close(incident)
