"""Rule: a configuration change is the cause; the code did not change."""

from __future__ import annotations

from app.agent.evidence.change_score import accuse
from app.agent.evidence.changes import (
    Suspect,
    config_map_of,
    template_config_of,
    told_config_of,
)
from app.agent.evidence.facts import Trouble, out_of_memory
from app.agent.evidence.pods import PodWeights, sick, suspect_pods
from app.agent.evidence.scoring import Weighing
from app.agent.models import ActionName, Cause, Evidence, Hypothesis

_POD_WEIGHTS: PodWeights = {
    Trouble.CONFIGURATION: 0.85,
    Trouble.CRASH: 0.8,
    Trouble.OUT_OF_MEMORY: 0.7,
    Trouble.NOT_READY: 0.6,
}


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """The most likely of: template configuration, a ConfigMap, a reported change (without a cluster)."""
    suspects = (template_config_of(evidence), config_map_of(evidence), told_config_of(evidence))
    weighed = [_weigh(s, evidence) for s in suspects if s is not None]
    best = max(weighed, key=lambda w: w.confidence, default=None)
    return best.hypothesis(Cause.BAD_CONFIG, "bad_config") if best is not None else None


def _weigh(suspect: Suspect, evidence: Evidence) -> Weighing:
    weighing = accuse(suspect, evidence, _POD_WEIGHTS, ActionName.REVERT_CONFIG)
    if out_of_memory(evidence) and suspect.in_template:
        weighing.speaks_against(0.5, "its pods run out of memory: a memory limit is more likely")
    if evidence.workload is not None:
        found = sick(suspect_pods(suspect, evidence.workload), evidence)
        if found[Trouble.IMAGE]:
            weighing.speaks_against(0.8, "its pods cannot pull their image, which configuration does not set")
    return weighing
