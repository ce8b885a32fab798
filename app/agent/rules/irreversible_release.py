"""Rule: the newest release is the cause but must not be rolled back; people decide."""

from __future__ import annotations

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import release_of
from app.agent.evidence.conditions import pod_words
from app.agent.evidence.facts import current_revision, migrating
from app.agent.models import ActionName, Cause, Evidence, Hypothesis
from app.agent.rules.bad_release import POD_WEIGHTS


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """For a release that is marked as irreversible, or whose migration of data ran or does not end."""
    release, moving = release_of(evidence), migrating(evidence.workload, evidence.at)
    if release is None or not (release.irreversible or moving):
        return None
    cause_score = score_change(release, evidence, POD_WEIGHTS, ActionName.ROLLBACK)
    if cause_score.grounds and release.irreversible:
        cause_score.add_for(0.3, f"the release {_barrier(evidence)}")
    if cause_score.grounds and moving is not None:
        cause_score.add_for(0.3, f"{pod_words(moving, evidence.at)}, and it seems to migrate data")
    return cause_score.hypothesis(Cause.IRREVERSIBLE_RELEASE, "irreversible_release")


def _barrier(evidence: Evidence) -> str:
    """Why, in words, by the newest revision; a report only says that it is so."""
    current = None if evidence.workload is None else current_revision(evidence.workload)
    return (current and current.barrier) or "is marked irreversible"
