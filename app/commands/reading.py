"""Where `heal incidents` and `heal show` read from: a running agent, or else its SQLite file.

A running agent is asked over its HTTP API. When none answers, no `--url` was
given and the store is a local SQLite file, that file is read. Nothing is written
by either, save that an older file is brought to this version's schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from app.agent.models import IncidentId, IncidentState, TimelineEntry
from app.agent.ports import IncidentFilter, Store
from app.agent.timeline import first_broken
from app.commands.failing import CommandFailed
from app.config import Settings
from app.schemas import IncidentPage, IncidentSummary, IncidentView
from app.store import open_store

_TIMEOUT_SECONDS = 10.0
_PAGE = 100
_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which incidents to list."""

    service: str | None
    environment: str | None
    state: IncidentState | None
    since: datetime | None
    until: datetime | None
    limit: int


def moment(text: str | None, now: datetime, option: str) -> datetime | None:
    """A time as people give it: RFC 3339 with an offset, or `30m`, `2h`, `7d` ago."""
    if text is None:
        return None
    span = _SPAN.fullmatch(text)
    if span is not None:
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        parsed = None
    if parsed is None or parsed.tzinfo is None:
        raise CommandFailed(
            f"{option}: {text!r} is no time; write 2026-02-20T17:00:00Z, or 30m, 2h, 7d for that long ago"
        )
    return parsed.astimezone(UTC)


async def list_incidents(settings: Settings, url: str | None, wanted: Wanted) -> IncidentPage:
    """The newest incidents that fit, at most `wanted.limit`; `next` tells whether there are more."""
    answer = await _from_agent(settings, url, wanted)
    if answer is not None:
        return answer
    store = await local_store(settings)
    try:
        page = await store.find(
            IncidentFilter(
                service=wanted.service,
                environment=wanted.environment,
                state=wanted.state,
                since=wanted.since,
                until=wanted.until,
            ),
            limit=wanted.limit,
            cursor=None,
        )
    finally:
        await store.close()
    return IncidentPage(items=[IncidentSummary.of(record) for record in page.items], next=page.next_cursor)


async def load_incident(settings: Settings, url: str | None, incident_id: str) -> IncidentView:
    """One incident with its whole timeline."""
    base = url or default_url(settings)
    reply = await ask(base, f"/incidents/{quote(incident_id, safe='')}", {}, required=url is not None)
    if reply is not None:
        if reply.status_code == 404:
            raise CommandFailed(
                f"no incident {incident_id!r} is known at {base}; `heal incidents` lists them"
            )
        return parsed(IncidentView, reply, base)
    store = await local_store(settings)
    try:
        record = await store.load(IncidentId(incident_id))
    finally:
        await store.close()
    if record is None:
        raise CommandFailed(f"no incident {incident_id!r} is in the store; `heal incidents` lists them")
    return IncidentView.of(record)


def broken_entry(incident: IncidentView) -> int | None:
    """The first entry of the timeline that does not follow from those before it (promise 12)."""
    entries = [
        TimelineEntry(
            sequence=line.sequence,
            at=line.at,
            stage=line.stage,
            message=line.message,
            data=dict(line.data),
            hash=line.hash,
        )
        for line in incident.timeline
    ]
    return first_broken(IncidentId(incident.id), entries)


async def _from_agent(settings: Settings, url: str | None, wanted: Wanted) -> IncidentPage | None:
    base = url or default_url(settings)
    items: list[IncidentSummary] = []
    cursor: str | None = None
    while True:
        parameters = {
            "limit": str(min(_PAGE, wanted.limit - len(items))),
            "cursor": cursor,
            "service": wanted.service,
            "environment": wanted.environment,
            "state": wanted.state,
            "since": wanted.since.isoformat() if wanted.since else None,
            "until": wanted.until.isoformat() if wanted.until else None,
        }
        given = {name: value for name, value in parameters.items() if value is not None}
        reply = await ask(base, "/incidents", given, required=url is not None)
        if reply is None:
            return None
        page = parsed(IncidentPage, reply, base)
        items.extend(page.items)
        cursor = page.next
        if cursor is None or len(items) >= wanted.limit:
            return IncidentPage(items=items, next=cursor)


async def ask(
    base: str,
    path: str,
    parameters: dict[str, str],
    *,
    required: bool,
    method: str = "GET",
    body: BaseModel | None = None,
) -> httpx.Response | None:
    """The agent's answer; None when nobody listens there and that is no failure."""
    content = None if body is None else body.model_dump_json()
    headers = {} if body is None else {"Content-Type": "application/json"}
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_SECONDS, trust_env=False) as client:
            return await client.request(
                method, base.rstrip("/") + path, params=parameters, content=content, headers=headers
            )
    except httpx.ConnectError as error:
        if required:
            raise CommandFailed(f"no agent answers at {base}; start one with `heal run`") from error
        return None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise CommandFailed(
            f"the agent at {base} cannot be asked: {error or type(error).__name__}"
        ) from error


def parsed(model: type[Model], reply: httpx.Response, base: str) -> Model:
    if reply.status_code != httpx.codes.OK:
        try:
            detail = str(reply.json()["detail"])
        except (ValueError, KeyError, TypeError):
            detail = reply.text[:200]
        raise CommandFailed(f"the agent at {base} answered {reply.status_code}: {detail}")
    try:
        return model.model_validate_json(reply.content)
    except ValidationError as error:
        raise CommandFailed(
            f"what answers at {base} is not this agent, or another version of it ({error.error_count()} "
            "fields do not fit); name the agent's address with --url"
        ) from error


def default_url(settings: Settings) -> str:
    """Where an agent with these settings can be asked from this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.host, settings.host)  # noqa: S104 - compared, not bound
    return f"http://[{host}]:{settings.port}" if ":" in host else f"http://{host}:{settings.port}"


async def local_store(settings: Settings) -> Store:
    """The SQLite file, if there is one: nothing is created for looking at it."""
    path = sqlite_path(settings)
    where = default_url(settings)
    if path is None:
        raise CommandFailed(
            f"no agent answers at {where}, and DATABASE_URL is no local SQLite file; "
            "start an agent with `heal run`, or name one with --url"
        )
    if not path.is_file():
        raise CommandFailed(
            f"no agent answers at {where}, and there is no database {path} yet; "
            "`heal run` starts an agent, `heal demo` plays an incident"
        )
    return await open_store(settings.database_url.get_secret_value())


def sqlite_path(settings: Settings) -> Path | None:
    """Where the store's file is or would be; None for a store that is no SQLite file."""
    try:
        url = make_url(settings.database_url.get_secret_value())
    except (ArgumentError, ValueError):
        return None
    return Path(url.database) if url.drivername == "sqlite" and url.database else None
