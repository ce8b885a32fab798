"""`heal audit signals`: the sum over every accepted signal, from a running agent or its database.

A deep audit reads every timeline: it is done here, and never asked of an agent at work.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from app.agent.audit import AuditQuestion, allowed_wait
from app.agent.slo import SloThresholds
from app.commands.failing import CommandFailed
from app.commands.reading import ask, default_url, local_store, parsed, sqlite_path
from app.config import Settings
from app.schema_audit import SignalAuditView
from app.store import open_store


async def audit(
    settings: Settings, url: str | None, since: datetime | None, *, deep: bool
) -> SignalAuditView:
    """Ask the agent at `url`, or the one of these settings; when none answers, the database."""
    if deep and url is not None:
        raise CommandFailed("--deep reads the database itself; leave --url out, and set DATABASE_URL")
    if not deep:
        base = url or default_url(settings)
        parameters = {} if since is None else {"since": since.isoformat()}
        reply = await ask(base, "/audit/signals", parameters, required=url is not None)
        if reply is not None:
            return parsed(SignalAuditView, reply, base)
    on_file = sqlite_path(settings) is not None
    store = await (local_store(settings) if on_file else open_store(settings.database_url.get_secret_value()))
    try:
        question = AuditQuestion(
            now=datetime.now(UTC),
            pending_for=allowed_wait(_slo(settings).longest_gap),
            since=None if since is None else since.astimezone(UTC).date(),
            deep=deep,
        )
        return SignalAuditView.of(await store.audit(question))
    finally:
        await store.close()


def lines(found: SignalAuditView) -> Iterator[str]:
    """The audit as a person reads it."""
    yield f"{found.accepted:>10}  accepted" + (f" since {found.since}" if found.since else "")
    if found.unledgered:
        yield f"{found.unledgered:>10}    of these by an older program; the next sweep enters them"
    for kind, count in found.present.items():
        yield f"{count:>10}  {kind}"
    for kind, count in found.forgotten.items():
        yield f"{count:>10}  {kind}, and forgotten since"
    yield f"{found.accounted:>10}  accounted for"
    for day in found.uneven_days:
        yield f"On {day.day}: {day.accepted} accepted, {day.accounted} accounted for."
    for stray in found.strays:
        yield f"astray: {stray.kind}  {stray.id}  {stray.detail}"
    for more in found.more_strays:
        yield f"astray: {more}  there are more"
    for mended, count in found.mended.items():
        yield f"Put right by sweeps so far: {count} {mended}."
    if found.adds_up:
        yield "Every accepted signal is accounted for, and nothing is astray."


def _slo(settings: Settings) -> SloThresholds:
    return SloThresholds(
        max_error_rate=settings.slo_max_error_rate,
        max_p95_latency_ms=settings.slo_max_p95_latency_ms,
        clear_ratio=settings.slo_clear_ratio,
        breach_for=timedelta(seconds=settings.breach_for_seconds),
        reopen_after=timedelta(seconds=settings.reopen_after_seconds),
    )
