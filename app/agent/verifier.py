"""Verify: did the service recover, judged by fresh observations against the SLO over a soak?

`assess` and `judge` are pure; `Verifier` only reads. Missing data is neither
health nor sickness: without fresh data the verdict is "cannot tell" (promise 8).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.agent.clock_jumps import ahead
from app.agent.models import (
    Incident,
    Observation,
    SliSample,
    Trigger,
    Verdict,
    VerdictKind,
    Verification,
    WorkloadView,
)
from app.agent.observer import Observer, workload_conditions
from app.agent.slo import SloThresholds

_WORSE_ERROR_RATE = 0.2
"""An error rate this much above the one before the action is materially worse."""


class Health(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The state of a service at one instant, with what it rests on."""

    health: Health
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRules:
    """How long and how fresh the proof of recovery must be."""

    slo: SloThresholds
    soak: timedelta
    """Health must last this long without a break."""
    timeout: timedelta
    """Counted from the action; then the verdict is given on what was seen."""
    interval: timedelta
    max_sample_age: timedelta


def assess(
    seen: Observation,
    triggers: tuple[Trigger, ...],
    rules: VerifyRules,
    verification: Verification | None,
) -> Assessment:
    """Healthy only if every indicator that was sick, or was measured before, is freshly measured and well."""
    if seen.telemetry is not None and seen.telemetry.outage:
        return Assessment(
            health=Health.UNKNOWN,
            reasons=(
                f"telemetry fault: {seen.telemetry.silent_services} of "
                f"{seen.telemetry.known_services} services fell silent",
            ),
        )
    baseline = verification.baseline if verification is not None else None
    sli = _fresh(seen, verification, rules)
    sick = list(rules.slo.breaches(sli)) if sli is not None else []
    if seen.workload is not None:
        sick.extend(_workload_problems(seen.workload))
    elif seen.told_conditions:
        sick.extend(f"{c} was reported and has not been reported over" for c in seen.told_conditions)
    if sick:
        return Assessment(health=Health.UNHEALTHY, reasons=tuple(sick))
    unknown = _unmeasured(seen, sli, triggers, baseline)
    if unknown:
        return Assessment(health=Health.UNKNOWN, reasons=(*unknown, *seen.missing))
    return Assessment(health=Health.HEALTHY, reasons=(_well(sli, seen.workload),))


def judge(
    verification: Verification, now: Assessment, seen: Observation, rules: VerifyRules
) -> Verdict | None:
    """The verdict that this observation completes, or None while it is too early for one."""
    at = seen.at
    if _unwatched(verification, at, rules):
        return None
    if now.health is Health.HEALTHY:
        since = verification.healthy_since
        if since is not None and at - since >= rules.soak:
            soak = f"within the SLO for {(at - since).total_seconds():.0f} s"
            return Verdict(kind=VerdictKind.RECOVERED, reasons=(soak, *now.reasons), at=at)
    elapsed = at - verification.started_at
    if now.health is Health.UNHEALTHY and elapsed >= rules.soak and _worse(verification.baseline, seen.sli):
        return Verdict(kind=VerdictKind.WORSE, reasons=now.reasons, at=at)
    if elapsed < rules.timeout:
        return None
    if now.health is Health.UNHEALTHY:
        return Verdict(kind=VerdictKind.NOT_RECOVERED, reasons=now.reasons, at=at)
    if now.health is Health.UNKNOWN:
        return Verdict(kind=VerdictKind.CANNOT_TELL, reasons=now.reasons, at=at)
    # Healthy, but not yet for the whole soak: worth waiting out, at most one soak longer.
    if elapsed < rules.timeout + rules.soak:
        return None
    return Verdict(
        kind=VerdictKind.NOT_RECOVERED,
        reasons=("health came and went: it never lasted for the whole soak", *now.reasons),
        at=at,
    )


