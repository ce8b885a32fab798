"""Notes on the agent's own silences at the end of an incident. Pure."""

from __future__ import annotations

from datetime import datetime

from app.agent.ids import ServiceKey
from app.agent.models import Note, Stage


def silence_ended_note(key: ServiceKey, ended: int, at: datetime) -> Note:
    """`ended` silences were in force as the agent created them; a prolonged one belongs to a person."""
    message = (
        f"The agent ended its silence: alerts of {key} notify again."
        if ended
        else f"The agent has no silence on alerts of {key} to end."
    )
    return Note(at=at, stage=Stage.UNDO, message=message, data={"ended": ended})


def silence_left_note(key: ServiceKey, why: str, at: datetime) -> Note:
    """A silence could not be ended: its time ends it."""
    message = f"The silence of alerts of {key} was not ended: {why}. It ends by itself when its time is over."
    return Note(at=at, stage=Stage.UNDO, message=message, data={})
