"""Verify: whether the service recovered, from fresh observations against the SLO over a soak.

`assess` and `judge` are pure; `Verifier` only reads. Missing data counts neither as
healthy nor as unhealthy: without fresh data the verdict is "cannot tell" (promise 8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from app.agent.batch.runs import RunState, batch_named
from app.agent.evidence.format import counted, milliseconds, share
from app.agent.freshness.all_clear import (
    all_withdrawn,
    firing_alerts,
    firing_clauses,
    unknown_alerts,
    unknown_words,
)
from app.agent.freshness.clock_jumps import ahead
from app.agent.freshness.own_alerts import without_past_burns
from app.agent.freshness.reasons import Reason, ago_words, of_cluster
from app.agent.freshness.silences import Silencing, covering
from app.agent.ids import ServiceKey
from app.agent.models import (
    Incident,
    Observation,
    SliSample,
    Trigger,
    Verdict,
    VerdictKind,
    Verification,
)
from app.agent.observer import NO_CLUSTER, Observer, workload_conditions
from app.agent.ports.metrics import SilenceSource
from app.agent.slo import SloThresholds
from app.agent.workload import WorkloadView
from app.errors import AgentError

_WORSE_ERROR_RATE = 0.2
"""An error rate this much above the one before the action is materially worse."""

METRIC_ONLY = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})
"""Triggers that do not concern the pods or a rollout."""

WAITS_NOTED = 8
"""So many changes of what cannot be determined are in the timeline of one verification: some alternate."""
_FIGURES = re.compile(r"[0-9][0-9.:]*")
_REASON_CHARS = 300


class Health(StrEnum):
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """The health of a service at one instant, with the reasons."""

    health: Health
    reasons: tuple[str, ...]
    final: bool = False
    """No later observation changes it: a Job that failed stays failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRules:
    """The requirements for a verdict: duration and freshness of observations."""

    slo: SloThresholds
    soak: timedelta
    """How long the service must stay healthy without interruption."""
    timeout: timedelta
    """Measured from the action; at its end the verdict is given."""
    interval: timedelta
    max_sample_age: timedelta
    batch_timeout: timedelta = timedelta(hours=1)
    """In place of `timeout` for a batch, whose run may take long."""

    def for_batch(self) -> VerifyRules:
        """The rules for a batch: a run that completed needs no soak."""
        return replace(self, soak=timedelta(0), timeout=self.batch_timeout)

    @property
    def longest_gap(self) -> timedelta:
        """The longest time between two observations; after a longer gap the verification restarts."""
        return max(3 * self.interval, self.max_sample_age)

    @property
    def longest(self) -> timedelta:
        """How long attempts may last in total that gaps between observations end; then no other begins."""
        return 3 * (self.timeout + self.soak + self.longest_gap)


def assess(
    seen: Observation,
    triggers: tuple[Trigger, ...],
    rules: VerifyRules,
    verification: Verification | None,
) -> Assessment:
    """Healthy only if every indicator that was breached or measured before is fresh and within the SLO."""
    if seen.telemetry is not None and seen.telemetry.outage:
        return Assessment(health=Health.UNKNOWN, reasons=(f"telemetry outage: {seen.telemetry.said}",))
    if Trigger.BATCH_FAILED in triggers:
        return _of_batch(seen)
    before = verification.baseline if verification is not None else None
    baseline = rules.slo.judged(before) if before is not None else None
    sli = _fresh(seen, verification, rules)
    sick = list(rules.slo.breaches(sli)) if sli is not None else []
    if seen.workload is not None:
        asked_for_rollout = acted(verification) or not METRIC_ONLY.issuperset(triggers)
        sick.extend(_workload_problems(seen.workload, unfinished=asked_for_rollout))
    elif seen.told_conditions:
        sick.extend(f"{c} was reported and its end has not been reported" for c in seen.told_conditions)
    if sick:
        return Assessment(health=Health.UNHEALTHY, reasons=tuple(sick))
    unknown = _unmeasured(seen, sli, triggers, baseline, rules.slo)
    if unknown:
        return Assessment(health=Health.UNKNOWN, reasons=(*unknown, *seen.missing))
    return Assessment(health=Health.HEALTHY, reasons=(_well(sli, seen.workload),))


