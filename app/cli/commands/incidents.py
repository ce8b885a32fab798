"""Data source of `heal incidents` and `heal show`: a running agent, or its SQLite file.

The commands query a running agent over HTTP. If none responds, no `--url` was given
and the store is a local SQLite file, they read the file. They write nothing, except
that an older file is migrated to the current schema.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.agent.ids import IncidentId
from app.agent.models import IncidentState, TimelineEntry
from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.agent.timeline import first_broken
from app.cli.commands.agent_client import RunningAgent, default_url, running_agent
from app.cli.commands.errors import CommandFailed, NotOnRecord
from app.config import Settings
from app.schemas import MOST_ENTRIES, IncidentPage, IncidentSummary, IncidentView
from app.store import open_store
from app.wire.fields import span_of

_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which incidents to list."""

    service: str | None
    environment: str | None
    state: IncidentState | None
    since: datetime | None
    until: datetime | None
    limit: int
    text: str = ""


def moment(text: str | None, now: datetime, option: str) -> datetime | None:
    """A time as people give it: RFC 3339 with an offset, or `30m`, `2h`, `7d` ago."""
    if text is None:
        return None
    span = span_of(text)
    if span is not None:
        return now - span
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise CommandFailed(
            f"{option}: {text!r} is not a valid time; write 2026-02-20T17:00:00Z, or 30m, 2h, 7d "
            "for a time before now"
        )
    return parsed.astimezone(UTC)


async def list_incidents(settings: Settings, url: str | None, wanted: Wanted) -> IncidentPage:
    """The newest incidents that fit, at most `wanted.limit`; `next` is set if there are more."""
    answer = await _from_agent(running_agent(settings, url), wanted)
    if answer is not None:
        return answer
    where = IncidentFilter(
        service=wanted.service,
        environment=wanted.environment,
        states=() if wanted.state is None else (wanted.state,),
        text=wanted.text,
        since=wanted.since,
        until=wanted.until,
    )
    items: list[IncidentSummary] = []
    cursor: str | None = None
    store = await _announced_store(settings)
    try:
        while True:  # a search answers in parts, each of which may hold fewer than are wanted
            page = await store.incidents.find(where, limit=wanted.limit - len(items), cursor=cursor)
            items.extend(IncidentSummary.of(record) for record in page.items)
            cursor = page.next_cursor
            if cursor is None or len(items) >= wanted.limit:
                return IncidentPage(items=items, next=cursor)
    finally:
        await store.close()


async def load_incident(settings: Settings, url: str | None, incident_id: str) -> IncidentView:
    """One incident with its whole timeline."""
    view = await _whole_from_agent(running_agent(settings, url), incident_id)
    if view is not None:
        return view
    store = await _announced_store(settings)
    try:
        record = await store.incidents.get(IncidentId(incident_id))
    finally:
        await store.close()
    if record is None:
        raise NotOnRecord(f"no incident {incident_id!r} is in the store; `heal incidents` lists them")
    return IncidentView.of(record)


async def _whole_from_agent(agent: RunningAgent, incident_id: str) -> IncidentView | None:
    """The incident with its timeline gathered part by part; None where no agent runs."""
    path, parameters = f"/incidents/{quote(incident_id, safe='')}", {"timeline_limit": str(MOST_ENTRIES)}
    whole: IncidentView | None = None
    while True:
        reply = await agent.ask(path, parameters)
        if reply is None:
            return whole
        if reply.status_code == 404:
            raise NotOnRecord(
                f"no incident {incident_id!r} is known at {agent.base}; `heal incidents` lists them"
            )
        part = agent.parsed(IncidentView, reply)
        before = whole.timeline if whole is not None else []
        whole = part.model_copy(update={"timeline": [*before, *part.timeline]})
        if part.timeline_next is None:
            return whole
        parameters = {**parameters, "timeline_cursor": part.timeline_next}


def timeline_of(incident: IncidentView) -> tuple[TimelineEntry, ...]:
    """The timeline as its hashes are computed (promise 12)."""
    return tuple(
        TimelineEntry(
            sequence=line.sequence,
            at=line.at,
            stage=line.stage,
            message=line.message,
            data=dict(line.data),
            hash=line.hash,
        )
        for line in incident.timeline
    )


def broken_entry(incident: IncidentView) -> int | None:
    """The first entry of the timeline that does not follow from those before it (promise 12)."""
    return first_broken(IncidentId(incident.id), timeline_of(incident))


async def _from_agent(agent: RunningAgent, wanted: Wanted) -> IncidentPage | None:
    items: list[IncidentSummary] = []
    cursor: str | None = None
    while True:
        parameters = {
            "limit": str(min(_PAGE, wanted.limit - len(items))),
            "cursor": cursor,
            "service": wanted.service,
            "environment": wanted.environment,
            "state": wanted.state,
            "q": wanted.text or None,
            "since": wanted.since.isoformat() if wanted.since else None,
            "until": wanted.until.isoformat() if wanted.until else None,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        reply = await agent.ask("/incidents", given)
        if reply is None:
            return None
        page = agent.parsed(IncidentPage, reply)
        items.extend(page.items)
        cursor = page.next
        if cursor is None or len(items) >= wanted.limit:
            return IncidentPage(items=items, next=cursor)


async def _announced_store(settings: Settings) -> Store:
    """The existing SQLite file, named on standard error: its incidents are not those of a server."""
    store = await local_store(settings)
    typer.echo(
        f"no agent answers at {default_url(settings)}: reading the database {sqlite_path(settings)}", err=True
    )
    return store


async def local_store(settings: Settings) -> Store:
    """The existing SQLite file; never creates one."""
    path = sqlite_path(settings)
    where = default_url(settings)
    if path is None:
        raise CommandFailed(
            f"no agent answers at {where}, and DATABASE_URL does not name a local SQLite file; "
            "start an agent with `heal run`, or name one with --url"
        )
    if not path.is_file():
        raise CommandFailed(
            f"no agent answers at {where}, and there is no database {path} yet; "
            "`heal run` starts an agent, `heal demo` plays an incident"
        )
    return await open_store(settings.database_url.get_secret_value())


@asynccontextmanager
async def database(settings: Settings, *, create: bool = False) -> AsyncIterator[Store]:
    """The store itself: a SQLite file that is there already, or may be created, or a server."""
    if sqlite_path(settings) is not None and not create:
        store = await local_store(settings)
    else:
        store = await open_store(settings.database_url.get_secret_value())
    try:
        yield store
    finally:
        await store.close()


def sqlite_path(settings: Settings) -> Path | None:
    """Where the store's file is or would be; None for a store that is no SQLite file."""
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        return None
    return Path(url.database) if url.drivername == "sqlite" and url.database else None
