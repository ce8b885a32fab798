"""Rule: the pods run, and their probes fail without a change of the service."""

from __future__ import annotations

from app.agent.evidence.changes import release_of, template_config_of
from app.agent.evidence.cluster.blockers import probe_failures
from app.agent.evidence.cluster.node_neighbours import failing_with
from app.agent.evidence.counter_evidence import proved_at, score_missing_data
from app.agent.evidence.facts import (
    PodFault,
    changed_fields,
    current_revision,
    pod_fault,
    reference_revision,
    unhealthy_dependencies,
)
from app.agent.evidence.pods import failing_node
from app.agent.evidence.scoring import CauseScore
from app.agent.evidence.symptoms import TRAFFIC, rise
from app.agent.models import Cause, Evidence, Hypothesis
from app.agent.workload import PodView, WorkloadView

_PROBED = frozenset({PodFault.NOT_READY, PodFault.CRASH})


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """With the numbers of the failures. A recent change, a dependency or load explains them better."""
    workload = evidence.workload
    affected = () if workload is None else _probed(workload, evidence)
    if workload is None or not affected:
        return None
    cause_score = CauseScore()
    words = "; ".join(str(one) for one in probe_failures(affected[0]))
    cause_score.add_for(0.6, f"{len(affected)} of {len(workload.pods)} pods are not ready: {words}")
    own = release_of(evidence) or template_config_of(evidence)
    current, before = current_revision(workload), reference_revision(evidence)
    fields = () if current is None or before is None else changed_fields(current, before)
    if own is None or not own.recent:
        cause_score.add_for(0.3, "no recent change to the service itself is known")
    elif any("Probe of " in name for name in fields):
        cause_score.add_against(0.8, f"{own.what} changed the probe")
    elif proved_at(own, evidence) is not None:
        cause_score.add_for(0.2, f"{own.what} was before, and served well since")
    else:
        cause_score.add_against(0.6, f"{own.what} was shortly before")
    down = [one.service for one in unhealthy_dependencies(evidence)]
    if down:
        cause_score.add_against(0.6, f"{', '.join(down)}, a dependency, is unhealthy too")
    if rise(evidence, TRAFFIC) is not None:
        cause_score.add_against(0.4, "the request rate rose, which slows probes down too")
    node = failing_node(workload.pods, evidence)
    if node is not None and failing_with(node, evidence):
        cause_score.add_against(0.6, f"pods of other services fail on node {node} too")
    score_missing_data(cause_score, evidence)
    return cause_score.hypothesis(Cause.PROBE_FAILURE, "probe_failure")


def _probed(workload: WorkloadView, evidence: Evidence) -> tuple[PodView, ...]:
    """The pods that run without getting ready or are restarted, with failures of a probe."""
    return tuple(
        pod for pod in workload.pods if pod_fault(pod, evidence.at) in _PROBED and probe_failures(pod)
    )
