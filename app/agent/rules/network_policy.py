"""Rule: a NetworkPolicy blocks requests to the service or to its callees."""

from __future__ import annotations

from app.agent.evidence.cluster.route_score import score_against_routes, score_routes, shows_routes
from app.agent.models import Cause, Evidence, Hypothesis


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless one was changed just before the symptom so that it can drop requests."""
    if not shows_routes(evidence):
        return None
    cause_score = score_routes(Cause.NETWORK_POLICY, evidence)
    if not cause_score.grounds:
        return None
    score_against_routes(cause_score, evidence)
    return cause_score.hypothesis(Cause.NETWORK_POLICY, "network_policy")
