"""Ids as people type them: the beginning of an id, as long as it names one incident or approval."""

from __future__ import annotations

import re
from collections.abc import Sequence

from app.agent.ports.store import Store
from app.agent.ports.store.incidents import IncidentFilter
from app.cli.commands.agent_client import running_agent
from app.cli.commands.approvals import answer
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database, load_incident
from app.config import Settings
from app.schemas import AnswerRequest, ApprovalList, ApprovalView, IncidentPage, IncidentView

SEARCHED = 1000
"""Among so many of the newest approvals a short id is looked up."""
_WHOLE = re.compile(r"(inc|apr)_[0-9a-f]{32}")
_SHORT = re.compile(r"(?:inc_|apr_)?([0-9a-f]{4,31})")
_SHOWN = 5
_PAGE = 100


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


async def _incidents(settings: Settings, url: str | None, given: str) -> list[str]:
    """The ids that hold these characters: a page covers a part of the incidents, and others match too."""
    agent = running_agent(settings, url)
    found: list[str] = []
    cursor: str | None = None
    while True:
        asked = {"q": given, "limit": str(_PAGE)} | ({} if cursor is None else {"cursor": cursor})
        reply = await agent.ask("/v1/incidents", asked)
        if reply is None:
            async with database(settings) as store:
                return await _in_store(store, given)
        listed = agent.parsed(IncidentPage, reply)
        found += [one.id for one in listed.items if given.removeprefix("inc_") in one.id]
        cursor = listed.next
        if cursor is None:
            return found


async def _in_store(store: Store, given: str) -> list[str]:
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await store.incidents.find(IncidentFilter(text=given), limit=_PAGE, cursor=cursor)
        found += [one.incident.id for one in page.items if given.removeprefix("inc_") in one.incident.id]
        cursor = page.next_cursor
        if cursor is None:
            return found


async def _approvals(settings: Settings, url: str | None) -> list[str]:
    agent = running_agent(settings, url)
    found: list[str] = []
    cursor: str | None = None
    while True:
        given = {"limit": str(_PAGE)} | ({} if cursor is None else {"cursor": cursor})
        reply = await agent.ask("/approvals", given)
        if reply is None:
            async with database(settings) as store:
                page = await store.approvals.find(None, limit=SEARCHED, cursor=None)
            return [one.approval.id for one in page.items]
        listed = agent.parsed(ApprovalList, reply)
        found += [one.id for one in listed.items]
        cursor = listed.next
        if cursor is None or len(found) >= SEARCHED:
            return found
