"""Promise 12: no change to a timeline goes unseen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import IncidentId
from app.agent.models import Note, Stage, TimelineEntry
from app.agent.timeline import (
    canonical,
    chain_start,
    entry_hash,
    extend_chain,
    first_broken,
    verify_chain,
)

INCIDENT = IncidentId("inc_1")
NOTES = st.lists(
    st.builds(
        Note,
        at=st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001 - bounds are naive here
        stage=st.sampled_from(Stage),
        message=st.text(st.characters(exclude_categories=["Cs"])),
        data=st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
            st.one_of(
                st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False)
            ),
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=6,
)


def chain(notes: Sequence[Note]) -> tuple[TimelineEntry, ...]:
    return extend_chain(chain_start(INCIDENT), 0, notes)


@given(notes=NOTES, cut=st.integers(0, 6))
def test_a_chain_holds_however_it_was_appended(notes: list[Note], cut: int) -> None:
    """In one go or in two, the entries are the same, and every beginning of them holds."""
    whole = chain(notes)
    first = chain(notes[:cut])
    rest = extend_chain(first[-1].hash if first else chain_start(INCIDENT), len(first), notes[cut:])
    assert (*first, *rest) == whole
    assert verify_chain(INCIDENT, whole)
    assert verify_chain(INCIDENT, whole[:cut])
    assert not verify_chain(IncidentId("inc_2"), whole)


@given(notes=NOTES, data=st.data())
def test_any_changed_entry_is_found_where_it_is(notes: list[Note], data: st.DataObject) -> None:
    """Message, data, stage, time, sequence or hash: the first touched entry is named."""
    entries = list(chain(notes))
    place = data.draw(st.integers(0, len(entries) - 1))
    entry = entries[place]
    entries[place] = data.draw(
        st.sampled_from(
            [
                replace(entry, message=entry.message + "."),
                replace(entry, data={**entry.data, "added": 0}),
                replace(entry, stage=Stage.LEARN if entry.stage is not Stage.LEARN else Stage.UNDO),
                replace(entry, at=entry.at + timedelta(microseconds=1)),
                replace(entry, sequence=entry.sequence + 1),
                replace(entry, hash=entry_hash("", entry)),
            ]
        )
    )
    assert first_broken(INCIDENT, entries) == place


@given(notes=NOTES, data=st.data())
def test_a_removed_or_repeated_entry_is_found(notes: list[Note], data: st.DataObject) -> None:
    """Gaps and repetitions break the chain, even with sequences made to fit."""
    entries = list(chain(notes))
    place = data.draw(st.integers(0, len(entries) - 1))
    without = [replace(e, sequence=n) for n, e in enumerate(entries[:place] + entries[place + 1 :])]
    assert verify_chain(INCIDENT, without) is (place == len(entries) - 1)
    twice = [replace(e, sequence=n) for n, e in enumerate([*entries[: place + 1], *entries[place:]])]
    assert first_broken(INCIDENT, twice) == place + 1


def test_the_canonical_form_is_documented_and_stable() -> None:
    """Anyone can compute it from an exported timeline: changing it would break every stored chain."""
    at = datetime(2026, 3, 1, 13, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    note = Note(at=at, stage=Stage.PLAN, message="ä", data={"b": 1.0, "a": [None, True, "x"]})
    assert (
        canonical(note)
        == (
            '{"at":"2026-03-01T12:00:00.000005Z","data":{"a":[null,true,"x"],"b":1.0},"message":"ä","stage":"plan"}'
        ).encode()
    )
    assert chain_start(INCIDENT) == "adca0398e58c7b8e0c0a64f9e599436d038d097ad542d816f41d6e541cae5b38"
    assert verify_chain(INCIDENT, ())


def test_what_json_cannot_carry_has_no_hash() -> None:
    """A naive time or a NaN is refused rather than hashed as something else."""
    note = Note(at=datetime(2026, 3, 1, tzinfo=UTC), stage=Stage.PLAN, message="", data={"x": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        canonical(note)
    with pytest.raises(ValueError, match="aware"):
        canonical(replace(note, at=datetime(2026, 3, 1), data={}))  # noqa: DTZ001 - naive on purpose
