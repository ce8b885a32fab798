"""Kafka's records: positions, dead letters, and that only what is finished is ever committed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.connectors.streams.kafka.records import (
    Held,
    PartitionProgress,
    Record,
    place_of,
    to_message,
)

RECORD = Record(
    partition=3, offset=41, key=b"prod/pay", value=b"{}", headers=(), timestamp_ms=1_700_000_000_000
)


def held(offset: int, value: bytes = b"{}") -> Held:
    record = replace(RECORD, offset=offset, value=value)
    return Held(record=record, message=to_message("cluster", "signals", record))


def test_a_record_as_a_message() -> None:
    """Everything that the port has room for is there."""
    message = to_message(
        "cluster", "signals", replace(RECORD, headers=(("a", b"1"), ("a", b"2"), ("b", None)))
    )
    assert message.position.startswith("kafka:cluster/signals/3/41#")
    assert (message.key, message.body) == ("prod/pay", b"{}")
    assert message.headers == {"a": "2", "b": ""}
    assert message.appended_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
    assert place_of(message.position) == (3, 41)


def test_bytes_that_are_no_text_stay_tellable() -> None:
    """Keys and headers that are no UTF-8, and values that are missing, are harmless."""
    message = to_message(
        "c", "t", replace(RECORD, key=b"\xff", value=None, headers=(("h", b"\xfe"),), timestamp_ms=None)
    )
    assert (message.key, message.body) == ("\\xff", b"")
    assert message.headers == {"h": "\\xfe"}
    assert message.appended_at is None


@pytest.mark.parametrize("timestamp", [-1, 10**18, 2**63 - 1])
def test_a_sender_may_set_any_time(timestamp: int) -> None:
    """A time that is none is no time."""
    assert to_message("c", "t", replace(RECORD, timestamp_ms=timestamp)).appended_at is None


@pytest.mark.parametrize(
    "other",
    [
        replace(RECORD, offset=42),
        replace(RECORD, partition=4),
        replace(RECORD, value=b"[]"),
        replace(RECORD, key=None),
        replace(RECORD, timestamp_ms=1),
        replace(RECORD, key=b"prod/pa", value=b"y{}"),
    ],
)
def test_another_record_has_another_position(other: Record) -> None:
    """Place, time, key and value all count."""
    assert to_message("c", "t", RECORD).position != to_message("c", "t", other).position
    assert to_message("c", "t", RECORD) == to_message("c", "t", replace(RECORD))


def test_nothing_is_due_before_anything_was_read() -> None:
    """A fresh partition has no offset of its own."""
    progress = PartitionProgress()
    assert progress.safe is None
    assert progress.due is None


def test_only_the_finished_beginning_is_due() -> None:
    """A gap holds everything behind it back, until it is closed."""
    progress = PartitionProgress(committed=10)
    records = [held(offset) for offset in (10, 11, 13)]  # 12 was a mark of a transaction
    for one in records:
        progress.read(one)
    assert progress.due is None
    progress.finish(records[1].message)
    assert progress.due is None
    progress.finish(records[0].message)
    assert progress.due == 13
    progress.finish(records[2].message)
    assert progress.due == 14
    progress.ended_at(15)
    assert progress.due == 15


def test_a_refused_commit_is_due_again() -> None:
    """Unless a later one is under way, which says it all."""
    progress = PartitionProgress(committed=10)
    records = [held(10), held(11)]
    for one in records:
        progress.read(one)
        progress.finish(one.message)
    assert progress.due == 12
    progress.committed = 12
    progress.refused(11)
    assert progress.due is None
    progress.refused(12)
    assert progress.due == 12


def test_the_end_of_a_partition_jumps_over_nothing() -> None:
    """A message that a worker holds is not finished by the partition ending behind it."""
    progress = PartitionProgress(committed=10)
    progress.read(held(10))
    progress.ended_at(11)
    assert progress.safe == 10


def test_finishing_what_is_not_held_is_harmless() -> None:
    """Finished before, never read, or another record at the same place."""
    progress = PartitionProgress()
    record = held(10)
    progress.read(record)
    progress.finish(held(10, b"of the topic's former life").message)
    progress.finish(held(99).message)
    assert progress.safe == 10
    progress.finish(record.message)
    progress.finish(record.message)
    assert progress.safe == 11


def test_a_log_that_was_cut_begins_again() -> None:
    """Offsets that come again belong to other records: what was known of them is void."""
    progress = PartitionProgress(committed=50)
    for offset in (50, 51):
        progress.read(held(offset))
    again = held(7)
    progress.read(again)
    assert progress.due == 7
    progress.finish(again.message)
    assert progress.due == 8


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1), st.randoms())
def test_no_unfinished_record_is_ever_behind_the_commit(steps: list[tuple[int, bool]], dice: Random) -> None:
    """Whatever is acknowledged in whatever order: a crash repeats every record that is not finished."""
    progress, offset = PartitionProgress(), 0
    records: list[Held] = []
    for gap, _ in steps:
        offset += gap
        records.append(held(offset))
        progress.read(records[-1])
    order = list(zip(records, (done for _, done in steps), strict=True))
    dice.shuffle(order)
    open_offsets = {one.record.offset for one in records}
    for one, done in order:
        if done:
            progress.finish(one.message)
            open_offsets.discard(one.record.offset)
        if progress.due is not None:
            progress.committed = progress.due
        assert progress.committed == min(open_offsets, default=offset + 1)


def test_a_position_of_another_stream_is_refused() -> None:
    """It is a fault of the caller, not a record."""
    with pytest.raises(ValueError, match=r"values to unpack"):
        place_of("redis")
