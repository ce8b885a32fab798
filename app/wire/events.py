"""Validates events of every interface and turns them into signals.

`POST /events/...` and the readers of streams both end here, so that an event
means the same, is refused for the same reasons in the same words, and becomes
the same signal, however it arrived.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Self, TypeAlias

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.agent.identity.people import Sender
from app.agent.ids import Json, ServiceKey, SignalId
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Deploy,
    DeployStatus,
    MetricSample,
    Signal,
)
from app.errors import Invalid
from app.redaction import redacted
from app.wire.field_errors import FieldError, field_errors, in_words
from app.wire.fields import (
    CommitSha,
    DnsLabel,
    EventTime,
    Milliseconds,
    Ratio,
    Version,
)


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class DeployEvent(_Request):
    """A release of a service changed state."""

    service: DnsLabel = Field(examples=["payments-api"])
    environment: DnsLabel = Field(examples=["prod"])
    version: Version = Field(examples=["1.15.0"])
    commit_sha: CommitSha | None = Field(default=None, examples=["d1e2f3a"])
    status: DeployStatus = Field(strict=False, examples=["failed"])
    irreversible: bool = Field(
        default=False, description="The release carries a change that older code cannot run against."
    )
    timestamp: EventTime = Field(
        description="When it happened: RFC 3339 with an offset.", examples=["2026-02-20T17:00:00Z"]
    )

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(environment=self.environment, service=self.service)

    def payload(self) -> Deploy:
        return Deploy(
            version=redacted(self.version),
            status=self.status,
            commit_sha=self.commit_sha,
            irreversible=self.irreversible,
        )


class MetricEvent(_Request):
    """Service levels at one instant. What is not known is left out (or null), never zero."""

    service: DnsLabel = Field(examples=["payments-api"])
    environment: DnsLabel = Field(examples=["prod"])
    error_rate: Ratio | None = Field(
        default=None, description="Share of failed requests, 0 to 1.", examples=[0.13]
    )
    p95_latency_ms: Milliseconds | None = Field(default=None, examples=[1450])
    crash_looping: bool | None = Field(default=None, examples=[True])
    timestamp: EventTime = Field(
        description="When it was so: RFC 3339 with an offset.", examples=["2026-02-20T17:01:00Z"]
    )

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.error_rate is None and self.p95_latency_ms is None and self.crash_looping is None:
            raise PydanticCustomError("no_indicator", "holds no indicator")
        return self

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(environment=self.environment, service=self.service)

    def payload(self) -> MetricSample:
        return MetricSample(
            error_rate=self.error_rate,
            p95_latency_ms=self.p95_latency_ms,
            crash_looping=self.crash_looping,
        )


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
                    fix="send at least one entry, and split longer lists over several requests",
                )
            ]
        )


def read_events(
    entries: Sequence[tuple[EventModel, Json]], *, latest: datetime, listed: bool
) -> tuple[Event, ...]:
    """Every entry as the event its model describes, or `Misfit` for them as a whole.

    `latest` is the furthest future a sender's timestamp may have; `listed` entries
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
