"""Rule: the newest release of the service is the cause, and can be rolled back."""

from __future__ import annotations

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import release_of
from app.agent.evidence.facts import PodFault
from app.agent.evidence.pods import PodWeights, score_migration
from app.agent.models import ActionName, Cause, Evidence, Hypothesis

POD_WEIGHTS: PodWeights = {
    PodFault.IMAGE: 0.9,
    PodFault.CRASH: 0.85,
    PodFault.OUT_OF_MEMORY: 0.8,
    PodFault.START: 0.85,
    PodFault.CONFIGURATION: 0.8,
    PodFault.REGISTRY: 0.8,
    PodFault.UNSCHEDULED: 0.8,
    PodFault.STORAGE: 0.8,
    PodFault.STOPPED: 0.75,
    PodFault.NOT_READY: 0.75,
}
"""The weight of each pod fault as evidence of a bad release."""


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None without a release; an irreversible release is a separate cause."""
    release = release_of(evidence)
    if release is None:
        return None
    cause_score = score_change(release, evidence, POD_WEIGHTS, ActionName.ROLLBACK)
    if release.irreversible:
        cause_score.add_against(0.9, "it is marked irreversible: older code cannot run after it")
    score_migration(cause_score, evidence)
    return cause_score.hypothesis(Cause.BAD_RELEASE, "bad_release")
