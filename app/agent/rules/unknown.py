"""The hypothesis when no rule finds a cause: the known facts, for the on-call engineer."""

from __future__ import annotations

from datetime import datetime

from app.agent.evidence.changes import config_map_of, own_changes, release_of, template_config_of
from app.agent.evidence.cluster.log_patterns import credentials_refused
from app.agent.evidence.cluster.routes import change_in_words, concerning
from app.agent.evidence.conditions import condition_words, workload_conditions
from app.agent.evidence.facts import LOOKBACK, current_revision, in_force_since
from app.agent.evidence.format import relative
from app.agent.evidence.symptoms import (
    CLOCK_TOLERANCE,
    doubt,
    incident_onset,
    now_at,
    reported,
)
from app.agent.models import BURN_ALERT, UNUSUAL_ALERT, Alert, Cause, ChangeKind, Evidence, Hypothesis
from app.lists import some_of

_START = "the incident started"
_MOST = 5
"""At most this many changes are listed."""


def unexplained(evidence: Evidence, best_confidence: float) -> Hypothesis:
    """`UNKNOWN`, with confidence 1 - `best_confidence`."""
    return Hypothesis(
        cause=Cause.UNKNOWN,
        confidence=round(1.0 - best_confidence, 2),
        rule="unknown",
        evidence_for=tuple(_facts(evidence)) or ("no rule found a cause in the evidence",),
    )


def _facts(evidence: Evidence) -> list[str]:
    began = incident_onset(evidence)
    facts = []
    for indicator in reported(evidence):
        value = now_at(evidence, indicator)
        against = doubt(evidence, indicator)
        objective = None if evidence.objectives is None else indicator.objective(evidence.objectives)
        if against is not None:
            facts.append(f"{indicator.name} was reported, but {against}")
        elif value is None:
            facts.append(f"{indicator.name} is above its objective; no value is known")
        elif objective is None or value > objective:
            facts.append(f"{indicator.name} is above its objective; now {indicator.in_words(value)}")
        else:
            facts.append(f"{indicator.name} was above its objective; now {indicator.in_words(value)}")
    facts += [alert.summary for alert in _own_alerts(evidence)]
    facts += _reported_conditions(evidence)
    if evidence.workload is not None and evidence.workload.served_by is not None:
        facts.append(
            f"{evidence.workload.target.ref} has 0 replicas: {evidence.workload.served_by} runs its pods"
        )
    window = [c for c in evidence.changes if began - LOOKBACK <= c.at <= began + CLOCK_TOLERANCE]
    own = [c for c in window if c.key == evidence.key]
    facts += [
        f"{c.kind} change {relative(c.at, began, _START)}: {c.summary}"
        if c.at != began
        else f"{c.kind} change: {c.summary}"
        for c in own[:_MOST]
    ]
    seen = _seen_in_cluster(evidence)
    facts += seen
    if not own and not seen:
        facts.append("no change to the service itself is known around that time")
    others = [c for c in window if c.key != evidence.key and c.at < began]
    facts += [f"{c.key.service} changed {relative(c.at, began, _START)}: {c.summary}" for c in others[:_MOST]]
    if any(c.kind is ChangeKind.FLAG for c in own_changes(evidence, ChangeKind.FLAG)):
        facts.append(
            "a feature flag was changed; the agent reverts only flags in a ConfigMap that the workload names"
        )
    refused = credentials_refused(evidence.log_patterns)
    if refused is not None:
        facts.append(f"{refused}: check whether they were rotated; pods read a Secret as they start")
    beside = sorted(one.key.service for one in evidence.failing_beside if one.unrelated)
    if beside:
        facts.append(f"{', '.join(beside[:_MOST])} fail too, and neither call it nor are called by it")
    if evidence.other_open_incidents:
        names = sorted(str(key) for key in evidence.other_open_incidents)
        facts.append(f"other open incidents: {some_of(names, _MOST)}")
    if evidence.failed_actions:
        facts.append(f"tried without recovery: {', '.join(name.words for name in evidence.failed_actions)}")
    return facts


def _seen_in_cluster(evidence: Evidence) -> list[str]:
    """What changed on the workload itself: its template, a ConfigMap, a restart of its pods."""
    began = incident_onset(evidence)
    candidates = (release_of(evidence) or template_config_of(evidence), config_map_of(evidence))
    facts = []
    for change in candidates:
        if change is not None and change.recent:
            late = ", too late to be its cause" if change.at > began else ""
            facts.append(f"{change.what} was {relative(change.at, began, _START)}{late}")
    facts += [change_in_words(one, evidence) for one in concerning(evidence, (evidence.key.service,))[:_MOST]]
    restarted = _restarted_at(evidence)
    if restarted is not None and began - LOOKBACK <= restarted <= began + CLOCK_TOLERANCE:
        facts.append(
            f"a restart replaced its pods {relative(restarted, began, _START)}: they read the present "
            "content of Secrets and ConfigMaps, and the images that their tags name now"
        )
    return facts


def _restarted_at(evidence: Evidence) -> datetime | None:
    """When the current version was restarted last; None if it was not since its rollout."""
    workload = evidence.workload
    current = None if workload is None else current_revision(workload)
    since = None if workload is None else in_force_since(workload)
    if current is None or since is None or current.created_at <= since:
        return None
    return current.created_at


def _own_alerts(evidence: Evidence) -> list[Alert]:
    """The agent's own alerts about error budget and baseline that fire."""
    found = [s.payload for s in evidence.signals if isinstance(s.payload, Alert)]
    newest = {alert.fingerprint: alert for alert in found if alert.name in (BURN_ALERT, UNUSUAL_ALERT)}
    return [alert for alert in newest.values() if alert.firing]


def _reported_conditions(evidence: Evidence) -> list[str]:
    """Each condition, with the message of the cluster while it is present."""
    workload = evidence.workload
    present = () if workload is None else workload_conditions(workload)
    return [
        f"the cluster reports {one}: {condition_words(workload, one)}"
        if workload is not None and one in present
        else f"the cluster reports {one}"
        for one in evidence.conditions
    ]
