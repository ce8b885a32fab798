"""`heal audit`: the sum over every accepted signal, and the trail of people, from an agent or its database.

A deep audit reads every timeline: it is done here, and never asked of an agent at work.
The chain of the trail is always checked here, for every source.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from app.agent.audit.accounting import AuditQuestion, allowed_wait
from app.agent.identity.audit_log import first_broken
from app.cli.commands.agent_client import running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database, sqlite_path
from app.config import Settings
from app.terms import slo_thresholds
from app.wire.audit import SignalAuditView, TrailEntryView, TrailView

_PAGE = 1000


async def audit(
    settings: Settings, url: str | None, since: datetime | None, *, deep: bool
) -> SignalAuditView:
    """Ask the agent at `url`, or the one of these settings; when none answers, the database."""
    if deep and url is not None:
        raise CommandFailed("--deep reads the database directly: omit --url, and set DATABASE_URL")
    if not deep:
        agent = running_agent(settings, url)
        parameters = {} if since is None else {"since": since.isoformat()}
        reply = await agent.ask("/audit/signals", parameters)
        if reply is not None:
            return agent.parsed(SignalAuditView, reply)
    elif (path := sqlite_path(settings)) is not None and not path.is_file():
        raise CommandFailed(f"--deep reads the database, and there is no database {path}; set DATABASE_URL")
    async with database(settings) as store:
        question = AuditQuestion(
            now=datetime.now(UTC),
            pending_for=allowed_wait(slo_thresholds(settings).longest_gap),
            since=None if since is None else since.astimezone(UTC).date(),
            deep=deep,
        )
        return SignalAuditView.of(await store.accounting.audit(question))


async def people(settings: Settings, url: str | None) -> tuple[list[TrailEntryView], int | None]:
    """Every recorded decision, and the first that breaks the hash chain, if any."""
    agent = running_agent(settings, url)
    entries: list[TrailEntryView] = []
    after: int | None = -1
    while after is not None:
        reply = await agent.ask("/audit/people", {"after": str(after), "limit": str(_PAGE)})
        if reply is None:
            break
        part = agent.parsed(TrailView, reply)
        entries += part.items
        after = part.next
    if after == -1:
        entries = await _people_on_file(settings)
    return entries, first_broken([one.entry() for one in entries])


async def _people_on_file(settings: Settings) -> list[TrailEntryView]:
    found: list[TrailEntryView] = []
    async with database(settings) as store:
        while part := await store.audit_log.entries(after=len(found) - 1, limit=_PAGE):
            found += [TrailEntryView.of(one) for one in part]
    return found


def decision_line(entry: TrailEntryView) -> str:
    """One decision in one line."""
    how = "" if entry.verified else ", not verified"
    words = entry.kind.replace("_", " ") + (f" {entry.subject}" if entry.subject else "")
    said = entry.data.get("comment") or entry.data.get("reason")
    if entry.data.get("recovery"):
        said = f"recovery without HEAL_TOKEN by the operating system's user {entry.data.get('os_user')}"
    return f"{entry.at:%Y-%m-%d %H:%M:%S} UTC  {entry.by} ({entry.door}{how}): {words}" + (
        f": {said}" if said else ""
    )


def lines(found: SignalAuditView) -> Iterator[str]:
    """The audit, line by line."""
    yield f"{found.accepted:>10}  accepted" + (f" since {found.since}" if found.since else "")
    if found.unledgered:
        yield f"{found.unledgered:>10}    of these by an older version; the next sweep enters them"
    for kind, count in found.present.items():
        yield f"{count:>10}  {kind}"
    for kind, count in found.forgotten.items():
        yield f"{count:>10}  {kind}, and forgotten since"
    yield f"{found.accounted:>10}  accounted for"
    for day in found.uneven_days:
        yield f"On {day.day}: {day.accepted} accepted, {day.accounted} accounted for."
    for discrepancy in found.strays:
        yield f"discrepancy: {discrepancy.kind}  {discrepancy.id}  {discrepancy.detail}"
    for more in found.more_strays:
        yield f"discrepancy: {more}  there are more"
    for mended, count in found.mended.items():
        yield f"Repaired by sweeps so far: {count} {mended}."
    if found.adds_up:
        yield "Every accepted signal is accounted for; no discrepancies."
