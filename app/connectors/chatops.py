"""What the agent tells people about an incident, before any channel gives it a form.

Pure and channel-neutral: plain lines, no markup. Called by the notifiers. Every
text that came from outside is reduced to one printable line.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.agent.models import (
    Decision,
    DecisionKind,
    Incident,
    IncidentState,
    Intent,
    OutcomeKind,
    VerdictKind,
)
from app.connectors.text import shorten

_MAX_LINES = 40
_MAX_EVIDENCE = 5

_HEADLINES = {
    IncidentState.OPEN: "incident open",
    IncidentState.AWAITING_APPROVAL: "waiting for approval",
    IncidentState.EXECUTING: "acting",
    IncidentState.VERIFYING: "checking whether it recovered",
    IncidentState.RECOVERED: "recovered",
    IncidentState.RECOVERED_WITHOUT_ACTION: "recovered without action",
    IncidentState.PROPOSED: "a remedy is proposed, nothing was changed",
    IncidentState.ESCALATED: "needs a person",
}


class Severity(StrEnum):
    """How loud a channel should be."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message for people."""

    title: str
    lines: tuple[str, ...]
    severity: Severity

    @property
    def text(self) -> str:
        """Title and lines as plain text."""
        return "\n".join((self.title, *self.lines))


def render(incident: Incident, intents: Sequence[Intent]) -> Message:
    """What is wrong, why the agent thinks so, what it did or would do, and what came of it."""
    rehearsal = "[dry run] " if incident.dry_run else ""
    lines = [
        *_situation(incident),
        *_diagnosis(incident),
        *_plan(incident, intents),
        *(_intent(intent) for intent in sorted(intents, key=lambda intent: intent.sequence)),
        *_verdict(incident),
    ]
    if len(lines) > _MAX_LINES:
        lines = [*lines[: _MAX_LINES - 1], f"... and {len(lines) - _MAX_LINES + 1} more lines"]
    return Message(
        title=shorten(f"{rehearsal}{incident.key}: {_HEADLINES[incident.state]}", 200),
        lines=tuple(shorten(line) for line in lines),
        severity=_severity(incident, intents),
    )


def _severity(incident: Incident, intents: Sequence[Intent]) -> Severity:
    unknown = any(i.outcome is not None and i.outcome.kind is OutcomeKind.UNKNOWN for i in intents)
    worse = incident.verdict is not None and incident.verdict.kind is VerdictKind.WORSE
    if incident.state is IncidentState.ESCALATED or (not incident.state.closed and (unknown or worse)):
        return Severity.CRITICAL
    if incident.state in (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION):
        return Severity.INFO
    return Severity.WARNING


def _situation(incident: Incident) -> list[str]:
    triggers = ", ".join(trigger.replace("_", " ") for trigger in incident.triggers)
    lines = [f"Triggered by: {triggers}" if triggers else "Triggered by: nothing on record"]
    if incident.summary:
        lines.append(incident.summary)
    if incident.stale:
        lines.append("The signals were old on arrival, so the agent takes no real action.")
    return lines


def _diagnosis(incident: Incident) -> list[str]:
    if incident.diagnosis is None:
        return []
    best = incident.diagnosis.best
    evidence = best.evidence_for[:_MAX_EVIDENCE]
    against = best.evidence_against[:_MAX_EVIDENCE]
    return [
        f"Cause: {best.cause.replace('_', ' ')} (confidence {best.confidence:.2f})",
        *(f"  + {line}" for line in evidence),
        *(f"  - {line}" for line in against),
    ]


def _plan(incident: Incident, intents: Sequence[Intent]) -> list[str]:
    plan = incident.plan
    if plan is None:
        return []
    if not plan.actions:
        return ["Plan: touch nothing; no approved runbook fits"]
    tried = sum(1 for intent in intents if intent.undoes is None)
    return [
        f"Plan: {plan.runbook} ({len(plan.actions)} actions, {tried} decided so far)",
        *(
            f"  {number}. {action.name}{f' {action.target}' if action.target else ''} ({action.risk} risk)"
            for number, action in enumerate(plan.actions, start=1)
        ),
    ]


def _intent(intent: Intent) -> str:
    action = intent.action
    what = f"{action.name} {action.target}" if action.target else str(action.name)
    undo = "undo: " if intent.undoes else ""
    outcome = f"{intent.outcome.kind}: {intent.outcome.message}" if intent.outcome else str(intent.state)
    return f"{undo}{what}: {_decision(intent.decision)}; {outcome}"


def _decision(decision: Decision) -> str:
    words = {
        DecisionKind.ALLOW: "allowed",
        DecisionKind.DENY: "denied",
        DecisionKind.NEEDS_APPROVAL: "needs approval",
    }[decision.kind]
    return f"{words} ({'; '.join(decision.reasons)})" if decision.reasons else words


def _verdict(incident: Incident) -> list[str]:
    if incident.verdict is None:
        return []
    kind = incident.verdict.kind.replace("_", " ")
    return [f"Verdict: {kind}" + "".join(f"; {reason}" for reason in incident.verdict.reasons)]