def _of_batch(seen: Observation) -> Assessment:
    """By the Complete condition of the newest run: a batch serves no requests."""
    batch = seen.batch
    if batch is None:
        why = "the batch no longer exists" if seen.gone else "the batch cannot be read"
        return Assessment(health=Health.UNKNOWN, reasons=(why, *seen.missing))
    match batch.state:
        case RunState.COMPLETE:
            return Assessment(health=Health.HEALTHY, reasons=(batch.words,), final=True)
        case RunState.FAILED:
            return Assessment(health=Health.UNHEALTHY, reasons=(batch.words,), final=True)
        case _:
            return Assessment(health=Health.UNKNOWN, reasons=(batch.words,))


def with_reports(
    health: Assessment,
    incident: Incident,
    seen: Observation,
    reported: tuple[Reason, ...],
    *,
    measures: bool,
    silencings: tuple[Silencing, ...] = (),
) -> Assessment:
    """Adjust health by reports: unknown while an alert is firing; healthy if all were withdrawn.

    The latter only without an action and without a metric source (`measures`), where
    the end of the alert is the only evidence of recovery. Alerts whose state is not
    known count until a later observation of the agent shows that the service is healthy.
    """

    def silenced(one: Reason) -> str:
        mute = covering(one, silencings)
        return mute.words if mute is not None else ""

    firing = firing_clauses(firing_alerts(reported, incident.triggers, seen.at), seen.at, silenced)
    unknown = [
        unknown_words(one, seen.at)
        for one in unknown_alerts(reported, incident.triggers, incident.opened_at, seen.at)
        if not (health.health is Health.HEALTHY and _seen_since(one, seen))
    ]
    if (firing or unknown) and health.health is Health.HEALTHY:
        return Assessment(health=Health.UNKNOWN, reasons=(*firing, *unknown, *health.reasons))
    acted = incident.verification is not None and incident.verification.intent_id is not None
    if health.health is not Health.UNKNOWN or measures or acted or not _runs(seen):
        return health
    if not all_withdrawn(reported, incident.triggers):
        return health
    if unknown:
        return Assessment(health=Health.UNKNOWN, reasons=(*unknown, *health.reasons))
    over = [r.withdrawn.said for r in reported if r.withdrawn is not None and r.trigger in incident.triggers]
    return Assessment(health=Health.HEALTHY, reasons=tuple(dict.fromkeys(over)))


def _seen_since(reported: Reason, seen: Observation) -> bool:
    """Whether the agent itself observed the subject of the report after the report."""
    if reported.trigger in METRIC_ONLY:
        return seen.sli is not None and seen.sli.measured and seen.sli.at > reported.last_true_at
    return seen.workload is not None and seen.at > reported.last_true_at


def _runs(seen: Observation) -> bool:
    """Whether the workload is running, or no cluster is connected to show it."""
    if seen.workload is not None:
        return seen.workload.desired_replicas > 0
    return not seen.gone and seen.missing == (NO_CLUSTER,)


def judge(
    verification: Verification, now: Assessment, seen: Observation, rules: VerifyRules
) -> Verdict | None:
    """The verdict that follows from this observation, or None if it is too early for one."""
    at = seen.at
    if _unwatched(verification, at, rules):
        return _without_end(verification, at, rules)
    ended = _ended(verification, now, seen, rules)
    if ended is None:
        return None
    kind, reasons = ended
    return Verdict(kind=kind, reasons=reasons, at=at, intent_id=verification.intent_id)


