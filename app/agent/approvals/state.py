"""The approval that an incident awaits, and its effect on a decision. Pure (promise 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.identity.people import Answer, EscalationStep, same_person
from app.agent.models import (
    Approval,
    ApprovalState,
    Decision,
    DecisionKind,
    IncidentRecord,
    IncidentState,
    Note,
    Stage,
)
from app.errors import Conflict, NotEntitled

DENIED_BY = "denied by "
NO_ANSWER = "no answer before "
"""How the first reason of a decision begins that people denied, or did not answer in time."""


def asked_for(record: IncidentRecord) -> Approval | None:
    """The approval that the incident's next action waits for, or was given."""
    incident = record.incident
    if incident.state is not IncidentState.AWAITING_APPROVAL:
        return None
    mine = [a for a in record.approvals if a.action_index == incident.next_action]
    return mine[-1] if mine else None


def open_until(record: IncidentRecord, now: datetime) -> datetime | None:
    """Until when the awaited approval may be answered; None if a stage is due now."""
    asked = asked_for(record)
    if asked is None or asked.state is not ApprovalState.PENDING or now >= asked.expires_at:
        return None
    return asked.expires_at


def wait_until(record: IncidentRecord, now: datetime) -> datetime | None:
    """When an unanswered request is due again: at its next escalation, or at its expiry."""
    end = open_until(record, now)
    asked = asked_for(record)
    if end is None or asked is None:
        return None
    left = asked.terms.escalation[asked.escalated :]
    if not left:
        return end
    due = asked.requested_at + left[0].after
    return None if due <= now else min(end, due)


def escalations_due(record: IncidentRecord, now: datetime) -> tuple[EscalationStep, ...]:
    """The escalation steps that are due and not yet notified."""
    asked = asked_for(record)
    if asked is None or open_until(record, now) is None:
        return ()
    left = asked.terms.escalation[asked.escalated :]
    return tuple(step for step in left if asked.requested_at + step.after <= now)


def with_answer(asked: Approval, said: Answer, reported_by: Sequence[str] = ()) -> Approval:
    """The approval after an answer; `reported_by` sent signals of the incident until now.

    One denial denies it; it is approved when enough different people approve. Raises
    `Conflict` when it is too late, or something else was answered, and
    `NotEntitled` when this person may not answer.
    """
    _refuse_late(asked, said)
    _refuse_unentitled(asked, said, reported_by)
    earlier = [one for one in asked.answers if same_person(one.by, said.by)]
    if earlier and said.approve:
        raise Conflict(f"approval {asked.id} was approved by {said.by}; another person must approve too")
    answers = (*asked.answers, said)
    if not said.approve:
        state, by = ApprovalState.DENIED, said.by
    elif len(answers) >= asked.terms.people:
        state, by = ApprovalState.APPROVED, " and ".join(one.by for one in answers)
    else:
        return replace(asked, answers=answers)
    return replace(
        asked, state=state, answers=answers, answered_by=by, answered_at=said.at, comment=said.comment
    )


def _refuse_late(asked: Approval, said: Answer) -> None:
    match asked.state:
        case ApprovalState.PENDING:
            if said.at < asked.expires_at:
                return
            refusal = f"approval {asked.id} expired at {asked.expires_at}"
        case ApprovalState.EXPIRED:
            refusal = f"approval {asked.id} expired at {asked.expires_at}"
        case ApprovalState.VOID:
            refusal = f"approval {asked.id} is void: the action is no longer planned"
        case _:
            verdict = "denied" if asked.state is ApprovalState.DENIED else "approved"
            refusal = f"approval {asked.id} was already {verdict} by {asked.answered_by}"
    raise Conflict(refusal)


def _refuse_unentitled(asked: Approval, said: Answer, reported_by: Sequence[str]) -> None:
    """The requester of the action and the senders of its signals may deny but not approve it."""
    if said.approve and any(same_person(name, said.by) for name in (*asked.terms.not_by, *reported_by)):
        raise NotEntitled(
            f"{said.by} requested this action, or sent a signal of the incident: another person must "
            f"approve it, signed in as themselves or with `heal approve {asked.id} --by NAME`"
        )
    wanted = asked.terms.roles_at(_waited(asked, said.at))
    if wanted is not None and not wanted.intersection(said.roles):
        has = f"has {', '.join(said.roles)}" if said.roles else "has no role"
        raise NotEntitled(f"approval {asked.id} needs one of the roles {_words(wanted)}; {said.by} {has}")


def _waited(asked: Approval, at: datetime) -> timedelta:
    return at - asked.requested_at


def _words(roles: frozenset[str]) -> str:
    return ", ".join(sorted(roles))


def answer_note(asked: Approval, said: Answer) -> Note:
    """The timeline sentence about an answer."""
    verdict = "approved" if said.approve else "denied"
    words = f"{asked.action.words} {verdict} by {said.by}" + (f": {said.comment}" if said.comment else "")
    if asked.state is ApprovalState.PENDING:
        words += f" ({len(asked.answers)} of {asked.terms.people} people)"
    return Note(
        at=said.at,
        stage=Stage.POLICY,
        message=f"{words}.",
        data={
            "approval": asked.id,
            "state": asked.state.value,
            "by": said.by,
            "door": said.door.value,
            "verified": said.verified,
            "plan_hash": asked.plan_hash,
        },
    )


def as_answered(decision: Decision, answered: Approval) -> Decision:
    """The decision that follows from an approval's answer (promise 1)."""
    said = f": {answered.comment}" if answered.comment else ""
    match answered.state:
        case ApprovalState.APPROVED:
            kind, why = DecisionKind.ALLOW, f"approved by {answered.answered_by}{said}"
        case ApprovalState.DENIED:
            kind, why = DecisionKind.DENY, f"{DENIED_BY}{answered.answered_by}{said}"
        case ApprovalState.PENDING | ApprovalState.EXPIRED:
            kind, why = (
                DecisionKind.DENY,
                f"{NO_ANSWER}{answered.expires_at:%Y-%m-%d %H:%M:%S} UTC",
            )
        case ApprovalState.USED | ApprovalState.VOID:
            kind, why = DecisionKind.DENY, f"approval {answered.id} is {answered.state}"
    if kind is DecisionKind.ALLOW:
        return replace(decision, kind=kind, reasons=(*decision.reasons, why))
    # A denial lists no reasons to allow, and the person who denied comes before policy's reasons to ask.
    asked = () if decision.kind is DecisionKind.ALLOW else decision.reasons
    return replace(decision, kind=kind, reasons=(why, *asked))


def refused_by_people(decision: Decision, answered: Approval) -> bool:
    """Policy no longer requires an approval, but the request was denied: the denial holds."""
    return decision.kind is DecisionKind.ALLOW and answered.state is ApprovalState.DENIED


def uses_up(decision: Decision, answered: Approval) -> bool:
    return decision.kind is DecisionKind.ALLOW and answered.state is ApprovalState.APPROVED
