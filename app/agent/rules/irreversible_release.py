"""Rule: the newest release is the cause but must not be rolled back; people decide."""

from __future__ import annotations

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import release_of
from app.agent.models import ActionName, Cause, Evidence, Hypothesis
from app.agent.rules.bad_release import POD_WEIGHTS


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """Only for a release that the cluster or the pipeline marks as irreversible."""
    release = release_of(evidence)
    if release is None or not release.irreversible:
        return None
    cause_score = score_change(release, evidence, POD_WEIGHTS, ActionName.ROLLBACK)
    if cause_score.grounds:
        cause_score.add_for(0.3, "the release is marked irreversible")
    return cause_score.hypothesis(Cause.IRREVERSIBLE_RELEASE, "irreversible_release")
