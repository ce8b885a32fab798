"""Whether a diagnosis is too early to act on: a symptom that may end by itself gets a bounded time. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.evidence.changes import release_of, template_config_of
from app.agent.evidence.conditions import pod_words, waits_until
from app.agent.evidence.facts import STARTING, current_pods, initialising, older_pods, pod_fault
from app.agent.evidence.format import share
from app.agent.evidence.onset.alignment import began_with_rollout
from app.agent.evidence.onset.departure import departure_of, returned_at
from app.agent.evidence.onset.shown_by_release import may_be_of_release, shown_by_release
from app.agent.evidence.symptoms import (
    ERROR_RATE,
    FRESH,
    LATENCY,
    METRIC_TRIGGERS,
    SymptomIndicator,
    breached,
    now_at,
    points_of,
)
from app.agent.models import Cause, Diagnosis, Evidence, Trigger
from app.durations import span

WARM_UP = timedelta(minutes=3)
"""New pods fill their caches and compile their code in this time; going back would start cold pods again."""

LASTS = timedelta(seconds=75)
"""An error rate that left its usual level more recently may be a short breach, seen through a window."""

RELEASE_LOOK = timedelta(seconds=10)
"""The wait before a symptom that a release may have caused is evaluated again."""

FALLING_LOOK = timedelta(seconds=30)
"""How long a symptom that falls is given before it is looked at again."""

FALLING_LONGEST = timedelta(minutes=3)
"""A symptom that still comes and goes so long after the incident was opened is not waited out."""

LONGEST = timedelta(minutes=10)
"""After this time since the opening of the incident the agent no longer waits: pods that repeatedly become
ready, or a symptom that repeatedly begins, would renew every wait."""

PREPARATION_SHARE = 0.5
"""The share of its rollout's progress deadline that an init container that runs is given."""

LONGEST_PREPARATION = timedelta(minutes=30)
"""The longest wait for an init container, regardless of the progress deadline."""

PREPARATION_LOOK = timedelta(seconds=30)
"""How long a rollout with such an init container is given before it is looked at again."""

_LOOK_BACK = timedelta(seconds=60)
_FALLEN_TO = 0.75
"""A symptom falls where its newest value is at most this share of the highest one of the last minute."""

