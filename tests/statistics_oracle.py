"""Statistics computed from whole records one by one: what the counting of the database is held against."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.analytics.report import StatsFilter
from app.agent.models import Decision, IncidentRecord, IncidentState, OutcomeKind, Trigger

CRITICAL = {Trigger.HIGH_ERROR_RATE}
MAJOR = {Trigger.CRASH_LOOP, Trigger.PODS_UNAVAILABLE, Trigger.HIGH_LATENCY}


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A record, and when its first signal was observed."""

    record: IncidentRecord
    began_at: datetime | None


def severity_of(known: Known) -> str:
    triggers = set(known.record.incident.triggers)
    return "critical" if triggers & CRITICAL else "major" if triggers & MAJOR else "minor"


def cause_of(known: Known) -> str | None:
    diagnosis = known.record.incident.diagnosis
    return None if diagnosis is None else diagnosis.hypotheses[0].cause


def about(where: StatsFilter, known: Known) -> bool:
    incident = known.record.incident
    return (
        where.environment in (None, incident.key.environment)
        and where.service in (None, incident.key.service)
        and where.cause in (None, cause_of(known))
        and where.severity in (None, severity_of(known))
    )


def within(where: StatsFilter, at: datetime | None) -> bool:
    return at is not None and where.since <= at < where.until


def opened_within(where: StatsFilter, everything: Sequence[Known]) -> list[Known]:
    return [one for one in everything if about(where, one) and within(where, one.record.incident.opened_at)]


def seconds(begin: datetime | None, end: datetime | None) -> int | None:
    if begin is None or end is None:
        return None
    return max(0, math.floor(end.timestamp()) - math.floor(begin.timestamp()))


def restored(known: Known) -> datetime | None:
    incident = known.record.incident
    if incident.state in (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION):
        return incident.closed_at
    return incident.resolved.at if incident.resolved is not None else None


def durations(kind: str, chosen: Sequence[Known]) -> list[int]:
    found = []
    for one in chosen:
        incident = one.record.incident
        ends = {
            "detect": (one.began_at, incident.opened_at),
            "acknowledge": (
                incident.opened_at,
                None if incident.acknowledged is None else incident.acknowledged.at,
            ),
            "restore": (incident.opened_at, restored(one)),
        }
        length = seconds(*ends[kind])
        if length is not None:
            found.append(length)
    return sorted(found)


def percentile(values: Sequence[int], percent: int) -> int | None:
    """By nearest rank: the least value that at least so many percent of all do not exceed."""
    for value in sorted(values):
        if 100 * sum(other <= value for other in values) >= percent * len(values):
            return value
    return None


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The two solutions p of |hits/of - p| = 1.96 * sqrt(p (1 - p) / of), found by bisection."""

    def outside(p: float) -> bool:
        return abs(hits / of - p) > 1.959963984540054 * math.sqrt(p * (1 - p) / of)

    return _edge(outside, 0.0, hits / of), _edge(outside, 1.0, hits / of)


def _edge(outside: Callable[[float], bool], far: float, near: float) -> float:
    for _ in range(200):
        middle = (far + near) / 2
        far, near = (middle, near) if outside(middle) else (far, middle)
    return near


def states(chosen: Sequence[Known]) -> Counter[IncidentState]:
    return Counter(one.record.incident.state for one in chosen)


def monday(at: datetime) -> datetime:
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    return day - timedelta(days=day.weekday())


def decisions(where: StatsFilter, everything: Sequence[Known]) -> Counter[tuple[object, ...]]:
    return Counter(
        (i.action.name, i.decision.kind, None if i.outcome is None else i.outcome.kind, i.dry_run)
        for one in everything
        if about(where, one)
        for i in one.record.intents
        if i.undoes is None and within(where, i.decision.at)
    )


def grouped(decision: Decision) -> str:
    first = decision.reasons[0]
    if decision.kind == "deny" and first.startswith("denied by "):
        return "denied by a person"
    return "no answer in time" if first.startswith("no answer before ") else first


def reasons(where: StatsFilter, everything: Sequence[Known]) -> Counter[tuple[object, str]]:
    return Counter(
        (i.decision.kind, grouped(i.decision))
        for one in everything
        if about(where, one)
        for i in one.record.intents
        if i.undoes is None and within(where, i.decision.at) and i.decision.kind != "allow"
    )


def began(where: StatsFilter, everything: Sequence[Known]) -> dict[int, Counter[object]]:
    """The actions that began, by day and service."""
    found: dict[int, Counter[object]] = {}
    for one in everything:
        for i in one.record.intents:
            if about(where, one) and within(where, i.started_at) and i.undoes is None:
                assert i.started_at is not None
                day = math.floor(i.started_at.timestamp()) // 86400
                found.setdefault(day, Counter())[one.record.incident.key] += 1
    return found


def done(known: Known) -> bool:
    return any(
        i.undoes is None and i.outcome is not None and i.outcome.kind is OutcomeKind.DONE
        for i in known.record.intents
    )
