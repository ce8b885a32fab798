"""`heal audit anchor` and `heal audit verify`: compare the records with their anchors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta

from app.agent.audit.anchoring import (
    Anchor,
    Known,
    broken_anchors,
    digest,
    of_incident,
    of_people,
    of_timeline,
    with_digest,
)
from app.agent.evidence.format import counted
from app.agent.ids import IncidentId
from app.agent.ports.store import Store
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database, timeline_of
from app.clock import SystemClock
from app.config import Settings
from app.connectors.anchors import AnchorFolder
from app.connectors.findings import (
    Finding,
    fail,
    ok,
    warn,
)
from app.errors import AgentError, Invalid, PermanentError
from app.schemas import IncidentView
from app.workers.anchor_writer import Anchorer, all_heads, whole_trail

_LATE = 2
"""Number of intervals without an anchor that is reported."""


async def anchor(settings: Settings) -> str:
    """Write an anchor now; returns its description in one line."""
    folder = _folder(settings)
    async with database(settings) as store:
        anchorer = Anchorer(store=store, clock=SystemClock(), folder=folder, every=_every(settings))
        try:
            made = await anchorer.write()
        except AgentError as error:
            raise CommandFailed(str(error)) from error
    sealing = "sealed" if made.seal else "not sealed: AUDIT_ANCHOR_KEY is not set"
    return (
        f"Anchor {made.number} written to {folder.folder}, {sealing}; "
        f"{counted(len(made.incidents), 'incident')} changed since the one before. Digest {digest(made)}"
    )


async def verify(settings: Settings, expected: str | None) -> AsyncIterator[str]:
    """Every discrepancy between the anchors and the database; none means that they agree."""
    anchors = _read(_folder(settings))
    try:
        of_series = list(_of_series(settings, anchors, expected))
    except Invalid as error:
        raise CommandFailed(f"--digest: {error}") from error
    for sentence in of_series:
        yield sentence
    known = Known.of(anchors)
    async with database(settings) as store:
        names = {*known.incidents, *await all_heads(store)}
        for name in sorted(names):
            record = await store.incidents.get(name)
            entries = None if record is None else record.timeline
            if record is not None:
                found = of_timeline(name, record.timeline, record.timeline_length, record.timeline_head)
                for sentence in found:
                    yield sentence
            for sentence in of_incident(name, known, entries):
                yield sentence
        for sentence in of_people(known, await whole_trail(store)):
            yield sentence


async def summary(settings: Settings) -> str:
    """What was compared."""
    anchors = _read(_folder(settings))
    known = Known.of(anchors)
    if known.last is None:
        return "There is no anchor yet; `heal audit anchor` writes one."
    async with database(settings) as store:
        uncovered = await _uncovered(store, known)
    seals = "seals checked" if settings.audit_anchor_key else "no AUDIT_ANCHOR_KEY: seals not checked"
    return (
        f"{counted(len(anchors), 'anchor')}, the newest of {known.last.at:%Y-%m-%d %H:%M:%S} UTC ({seals}); "
        f"{counted(len(known.incidents), 'incident')} anchored, {uncovered} not yet."
    )


def of_view(settings: Settings, incident: IncidentView) -> Iterator[str]:
    """What is wrong with one incident's record: its chain, its length and head, and its anchors."""
    name, entries = IncidentId(incident.id), timeline_of(incident)
    yield from of_timeline(name, entries, incident.timeline_length, incident.timeline_head)
    folder = AnchorFolder.from_settings(settings)
    if folder is not None:
        yield from of_incident(name, Known.of(_read(folder)), entries)


def compared(settings: Settings) -> str:
    """Whether an incident shown was compared with anchors, in one sentence."""
    folder = AnchorFolder.from_settings(settings)
    if folder is None:
        return "Anchors: none configured (AUDIT_ANCHOR_DIR is not set); only the chain was checked."
    anchors = _read(folder)
    if not anchors:
        return f"Anchors: none written to {folder.folder} yet; only the chain was checked."
    return f"Anchors: compared with {counted(len(anchors), 'anchor')} in {folder.folder}."


def of_missing(settings: Settings, incident_id: str) -> Iterator[str]:
    """The anchors that prove a missing incident existed."""
    folder = AnchorFolder.from_settings(settings)
    if folder is not None:
        yield from of_incident(IncidentId(incident_id), Known.of(_read(folder)), None)


def anchor_findings(settings: Settings) -> Iterator[Finding]:
    """Whether anchors are written, for `heal doctor`."""
    folder = AnchorFolder.from_settings(settings)
    if folder is None:
        return
    try:
        anchors = folder.read()
    except PermanentError as error:
        yield fail("audit anchors", str(error), "correct AUDIT_ANCHOR_DIR, or restore the file from a copy")
        return
    wrong = list(_of_series(settings, anchors, None))
    if wrong:
        yield fail(
            "audit anchors", "; ".join(wrong), "compare with `heal audit verify`, and see docs/audit.md"
        )
    elif not anchors:
        yield warn("audit anchors", "none is written yet", "start the agent, or run `heal audit anchor`")
    else:
        yield ok("audit anchors", f"{len(anchors)}, the newest of {anchors[-1].at:%Y-%m-%d %H:%M:%S} UTC")


def _of_series(settings: Settings, anchors: tuple[Anchor, ...], expected: str | None) -> Iterator[str]:
    secret = settings.audit_anchor_key
    key = None if secret is None else secret.get_secret_value().encode()
    yield from broken_anchors(anchors, key)
    if expected is not None and not with_digest(anchors, expected):
        yield f"no anchor has the digest {expected}: anchors were removed or replaced"
    now = datetime.now(UTC)
    late = _LATE * _every(settings)
    if anchors and anchors[-1].at < now - late:
        hours = (now - anchors[-1].at).total_seconds() / 3600
        yield f"the newest anchor is {hours:.0f} h old: none is written, or the newer ones were removed"


async def _uncovered(store: Store, known: Known) -> int:
    return len(set(await all_heads(store)) - set(known.incidents))


def _folder(settings: Settings) -> AnchorFolder:
    folder = AnchorFolder.from_settings(settings)
    if folder is None:
        raise CommandFailed("AUDIT_ANCHOR_DIR is not set: set it to a folder separate from the database")
    return folder


def _read(folder: AnchorFolder) -> tuple[Anchor, ...]:
    try:
        return folder.read()
    except PermanentError as error:
        raise CommandFailed(str(error)) from error


def _every(settings: Settings) -> timedelta:
    return timedelta(hours=settings.audit_anchor_hours)
