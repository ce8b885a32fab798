"""What became of a write without an answer, from the state of its object. Pure (promise 2).

Most writes carry the marker of their intent, which stays on the object. A change of the
subresource `status` and a deletion carry none, so the state itself must prove more
before they are sent a second time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import carries_marker, effect_shows, same_ground
from app.agent.guardrails.workload_kinds import mutes
from app.agent.models import Intent
from app.agent.workload import TargetState


class WriteFate(StrEnum):
    """The result that the object shows."""

    EXECUTED = "executed"
    CHANGED = "changed"
    """Another person or controller changed the state that the decision was based on."""
    UNPROVEN = "unproven"
    """No effect is visible, and that does not prove that there was none."""
    NOT_EXECUTED = "not_executed"
    """No effect; of the first write and a second one, the API server accepts at most one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The fate of a write, and why, as the end of a sentence."""

    fate: WriteFate
    why: str = ""


def fate_of(intent: Intent, target: TargetState | None, sent_at: str | None) -> Found:
    """The fate of a write that was bound to the version `sent_at` of its object, None if that is not known.

    `target` is the object now, None if it no longer exists.
    """
    action, decided = intent.action, intent.decision.target_token
    if target is None:
        return Found(fate=WriteFate.EXECUTED, why=f"{action.target} no longer exists")
    if target.marker == intent.id:
        return Found(fate=WriteFate.EXECUTED, why="the object has this intent's annotation")
    if effect_shows(action, decided, target.token):
        removes = ACTIONS[action.name].removes
        shown = "is being deleted" if removes else "shows the effect"
        return Found(fate=WriteFate.EXECUTED, why=f"{action.target} {shown}")
    if not same_ground(action, decided, target.token):
        return _changed(intent, target)
    if _may_have_passed(intent, target, sent_at):
        return Found(
            fate=WriteFate.UNPROVEN,
            why="the request may still arrive; a silence ends by itself"
            if mutes(action)
            else f"{action.target} was written since, and a change of its status carries no annotation: "
            "the effect may have been reverted",
        )
    return Found(fate=WriteFate.NOT_EXECUTED)


def fate_of_refused(intent: Intent, target: TargetState | None) -> Found:
    """The same of a write that the API server refused: an effect without a marker has another author."""
    action = intent.action
    if target is None:
        return Found(fate=WriteFate.CHANGED, why=f"{action.target} was deleted by someone else")
    if target.marker == intent.id:
        return Found(fate=WriteFate.EXECUTED, why="the object has this intent's annotation")
    if same_ground(action, intent.decision.target_token, target.token):
        return Found(fate=WriteFate.NOT_EXECUTED)
    return _changed(intent, target)


def _changed(intent: Intent, target: TargetState) -> Found:
    by = target.changed_by or "someone else"
    return Found(fate=WriteFate.CHANGED, why=f"{intent.action.target} was changed by {by}")


def _may_have_passed(intent: Intent, target: TargetState, sent_at: str | None) -> bool:
    """Whether a write may have taken effect and been reverted again.

    A deletion is final. Any other write without a marker is ruled out only while
    the object is still in the version that the write is bound to: nothing was written, and
    the API server accepts only one of two writes that are bound to the same version. The
    monitoring binds no write to a version: a silence that is not there yet may still be created.
    """
    if mutes(intent.action):
        return True
    if carries_marker(intent.action) or ACTIONS[intent.action.name].removes:
        return False
    return sent_at is None or sent_at != target.resource_version
