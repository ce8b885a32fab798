"""Renders incident messages as plain text, before a channel formats them.

Pure and channel-neutral: plain lines, no markup. Called by every channel, for the
current incident (`describe`), and by the announcer, for thread replies
(`timeline_line`, `announced_line`). Every text that came from outside is reduced to
printable lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from app.agent.evidence.format import confidence, counted
from app.agent.identity.people import wanted
from app.agent.models import (
    Action,
    Approval,
    Decision,
    DecisionKind,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    OutcomeKind,
    TimelineEntry,
    VerdictKind,
)
from app.agent.notifications.channel import Announcement, Bulletin
from app.connectors.text import shorten

_MAX_LINES = 40
_MAX_EVIDENCE = 5
_MAX_REASONS = 5
_MAX_ANNOUNCED = 3_000

_HEADLINES = {
    IncidentState.OPEN: "incident open",
    IncidentState.AWAITING_APPROVAL: "awaiting approval",
    IncidentState.EXECUTING: "acting",
    IncidentState.VERIFYING: "verifying recovery",
    IncidentState.RECOVERED: "recovered",
    IncidentState.RECOVERED_WITHOUT_ACTION: "recovered without action",
    IncidentState.PROPOSED: "fix proposed, nothing changed",
    IncidentState.ESCALATED: "escalated to on-call",
    IncidentState.RESOLVED_BY_HAND: "resolved by hand",
}


_WELL = (
    IncidentState.RECOVERED,
    IncidentState.RECOVERED_WITHOUT_ACTION,
    IncidentState.RESOLVED_BY_HAND,
)


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


def describe(bulletin: Bulletin) -> Message:
    """The incident as it stands; what waits for an answer comes first, before anything can be cut off."""
    message = render(bulletin.record.incident, bulletin.record.intents)
    lines = (*question(bulletin), *message.lines)
    if len(lines) > _MAX_LINES:
        lines = (*lines[: _MAX_LINES - 1], f"... and {len(lines) - _MAX_LINES + 1} more lines")
    return replace(message, lines=lines)


def question(bulletin: Bulletin) -> tuple[str, ...]:
    """What is asked of people, who may answer, until when, and what a rehearsal said; empty when nothing."""
    asked = bulletin.asked
    if asked is None:
        return ()
    until = f"{asked.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    lines = [
        f"Awaiting approval: {wanted_action(bulletin.record, asked)}",
        f"Answer by {until}{wanted(asked.terms)}; no answer counts as a denial",
        *(f"  reason: {reason}" for reason in asked.reasons[:_MAX_REASONS]),
        rehearsed(bulletin.record, asked),
    ]
    yes = [answer.by for answer in asked.answers if answer.approve]
    if yes:
        lines.append(f"Approved so far by {' and '.join(yes)} ({len(yes)} of {asked.terms.people} people)")
    return tuple(shorten(line) for line in lines)


def wanted_action(record: IncidentRecord, asked: Approval) -> str:
    """What is asked for: the action, its target and parameters, and its risk."""
    action = planned(record, asked)
    if action is None:
        return str(asked.action)
    target = f" {action.target}" if action.target else ""
    given = ", ".join(f"{name} {value}" for name, value in sorted(action.parameters.items()))
    return f"{action.name}{target}{f' ({given})' if given else ''}, {action.risk} risk"


def planned(record: IncidentRecord, asked: Approval) -> Action | None:
    """The action as it was planned; None where the plan is not the one that was asked about."""
    plan = record.incident.plan
    if plan is None or plan.hash != asked.plan_hash or not 0 <= asked.action_index < len(plan.actions):
        return None
    return plan.actions[asked.action_index]


def rehearsed(record: IncidentRecord, asked: Approval) -> str:
    """API server dry run, as the entry has it that was made when people were asked."""
    for entry in reversed(record.timeline):
        said = entry.data.get("rehearsal")
        if entry.data.get("approval") == asked.id and isinstance(said, dict):
            verb = "accepted" if said.get("accepted") is True else "rejected"
            return f"Dry run (dryRun=All): API server {verb} it: {said.get('message', '')}"
    return "No dry run"


def timeline_line(entry: TimelineEntry) -> str:
    """One entry of the timeline as one line."""
    return shorten(f"{entry.at:%H:%M:%S} {entry.stage}: {entry.message}")


def announced_line(announcement: Announcement) -> str:
    """An announcement in its own words, as one line; one that has none points to the incident."""
    return shorten(announcement.text, _MAX_ANNOUNCED) or "This incident needs manual review."


def _severity(incident: Incident, intents: Sequence[Intent]) -> Severity:
    unknown = any(i.outcome is not None and i.outcome.kind is OutcomeKind.UNKNOWN for i in intents)
    worse = incident.verdict is not None and incident.verdict.kind is VerdictKind.WORSE
    if incident.state is IncidentState.ESCALATED or (not incident.state.closed and (unknown or worse)):
        return Severity.CRITICAL
    if incident.state in _WELL:
        return Severity.INFO
    return Severity.WARNING


def _situation(incident: Incident) -> list[str]:
    triggers = ", ".join(trigger.replace("_", " ") for trigger in incident.triggers)
    lines = [f"Triggered by: {triggers}" if triggers else "Triggered by: unknown"]
    if incident.summary:
        lines.append(incident.summary)
    if incident.stale:
        lines.append("The signals were stale on arrival; the agent takes no action.")
    return lines


def _diagnosis(incident: Incident) -> list[str]:
    if incident.diagnosis is None:
        return []
    best = incident.diagnosis.best
    evidence = best.evidence_for[:_MAX_EVIDENCE]
    against = best.evidence_against[:_MAX_EVIDENCE]
    return [
        f"Cause: {best.cause.replace('_', ' ')} (confidence {confidence(best.confidence)})",
        *(f"  + {line}" for line in evidence),
        *(f"  - {line}" for line in against),
    ]


def _plan(incident: Incident, intents: Sequence[Intent]) -> list[str]:
    plan = incident.plan
    if plan is None:
        return []
    if plan.handover:
        return [
            f"Plan: {plan.runbook} escalates the incident to a person",
            *(f"  {line}" for line in plan.handover),
        ]
    if not plan.actions:
        return ["Plan: no action; no runbook matched"]
    tried = sum(1 for intent in intents if intent.undoes is None)
    return [
        f"Plan: {plan.runbook} ({counted(len(plan.actions), 'action')}, {tried} decided so far)",
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
