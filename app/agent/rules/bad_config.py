"""Rule: a configuration change is the cause; the code did not change."""

from __future__ import annotations

from app.agent.evidence.change_score import score_change
from app.agent.evidence.changes import (
    CandidateChange,
    config_map_of,
    reported_config_of,
    template_config_of,
)
from app.agent.evidence.facts import PodFault, out_of_memory
from app.agent.evidence.pods import PodWeights, changed_pods, sick
from app.agent.evidence.scoring import CauseScore
from app.agent.models import ActionName, Cause, Evidence, Hypothesis

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
    if evidence.workload is not None:
        found = sick(changed_pods(candidate_change, evidence.workload), evidence)
        if found[PodFault.IMAGE]:
            cause_score.add_against(0.8, "its pods cannot pull their image, which configuration does not set")
    return cause_score
