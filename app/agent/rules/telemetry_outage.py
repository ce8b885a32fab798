"""Rule: telemetry is broken, not the service (promise 8)."""

from __future__ import annotations

from app.agent.models import Alert, Cause, Evidence, Hypothesis, Trigger

CERTAIN = 0.97


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """Outranks every other cause, because no action could be verified.

    This includes a source that answers without usable data about the service:
    a failed measurement is never a reason for a remediation (promise 13).
    """
    findings = _findings(evidence)
    if not findings:
        return None
    return Hypothesis(
        cause=Cause.TELEMETRY_OUTAGE, confidence=CERTAIN, rule="telemetry_outage", evidence_for=findings
    )


def _findings(evidence: Evidence) -> tuple[str, ...]:
    found = []
    if evidence.telemetry is not None and evidence.telemetry.outage:
        found.append(evidence.telemetry.said)
    elif evidence.unmeasured is not None:
        found.append(f"the service cannot be measured: {evidence.unmeasured}")
    if Trigger.TELEMETRY_OUTAGE in evidence.triggers:
        reports = [s.payload for s in evidence.signals if isinstance(s.payload, Alert)]
        faults = [a.summary for a in reports if a.trigger is Trigger.TELEMETRY_OUTAGE and a.firing]
        found.append(faults[-1] if faults and faults[-1] else "a telemetry outage is reported")
    return tuple(dict.fromkeys(found))
