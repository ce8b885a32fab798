"""Notes on the agent's own silences at the end of an incident. Pure."""

from __future__ import annotations

from datetime import datetime

from app.agent.ids import ServiceKey
from app.agent.models import Note, Stage


def silence_ended_note(key: ServiceKey, ended: int, at: datetime) -> Note:
    """The alerts of the service notify again; `ended` silences were still in force."""
    what = "The agent ended its silence" if ended else "The silence of the agent had ended before"
    return Note(
        at=at, stage=Stage.UNDO, message=f"{what}: alerts of {key} notify again.", data={"ended": ended}
    )


def silence_left_note(key: ServiceKey, why: str, at: datetime) -> Note:
    """A silence could not be ended: its time ends it."""
    message = f"The silence of alerts of {key} was not ended: {why}. It ends by itself when its time is over."
    return Note(at=at, stage=Stage.UNDO, message=message, data={})
