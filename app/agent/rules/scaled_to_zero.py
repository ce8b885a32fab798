"""Rule: the workload was scaled to zero, so nothing serves."""

from __future__ import annotations

from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.format import relative
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import incident_onset
from app.agent.models import Cause, Evidence, Hypothesis
from app.agent.workload import WorkloadView


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """With author and time. None if another object runs the pods in its place: this is not an outage."""
    workload = evidence.workload
    if workload is None or workload.desired_replicas > 0 or workload.served_by is not None:
        return None
    cause_score = CauseScore()
    cause_score.add_for(0.9, f"{workload.target.ref} is scaled to zero{_by(workload, evidence)}")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.SCALED_TO_ZERO, "scaled_to_zero")


def _by(workload: WorkloadView, evidence: Evidence) -> str:
    scaler = next((one for one in workload.autoscalers if one.minimum == 0), None)
    change = workload.scaled
    said = "" if change is None else f" by {change.by or 'an author that the cluster does not record'}"
    if change is not None and change.at is not None:
        when = relative(change.at, incident_onset(evidence), "the incident started")
        said += f" since {change.at:%Y-%m-%d %H:%M:%S} UTC, {when}"
    return said if scaler is None else f"{said}; {scaler} may scale it to zero"
