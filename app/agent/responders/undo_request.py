"""A person's request to undo the agent's last change of an incident. Pure.

The agent carries it out only if it has otherwise stopped work on the incident: the incident has ended, or a
person has taken it over. An ended incident is open while the undo lasts.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from app.agent.actions.restore import restore_of
from app.agent.guardrails.workload_kinds import mutes
from app.agent.identity.people import same_person
from app.agent.intents import done_intents, judged_with, unclear_undos, undone_intents
from app.agent.models import (
    Action,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    OutcomeKind,
    Plan,
    UndoRequest,
    Verification,
)
from app.agent.notes import named_actions
from app.agent.planner import plan_hash
from app.agent.responders.request import ResponderRequest
from app.errors import Conflict


def last_change(record: IncidentRecord) -> tuple[Intent, ...]:
    """What an undo of the agent's last change undoes, in order; raises `Conflict` that says why it cannot."""
    done = _changes(record)
    if not done:
        raise Conflict("the agent changed nothing in this incident: there is nothing to undo")
    begun = next((i for i in record.intents if i.state is IntentState.EXECUTING), None)
    if begun is not None:
        raise Conflict(f"{named_actions([begun])} is still in progress")
    decided = next((i for i in record.intents if i.state is IntentState.DECIDED and i.own_undo), None)
    if decided is not None:
        raise Conflict(f"the agent has decided on {named_actions([decided])} already: hand the incident back")
    last = [i for i in judged_with(record, done[-1]) if i.action.undo is not None and i.snapshot is not None]
    if not last:
        raise Conflict(f"{named_actions([done[-1]])}, the last change of the agent, has no undo")
    undone, unclear = undone_intents(record), unclear_undos(record)
    for one in last:
        if one.id in unclear:
            raise Conflict(f"unknown whether {named_actions([one])} was undone already: check it by hand")
    left = tuple(i for i in last if i.id not in undone)
    if not left:
        raise Conflict(f"{named_actions([last[-1]])}, the last change of the agent, was undone already")
    return left


def _changes(record: IncidentRecord) -> list[Intent]:
    """What the agent changed, oldest first; a silence is ended with the incident."""
    return [i for i in done_intents(record) if i.action.target is not None and not mutes(i.action)]


def why_not_to_ask(record: IncidentRecord) -> str | None:
    """Why an undo cannot be requested now, as a clause; None if a request would be accepted."""
    incident = record.incident
    if incident.undoing is not None:
        return f"{incident.undoing.by} requested the undo already"
    try:
        last_change(record)
    except Conflict as error:
        return str(error)
    if incident.state.closed or incident.taken_over is not None:
        return None
    return "the agent is working on the incident: take it over first"


def repeated(record: IncidentRecord, request: ResponderRequest) -> bool:
    """Whether the same person asked for the same undo before, and it is pending or done."""
    asked = record.incident.undo
    if asked is None or not same_person(asked.by, request.by.name):
        return False
    done = [i.id for i in _changes(record)]
    return asked.pending or (asked.outcome is OutcomeKind.DONE and done[-1] in asked.undoes)


def asked_to_undo(record: IncidentRecord, request: ResponderRequest) -> Incident:
    """The incident with the pending request; raises `Conflict` where it cannot be accepted."""
    why = why_not_to_ask(record)
    if why is not None:
        raise Conflict(why)
    incident, undone = record.incident, last_change(record)
    actions = tuple(action for one in undone if (action := restore_of(one.action)) is not None)
    asked = UndoRequest(
        by=request.by.name,
        at=request.at,
        text=request.text,
        undoes=tuple(one.id for one in undone),
        state=incident.state,
        closed_at=incident.closed_at,
        plan=incident.plan,
        next_action=incident.next_action,
        verification=incident.verification,
        wake_at=incident.wake_at,
        joined=incident.joined,
    )
    return replace(
        incident,
        state=IncidentState.OPEN,
        closed_at=None,
        plan=_undo_plan(actions, request.at),
        next_action=0,
        verification=None,
        wake_at=None,
        failing_since=None,
        # The person who handled an ended incident does not hold it while it is open again.
        taken_over=None if incident.state.closed else incident.taken_over,
        undo=asked,
    )


def undone(incident: Incident, message: str, at: datetime, outcome: OutcomeKind) -> Incident:
    """The incident after a complete or partial undo: open, with its own plan, without a verdict on it."""
    asked = _pending(incident)
    # Verdict and plan belong to a state that no longer exists: after a hand-back both are made again.
    kept = replace(incident, plan=asked.plan, next_action=asked.next_action)
    if asked.closed_at is None:
        kept = replace(incident, plan=None, diagnosis=None, next_action=0)
    return replace(
        kept,
        state=IncidentState.OPEN,
        verification=None,
        verdict=None,
        recovered_at=None,
        wake_at=None,
        undo=replace(asked, outcome=outcome, message=message, ended_at=at),
    )


def not_undone(incident: Incident, message: str, at: datetime, outcome: OutcomeKind) -> Incident:
    """The incident in its state before the request, which is answered.

    If a signal joined while it was open, it stays open, and the agent diagnoses again.
    """
    asked = _pending(incident)
    after = replace(
        incident,
        state=asked.state,
        closed_at=asked.closed_at,
        plan=asked.plan,
        next_action=asked.next_action,
        verification=asked.verification,
        wake_at=asked.wake_at,
        undo=replace(asked, outcome=outcome, message=message, ended_at=at),
    )
    if incident.joined == asked.joined or asked.closed_at is None:
        return after
    return replace(
        after,
        state=IncidentState.OPEN,
        closed_at=None,
        recovered_at=None,
        diagnosis=None,
        plan=None,
        next_action=0,
        verification=None,
        wake_at=None,
    )


def withdrawn(incident: Incident, why: str, at: datetime) -> Incident:
    """The incident without a pending request: it ends before the agent has answered it."""
    asked = incident.undoing
    if asked is None:
        return incident
    return replace(
        incident,
        plan=asked.plan,
        next_action=asked.next_action,
        undo=replace(asked, outcome=OutcomeKind.REFUSED, message=why, ended_at=at),
    )


def waiting(incident: Incident, seen: Verification, until: datetime) -> Incident:
    """The undo took effect; its replicas are observed again at `until`."""
    return replace(incident, verification=seen, wake_at=until)


def _undo_plan(actions: tuple[Action, ...], at: datetime) -> Plan:
    return Plan(
        runbook=None, runbook_hash=None, actions=actions, rejected=(), hash=plan_hash(None, actions), at=at
    )


def _pending(incident: Incident) -> UndoRequest:
    asked = incident.undoing
    if asked is None:
        raise ValueError(f"incident {incident.id} has no pending request to undo")
    return asked