def _ended(
    verification: Verification, now: Assessment, seen: Observation, rules: VerifyRules
) -> tuple[VerdictKind, tuple[str, ...]] | None:
    """The verdict of a verification without gaps, with its reasons; None if it is too early for one."""
    at = seen.at
    if now.health is Health.HEALTHY:
        since = verification.healthy_since
        if since is not None and at - since >= rules.soak:
            if seen.batch is not None:
                return VerdictKind.RECOVERED, now.reasons
            measured = "within the SLO" if seen.sli is not None else "no alert reported"
            soak = f"{measured} for {(at - since).total_seconds():.0f} s"
            return VerdictKind.RECOVERED, (soak, *now.reasons)
    if now.final and now.health is Health.UNHEALTHY and acted(verification):
        return VerdictKind.NOT_RECOVERED, now.reasons
    elapsed = at - verification.started_at
    worse = _worse(verification.baseline, _fresh(seen, verification, rules), rules.slo)
    if now.health is Health.UNHEALTHY and elapsed >= rules.soak and worse:
        return VerdictKind.WORSE, now.reasons
    if elapsed < rules.timeout:
        return None
    if now.health is Health.UNHEALTHY:
        return VerdictKind.NOT_RECOVERED, now.reasons
    if now.health is Health.UNKNOWN:
        return VerdictKind.CANNOT_TELL, now.reasons
    # Healthy, but not yet for the whole soak: wait at most one soak longer.
    if elapsed < rules.timeout + rules.soak:
        return None
    never = "intermittent health: never healthy for the whole soak"
    return VerdictKind.NOT_RECOVERED, (never, *now.reasons)


def _without_end(verification: Verification, at: datetime, rules: VerifyRules) -> Verdict | None:
    """ "Cannot tell" once the attempts that gaps ended add up to `rules.longest`.

    A gap, however long, adds at most twice the longest one allowed: a pause of hours
    restarts the verification and does not use up the attempts that follow it.
    """
    lost = _lost(verification, at, rules)
    if lost < rules.longest:
        return None
    return Verdict(
        kind=VerdictKind.CANNOT_TELL,
        reasons=(
            "the agent observed the service less often than every "
            f"{rules.longest_gap.total_seconds():.0f} s, so the verification kept restarting "
            f"for {ago_words(lost)}",
        ),
        at=at,
        intent_id=verification.intent_id,
    )


def _lost(verification: Verification, at: datetime, rules: VerifyRules) -> timedelta:
    """The length of all attempts that gaps ended, with the one that ends at `at`.

    Each counts as watched until its last observation, whatever the clock does after it.
    """
    seen = verification.last_observed_at or verification.started_at
    watched = max(seen - verification.started_at, timedelta(0))
    gap = at - seen if at >= seen else rules.longest_gap
    return timedelta(seconds=verification.lost_seconds) + watched + min(gap, 2 * rules.longest_gap)


def resumed(verification: Verification, at: datetime, rules: VerifyRules) -> Verification:
    """The verification at the time `at`: restarted after a gap.

    An absence of the agent is no evidence about the service, either way.
    """
    if not _unwatched(verification, at, rules):
        return verification
    lost = _lost(verification, at, rules)
    return replace(verification, started_at=at, healthy_since=None, lost_seconds=lost.total_seconds())


def advance(verification: Verification, now: Assessment, at: datetime, rules: VerifyRules) -> Verification:
    """The verification after this observation: an unhealthy or unknown one restarts the soak.

    A gap between observations restarts the whole verification.
    """
    verification = resumed(verification, at, rules)
    if now.health is Health.HEALTHY:
        healthy_since = verification.healthy_since or at
        return replace(verification, healthy_since=healthy_since, last_observed_at=at, waited_for=())
    return replace(
        verification,
        waited_for=_waited_for(verification.waited_for, now),
        healthy_since=None,
        last_observed_at=at,
        last_unhealthy_at=at if now.health is Health.UNHEALTHY else verification.last_unhealthy_at,
    )


