"""Anchors: statements, kept apart from the database, of the length and last hash of its records (promise 12).

The chain of a timeline shows a changed entry. It does not show that a person with write access to the
database recomputed all hashes, cut off the end, or deleted an incident. An anchor shows this: it names the
length and the last hash of every record that grew since the previous anchor, and the digest of that anchor.
A key outside the database can also seal it. Pure: the caller handles files, keys and clocks.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from app import hash_chain
from app.agent.identity.audit_log import START as TRAIL_START
from app.agent.identity.audit_log import AuditLogEntry
from app.agent.identity.audit_log import first_broken as first_broken_decision
from app.agent.ids import IncidentId, JsonObject
from app.agent.models import TimelineEntry
from app.agent.timeline import chain_start, first_broken
from app.errors import Invalid

FORM = 1
START = hash_chain.start_of("the anchors of the audit")
"""The digest before the first anchor."""
_LEAST_DIGITS, _DIGEST_DIGITS = 12, 64
"""The minimum number of hex digits that name an anchor, and the number of a whole digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a record goes: its number of entries and the hash of the last one."""

    length: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """One statement about all records at a moment."""

    number: int
    """1, 2, ... without a gap."""
    at: datetime
    previous: str
    """The digest of the anchor before."""
    incidents: Mapping[IncidentId, Head]
    """The records that are new or longer than in the previous anchors."""
    people: Head
    """The audit trail of people."""
    seal: str | None = None
    """HMAC-SHA-256 over the canonical form, in hex; None without a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The content of a series of anchors."""

    last: Anchor | None = None
    incidents: Mapping[IncidentId, Sequence[tuple[int, Head]]] = field(default_factory=dict)
    """Of each incident every head that was anchored, with the anchor's number, oldest first."""
    people: Sequence[tuple[int, Head]] = ()

    @staticmethod
    def of(anchors: Iterable[Anchor]) -> Known:
        incidents: dict[IncidentId, list[tuple[int, Head]]] = {}
        people: list[tuple[int, Head]] = []
        last = None
        for last in anchors:
            for incident_id, head in last.incidents.items():
                incidents.setdefault(incident_id, []).append((last.number, head))
            people.append((last.number, last.people))
        return Known(last=last, incidents=incidents, people=people)


def canonical(anchor: Anchor) -> bytes:
    """The bytes to digest and seal: JSON with sorted keys, without spaces and without the seal."""
    body: JsonObject = {
        "form": FORM,
        "number": anchor.number,
        "at": hash_chain.instant(anchor.at),
        "previous": anchor.previous,
        "incidents": {name: [head.length, head.hash] for name, head in anchor.incidents.items()},
        "people": [anchor.people.length, anchor.people.hash],
    }
    return hash_chain.canonical(body)


def digest(anchor: Anchor) -> str:
    """SHA-256 in hex: the next anchor and a log line contain it."""
    return hash_chain.link("", canonical(anchor))  # its form holds the digest before it


def sealed(anchor: Anchor, key: bytes | None) -> Anchor:
    """The anchor with the seal of the key; unchanged without a key."""
    return anchor if key is None else replace(anchor, seal=_seal(anchor, key))


def next_anchor(
    known: Known, incidents: Mapping[IncidentId, Head], people: Head, at: datetime, key: bytes | None
) -> Anchor:
    """The anchor that follows the known ones: it names the records that are new or changed since."""
    changed = {
        name: head
        for name, head in incidents.items()
        if name not in known.incidents or known.incidents[name][-1][1] != head
    }
    last = known.last
    anchor = Anchor(
        number=1 if last is None else last.number + 1,
        at=at,
        previous=START if last is None else digest(last),
        incidents=changed,
        people=people,
    )
    return sealed(anchor, key)


def receded(known: Known, incidents: Mapping[IncidentId, Head], people: Head) -> Iterator[str]:
    """What went back since the anchors: cheap, for it compares heads only. `discrepancies` reads entries."""
    for name, heads in known.incidents.items():
        number, anchored = heads[-1]
        head = incidents.get(name)
        if head is None:
            yield _missing(name, number)
        elif head.length < anchored.length:
            yield _cut(name, head.length, number, anchored)
        elif head.length == anchored.length and head.hash != anchored.hash:
            yield _recomputed(name, number, anchored)
    if known.people:
        number, anchored = known.people[-1]
        if people.length < anchored.length:
            yield _cut("the audit trail of people", people.length, number, anchored)
        elif people.length == anchored.length and people.hash != anchored.hash:
            yield _recomputed("the audit trail of people", number, anchored)


