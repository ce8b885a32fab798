"""Rule: the measuring is broken, not the service (promise 8)."""

from __future__ import annotations

from app.agent.models import Cause, Evidence, Hypothesis

CERTAIN = 0.97


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """Outranks every other cause: nothing that is done now could be verified."""
    telemetry = evidence.telemetry
    if telemetry is None or not telemetry.outage:
        return None
    if not telemetry.source_reachable:
        told = "the source of metrics does not answer"
    else:
        told = f"{telemetry.silent_services} of {telemetry.known_services} services fell silent together"
    return Hypothesis(
        cause=Cause.TELEMETRY_OUTAGE, confidence=CERTAIN, rule="telemetry_outage", evidence_for=(told,)
    )
