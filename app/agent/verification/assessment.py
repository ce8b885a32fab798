"""The health of a service at one instant, from what was observed and reported. Pure.

Missing data counts neither as healthy nor as unhealthy (promise 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from app.agent.batch.runs import RunState
from app.agent.evidence.conditions import workload_conditions
from app.agent.evidence.format import counted, milliseconds, share
from app.agent.freshness.all_clear import (
    all_withdrawn,
    firing_alerts,
    firing_clauses,
    unknown_alerts,
    unknown_words,
)
from app.agent.freshness.reasons import Reason
from app.agent.freshness.silences import Silencing, covering
from app.agent.models import (
    Incident,
    Observation,
    SliSample,
    Trigger,
    Verification,
)
from app.agent.observer import NO_CLUSTER
from app.agent.slo import SloThresholds
from app.agent.verification.rules import VerifyRules
from app.agent.workload import WorkloadView

METRIC_ONLY = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})
"""Triggers that do not concern the pods or a rollout."""


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


def assess(
    seen: Observation,
    triggers: tuple[Trigger, ...],
    rules: VerifyRules,
    verification: Verification | None,
    *,
    superseded: bool = False,
) -> Assessment:
    """Healthy only if every indicator that was breached or measured before is fresh and within the SLO.

    `superseded`: a running rollout belongs to another party, and is not a fault while replicas serve.
    """
    if seen.telemetry is not None and seen.telemetry.outage:
        return Assessment(health=Health.UNKNOWN, reasons=(f"telemetry outage: {seen.telemetry.said}",))
    if Trigger.BATCH_FAILED in triggers:
        return _of_batch(seen)
    before = verification.baseline if verification is not None else None
    baseline = rules.slo.judged(before) if before is not None else None
    sli = fresh_sample(seen, verification, rules)
    problems = list(rules.slo.breaches(sli)) if sli is not None else []
    if seen.workload is not None:
        asked_for_rollout = acted(verification) or not METRIC_ONLY.issuperset(triggers)
        unfinished = asked_for_rollout and not superseded
        problems.extend(_workload_problems(seen.workload, unfinished=unfinished))
    elif seen.reported_conditions:
        problems.extend(
            f"{c} was reported and its end has not been reported" for c in seen.reported_conditions
        )
    if problems:
        return Assessment(health=Health.UNHEALTHY, reasons=tuple(problems))
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


def fresh_sample(
    seen: Observation, verification: Verification | None, rules: VerifyRules
) -> SliSample | None:
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
    """The missing parts of a complete rollout."""
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
        gaps.append("a telemetry outage gives no evidence about a service")
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


def _well(sli: SliSample | None, workload: WorkloadView | None) -> str:
    parts = []
    if sli is not None and sli.error_rate is not None:
        parts.append(f"error rate {share(sli.error_rate)}")
    if sli is not None and sli.p95_latency_ms is not None:
        parts.append(f"p95 latency {milliseconds(sli.p95_latency_ms)}")
    if workload is not None:
        parts.append(f"{workload.available_replicas} of {workload.desired_replicas} replicas available")
    return ", ".join(parts) or "no fault reported"
