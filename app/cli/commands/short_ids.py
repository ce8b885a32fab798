"""Ids as people type them: the beginning of an id, as long as it names one incident or approval."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias, TypeVar

from pydantic import BaseModel

from app.agent.ports.store.incidents import IncidentFilter
from app.cli.commands.agent_client import RunningAgent, running_agent
from app.cli.commands.approvals import answer
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database, load_incident
from app.config import Settings
from app.schemas import AnswerRequest, ApprovalList, ApprovalView, IncidentPage, IncidentView

SEARCHED = 1000
"""The number of newest approvals among which a short id is looked up."""
_WHOLE = re.compile(r"(inc|apr)_[0-9a-f]{32}")
_SHORT = re.compile(r"(?:inc_|apr_)?([0-9a-f]{4,31})")
_SHOWN = 5
_PAGE = 100

M = TypeVar("M", bound=BaseModel)


async def incident_id(settings: Settings, url: str | None, given: str) -> str:
    """The id of the incident; anything that is no beginning of an id is returned as it is.

    Raises `CommandFailed` where several incidents begin so, naming them.
    """
    if not _is_short(given):
        return given
    return the_one("inc_", given, await _incidents(settings, url, given))


async def load_by_beginning(settings: Settings, url: str | None, given: str) -> IncidentView:
    """The incident with its whole timeline; raises `CommandFailed` for none or several."""
    return await load_incident(settings, url, await incident_id(settings, url, given))


async def approval_id(settings: Settings, url: str | None, given: str) -> str:
    """The same for an approval."""
    return the_one("apr_", given, await _approvals(settings, url)) if _is_short(given) else given


async def answer_by_beginning(
    settings: Settings, url: str | None, given: str, said: AnswerRequest
) -> ApprovalView:
    """Answer the approval; raises `CommandFailed` for none or several, and as `answer` does."""
    return await answer(settings, url, await approval_id(settings, url, given), said)


def the_one(kind: str, given: str, ids: Sequence[str]) -> str:
    """The id that begins so; `given` itself where none does."""
    found = [one for one in ids if one.startswith(kind + given.removeprefix(kind))]
    if len(found) > 1:
        shown = ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
        raise CommandFailed(f"{given!r} is the beginning of {len(found)} ids: {shown}; type more of it")
    return found[0] if found else given


def _is_short(given: str) -> bool:
    return _WHOLE.fullmatch(given) is None and _SHORT.fullmatch(given) is not None


Page: TypeAlias = tuple[Sequence[str], str | None]
"""The ids of one page, and the cursor of the next."""


class _NoAgent(Exception):
    """No agent answers; the ids are in the database."""


async def _incidents(settings: Settings, url: str | None, given: str) -> list[str]:
    """The ids that hold these characters: a page covers a part of the incidents, and others match too."""
    agent, part = running_agent(settings, url), given.removeprefix("inc_")

    async def of_agent(cursor: str | None) -> Page:
        listed = await _listed(agent, "/v1/incidents", IncidentPage, cursor, q=given)
        return [one.id for one in listed.items if part in one.id], listed.next

    try:
        return await _every(of_agent)
    except _NoAgent:
        async with database(settings) as store:

            async def of_store(cursor: str | None) -> Page:
                page = await store.incidents.find(IncidentFilter(text=given), limit=_PAGE, cursor=cursor)
                ids = [one.incident.id for one in page.items]
                return [one for one in ids if part in one], page.next_cursor

            return await _every(of_store)


async def _approvals(settings: Settings, url: str | None) -> list[str]:
    agent = running_agent(settings, url)

    async def of_agent(cursor: str | None) -> Page:
        listed = await _listed(agent, "/approvals", ApprovalList, cursor)
        return [one.id for one in listed.items], listed.next

    try:
        return await _every(of_agent, most=SEARCHED)
    except _NoAgent:
        async with database(settings) as store:
            page = await store.approvals.find(None, limit=SEARCHED, cursor=None)
        return [one.approval.id for one in page.items]


async def _listed(agent: RunningAgent, path: str, model: type[M], cursor: str | None, **more: str) -> M:
    """One page of a list of the agent; raises `_NoAgent` where none answers."""
    asked = {"limit": str(_PAGE), **more} | ({} if cursor is None else {"cursor": cursor})
    reply = await agent.ask(path, asked)
    if reply is None:
        raise _NoAgent
    return agent.parsed(model, reply)


async def _every(page: Callable[[str | None], Awaitable[Page]], most: int | None = None) -> list[str]:
    """The ids of page after page; no further page once there are `most`."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        ids, cursor = await page(cursor)
        found += ids
        if cursor is None or (most is not None and len(found) >= most):
            return found
