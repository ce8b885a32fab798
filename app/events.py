"""Events as senders tell them, whichever door they come through: entries checked, signals made.

`POST /events/...` and the readers of streams both end here, so that an event
means the same, is refused for the same reasons in the same words, and becomes
the same signal, however it arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TypeAlias

from pydantic import ValidationError

from app.agent.identity import Sender
from app.agent.models import Json, Signal, SignalId
from app.agent.observer import new_signal
from app.errors import Invalid
from app.field_errors import FieldError, field_errors, in_words
from app.schemas import DeployEvent, MetricEvent

MAX_ENTRIES = 1000
_MAX_ERRORS = 100

Event: TypeAlias = DeployEvent | MetricEvent
EventModel: TypeAlias = type[DeployEvent] | type[MetricEvent]


class Misfit(Invalid):
    """Entries that are no events; `errors` names every misfit, up to a hundred or so."""

    def __init__(self, errors: Sequence[FieldError]) -> None:
        super().__init__(in_words(errors))
        self.errors = tuple(errors)


def check_length(entries: Sequence[object]) -> None:
    """Raise `Misfit` for a list that is empty or too long to be one delivery."""
    if not 1 <= len(entries) <= MAX_ENTRIES:
        raise Misfit(
            [
                FieldError(
                    field="body",
                    value=f"a list of {len(entries)}",
                    message=f"is not a list of 1 to {MAX_ENTRIES} entries",
                    mend="send at least one entry, and split longer lists over several requests",
                )
            ]
        )


def read_events(
    entries: Sequence[tuple[EventModel, Json]], *, latest: datetime, listed: bool
) -> tuple[Event, ...]:
    """Every entry as the event its model describes, or `Misfit` for them as a whole.

    `latest` is the furthest future a sender's clock may tell; `listed` entries
    are named by their index.
    """
    check_length(entries)
    context = {"latest": latest}
    events: list[Event] = []
    errors: list[FieldError] = []
    for index, (model, entry) in enumerate(entries):
        try:
            events.append(model.model_validate(entry, context=context))
        except ValidationError as error:
            prefix = f"[{index}]" if listed else ""
            errors += field_errors([dict(item) for item in error.errors(include_url=False)], prefix)
            if len(errors) >= _MAX_ERRORS:
                break
    if errors:
        raise Misfit(errors)
    return tuple(events)


def to_signal(
    event: Event,
    *,
    source: str,
    received_at: datetime,
    stale_after: timedelta,
    signal_id: SignalId | None = None,
    sender: Sender | None = None,
) -> Signal:
    """The signal an event stands for; `signal_id` where a repetition has to be recognised."""
    return new_signal(
        key=event.key,
        source=source,
        observed_at=event.timestamp,
        received_at=received_at,
        payload=event.payload(),
        stale_after=stale_after,
        signal_id=signal_id,
        sender=sender,
    )
