"""The agent's own observation: its own reasons, and what contradicts the reports.

Pure. A measurement within the objective and a workload without a fault outrank every
report; what cannot be measured or seen confirms none.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from app.agent.batch.signals import contradicts_failure
from app.agent.evidence.conditions import CONDITION_TRIGGERS, restarting, workload_conditions
from app.agent.freshness.memory import is_merged, may_fire
from app.agent.freshness.own_alerts import is_own_alert
from app.agent.freshness.reasons import (
    Reason,
    ReasonKind,
    Withdrawal,
    condition_subject,
    find,
    level_subject,
    level_words,
)
from app.agent.models import POLLED, WATCHED, Condition, Observation, Trigger
from app.agent.slo import SloThresholds
from app.agent.workload import WorkloadView

CLOCKS_APART = timedelta(seconds=60)
"""Clocks of pipeline and cluster differ by no more."""

_METRIC_TRIGGERS = frozenset({Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY})


def examined(
    known: tuple[Reason, ...], triggers: tuple[Trigger, ...], seen: Observation, slo: SloThresholds
) -> tuple[Reason, ...]:
    """The reasons for an action on an incident with these triggers, given the current observation."""
    own = (*_measured(seen, slo), *_seen_in_cluster(known, seen))
    subjects = {reason.subject for reason in own}
    candidates = [*own, *(reason for reason in known if reason.subject not in subjects)]
    mine = [one for one in candidates if one.trigger in triggers and (not is_merged(one) or may_fire(one))]
    return tuple(_against(reason, seen, slo) for reason in mine)


def _measured(seen: Observation, slo: SloThresholds) -> Iterable[Reason]:
    for trigger, value, objective in _own_levels(seen, slo):
        if value > objective:
            yield Reason(
                trigger=trigger,
                kind=ReasonKind.OWN_MEASUREMENT,
                subject=level_subject(trigger, ReasonKind.OWN_MEASUREMENT),
                source=POLLED,
                said=f"the measured {level_words(trigger, value)}",
                last_true_at=seen.sli.at if seen.sli is not None else seen.at,
            )


def _own_levels(seen: Observation, slo: SloThresholds) -> Iterable[tuple[Trigger, float, float]]:
    """The measurements of the agent's own source on enough requests: trigger, value, objective."""
    if seen.sli is None or not seen.sli.measured:
        return
    sample = slo.judged(seen.sli)
    if sample.error_rate is not None:
        yield Trigger.HIGH_ERROR_RATE, sample.error_rate, slo.max_error_rate
    if sample.p95_latency_ms is not None:
        yield Trigger.HIGH_LATENCY, sample.p95_latency_ms, slo.max_p95_latency_ms


def _seen_in_cluster(known: tuple[Reason, ...], seen: Observation) -> Iterable[Reason]:
    workload = seen.workload
    if seen.batch is not None and seen.batch.failed is not None:
        yield Reason(
            trigger=Trigger.BATCH_FAILED,
            kind=ReasonKind.OWN_LOOK,
            subject=condition_subject(Condition.JOB_FAILED, ReasonKind.OWN_LOOK),
            source=WATCHED,
            said=seen.batch.words,
            last_true_at=seen.at,
        )
    if workload is None:
        return
    for condition in workload_conditions(workload):
        yield Reason(
            trigger=CONDITION_TRIGGERS[condition],
            kind=ReasonKind.OWN_LOOK,
            subject=condition_subject(condition, ReasonKind.OWN_LOOK),
            source=WATCHED,
            said=f"{condition} of its pods",
            last_true_at=seen.at,
        )
    crashed = [pod for pod in workload.pods if restarting(pod)]
    if crashed:
        yield Reason(
            trigger=Trigger.CRASH_LOOP,
            kind=ReasonKind.OWN_LOOK,
            subject="own_look restarting",
            source=WATCHED,
            said=f"{len(crashed)} of {len(workload.pods)} pods that restart and are not ready",
            last_true_at=seen.at,
        )
    failed = find(known, "deploy")
    if failed is not None and failed.withdrawn is None and _still_unfinished(workload, failed):
        yield replace(failed, last_true_at=max(failed.last_true_at, seen.at))


def _still_unfinished(workload: WorkloadView, failed: Reason) -> bool:
    """The rollout that was reported as failed is still running."""
    born = workload.revisions[0].created_at if workload.revisions else None
    same = born is None or born <= failed.last_true_at + CLOCKS_APART
    return same and not workload.rollout_complete and not workload.paused


def _against(reason: Reason, seen: Observation, slo: SloThresholds) -> Reason:
    """The reason, withdrawn if the agent's own observation contradicts it or cannot confirm it."""
    if reason.withdrawn is not None:
        return reason
    against = _metric_objection(reason, seen, slo)
    if against is None:
        against = _cluster_objection(reason, seen)
    if against is None:
        return reason
    return replace(reason, withdrawn=Withdrawal(at=seen.at, by="the agent", said=against))


def _metric_objection(reason: Reason, seen: Observation, slo: SloThresholds) -> str | None:
    if reason.trigger not in _METRIC_TRIGGERS:
        return None
    for trigger, value, objective in _own_levels(seen, slo):
        if trigger is reason.trigger and value <= objective:
            return f"the measured {level_words(trigger, value)} contradicts {reason.said}"
    if is_own_alert(reason):
        return f"{reason.said} is the agent's own: only a measured level outside its objective is a reason"
    if seen.unmeasured is not None:
        return f"the agent cannot measure ({seen.unmeasured}), so nothing confirms {reason.said}"
    if seen.telemetry is not None and seen.telemetry.outage:
        return f"there is a telemetry outage, so nothing confirms {reason.said}"
    return None


def _cluster_objection(reason: Reason, seen: Observation) -> str | None:
    workload = seen.workload
    if reason.trigger in _METRIC_TRIGGERS:
        return None
    if seen.unseen is not None:
        return f"the agent cannot read the workload ({seen.unseen}), so nothing confirms {reason.said}"
    if reason.trigger is Trigger.BATCH_FAILED:
        if seen.batch is None:
            return f"the batch no longer exists, so nothing confirms {reason.said}" if seen.gone else None
        return contradicts_failure(seen.batch)
    if workload is None:
        return None
    shown = {CONDITION_TRIGGERS[condition] for condition in workload_conditions(workload)}
    whole = workload.rollout_complete and 0 < workload.desired_replicas <= workload.available_replicas
    if reason.trigger in shown or not whole or any(restarting(pod) for pod in workload.pods):
        return None
    return (
        f"the cluster shows {workload.available_replicas} of {workload.desired_replicas} replicas "
        f"available and no such condition, which contradicts {reason.said}"
    )
