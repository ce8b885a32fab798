"""What became of undoing an action."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from app.agent.actions import ACTIONS
from app.agent.evidence.format import in_words
from app.agent.evidence.restoration import Restoration
from app.agent.intents import done_intents
from app.agent.models import IncidentRecord, Intent, Note, Outcome, Stage


def undo_not_done_note(undo: Intent, outcome: Outcome, changed_by: str | None, at: datetime) -> Note:
    """The undo failed or was denied; `changed_by` changed its target after the action, if that is known."""
    note = _about_undo(undo, f"The undo was not executed: {outcome.message}.", at)
    return note if changed_by is None else replace(note, data={**note.data, "changed_by": changed_by})


def undo_begun_note(undo: Intent, undone: Intent, at: datetime) -> Note:
    """One of several actions is undone; the replicas are checked after the last one."""
    return _about_undo(
        undo,
        f"Undo of {in_words(undone.action.name)}: {undo.action.target} has its previous specification.",
        at,
    )


def undo_note(undo: Intent, undone: Intent, found: Restoration, *, asks: bool, at: datetime) -> Note:
    """Whether the undo is verified: the specification is as before, and as many replicas run."""
    done = in_words(undone.action.name)
    if not asks:
        message = (
            f"Undo not verified: {undo.action.target} does not have its specification from before {done}. "
            f"{found.serving}."
        )
    elif found.restored:
        message = (
            f"Undo verified: {undo.action.target} has its specification from before {done}, "
            f"and {found.serving}."
        )
    else:
        message = (
            f"Undo not verified: {undo.action.target} has its specification from before {done}, "
            f"but {found.serving}."
        )
    return _about_undo(undo, message, at)


def why_not_restored(undo: Intent, undone: Intent, found: Restoration, *, asks: bool) -> str:
    """One sentence: why the incident is escalated after an undo."""
    differs = "" if asks else f"{undo.action.target} does not have its previous specification, and "
    return (
        f"{in_words(undone.action.name)} did not help, and undoing it did not restore the service: "
        f"{differs}{found.serving}"
    )


def no_undo_notes(record: IncidentRecord, at: datetime) -> list[Note]:
    """Reports an executed action that cannot be undone (a restart)."""
    done = done_intents(record)
    why = ACTIONS[done[-1].action.name].no_undo_note if done else None
    if why is None:
        return []
    message = why.format(name=in_words(done[-1].action.name), target=done[-1].action.target)
    return [Note(at=at, stage=Stage.UNDO, message=message, data={"intent": done[-1].id})]


def _about_undo(undo: Intent, message: str, at: datetime) -> Note:
    return Note(at=at, stage=Stage.UNDO, message=message, data={"intent": undo.id, "undoes": undo.undoes})
