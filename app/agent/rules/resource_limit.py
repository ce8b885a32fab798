"""Rule: containers are OOM-killed since their limits or settings changed; the code did not change."""

from __future__ import annotations

from app.agent.evidence.change_score import accuse
from app.agent.evidence.changes import template_config_of, told_config_of
from app.agent.evidence.facts import Trouble, out_of_memory
from app.agent.evidence.pods import PodWeights
from app.agent.models import ActionName, Cause, Evidence, Hypothesis

_POD_WEIGHTS: PodWeights = {Trouble.OUT_OF_MEMORY: 0.9}


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless containers run out of memory after a configuration change."""
    suspect = template_config_of(evidence) or told_config_of(evidence)
    if suspect is None or not out_of_memory(evidence):
        return None
    weighing = accuse(suspect, evidence, _POD_WEIGHTS, ActionName.REVERT_CONFIG)
    return weighing.hypothesis(Cause.RESOURCE_LIMIT, "resource_limit")
