"""Rule: a Service or an Ingress sends requests to no pod of the workload, whose pods are ready."""

from __future__ import annotations

from app.agent.evidence.changes import release_of, template_config_of
from app.agent.evidence.cluster.route_score import score_against_routes, score_routes, shows_routes
from app.agent.evidence.cluster.routes import routes_of, standing_faults
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis
from app.agent.routes import RouteEffect

_FAULT = 0.6
_WITH_RELEASE = 0.7
_LISTED = 3


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """None unless one sends requests nowhere, or was changed just before the symptom so that it can."""
    if not shows_routes(evidence):
        return None
    cause_score = score_routes(Cause.SERVICE_ROUTING, evidence)
    _score_faults(cause_score, evidence)
    if not cause_score.grounds:
        return None
    score_against_routes(cause_score, evidence)
    return cause_score.hypothesis(Cause.SERVICE_ROUTING, "service_routing")


def _score_faults(cause_score: CauseScore, evidence: Evidence) -> None:
    """A release may bring other labels or ports than its Service asks for: then it is the cause."""
    faults = standing_faults(evidence)
    for place, fault in enumerate(faults[:_LISTED]):
        weight = _FAULT if place == 0 else 0.0
        cause_score.add_for(weight, f"{fault} {fault.words}, while its pods are ready")
    own = release_of(evidence) or template_config_of(evidence)
    if not faults or own is None or not own.recent:
        return
    cut = {str(one) for one in routes_of(evidence).changes if one.effect is RouteEffect.CUTS}
    if not any(str(fault) in cut for fault in faults):
        cause_score.add_against(_WITH_RELEASE, f"{own.what} is newer than the last change of the Service")
