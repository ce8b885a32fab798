"""The tamper-evident chain of an incident's timeline (promise 12), as pure functions.

Each entry's hash covers the hash of the one before it and the entry's own
canonical form; the chain of an incident starts from a hash of its id, so that
entries cannot be changed, reordered, dropped from the middle or moved to
another incident without the chain breaking. The store builds the chain with
these functions, and anyone who holds an exported timeline can check it with
them. A tail cut off whole still is a valid chain: the store keeps the length
and the last hash beside the incident for that.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime

from app.agent.ids import IncidentId, JsonObject
from app.agent.models import Note, TimelineEntry


def chain_start(incident_id: IncidentId) -> str:
    """What stands in for the previous hash of an incident's first entry, in hex."""
    return hashlib.sha256(f"timeline of {incident_id}".encode()).hexdigest()


def canonical(note: Note | TimelineEntry) -> bytes:
    """The bytes that are hashed: JSON of at, data, message and stage, keys sorted, no spaces, UTF-8.

    The time is UTC with microseconds and `Z`. Raises `ValueError` for a naive
    time and for NaN or infinite numbers, which JSON cannot carry.
    """
    body: JsonObject = {
        "at": _instant(note.at),
        "stage": note.stage.value,
        "message": note.message,
        "data": note.data,
    }
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def entry_hash(previous: str, entry: Note | TimelineEntry) -> str:
    """SHA-256 in hex over the previous entry's hash (as ASCII) followed by this entry's canonical form."""
    return hashlib.sha256(previous.encode() + canonical(entry)).hexdigest()


def extend_chain(previous: str, sequence: int, notes: Sequence[Note]) -> tuple[TimelineEntry, ...]:
    """Turn notes into entries that follow an entry with the hash `previous`; the first gets `sequence`."""
    entries: list[TimelineEntry] = []
    for offset, note in enumerate(notes):
        previous = entry_hash(previous, note)
        entries.append(
            TimelineEntry(
                sequence=sequence + offset,
                at=note.at,
                stage=note.stage,
                message=note.message,
                data=note.data,
                hash=previous,
            )
        )
    return tuple(entries)


def first_broken(incident_id: IncidentId, entries: Sequence[TimelineEntry]) -> int | None:
    """The position of the first entry that does not follow from those before it; None when all do."""
    previous = chain_start(incident_id)
    for position, entry in enumerate(entries):
        if entry.sequence != position or entry.hash != entry_hash(previous, entry):
            return position
        previous = entry.hash
    return None


def verify_chain(incident_id: IncidentId, entries: Sequence[TimelineEntry]) -> bool:
    """Whether `entries` are an unchanged beginning of the incident's timeline, from its first entry on."""
    return first_broken(incident_id, entries) is None


def _instant(at: datetime) -> str:
    if at.utcoffset() is None:
        raise ValueError("a timeline entry needs an aware time")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
