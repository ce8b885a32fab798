"""The undo of an executed action as an intent, or why it must not be undone. Pure (promises 10 and 11)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import as_left, moved_parts
from app.agent.guardrails.document import AGENT_NAME
from app.agent.guardrails.question import TargetLook
from app.agent.ids import IntentId, JsonObject
from app.agent.intents import NOT_READ, Since, intent_by_id
from app.agent.models import (
    Action,
    ActionName,
    IncidentRecord,
    Intent,
    IntentState,
    Note,
    Rehearsal,
    Snapshot,
    Stage,
)
from app.agent.policy import undo_decision
from app.agent.workload import TargetState

_OTHER_VERSION = frozenset({ActionName.ROLLBACK, ActionName.REVERT_CONFIG})
"""Actions whose undo runs again what ran before."""


def not_to_undo(undone: Intent, look: TargetLook) -> str | None:
    """Why an intent must not be undone: the target changed since."""
    target = look.target
    if target is None:
        return look.problem or "the target cannot be read"
    by = changed_by(undone, look)
    if by is None:
        return None
    parts = ", ".join(moved_parts(undone.action, undone.applied_token, target.token))
    return f"{target.ref} was changed since by {by}" + (f" ({parts})" if parts else "")


def ends_outage(undone: Intent, available: int | None) -> str | None:
    """Why an undo would remove the only serving replicas; `available`: the current number of them.

    No replica served before the action, so the remaining symptom is smaller than the original one.
    """
    before = undone.snapshot.available if undone.snapshot is not None else None
    if undone.action.name not in _OTHER_VERSION or before != 0 or not available:
        return None
    return (
        f"no replica was available before {undone.action.name.words}, and {available} "
        f"{'is' if available == 1 else 'are'} now: undoing it would bring the outage back"
    )


def changed_by(undone: Intent, look: TargetLook) -> str | None:
    """The party that changed the fields of the intent; None if no one did, or the target cannot be read."""
    target = look.target
    if target is None or as_left(undone.action, undone.applied_token, target.token):
        return None
    return target.changed_by or "someone else"


def since_then(record: IncidentRecord, intent: Intent, look: TargetLook) -> Since:
    """The current state of a change by the agent; later changes of the object by the agent do not count.

    After a deletion by the agent the object is gone, or another object has its name.
    """
    if ACTIONS[intent.action.name].removes and (look.gone or look.target is not None):
        return NOT_READ
    if look.gone:
        return Since(gone=frozenset({intent.id}))
    target = look.target
    if target is None:
        return Since(unread=frozenset({intent.id}))
    left = intent.applied_token
    for later in record.intents[record.intents.index(intent) + 1 :]:
        if later.applied_token is None or later.action.target != intent.action.target:
            continue
        before = later.snapshot.token if later.snapshot is not None else later.decision.target_token
        if not as_left(intent.action, left, before):
            return Since(changed_by={intent.id: "someone else"})
        left = later.applied_token
    if as_left(intent.action, left, target.token):
        return NOT_READ
    by = target.changed_by
    return Since(changed_by={intent.id: by if by not in (None, AGENT_NAME) else "someone else"})


def together(found: Iterable[Since]) -> Since:
    """What became of several changes."""
    known = tuple(found)
    return Since(
        changed_by={intent: by for one in known for intent, by in one.changed_by.items()},
        gone=frozenset().union(*(one.gone for one in known)),
        unread=frozenset().union(*(one.unread for one in known)),
        handled_by={intent: by for one in known for intent, by in one.handled_by.items()},
    )


def not_undone_note(undone: Intent, why: str | None, look: TargetLook, serving: str, at: datetime) -> Note:
    """The timeline's sentence when an undo is not attempted; `serving` is how many replicas are available."""
    message = f"Not undone: {why}. {serving}The incident will end as escalated."
    by = changed_by(undone, look)
    data: JsonObject = {"undoes": undone.id} if by is None else {"undoes": undone.id, "changed_by": by}
    return Note(at=at, stage=Stage.UNDO, message=message, data=data)


def undo_intent(
    record: IncidentRecord,
    undone: Intent,
    action: Action,
    target: TargetState,
    rehearsal: Rehearsal | None,
    *,
    intent_id: IntentId,
    at: datetime,
) -> tuple[Intent, Note]:
    """The intent that undoes `undone` by `action`, and its note."""
    intent = Intent(
        id=intent_id,
        incident_id=record.incident.id,
        sequence=len(record.intents),
        action=action,
        dry_run=False,
        decision=undo_decision(undone, target, at),
        rehearsal=rehearsal,
        state=IntentState.DECIDED,
        undoes=undone.id,
    )
    note = Note(
        at=at,
        stage=Stage.UNDO,
        message=ACTIONS[undone.action.name].undo_note.format(
            name=undone.action.name.words, target=undone.action.target
        ),
        data={"intent": intent.id, "undoes": undone.id},
    )
    return intent, note


def undone_snapshot(record: IncidentRecord, intent: Intent) -> Snapshot | None:
    """The snapshot that a restore writes: taken before the intent that it undoes."""
    return intent_by_id(record, intent.undoes).snapshot if intent.undoes is not None else None