def advance(verification: Verification, now: Assessment, at: datetime, rules: VerifyRules) -> Verification:
    """Verification with this observation counted in: sickness or silence begins the soak anew.

    After a time in which nobody looked the whole verification does: an absence of the
    agent says nothing about the service.
    """
    if _unwatched(verification, at, rules):
        verification = replace(verification, started_at=at, healthy_since=None)
    if now.health is Health.HEALTHY:
        return replace(verification, healthy_since=verification.healthy_since or at, last_observed_at=at)
    return replace(
        verification,
        healthy_since=None,
        last_observed_at=at,
        last_unhealthy_at=at if now.health is Health.UNHEALTHY else verification.last_unhealthy_at,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Takes one look for the loop's verify stage."""

    observer: Observer
    rules: VerifyRules

    async def look(self, incident: Incident, now: datetime) -> tuple[Observation, Assessment]:
        """What is to be seen of the incident's service at `now`, and what it amounts to."""
        seen = await self.observer.look(incident.key, now)
        return seen, assess(seen, incident.triggers, self.rules, incident.verification)


def _fresh(seen: Observation, verification: Verification | None, rules: VerifyRules) -> SliSample | None:
    """The sample, if it is about now: not old, not from the future, and not from before the action."""
    sli = seen.sli
    if sli is None or not timedelta(0) <= seen.at - sli.at <= rules.max_sample_age:
        return None
    acted = verification is not None and verification.intent_id is not None
    if acted and verification is not None and sli.at < verification.started_at:
        return None
    return sli


def dated_in_future(verification: Verification, at: datetime) -> bool:
    """Whether it was begun or looked at before the clock went back: no soak and no time-out would end."""
    moments = (verification.started_at, verification.healthy_since, verification.last_observed_at)
    return any(ahead(moment, at) for moment in moments)


def _unwatched(verification: Verification, at: datetime, rules: VerifyRules) -> bool:
    """The last look is so old, or the clock went back so far, that what lies between is not known."""
    if dated_in_future(verification, at):
        return True
    last = verification.last_observed_at
    return last is not None and at - last > max(3 * rules.interval, rules.max_sample_age)


def _workload_problems(workload: WorkloadView) -> list[str]:
    problems = [f"the cluster reports {condition}" for condition in workload_conditions(workload)]
    if not workload.rollout_complete and not workload.paused:
        problems.append(
            f"the rollout is not complete: {workload.updated_replicas} of "
            f"{workload.desired_replicas} updated, {workload.available_replicas} available"
        )
    elif workload.available_replicas < workload.desired_replicas:
        problems.append(f"{workload.available_replicas} of {workload.desired_replicas} replicas available")
    return problems


def _unmeasured(
    seen: Observation,
    sli: SliSample | None,
    triggers: tuple[Trigger, ...],
    baseline: SliSample | None,
) -> tuple[str, ...]:
    """Which of the indicators that recovery must show have no fresh measurement."""
    gaps = []
    had_errors = baseline is not None and baseline.error_rate is not None
    had_latency = baseline is not None and baseline.p95_latency_ms is not None
    if (Trigger.HIGH_ERROR_RATE in triggers or had_errors) and (sli is None or sli.error_rate is None):
        gaps.append("no fresh error rate")
    if (Trigger.HIGH_LATENCY in triggers or had_latency) and (sli is None or sli.p95_latency_ms is None):
        gaps.append("no fresh p95 latency")
    cluster_triggers = {Trigger.CRASH_LOOP, Trigger.DEPLOY_FAILED} & set(triggers)
    if cluster_triggers and seen.workload is None and sli is None:
        gaps.append("neither the workload nor a fresh sample can be seen")
    if seen.workload is not None and seen.workload.desired_replicas == 0:
        gaps.append("it is scaled to zero: nothing runs to judge by")
    if not triggers and sli is None and seen.workload is None:
        gaps.append("nothing to judge by")
    return tuple(gaps)


def _worse(before: SliSample | None, now: SliSample | None) -> bool:
    if before is None or now is None or before.error_rate is None or now.error_rate is None:
        return False
    return now.error_rate - before.error_rate >= _WORSE_ERROR_RATE


def _well(sli: SliSample | None, workload: WorkloadView | None) -> str:
    parts = []
    if sli is not None and sli.error_rate is not None:
        parts.append(f"error rate {sli.error_rate:.1%}")
    if sli is not None and sli.p95_latency_ms is not None:
        parts.append(f"p95 latency {sli.p95_latency_ms:.0f} ms")
    if workload is not None:
        parts.append(f"{workload.available_replicas} of {workload.desired_replicas} replicas available")
    return ", ".join(parts) or "nothing is reported wrong"
