"""What bounds every exchange: backoff, deadline, size of a body; and the chain of the records."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import hash_chain
from app.bounds.backoff import Backoff
from app.bounds.body import read_bounded
from app.bounds.deadline import deadline
from app.errors import PermanentError, TransientError

APP = Path(__file__).parents[2] / "app"

WRITTEN_ONCE = {
    "a backoff that doubles": (
        r"\*\s*2(?:\.0)? \*\*|\* \(1 << |\bmin\(\s*2 \* |\* 2, _",
        {"app/bounds/backoff.py"},
    ),
    "a chained hash": (r"sha256\(previous", {"app/hash_chain.py"}),
    "a bounded body": (r"aiter_(?:raw|bytes)\(\):|async for chunk in", {"app/bounds/body.py"}),
}
"""What is implemented in one place, by the form in which a second one would be written."""

TIMED_OTHERWISE = {
    "app/api/changes.py": "silence is a ping, and a client that reads nothing is disconnected",
    "app/connectors/alerts/owners.py": "the owners that answered in time are enough",
    "app/connectors/chat/slack/client.py": "its library has time-outs that differ in what was sent",
    "app/connectors/chat/slack/socket.py": "closing gives up without an error",
    "app/connectors/traces/otlp.py": "as above",
    "app/connectors/kubernetes/connection.py": "a time-out is one row of its table of failures",
    "app/connectors/policy/embedded.py": "a late decision is a deny, no error",
    "app/store/database/postgresql.py": "a time-out is one of the driver's errors",
    "app/store/fleet.py": "as above",
    "app/workers/driver.py": "passes that are late are interrupted",
    "app/workers/stopping.py": "what does not stop is logged and left behind",
}
"""Where a time-out does not become an error of the product's own."""


@pytest.mark.parametrize("what", WRITTEN_ONCE)
def test_it_is_written_in_one_place(what: str) -> None:
    """A second implementation differs from the first on the day that it matters."""
    pattern, places = WRITTEN_ONCE[what]
    found = {
        str(path.relative_to(APP.parent))
        for path in APP.rglob("*.py")
        if re.search(pattern, path.read_text(encoding="utf-8"))
    }
    assert found == places


def test_a_time_out_becomes_an_error_in_one_place() -> None:
    """Everything else uses `deadline`; a place without the reason above would forget a case."""
    found = {
        str(path.relative_to(APP.parent))
        for path in APP.rglob("*.py")
        if re.search(r"asyncio\.(?:timeout|wait_for)\(", path.read_text(encoding="utf-8"))
    }
    assert found == {"app/bounds/deadline.py", *TIMED_OTHERWISE}


@given(st.integers(1, 2000), st.integers(1, 10_000), st.integers(1, 10_000_000))
def test_a_backoff_doubles_up_to_its_longest(failures: int, first: int, longest: int) -> None:
    """Never below the wait before, never above the longest, and zero without a failure."""
    backoff = Backoff(first=timedelta(milliseconds=first), longest=timedelta(milliseconds=longest))
    wait, next_wait = backoff.after(failures), backoff.after(failures + 1)
    assert wait <= next_wait <= backoff.longest
    assert next_wait in (2 * wait, backoff.longest)
    assert backoff.after(1) == min(backoff.first, backoff.longest)
    assert backoff.after(0) == timedelta(0)


def test_a_requested_wait_is_the_least() -> None:
    """The other side knows when it is back; a shorter wait of its own is ignored."""
    backoff = Backoff.of_seconds(4, 60)
    assert backoff.seconds_after(1, timedelta(seconds=9)) == 9
    assert backoff.seconds_after(1, timedelta(seconds=1)) == 4
    assert backoff.seconds_after(3) == 16


async def test_a_deadline_raises_the_error_that_it_was_given() -> None:
    """Whether it ran out or the block timed out itself; other errors pass."""
    late = TransientError("no answer in time")
    with pytest.raises(TransientError, match="no answer in time"):
        async with deadline(0.0, lambda: late):
            await asyncio.Event().wait()
    with pytest.raises(TransientError, match="no answer in time"):
        async with deadline(600, lambda: late):
            raise TimeoutError
    with pytest.raises(PermanentError):
        async with deadline(600, lambda: late):
            raise PermanentError("refused")


async def _chunks(*sizes: int) -> AsyncIterator[bytes]:
    for size in sizes:
        yield b"x" * size


@pytest.mark.parametrize(("sizes", "fits"), [((4, 4), True), ((4, 5), False), ((9,), False), ((), True)])
async def test_a_body_ends_at_its_limit(sizes: tuple[int, ...], fits: bool) -> None:
    """Exactly the limit is read; one byte more is the caller's error."""
    too_long = PermanentError("too long")
    if fits:
        assert await read_bounded(_chunks(*sizes), 8, lambda: too_long) == b"x" * sum(sizes)
        return
    with pytest.raises(PermanentError, match="too long"):
        await read_bounded(_chunks(*sizes), 8, lambda: too_long)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=8), st.data())
def test_a_changed_entry_breaks_its_chain(contents: list[bytes], data: st.DataObject) -> None:
    """The position that breaks is that of the entry."""
    start = hash_chain.start_of("a record")
    hashes = [start]
    for content in contents:
        hashes.append(hash_chain.link(hashes[-1], content))
    entries = list(zip(contents, hashes[1:], strict=True))
    assert hash_chain.first_broken(start, entries) is None
    place = data.draw(st.integers(0, len(entries) - 1))
    entries[place] = (entries[place][0] + b"!", entries[place][1])
    assert hash_chain.first_broken(start, entries) == place


def test_an_entry_follows_from_the_one_before_it() -> None:
    """Equal contents in another place, or after another start, have other hashes."""
    start = hash_chain.start_of("a record")
    first = hash_chain.link(start, b"same")
    second = hash_chain.link(first, b"same")
    assert len({start, first, second, hash_chain.link(hash_chain.start_of("another"), b"same")}) == 4
    assert hash_chain.first_broken(start, [(b"same", second), (b"same", first)]) == 0


def test_a_naive_time_is_not_hashed() -> None:
    """It would hash differently on another machine."""
    with pytest.raises(ValueError, match="aware"):
        hash_chain.instant(datetime(2026, 3, 1))  # noqa: DTZ001 - naive on purpose
