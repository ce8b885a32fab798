"""Rule: a configuration change is the cause; the code did not change."""

from __future__ import annotations

import re

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import (
    CandidateChange,
    config_map_of,
    reported_config_of,
    template_config_of,
)
from app.agent.evidence.cluster.log_patterns import credentials_refused
from app.agent.evidence.facts import (
    PodFault,
    current_revision,
    moved_digests,
    out_of_memory,
    reference_revision,
    runs_the_same,
)
from app.agent.evidence.pods import PodWeights, changed_pods, fault_counts, score_migration
from app.agent.evidence.scoring import CauseScore
from app.agent.models import ActionName, Cause, Evidence, Hypothesis
from app.agent.workload import WorkloadView

_POD_WEIGHTS: PodWeights = {
    PodFault.CONFIGURATION: 0.85,
    PodFault.CRASH: 0.8,
    PodFault.START: 0.8,
    PodFault.UNSCHEDULED: 0.85,
    PodFault.STORAGE: 0.85,
    PodFault.STOPPED: 0.7,
    PodFault.OUT_OF_MEMORY: 0.7,
    PodFault.NOT_READY: 0.6,
}

_MUTABLE = re.compile(r"(?:^|/)[^/:@]+(?::latest)?$")
"""An image without a tag, or with the tag that a registry moves with every push."""


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """The most likely of: template configuration, a ConfigMap, a reported change (without a cluster)."""
    candidate_changes = (template_config_of(evidence), config_map_of(evidence), reported_config_of(evidence))
    with_answer = [_weigh(s, evidence) for s in candidate_changes if s is not None]
    best = max(with_answer, key=lambda w: w.confidence, default=None)
    return best.hypothesis(Cause.BAD_CONFIG, "bad_config") if best is not None else None


def _weigh(candidate_change: CandidateChange, evidence: Evidence) -> CauseScore:
    cause_score = score_change(candidate_change, evidence, _POD_WEIGHTS, ActionName.REVERT_CONFIG)
    if out_of_memory(evidence) and candidate_change.in_template:
        cause_score.add_against(0.5, "its pods run out of memory: a memory limit is more likely")
    if candidate_change.in_template:
        score_migration(cause_score, evidence)
    refused = credentials_refused(evidence.log_patterns)
    if refused is not None and not candidate_change.in_template:
        cause_score.add_against(0.6, f"{refused}: a password may have been changed at that system")
    moved = _moved_tag(evidence.workload, evidence) if candidate_change.in_template else None
    if moved is not None:
        cause_score.add_against(
            0.7, f"only annotations differ, and {moved}: going back would pull the same image again"
        )
    if evidence.workload is not None:
        found = fault_counts(changed_pods(candidate_change, evidence.workload), evidence)
        if found[PodFault.IMAGE]:
            cause_score.add_against(0.8, "its pods cannot pull their image, which configuration does not set")
    return cause_score


def _moved_tag(workload: WorkloadView | None, evidence: Evidence) -> str | None:
    """Why the image may differ although only annotations changed; None if there is no sign of it."""
    current = None if workload is None else current_revision(workload)
    before = reference_revision(evidence)
    if workload is None or current is None or before is None or not runs_the_same(before, current):
        return None
    if moved_digests(before, current, workload) is not None:
        return "a tag was moved between the two revisions"
    mutable = [image for image in current.images if _MUTABLE.search(image)]
    return f"{mutable[0]} may be another image since then" if mutable else None