_MOST_FAIL = 0.8
"""If more requests than this fail, a cold start does not justify a wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """Until when the agent decides nothing, and why."""

    until: datetime
    waits_for: str
    """A word for the record: the same wait is reported once."""
    why: str
    look_at: datetime | None = None
    """When to look again before `until`, because the evidence may be complete by then; None: not before."""


def patience(evidence: Evidence, diagnosis: Diagnosis) -> Patience | None:
    """The current wait; None if the incident can be decided."""
    preparing = _preparing(evidence)
    if preparing is not None and evidence.at < preparing.until:
        return preparing
    if evidence.at - evidence.opened_at >= LONGEST:
        return None
    if diagnosis.best.cause is Cause.REGISTRY_FAILURE:
        found = [_registry(evidence, diagnosis)]
    else:
        found = [
            _short(evidence, diagnosis),
            _falling(evidence),
            _warming_up(evidence),
            _replaced(evidence, diagnosis),
        ]
    return next((one for one in found if one is not None and evidence.at < one.until), None)


def _preparing(evidence: Evidence) -> Patience | None:
    """Running init containers may load data for minutes: harmless while pods of the previous version serve.

    Only if nothing else is wrong, and well before the cluster itself aborts the rollout.
    """
    workload = evidence.workload
    if workload is None or {*evidence.triggers} != {Trigger.PODS_UNAVAILABLE}:
        return None
    if any(_outside_now(evidence, one) for one in (ERROR_RATE, LATENCY)):
        return None
    waits = [pod for pod in workload.pods if initialising(pod, evidence.at) is not None]
    others = [pod for pod in workload.pods if pod not in waits and pod_fault(pod, evidence.at) is not None]
    serves = any(pod.ready for pod in older_pods(workload))
    if not waits or others or not serves or any(pod.restarts for pod in waits):
        return None
    granted = timedelta(seconds=workload.progress_deadline_seconds) * PREPARATION_SHARE
    return Patience(
        until=min(pod.created_at for pod in waits) + min(granted, LONGEST_PREPARATION),
        look_at=evidence.at + PREPARATION_LOOK,
        waits_for="init containers",
        why=f"{pod_words(waits[0], evidence.at)}; pods of the version before serve. Waiting for its end",
    )


def _replaced(evidence: Evidence, diagnosis: Diagnosis) -> Patience | None:
    """The reported pods are gone, and their replacements are too young to be evaluated."""
    workload = evidence.workload
    if workload is None or diagnosis.best.cause is not Cause.UNKNOWN:
        return None
    if METRIC_TRIGGERS.issuperset(evidence.triggers):
        return None
    if any(pod_fault(pod, evidence.at) is not None for pod in workload.pods):
        return None
    young = [pod for pod in current_pods(workload) if not (pod.ready or pod.leftover)]
    if not young:
        return None
    return Patience(
        until=max(pod.created_at for pod in young) + STARTING,
        look_at=evidence.at + RELEASE_LOOK,
        waits_for="new pods",
        why=f"no pod fails now, and pod {young[0].name} has just started. Waiting to see whether it serves",
    )


def _registry(evidence: Evidence, diagnosis: Diagnosis) -> Patience | None:
    """A registry that does not answer may come back."""
    until = None if evidence.workload is None else waits_until(evidence.workload)
    if until is None:
        return None
    why = f"{diagnosis.best.evidence_for[0]}. Waiting for the registry"
    return Patience(until=until, waits_for="registry", why=why)


def _short(evidence: Evidence, diagnosis: Diagnosis) -> Patience | None:
    """A breach that has not lasted: a percentile stays high for the whole window of a measurement.

    For a service that was degraded before, it may be another symptom that has just begun. Errors that a
    release clearly caused do not end by themselves.
    """
    outside = [one for one in (ERROR_RATE, LATENCY) if _outside_now(evidence, one)]
    again = {one: at for one in outside if (at := returned_at(evidence, one)) is not None}
    left = {one: found.by for one in outside if (found := departure_of(evidence, one)) is not None}
    begun = min((left | again).values(), default=None)
    if begun is None or not METRIC_TRIGGERS.issuperset(evidence.triggers):
        return None
    if not again and shown_by_release(evidence, diagnosis):
        return None
    until = begun + (LASTS if ERROR_RATE in outside else LASTS + _LOOK_BACK)
    return Patience(
        until=until,
        look_at=min(until, evidence.at + RELEASE_LOOK) if may_be_of_release(evidence, diagnosis) else None,
        waits_for="duration",
        why=f"{' and '.join(one.name for one in outside)} rose {span(evidence.at - begun)} ago. "
        "Waiting to see whether it lasts",
    )


def _outside_now(evidence: Evidence, indicator: SymptomIndicator) -> bool:
    """Whether the newest value is outside the objective, regardless of the trigger of the incident."""
    objective = None if evidence.objectives is None else indicator.objective(evidence.objectives)
    points = points_of(evidence, indicator)
    return objective is not None and bool(points) and points[-1][1] > objective


def _falling(evidence: Evidence) -> Patience | None:
    """A measurement over a window shows a short breach for longer than it lasted, and falling at its end."""
    if not METRIC_TRIGGERS.issuperset(evidence.triggers):
        return None
    if evidence.at - evidence.opened_at >= FALLING_LONGEST:
        return None
    rates = [indicator for indicator in breached(evidence) if indicator is ERROR_RATE]
    # A percentile does not fall before the slow requests have left the window: errors tell earlier.
    falls = [_fall(evidence, indicator) for indicator in rates or breached(evidence)]
    words = [one for one in falls if one is not None]
    if not words or len(words) < len(falls):
        return None
    return Patience(
        until=evidence.at + FALLING_LOOK,
        waits_for="falling",
        why=f"{' and '.join(words)}: the symptom falls. Waiting for its end",
    )


def _fall(evidence: Evidence, indicator: SymptomIndicator) -> str | None:
    """How an indicator falls, in words; None if it does not, or if that is not known."""
    recent = [
        (at, value)
        for at, value in points_of(evidence, indicator)
        if evidence.at - FRESH <= at <= evidence.at
    ]
    if not recent:
        return None
    newest_at, newest = recent[-1]
    highest = max(value for at, value in recent if newest_at - at <= _LOOK_BACK)
    if newest > highest * _FALLEN_TO:
        return None
    return f"{indicator.name} fell from {indicator.in_words(highest)} to {indicator.in_words(newest)}"


def _warming_up(evidence: Evidence) -> Patience | None:
    """Slow answers that began in the first minutes of new pods may come from cold caches."""
    workload = evidence.workload
    if workload is None or not METRIC_TRIGGERS.issuperset(evidence.triggers):
        return None
    if LATENCY not in breached(evidence):
        return None
    own = release_of(evidence) or template_config_of(evidence)
    pods = current_pods(workload)
    ready = [pod.ready_changed_at for pod in pods if pod.ready and pod.ready_changed_at is not None]
    if own is None or len(ready) < len(pods) or not began_with_rollout(own, evidence):
        return None
    failing = now_at(evidence, ERROR_RATE) or 0.0
    if failing > _MOST_FAIL:
        return None
    youngest = max(ready)
    return Patience(
        until=youngest + WARM_UP,
        waits_for="warm-up",
        why=f"all {len(pods)} pods are at most {span(evidence.at - min(ready))} old and answer slowly, "
        f"{share(failing)} of the requests fail. Waiting for caches to fill",
    )
