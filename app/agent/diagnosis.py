"""Diagnose: rank the causes that the rules find; say so when none of them is good enough.

Pure. The loop calls `diagnose` on gathered evidence; the planner acts on the
best hypothesis alone. A wrong guess leads to a harmful action, so that doubt
ends in `UNKNOWN`, never in the likeliest of several bad explanations.
"""

from __future__ import annotations

from dataclasses import replace

from app.agent.evidence.symptoms import METRIC_TRIGGERS, doubt, reported
from app.agent.guardrails.state_change import fingerprint_of
from app.agent.models import Cause, Diagnosis, Evidence, Hypothesis
from app.agent.rules import RULES, unexplained

FLOOR = 0.5
"""Below it a cause is mentioned, but the diagnosis is UNKNOWN."""

_LEFT_BY_MEASUREMENT = 0.1
"""The share of a confidence that is left where the agent's own measurement speaks against every symptom."""

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
    found = [_measured_against(h, evidence) for rule in RULES if (h := rule(evidence)) is not None]
    best = max((h.confidence for h in found), default=0.0)
    if best < FLOOR or not evidence.triggers:
        found.append(unexplained(evidence, best if evidence.triggers else 0.0))
    ranked = tuple(sorted(found, key=_rank))
    return Diagnosis(hypotheses=ranked, at=evidence.at, fingerprint=fingerprint_of(evidence, ranked[0].cause))


def _measured_against(hypothesis: Hypothesis, evidence: Evidence) -> Hypothesis:
    """The hypothesis after the agent's own measurement of the symptoms that the incident is about.

    It outranks what was posted: where every symptom is measured to be inside its
    objective, or on too little traffic to tell, no cause of it is believed.
    """
    told = [text for i in reported(evidence) if (text := doubt(evidence, i)) is not None]
    if not told or hypothesis.cause is Cause.TELEMETRY_OUTAGE:
        return hypothesis
    other_symptoms = set(evidence.triggers) - METRIC_TRIGGERS
    every = len(told) == len(reported(evidence)) and not other_symptoms
    return replace(
        hypothesis,
        confidence=round(hypothesis.confidence * _LEFT_BY_MEASUREMENT, 2) if every else hypothesis.confidence,
        evidence_against=(*hypothesis.evidence_against, *told),
    )


def _rank(hypothesis: Hypothesis) -> tuple[float, int, str]:
    return -hypothesis.confidence, _SAFEST_FIRST.index(hypothesis.cause), hypothesis.rule
