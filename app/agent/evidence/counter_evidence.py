"""Counter-evidence: findings that make a candidate change a less likely cause.

Each finding is another explanation for the same symptoms. Where the pods with the
change are unhealthy, findings elsewhere count for less.
"""

from __future__ import annotations

from datetime import datetime

from app.agent.evidence.changes import Suspect, own_changes
from app.agent.evidence.facts import (
    Trouble,
    config_map_changes,
    current_pods,
    current_revision,
    health_of,
    in_force_since,
    same_version,
)
from app.agent.evidence.format import relative, span
from app.agent.evidence.pods import pods_are_sick, sick, suspect_pods
from app.agent.evidence.scoring import Weighing
from app.agent.evidence.symptoms import (
    CLOCK_SLACK,
    METRIC_TRIGGERS,
    TRAFFIC,
    rise,
    trouble_began,
)
from app.agent.models import ActionName, ChangeKind, Evidence
from app.agent.workload import RevisionHealth

_CROWD = 3
"""This many other unhealthy services suggest a shared cause."""


def weigh_alibis(weighing: Weighing, suspect: Suspect, evidence: Evidence) -> None:
    """Apply every other explanation for the symptoms to the change's score."""
    _dependencies(weighing, suspect, evidence)
    _later_changes(weighing, suspect, evidence)
    _served_before(weighing, suspect, evidence)
    _all_well(weighing, evidence)
    if not pods_are_sick(suspect, evidence):
        _traffic(weighing, suspect, evidence)
        _crowd(weighing, evidence)
    weigh_blindness(weighing, evidence)


def weigh_tried(weighing: Weighing, action: ActionName, evidence: Evidence) -> None:
    """The remedy for this cause failed on this incident, which makes the cause less likely."""
    if action in evidence.failed_actions:
        weighing.speaks_against(0.9, f"{action} was tried on this incident and did not help")


def weigh_blindness(weighing: Weighing, evidence: Evidence) -> None:
    """Reduce confidence where data is missing, stale or unreliable."""
    if evidence.telemetry is not None and evidence.telemetry.outage:
        weighing.speaks_against(0.6, "telemetry outage: its measurements are not reliable")
    if evidence.workload is None:
        weighing.speaks_against(0.1, "no workload data from a cluster")
    if evidence.signals and all(s.stale for s in evidence.signals):
        oldest = min(s.observed_at for s in evidence.signals)
        weighing.speaks_against(
            0.1, f"every signal was stale on arrival; the oldest is {span(evidence.at - oldest)} old"
        )


def _dependencies(weighing: Weighing, suspect: Suspect, evidence: Evidence) -> None:
    down = sorted(d for d in evidence.dependencies if d in evidence.other_open_incidents)
    if down:
        names = ", ".join(d.service for d in down)
        weighing.speaks_against(
            _dependency_weight(suspect, evidence), f"{names}, a dependency, is unhealthy too"
        )
    began = trouble_began(evidence)
    changed = [c for c in evidence.changes if c.key in evidence.dependencies and suspect.at < c.at < began]
    if changed and not pods_are_sick(suspect, evidence):
        first = changed[0]
        when = relative(first.at, suspect.at)
        weighing.speaks_against(0.35, f"{first.key.service}, a dependency, changed {when}: {first.summary}")


def _dependency_weight(suspect: Suspect, evidence: Evidence) -> float:
    """A dependency explains errors, less so crashes at start, and not an image that cannot be pulled."""
    if evidence.workload is None or not pods_are_sick(suspect, evidence):
        return 0.6
    found = sick(suspect_pods(suspect, evidence.workload), evidence)
    if found[Trouble.IMAGE] or found[Trouble.CONFIGURATION]:
        return 0.05
    return 0.55


def _later_changes(weighing: Weighing, suspect: Suspect, evidence: Evidence) -> None:
    if suspect.stuck:
        return
    began = trouble_began(evidence)
    between = [
        (at, told) for at, told in _changes_beside(suspect, evidence) if suspect.at + CLOCK_SLACK < at < began
    ]
    if between:
        at, told = max(between)
        found = f"another change was {relative(at, suspect.at)}, closer to the start of the incident: {told}"
        weighing.speaks_against(0.5, found)


def _changes_beside(suspect: Suspect, evidence: Evidence) -> list[tuple[datetime, str]]:
    """Other changes of the service, as reported and as seen in the cluster."""
    if suspect.in_template:
        reported = own_changes(evidence, *(set(ChangeKind) - {ChangeKind.DEPLOY}))
        seen = [(c.at, f"ConfigMap {c.view.name}") for c in config_map_changes(evidence)]
    else:
        reported = own_changes(evidence, ChangeKind.DEPLOY, ChangeKind.FLAG, ChangeKind.SCALE)
        since = None if evidence.workload is None else in_force_since(evidence.workload)
        seen = [] if since is None else [(since, "a new revision")]
    return [(c.at, c.summary) for c in reported] + seen


def _served_before(weighing: Weighing, suspect: Suspect, evidence: Evidence) -> None:
    if evidence.workload is None or not suspect.in_template:
        return
    current = current_revision(evidence.workload)
    if current is None:
        return
    health = health_of(evidence, current)
    if health is RevisionHealth.FAILED:
        weighing.speaks_for(0.4, f"revision {current.number} failed before")
        return
    same = {r.template_hash for r in evidence.workload.revisions if same_version(r, current)}
    good = [
        r.seen_at
        for r in evidence.revision_history
        if r.key == evidence.key
        and r.template_hash in same
        and r.health is RevisionHealth.SERVED_WELL
        and suspect.at < r.seen_at < trouble_began(evidence)
    ]
    if good:
        weighing.speaks_against(
            0.4, f"revision {current.number} was healthy for {span(max(good) - suspect.at)}"
        )


def _all_well(weighing: Weighing, evidence: Evidence) -> None:
    workload = evidence.workload
    if workload is None or evidence.conditions or not METRIC_TRIGGERS.isdisjoint(evidence.triggers):
        return
    pods = current_pods(workload)
    if workload.rollout_complete and pods and all(p.ready for p in pods):
        weighing.speaks_against(0.7, f"the rollout is complete and all {len(pods)} pods are ready")


def _traffic(weighing: Weighing, suspect: Suspect, evidence: Evidence) -> None:
    surge = rise(evidence, TRAFFIC)
    if surge is not None and suspect.at < surge.at <= trouble_began(evidence):
        told = (
            f"request rate went from {TRAFFIC.spoken(surge.base)} to {TRAFFIC.spoken(surge.level)} in between"
        )
        weighing.speaks_against(0.4, told)


def _crowd(weighing: Weighing, evidence: Evidence) -> None:
    others = [k for k in evidence.other_open_incidents if k not in evidence.dependencies]
    if len(others) >= _CROWD:
        weighing.speaks_against(0.1, f"{len(others)} other services are unhealthy at the same time")
