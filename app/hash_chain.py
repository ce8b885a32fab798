"""The one hash chain of the records: timelines, the audit trail of people, and anchors (promise 12).

The hash of an entry covers the hash before it and the entry's canonical form, so that
entries cannot be changed, reordered or dropped from the middle without the chain
breaking. All hashes are SHA-256 in hex.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime


def start_of(record: str) -> str:
    """The hash before the first entry of a record with that name."""
    return hashlib.sha256(record.encode()).hexdigest()


def link(previous: str, content: bytes) -> str:
    """The hash of an entry: over the one before it, as ASCII, followed by the entry's content."""
    return hashlib.sha256(previous.encode() + content).hexdigest()


def first_broken(start: str, entries: Iterable[tuple[bytes, str]]) -> int | None:
    """The position of the first entry, given as content and hash, that does not follow; None when all do."""
    previous = start
    for position, (content, found) in enumerate(entries):
        if found != link(previous, content):
            return position
        previous = found
    return None


def canonical(body: Mapping[str, object]) -> bytes:
    """JSON with sorted keys, without spaces, in UTF-8.

    Raises `ValueError` for NaN or infinite numbers, which JSON cannot carry.
    """
    text = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def instant(at: datetime) -> str:
    """A time as it is hashed: UTC with microseconds and `Z`; raises `ValueError` for a naive one."""
    if at.utcoffset() is None:
        raise ValueError("a record needs an aware time")
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