def _waited_for(before: tuple[str, ...], now: Assessment) -> tuple[str, ...]:
    """With what cannot be determined now, if that is another reason than the last; at most `WAITS_NOTED`."""
    if now.health is not Health.UNKNOWN or len(before) >= WAITS_NOTED:
        return before
    reason = _FIGURES.sub("", "; ".join(now.reasons))[:_REASON_CHARS]
    return before if before[-1:] == (reason,) else (*before, reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """Observes a service for the loop's verify stage."""

    observer: Observer
    rules: VerifyRules
    silences: SilenceSource | None = None
    """None: silences are not read."""

    def rules_of(self, key: ServiceKey) -> VerifyRules:
        """The rules with the objectives of one service."""
        rules = self.rules if batch_named(key) is None else self.rules.for_batch()
        return replace(rules, slo=rules.slo.of(key))

    async def look(self, incident: Incident, now: datetime) -> tuple[Observation, Assessment]:
        """Observe the incident's service at `now` and assess its health."""
        seen = await self.observer.look(incident.key, now)
        return seen, await self.assess(incident, seen)

    async def assess(
        self, incident: Incident, seen: Observation, silencings: tuple[Silencing, ...] | None = None
    ) -> Assessment:
        """The health that an observation shows, given the reports on the incident that were not withdrawn.

        `silencings` are the silences in force; None: they are read where an alert fires.
        """
        health = assess(seen, incident.triggers, self.rules_of(incident.key), incident.verification)
        levels = await self.observer.store.signals.levels(incident.key)
        if levels is None:
            return health
        reported = of_cluster(levels.reasons, incident.cluster)
        if acted(incident.verification):
            terms = self.rules.slo.services.of(incident.key)
            reported = without_past_burns(reported, seen.sli, None if terms is None else terms.budget)
        if silencings is None and health.health is Health.HEALTHY:
            firing = firing_alerts(reported, incident.triggers, seen.at)
            silencings = await self._silencings(incident, seen.at) if firing else ()
        return with_reports(
            health,
            incident,
            seen,
            reported,
            measures=self.observer.metrics is not None,
            silencings=silencings or (),
        )

    async def _silencings(self, incident: Incident, at: datetime) -> tuple[Silencing, ...]:
        """The silences in force, which only explain a verdict; none if they cannot be read."""
        if self.silences is None:
            return ()
        try:
            found = await self.silences.concerning(incident.key, at)
        except AgentError:
            return ()
        return tuple(one for one in found if one.silence.active(at))


def _fresh(seen: Observation, verification: Verification | None, rules: VerifyRules) -> SliSample | None:
    """The sample if it is current: not old, not in the future, and not from before the action.

    Indicators based on too few requests are removed.
    """
    sli = seen.sli
    if sli is None or not timedelta(0) <= seen.at - sli.at <= rules.max_sample_age:
        return None
    if verification is not None and acted(verification) and sli.at < verification.started_at:
        return None
    return rules.slo.judged(sli)


def acted(verification: Verification | None) -> bool:
    """Whether an action is being verified; False if the service is only watched."""
    return verification is not None and verification.intent_id is not None


def dated_in_future(verification: Verification, at: datetime) -> bool:
    """Whether any of its times is in the future because the clock went back; it would never end."""
    moments = (verification.started_at, verification.healthy_since, verification.last_observed_at)
    return any(ahead(moment, at) for moment in moments)


def _unwatched(verification: Verification, at: datetime, rules: VerifyRules) -> bool:
    """Whether the last observation is too old, or in the future: the time between is unknown."""
    if dated_in_future(verification, at):
        return True
    return at - (verification.last_observed_at or verification.started_at) > rules.longest_gap


def _workload_problems(workload: WorkloadView, *, unfinished: bool) -> list[str]:
    """The faults of the workload; with `unfinished` a rollout in progress is a fault.

    It is one after an action, whose rollout must be complete for a verdict, and in an
    incident about the rollout or the pods. Otherwise it is a normal release.
    """
    problems = [f"the cluster reports {condition}" for condition in workload_conditions(workload)]
    rolling = not workload.rollout_complete and not workload.paused
    if rolling and not unfinished and workload.available_replicas > 0:
        return problems
    if rolling:
        problems.append(f"the rollout is not complete: {_rollout_lacks(workload)}")
    elif workload.available_replicas < workload.desired_replicas:
        problems.append(f"{workload.available_replicas} of {workload.desired_replicas} replicas available")
    return problems


def _rollout_lacks(workload: WorkloadView) -> str:
    """What is missing from a complete rollout."""
    wanted, updated, lacks = workload.desired_replicas, workload.updated_replicas, []
    if not workload.spec_observed:
        lacks.append("the controller has not observed the newest specification")
    if updated < wanted:
        lacks.append(f"{updated} of {wanted} updated")
    older = (workload.total_replicas or 0) - updated
    if older > 0:
        lacks.append(f"{counted(older, 'pod')} of an older revision not removed yet")
    elif updated > wanted:
        lacks.append(f"{counted(updated - wanted, 'pod')} too many not removed yet")
    if workload.available_replicas < max(wanted, updated):
        lacks.append(f"{workload.available_replicas} of {max(wanted, updated)} available")
    if workload.progress_deadline_exceeded:
        lacks.append("its progress deadline is exceeded")
    return ", ".join(lacks) or "the controller has not reported its end"


def _unmeasured(
    seen: Observation,
    sli: SliSample | None,
    triggers: tuple[Trigger, ...],
    baseline: SliSample | None,
    slo: SloThresholds,
) -> tuple[str, ...]:
    """The indicators needed for a verdict that have no fresh measurement."""
    gaps = []
    if Trigger.TELEMETRY_OUTAGE in triggers:
        gaps.append("a telemetry outage is no evidence about a service")
    if seen.unmeasured is not None:
        gaps.append(f"cannot measure: {seen.unmeasured}")
    elif seen.sli is not None and slo.too_few(seen.sli.request_rate):
        gaps.append(f"only {seen.sli.request_rate:.2f} requests/s: too few for a verdict")
    had_errors = baseline is not None and baseline.error_rate is not None
    had_latency = baseline is not None and baseline.p95_latency_ms is not None
    if (Trigger.HIGH_ERROR_RATE in triggers or had_errors) and (sli is None or sli.error_rate is None):
        gaps.append("no fresh error rate")
    if (Trigger.HIGH_LATENCY in triggers or had_latency) and (sli is None or sli.p95_latency_ms is None):
        gaps.append("no fresh p95 latency")
    cluster_triggers = {Trigger.CRASH_LOOP, Trigger.DEPLOY_FAILED, Trigger.PODS_UNAVAILABLE} & set(triggers)
    if cluster_triggers and seen.workload is None and sli is None:
        gaps.append("neither the workload nor a fresh sample is available")
    if seen.workload is not None and seen.workload.desired_replicas == 0:
        gaps.append("the workload is scaled to zero")
    if not triggers and sli is None and seen.workload is None:
        gaps.append("no data for a verdict")
    return tuple(gaps)


def _worse(before: SliSample | None, now: SliSample | None, slo: SloThresholds) -> bool:
    before = slo.judged(before) if before is not None else None
    if before is None or now is None or before.error_rate is None or now.error_rate is None:
        return False
    return now.error_rate - before.error_rate >= _WORSE_ERROR_RATE


def _well(sli: SliSample | None, workload: WorkloadView | None) -> str:
    parts = []
    if sli is not None and sli.error_rate is not None:
        parts.append(f"error rate {share(sli.error_rate)}")
    if sli is not None and sli.p95_latency_ms is not None:
        parts.append(f"p95 latency {milliseconds(sli.p95_latency_ms)}")
    if workload is not None:
        parts.append(f"{workload.available_replicas} of {workload.desired_replicas} replicas available")
    return ", ".join(parts) or "no fault reported"
