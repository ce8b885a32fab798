"""Diagnose: rank the causes that the rules find; `UNKNOWN` if none is confident enough.

Pure. The loop calls `diagnose` on collected evidence; the planner acts only on the
best hypothesis. A wrong cause leads to a harmful action, so low confidence results
in `UNKNOWN`, not in the most likely of several weak causes.
"""

from __future__ import annotations

from dataclasses import replace

from app.agent.evidence.fingerprint import fingerprint_of
from app.agent.evidence.symptoms import METRIC_TRIGGERS, doubt, reported
from app.agent.localisation.dependencies import LocatedSymptom, locate
from app.agent.models import Cause, Diagnosis, Evidence, Hypothesis
from app.agent.rules import RULES, unexplained

FLOOR = 0.5
"""Below this confidence a cause is listed, but the diagnosis is UNKNOWN."""

_LEFT_BY_MEASUREMENT = 0.1
"""The factor on a confidence where the agent's own measurement contradicts every symptom."""

_SAFEST_FIRST = (
    Cause.TELEMETRY_OUTAGE,
    Cause.IRREVERSIBLE_RELEASE,
    Cause.SCALED_TO_ZERO,
    Cause.UNKNOWN,
    Cause.NODE_FAILURE,
    Cause.ADMISSION_REFUSAL,
    Cause.SCHEDULING_FAILURE,
    Cause.STORAGE_FAILURE,
    Cause.REGISTRY_FAILURE,
    Cause.MISSING_CONFIGURATION,
    Cause.PROBE_FAILURE,
    Cause.BATCH_FAILURE,
    Cause.SERVICE_ROUTING,
    Cause.NETWORK_POLICY,
    Cause.DEPENDENCY_FAILURE,
    Cause.SCALED_TOO_LOW,
    Cause.TRAFFIC_SURGE,
    Cause.MEMORY_LEAK,
    Cause.RESOURCE_LIMIT,
    Cause.BAD_CONFIG,
    Cause.BAD_RELEASE,
)
"""At equal confidence the cause with the least harmful remedy comes first."""


_REMEDIED_AT_THE_SERVICE = frozenset(
    {
        Cause.BAD_RELEASE,
        Cause.BAD_CONFIG,
        Cause.RESOURCE_LIMIT,
        Cause.MEMORY_LEAK,
        Cause.SCALED_TOO_LOW,
        Cause.TRAFFIC_SURGE,
    }
)
"""Causes whose remedy changes the service of the incident."""


def diagnose(evidence: Evidence) -> Diagnosis:
    """The hypotheses of all rules, best first; `UNKNOWN` comes first when none reaches the floor."""
    found = [_measured_against(h, evidence) for rule in RULES if (h := rule(evidence)) is not None]
    located = locate(evidence)
    if located is not None and located.key != evidence.key and METRIC_TRIGGERS.issuperset(evidence.triggers):
        found = [_located_elsewhere(h, located) for h in found]
    best = max((h.confidence for h in found), default=0.0)
    if best < FLOOR or not evidence.triggers:
        found.append(unexplained(evidence, best if evidence.triggers else 0.0))
    ranked = tuple(sorted(found, key=_rank))
    return Diagnosis(hypotheses=ranked, at=evidence.at, fingerprint=fingerprint_of(evidence, ranked[0].cause))


def _measured_against(hypothesis: Hypothesis, evidence: Evidence) -> Hypothesis:
    """The hypothesis adjusted by the agent's own measurement of the incident's symptoms.

    Measurements outrank pushed samples: if every symptom is measured within its
    objective, or has too little traffic, the confidence of its causes is reduced.
    """
    doubts = [text for i in reported(evidence) if (text := doubt(evidence, i)) is not None]
    if not doubts or hypothesis.cause is Cause.TELEMETRY_OUTAGE:
        return hypothesis
    other_symptoms = set(evidence.triggers) - METRIC_TRIGGERS
    every = len(doubts) == len(reported(evidence)) and not other_symptoms
    return replace(
        hypothesis,
        confidence=round(hypothesis.confidence * _LEFT_BY_MEASUREMENT, 2) if every else hypothesis.confidence,
        evidence_against=(*hypothesis.evidence_against, *doubts),
    )


def _located_elsewhere(hypothesis: Hypothesis, located: LocatedSymptom) -> Hypothesis:
    """The hypothesis adjusted where a dependency explains the symptom: its caller is not acted on."""
    if hypothesis.cause not in _REMEDIED_AT_THE_SERVICE:
        return hypothesis
    return replace(
        hypothesis,
        confidence=round(hypothesis.confidence * (1.0 - located.confidence), 2),
        evidence_against=(
            *hypothesis.evidence_against,
            f"the symptom starts at {located.key.service}, which the service calls",
        ),
    )


def _rank(hypothesis: Hypothesis) -> tuple[float, int, str]:
    return -hypothesis.confidence, _SAFEST_FIRST.index(hypothesis.cause), hypothesis.rule