def broken_anchors(anchors: Sequence[Anchor], key: bytes | None) -> Iterator[str]:
    """Anchors that do not follow from one another, or whose seal is not the key's."""
    previous = START
    unsealed: list[Anchor] = []
    foreign: list[Anchor] = []
    for position, anchor in enumerate(anchors, start=1):
        if anchor.number != position or anchor.previous != previous:
            yield f"anchor {anchor.number} does not follow the one before it: one is missing or was changed"
        previous = digest(anchor)
        if key is None:
            continue
        if anchor.seal is None:
            unsealed.append(anchor)
        elif not hmac.compare_digest(anchor.seal, _seal(anchor, key)):
            foreign.append(anchor)
    if unsealed:
        yield (
            f"{_named(unsealed, 'is', 'are')} not sealed with AUDIT_ANCHOR_KEY. If the key was set later, "
            "set AUDIT_ANCHOR_DIR to a new, empty folder, run `heal audit anchor`, and keep the old folder: "
            "without AUDIT_ANCHOR_KEY `heal audit verify` still checks it. Otherwise anchors were replaced"
        )
    if foreign:
        yield (
            f"{_named(foreign, 'has', 'have')} a seal that is not of AUDIT_ANCHOR_KEY. If the key was "
            "replaced, set AUDIT_ANCHOR_DIR to a new, empty folder, run `heal audit anchor`, and keep "
            "the old folder with its key. Otherwise anchors were changed"
        )


def with_digest(anchors: Iterable[Anchor], beginning: str) -> bool:
    """Whether an anchor has this digest, given whole or by its first digits.

    Raises `Invalid` for a text that is not a digest or is too short to name one.
    """
    wanted = beginning.strip().lower()
    if not re.fullmatch(f"[0-9a-f]{{{_LEAST_DIGITS},{_DIGEST_DIGITS}}}", wanted):
        raise Invalid(
            f"{beginning!r} is not a digest: give {_LEAST_DIGITS} to {_DIGEST_DIGITS} hex digits, "
            "from the log line `audit anchor N: digest ...`"
        )
    return any(digest(one).startswith(wanted) for one in anchors)


def _named(anchors: Sequence[Anchor], one: str, several: str) -> str:
    """How many anchors, which, and since when, with the verb that fits."""
    first, last = anchors[0], anchors[-1]
    if len(anchors) == 1:
        return f"anchor {first.number} of {first.at:%Y-%m-%d %H:%M:%S} UTC {one}"
    return (
        f"{len(anchors)} anchors ({first.number} to {last.number}, from {first.at:%Y-%m-%d %H:%M:%S} UTC "
        f"to {last.at:%Y-%m-%d %H:%M:%S} UTC) {several}"
    )


def of_timeline(
    name: IncidentId, entries: Sequence[TimelineEntry], length: int | None, head: str | None
) -> Iterator[str]:
    """The defects of a timeline itself: of its chain, and of the separately stored length and head."""
    broken = first_broken(name, entries)
    if broken is not None:
        yield f"{name}: its timeline was altered at entry {broken}"
    if length is None or head is None:
        return
    last = entries[-1].hash if entries else chain_start(name)
    if len(entries) != length:
        yield f"{name}: {_entries(len(entries))} in its timeline, and {length} were written"
    elif broken is None and last != head:
        yield f"{name}: its timeline does not end with the entry that was written last"


def of_incident(name: IncidentId, known: Known, entries: Sequence[TimelineEntry] | None) -> Iterator[str]:
    """How the timeline of an incident differs from the anchors; None: it is not in the database."""
    heads = known.incidents.get(name, ())
    if entries is not None:
        yield from _differences(name, [entry.hash for entry in entries], heads)
    elif heads:
        yield _missing(name, heads[-1][0])


def of_people(known: Known, entries: Sequence[AuditLogEntry]) -> Iterator[str]:
    """How the audit trail of people differs from its own chain and from the anchors."""
    broken = first_broken_decision(entries)
    if broken is not None:
        yield f"the audit trail of people was altered at entry {broken}"
    yield from _differences("the audit trail of people", [one.hash for one in entries], known.people)


def people_head(entries: Sequence[AuditLogEntry]) -> Head:
    return Head(length=len(entries), hash=entries[-1].hash if entries else TRAIL_START)


def _differences(name: str, hashes: Sequence[str], heads: Sequence[tuple[int, Head]]) -> Iterator[str]:
    """The first anchor that a record does not bear out: later ones rest on the same entries."""
    for number, head in heads:
        if len(hashes) < head.length:
            yield _cut(name, len(hashes), number, head)
            return
        if head.length and hashes[head.length - 1] != head.hash:
            yield _recomputed(name, number, head)
            return


def _missing(name: str, number: int) -> str:
    return f"{name}: anchor {number} names it, and it is missing from the database"


def _cut(name: str, length: int, number: int, head: Head) -> str:
    return f"{name}: {_entries(length)}, and anchor {number} names {head.length}: its end was cut off"


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _recomputed(name: str, number: int, head: Head) -> str:
    return f"{name}: its first {head.length} entries are not those that anchor {number} names"


def _seal(anchor: Anchor, key: bytes) -> str:
    return hmac.new(key, canonical(anchor), hashlib.sha256).hexdigest()
