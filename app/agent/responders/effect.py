"""Operations of people on an incident: acknowledge, assign, note, take over, hand back, resolve. Pure.

`handled` decides from the stored record what a request changes; the store applies it under the incident's
lock. A request that would change nothing is accepted and records nothing, so that a sender may retry after
a lost response.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from app.agent.evidence.format import in_words
from app.agent.gitops.steps import policy_left_off
from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import same_person
from app.agent.ids import IntentId, JsonObject
from app.agent.intents import Since, credited, done_intents, in_place
from app.agent.memory import lesson
from app.agent.models import (
    ByPerson,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Note,
    Outcome,
    OutcomeKind,
    Stage,
    TimelineEntry,
    VerdictKind,
)
from app.agent.notes import still_in_place
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.responders.undo_request import asked_to_undo, repeated, withdrawn
from app.errors import Conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """The change of a request; `note` is None if it changes nothing."""

    incident: Incident
    note: Note | None = None
    audit: HumanDecision | None = None
    finished: tuple[tuple[IntentId, Outcome], ...] = ()
    """Intents that end with it."""
    releases_claim: bool = False
    """The worker that holds the incident loses its claim at once."""
    due: bool = False
    """The agent looks at the incident again at once."""
    reopens: bool = False
    """An ended incident is open again: its service must have no other open one."""


def handled(record: IncidentRecord, request: ResponderRequest) -> Handled:
    """The effect of the request on that record.

    Raises `Conflict` when the incident has ended, another person has taken it over, or an incident that was
    never taken over is handed back.
    """
    return _ACTS[request.act](record, request)


def needs_people(incident: Incident) -> bool:
    """Whether it counts as active: not ended, or escalated and not resolved yet."""
    return not incident.state.closed or incident.state is IncidentState.ESCALATED


def awaits_recovery(incident: Incident) -> bool:
    """Whether the incident is escalated and a recovery of the service ends it.

    False for stale signals, whose service is not watched, and for an incident that was
    escalated although its service had recovered: there a person is asked for something else.
    """
    verdict = incident.verdict
    recovered = verdict is not None and verdict.kind is VerdictKind.RECOVERED
    return incident.state is IncidentState.ESCALATED and not incident.stale and not recovered


def _acknowledge(record: IncidentRecord, request: ResponderRequest) -> Handled:
    incident = _active(record, "acknowledged")
    if incident.acknowledged is not None:
        return Handled(incident=incident)
    acknowledged = replace(incident, acknowledged=_mark(request))
    return _recorded(acknowledged, request, f"Acknowledged by {request.by.name}{_quoted(request)}.")


def _assign(record: IncidentRecord, request: ResponderRequest) -> Handled:
    incident = _active(record, "assigned")
    if incident.owner == request.owner:
        return Handled(incident=incident)
    if request.owner is None:
        words = f"{request.by.name} removed the owner {incident.owner}"
    else:
        words = f"{request.by.name} assigned the incident to {request.owner}"
    assigned = replace(incident, owner=request.owner)
    return _recorded(assigned, request, f"{words}{_quoted(request)}.", {"owner": request.owner})


def _add_note(record: IncidentRecord, request: ResponderRequest) -> Handled:
    return _recorded(record.incident, request, f"Note by {request.by.name}: {request.text}")


def _take_over(record: IncidentRecord, request: ResponderRequest) -> Handled:
    incident = record.incident
    if incident.state.closed:
        raise Conflict(
            f"incident {incident.id} has ended ({in_words(incident.state)}): the agent has stopped"
        )
    if incident.taken_over is not None:
        mine = same_person(incident.taken_over.by, request.by.name)
        if mine and incident.undoing is None:
            return Handled(incident=incident)
        if not mine:
            raise Conflict(f"incident {incident.id} was already taken over by {incident.taken_over.by}")
    waiting = incident.state is IncidentState.AWAITING_APPROVAL
    if incident.undoing is not None:
        # It may take effect all the same: after a hand-back the agent verifies and plans again.
        incident = withdrawn(incident, f"{request.by.name} took over the incident", request.at)
        incident = replace(incident, plan=None, next_action=0, verification=None, verdict=None)
    taken = replace(
        incident,
        state=IncidentState.OPEN if waiting else incident.state,
        acknowledged=incident.acknowledged or _mark(request),
        owner=request.by.name,
        taken_over=_mark(request),
    )
    refused = Outcome(
        kind=OutcomeKind.REFUSED,
        message=f"{request.by.name} took over the incident before the action began",
        at=request.at,
        look_anew=True,
    )
    # An undo that the agent decided stays: it is checked again before it runs.
    decided = [i for i in record.intents if i.state is IntentState.DECIDED and not i.own_undo]
    words = f"Taken over by {request.by.name}{_quoted(request)}. The agent has stopped on this incident."
    if waiting:
        words += " The pending approval is void."
    return replace(
        _recorded(taken, request, words + _under_way(record)),
        finished=tuple((i.id, refused) for i in decided),
        releases_claim=True,
    )


def _hand_back(record: IncidentRecord, request: ResponderRequest) -> Handled:
    incident = record.incident
    if incident.taken_over is None and not any(map(_is_take_over, record.timeline)):
        raise Conflict(f"incident {incident.id} was never taken over: there is nothing to hand back")
    if incident.state.closed or incident.taken_over is None:
        return Handled(incident=incident)
    if incident.undoing is not None:
        raise Conflict(f"the agent undoes a change at the request of {incident.undoing.by}: wait for its end")
    back = replace(incident, taken_over=None, failing_since=None, without_reason_since=None, wake_at=None)
    if incident.state is IncidentState.OPEN and not done_intents(record):
        # The diagnosis behind the plan does not include the person's changes.
        back = replace(back, diagnosis=None, plan=None, next_action=0)
    words = f"Handed back to the agent by {request.by.name}{_quoted(request)}."
    return replace(_recorded(back, request, words), due=True)


def _is_take_over(entry: TimelineEntry) -> bool:
    return entry.data.get("act") == ResponderAct.TAKE_OVER.value


def _resolve(record: IncidentRecord, request: ResponderRequest) -> Handled:
    incident = record.incident
    if incident.state is IncidentState.RESOLVED_BY_HAND:
        return Handled(incident=incident)
    _active(record, "resolved")
    words = f"Resolved by hand by {request.by.name}: {request.text}"
    if incident.state is IncidentState.ESCALATED:
        resolved = replace(incident, state=IncidentState.RESOLVED_BY_HAND, resolved=_mark(request))
        return _recorded(resolved, request, words, stage=Stage.LEARN)
    finished = tuple(
        (i.id, _ended(i, request)) for i in record.intents if i.state is not IntentState.FINISHED
    )
    since = _unread(record)
    left = _under_way(record) + still_in_place(record, since) + policy_left_off(record)
    summary = f"{words.removesuffix('.')}.{left}"
    resolved = replace(
        withdrawn(incident, f"{request.by.name} resolved the incident", request.at),
        state=IncidentState.RESOLVED_BY_HAND,
        closed_at=request.at,
        acknowledged=incident.acknowledged or _mark(request),
        resolved=_mark(request),
        lesson=lesson(record, request.at, since),
        summary=summary,
    )
    return replace(
        _recorded(resolved, request, summary, {"state": resolved.state}, stage=Stage.LEARN),
        finished=finished,
        releases_claim=True,
    )


def _undo(record: IncidentRecord, request: ResponderRequest) -> Handled:
    if repeated(record, request):
        return Handled(incident=record.incident)
    asked = asked_to_undo(record, request)
    plan, pending = asked.plan, asked.undoing
    assert plan is not None  # noqa: S101 - the plan of the incident is the undo
    assert pending is not None  # noqa: S101 - it was just requested
    named = ", ".join(f"{action.parameters['undoes']} of {action.target}" for action in plan.actions)
    words = f"{request.by.name} requested to undo {in_words(named)}{_quoted(request)}."
    data: JsonObject = {"undoes": list(pending.undoes)}
    return replace(
        _recorded(asked, request, words, data, stage=Stage.UNDO), releases_claim=True, due=True, reopens=True
    )


_ACTS: Mapping[ResponderAct, Callable[[IncidentRecord, ResponderRequest], Handled]] = {
    ResponderAct.ACKNOWLEDGE: _acknowledge,
    ResponderAct.ASSIGN: _assign,
    ResponderAct.NOTE: _add_note,
    ResponderAct.TAKE_OVER: _take_over,
    ResponderAct.HAND_BACK: _hand_back,
    ResponderAct.RESOLVE: _resolve,
    ResponderAct.UNDO: _undo,
}

_KINDS = {
    ResponderAct.ACKNOWLEDGE: HumanDecisionKind.ACKNOWLEDGED,
    ResponderAct.ASSIGN: HumanDecisionKind.ASSIGNED,
    ResponderAct.NOTE: HumanDecisionKind.NOTED,
    ResponderAct.TAKE_OVER: HumanDecisionKind.TAKEN_OVER,
    ResponderAct.HAND_BACK: HumanDecisionKind.HANDED_BACK,
    ResponderAct.RESOLVE: HumanDecisionKind.RESOLVED,
    ResponderAct.UNDO: HumanDecisionKind.UNDO_REQUESTED,
}


def _active(record: IncidentRecord, what: str) -> Incident:
    incident = record.incident
    if not needs_people(incident):
        ended = in_words(incident.state)
        raise Conflict(f"incident {incident.id} has ended ({ended}) and cannot be {what}")
    return incident


def _mark(request: ResponderRequest) -> ByPerson:
    return ByPerson(by=request.by.name, at=request.at)


def _quoted(request: ResponderRequest) -> str:
    return f": {request.text.removesuffix('.')}" if request.text else ""


def _under_way(record: IncidentRecord) -> str:
    begun = next((i for i in record.intents if i.state is IntentState.EXECUTING), None)
    if begun is None:
        return ""
    return f" {in_words(begun.action.name).capitalize()} was under way: check whether it took effect."


def _unread(record: IncidentRecord) -> Since:
    """The agent reads no target when a person resolves: they may have changed it meanwhile."""
    return Since(unread=frozenset(i.id for i in (*in_place(record), *credited(record))))


def _ended(intent: Intent, request: ResponderRequest) -> Outcome:
    """The end of an intent of an incident that a person resolves."""
    if intent.state is IntentState.EXECUTING:
        message = "a person resolved the incident before the outcome was known"
        return Outcome(kind=OutcomeKind.UNKNOWN, message=message, at=request.at)
    message = "a person resolved the incident before the action began"
    return Outcome(kind=OutcomeKind.REFUSED, message=message, at=request.at)


def _recorded(
    incident: Incident,
    request: ResponderRequest,
    message: str,
    data: JsonObject | None = None,
    *,
    stage: Stage = Stage.OBSERVE,
) -> Handled:
    """The incident with a timeline entry and an entry of the audit trail about the act."""
    said: JsonObject = {
        "person": request.by.name,
        "act": request.act.value,
        "door": request.by.door.value,
        "verified": request.by.verified,
        **(data or {}),
    }
    note: JsonObject = {"text": request.text} if request.text else {}
    return Handled(
        incident=incident,
        note=Note(at=request.at, stage=stage, message=message, data=said),
        audit=HumanDecision(
            at=request.at,
            by=request.by,
            kind=_KINDS[request.act],
            subject=incident.id,
            data={**note, **(data or {})},
        ),
    )
