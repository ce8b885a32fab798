"""What people do about incidents, as HTTP takes it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from app.wire.events import _Request
from app.wire.fields import TAKEN_FROM_IDENTITY, Person, Remark

_Named = Annotated[Person | None, Field(description=f"Who does it. {TAKEN_FROM_IDENTITY}", examples=["ann"])]


class ActRequest(_Request):
    """Acknowledge, take over or hand back an incident."""

    by: _Named = None
    comment: Remark = Field(default="", examples=["looking at the database first"])

    @property
    def words(self) -> str:
        """The text for the record."""
        return self.comment


class AssignRequest(_Request):
    """The new owner of an incident."""

    owner: Person | None = Field(description="By name; null removes the owner.", examples=["ben"])
    by: _Named = None
    comment: Remark = Field(default="", examples=["knows the payment provider"])

    @property
    def words(self) -> str:
        """The text for the record."""
        return self.comment


class NoteRequest(_Request):
    """A note on an incident; it becomes part of the tamper-evident timeline."""

    text: Remark = Field(min_length=1, examples=["the provider confirmed an outage"])
    by: _Named = None

    @property
    def words(self) -> str:
        """The text for the record."""
        return self.text


class ResolveRequest(_Request):
    """Resolve an incident by hand."""

    reason: Remark = Field(min_length=1, examples=["restarted the provider's gateway"])
    by: _Named = None

    @property
    def words(self) -> str:
        """The text for the record."""
        return self.reason
