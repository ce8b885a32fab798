"""Rule: a ConfigMap, a Secret or a key that the pods need no longer exists."""

from __future__ import annotations

from app.agent.evidence.changes import config_map_of
from app.agent.evidence.cluster.blockers import missing_objects
from app.agent.evidence.cluster.introduced import introduced
from app.agent.evidence.conditions import pod_words
from app.agent.evidence.counter_evidence import score_missing_data
from app.agent.evidence.facts import PodFault, current_revision
from app.agent.evidence.pods import faulty, score_same_template
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Condition, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """Names the missing object. A template that introduced the reference is the cause instead."""
    cause_score = CauseScore()
    workload = evidence.workload
    if workload is None:
        if Condition.CREATE_CONTAINER_CONFIG_ERROR not in evidence.conditions:
            return None
        cause_score.add_for(0.6, "CreateContainerConfigError is reported; no cluster connected to confirm it")
    else:
        affected = faulty(workload, PodFault.CONFIGURATION, evidence)
        if not affected:
            return None
        missing = {one for pod in affected for one in missing_objects(pod)}
        words = ", ".join(sorted(f"{one} does not exist" for one in missing)) or pod_words(
            affected[0], evidence.at
        )
        cause_score.add_for(0.85, f"{len(affected)} of {len(workload.pods)} pods cannot start: {words}")
        score_same_template(cause_score, affected, evidence)
        current = current_revision(workload)
        if introduced(evidence, PodFault.CONFIGURATION) and current is not None:
            cause_score.add_against(0.75, f"revision {current.number} introduced the reference to it")
        changed = config_map_of(evidence)
        if changed is not None and any(one.key is not None for one in missing):
            cause_score.add_against(0.6, f"{changed.what} was shortly before and can be reverted")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.MISSING_CONFIGURATION, "missing_configuration")
