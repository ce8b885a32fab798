"""The tamper-evident chain of an incident's timeline (promise 12), as pure functions.

Each entry's hash covers the hash of the one before it and the entry's own canonical form; the chain of an
incident starts from a hash of its id, so that entries cannot be changed, reordered, dropped from the middle
or moved to another incident without the chain breaking. The store builds the chain with these functions,
and anyone who holds an exported timeline can check it with them. A chain with its end cut off is still
valid, so the store keeps the length and the last hash with the incident.
"""

from __future__ import annotations

from collections.abc import Sequence

from app import hash_chain
from app.agent.ids import IncidentId, JsonObject
from app.agent.models import Note, TimelineEntry


def chain_start(incident_id: IncidentId) -> str:
    """The previous hash of an incident's first entry, in hex."""
    return hash_chain.start_of(f"timeline of {incident_id}")


def canonical(note: Note | TimelineEntry) -> bytes:
    """The bytes that are hashed: JSON of at, data, message and stage, keys sorted, no spaces, UTF-8.

    The time is UTC with microseconds and `Z`. Raises `ValueError` for a naive
    time and for NaN or infinite numbers, which JSON cannot carry.
    """
    body: JsonObject = {
        "at": hash_chain.instant(note.at),
        "stage": note.stage.value,
        "message": note.message,
        "data": note.data,
    }
    return hash_chain.canonical(body)


def entry_hash(previous: str, entry: Note | TimelineEntry) -> str:
    """SHA-256 in hex over the previous entry's hash (as ASCII) followed by this entry's canonical form."""
    return hash_chain.link(previous, canonical(entry))


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
    hashes = ((canonical(entry), entry.hash) for entry in entries)
    broken = hash_chain.first_broken(chain_start(incident_id), hashes)
    gaps = (position for position, entry in enumerate(entries) if entry.sequence != position)
    return min((one for one in (broken, next(gaps, None)) if one is not None), default=None)


def verify_chain(incident_id: IncidentId, entries: Sequence[TimelineEntry]) -> bool:
    """Whether `entries` are an unchanged beginning of the incident's timeline, from its first entry on."""
    return first_broken(incident_id, entries) is None
