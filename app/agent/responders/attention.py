"""How urgent an incident is, who has to act on it, and what comes next. Pure; for display and for lists."""

from __future__ import annotations

from enum import StrEnum

from app.agent.evidence.format import in_words
from app.agent.models import Action, Incident, IncidentState, Trigger
from app.agent.responders.effect import awaits_recovery, needs_people


class IncidentSeverity(StrEnum):
    """How far the users of the service are affected, as far as the triggers show."""

    CRITICAL = "critical"
    """Requests fail."""
    MAJOR = "major"
    """Pods crash or are unavailable, or requests are slow."""
    MINOR = "minor"
    """A deploy or a Job failed, or a source of metrics gives no data."""


class WaitsFor(StrEnum):
    """Who has to act next."""

    AGENT = "agent"
    PERSON = "person"
    NONE = "none"
    """The incident has ended."""


_MAJOR = {Trigger.CRASH_LOOP, Trigger.PODS_UNAVAILABLE, Trigger.HIGH_LATENCY}
_ORDER = list(IncidentSeverity)


def severity(incident: Incident) -> IncidentSeverity:
    """The severity by the triggers; it never falls while the incident is open."""
    if Trigger.HIGH_ERROR_RATE in incident.triggers:
        return IncidentSeverity.CRITICAL
    return IncidentSeverity.MINOR if _MAJOR.isdisjoint(incident.triggers) else IncidentSeverity.MAJOR


def waits_for(incident: Incident) -> WaitsFor:
    """Who has to act next: a person approves, has taken over, or receives the escalation."""
    if not needs_people(incident):
        return WaitsFor.NONE
    by_person = incident.held_by is not None or incident.state in (
        IncidentState.AWAITING_APPROVAL,
        IncidentState.ESCALATED,
    )
    return WaitsFor.PERSON if by_person else WaitsFor.AGENT


def next_step(incident: Incident) -> str:
    """The next step, in one sentence."""
    action = next_action(incident)
    named = in_words(action.name) if action is not None else "the action"
    if incident.undoing is not None:
        return _next_of_undo(incident)
    if incident.taken_over is not None and not incident.state.closed:
        return f"{incident.taken_over.by} handles it; the agent has stopped."
    match incident.state:
        case IncidentState.AWAITING_APPROVAL:
            return f"Approve or deny: {named}."
        case IncidentState.EXECUTING:
            return f"The agent runs {named}."
        case IncidentState.VERIFYING:
            return "The agent verifies the recovery."
        case IncidentState.ESCALATED:
            if awaits_recovery(incident):
                return "Fix it. The incident ends when the service has recovered or a person resolves it."
            return "Fix it, then resolve the incident by hand."
        case IncidentState.PROPOSED:
            return "Dry run: nothing was written. Apply the proposal by hand if it is right."
        case IncidentState.OPEN if incident.diagnosis is None:
            return "The agent collects signals, then diagnoses."
        case IncidentState.OPEN if action is not None:
            return f"Policy decides on {named}."
        case IncidentState.OPEN:
            return "The agent re-evaluates the incident."
        case _:
            return "The incident has ended."


def _next_of_undo(incident: Incident) -> str:
    match incident.state:
        case IncidentState.AWAITING_APPROVAL:
            return "Approve or deny the requested undo."
        case IncidentState.EXECUTING:
            return "The agent is undoing its last change and verifies the undo."
        case _:
            return "Policy decides on the requested undo."


def next_action(incident: Incident) -> Action | None:
    """The next or running action of the plan; None without one."""
    plan = incident.plan
    if plan is None or incident.state.closed or not plan.actions:
        return None
    return plan.actions[min(incident.next_action, len(plan.actions) - 1)]


def by_urgency(incident: Incident) -> tuple[bool, int, float]:
    """Sorts active incidents: what needs a person first, then by severity, then the oldest."""
    agent = waits_for(incident) is not WaitsFor.PERSON
    return agent, _ORDER.index(severity(incident)), incident.opened_at.timestamp()
