"""Diagnose: rank the causes that the rules find; say so when none of them is good enough.

Pure. The loop calls `diagnose` on gathered evidence; the planner acts on the
best hypothesis alone. A wrong guess leads to a harmful action, so that doubt
ends in `UNKNOWN`, never in the likeliest of several bad explanations.
"""

from __future__ import annotations

from app.agent.models import Cause, Diagnosis, Evidence, Hypothesis
from app.agent.passage import fingerprint_of
from app.agent.rules import RULES, unexplained

FLOOR = 0.5
"""Below it a cause is mentioned, but the diagnosis is UNKNOWN."""

_SAFEST_FIRST = (
    Cause.TELEMETRY_OUTAGE,
    Cause.IRREVERSIBLE_RELEASE,
    Cause.UNKNOWN,
    Cause.NODE_FAILURE,
    Cause.DEPENDENCY_FAILURE,
    Cause.TRAFFIC_SURGE,
    Cause.MEMORY_LEAK,
    Cause.RESOURCE_LIMIT,
    Cause.BAD_CONFIG,
    Cause.BAD_RELEASE,
)
"""Among equals the cause whose remedy can do least harm comes first."""


def diagnose(evidence: Evidence) -> Diagnosis:
    """Every hypothesis of every rule, best first; `UNKNOWN` leads when none reaches the floor."""
    found = [h for rule in RULES if (h := rule(evidence)) is not None]
    best = max((h.confidence for h in found), default=0.0)
    if best < FLOOR or not evidence.triggers:
        found.append(unexplained(evidence, best if evidence.triggers else 0.0))
    ranked = tuple(sorted(found, key=_rank))
    return Diagnosis(hypotheses=ranked, at=evidence.at, fingerprint=fingerprint_of(evidence, ranked[0].cause))


def _rank(hypothesis: Hypothesis) -> tuple[float, int, str]:
    return -hypothesis.confidence, _SAFEST_FIRST.index(hypothesis.cause), hypothesis.rule
