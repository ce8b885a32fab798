"""The entries of a timeline, and the query for a part of it."""

from __future__ import annotations

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from app.agent.ids import IncidentId
from app.agent.models import Stage, TimelineEntry

MOST_ENTRIES = 500
"""Timeline entries in one part."""


class TimelineQuery(BaseModel):
    """Query parameters of `GET /incidents/{id}`; without any, the whole timeline is returned."""

    model_config = ConfigDict(frozen=True)

    timeline_limit: int | None = Field(
        default=None, ge=1, le=MOST_ENTRIES, description="Maximum number of timeline entries, oldest first."
    )
    timeline_cursor: int | None = Field(
        default=None, ge=0, le=2**31 - 1, description="The timeline_next of the previous part."
    )


class TimelineEntryView(BaseModel):
    """One line of the tamper-evident record: `hash` covers this entry and the hash before it."""

    sequence: int
    at: datetime
    stage: Stage
    message: str
    data: dict[str, JsonValue]
    hash: str

    @classmethod
    def of(cls, entry: TimelineEntry) -> Self:
        return cls.model_validate(entry, from_attributes=True)


class StepView(TimelineEntryView):
    """A timeline entry that one pass of the loop added."""

    incident_id: str

    @classmethod
    def of_incident(cls, incident_id: IncidentId, entry: TimelineEntry) -> Self:
        line = TimelineEntryView.of(entry)
        return cls(incident_id=incident_id, **dict(line))
