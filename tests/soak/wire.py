"""What the connector and the counting stand-in say to each other, as JSON over loopback HTTP.

One struct for each question, named after the port's method; answers are the
product's own models. `read_snapshot` is there because only a connector knows
the form of a snapshot's body.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Any

import msgspec

from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, Snapshot
from app.agent.workload import ObjectRef, TargetState
from app.errors import AgentError, Conflict, Forbidden, Invalid, NotFound, TransientError

ENVIRONMENT = "prod"


class Breakage(StrEnum):
    """What may go wrong with a service of the stand-in."""

    CRASH = "crash"
    """A release whose pods crash: taking it back heals."""
    ERRORS = "errors"
    """A release that serves and fails half of the requests: taking it back heals."""
    MISSING = "missing"
    """A release whose image was never pushed: the undo of it heals."""
    CONFIG = "config"
    """A ConfigMap that fails half of the requests: putting it back heals."""
    UPSTREAM = "upstream"
    """A harmless release while something the service needs is down: no action heals."""


class AboutService(msgspec.Struct):
    key: ServiceKey


class AboutAction(msgspec.Struct):
    action: Action


class WireSnapshot(msgspec.Struct):
    ref: ObjectRef
    token: str
    body: dict[str, Any]

    def model(self) -> Snapshot:
        return Snapshot(ref=self.ref, token=self.token, body=self.body)


class Change(msgspec.Struct):
    """A change asked for: rehearsed without an intent, carried out with one."""

    action: Action
    target: TargetState
    snapshot: WireSnapshot | None
    intent_id: IntentId | None = None


class SliAt(msgspec.Struct):
    key: ServiceKey
    at: datetime


class SliBetween(msgspec.Struct):
    key: ServiceKey
    start: datetime
    end: datetime
    step: timedelta


class TelemetryOf(msgspec.Struct):
    keys: list[ServiceKey]


class MovedSince(msgspec.Struct):
    cursor: int


class Moved(msgspec.Struct):
    """The services that moved, and the cursor to ask with next."""

    cursor: int
    keys: list[ServiceKey]


class Break(msgspec.Struct):
    """Asked by the soak itself, as a pipeline or a person: never an effect of the agent."""

    service: str
    breakage: Breakage
    number: int
    """Makes the release's image a new one."""


class Mend(msgspec.Struct):
    service: str


class Failure(msgspec.Struct):
    message: str


STATUS: dict[type[AgentError], HTTPStatus] = {
    Conflict: HTTPStatus.CONFLICT,
    Forbidden: HTTPStatus.FORBIDDEN,
    NotFound: HTTPStatus.NOT_FOUND,
    Invalid: HTTPStatus.UNPROCESSABLE_ENTITY,
    TransientError: HTTPStatus.SERVICE_UNAVAILABLE,
}
"""How an error travels; everything else is a defect of the stand-in."""

ERRORS: dict[int, type[AgentError]] = {status.value: error for error, status in STATUS.items()}


class Effect(msgspec.Struct, kw_only=True):
    """One write that the stand-in accepted: one line of its log."""

    service: str
    intent: str
    action: str
    object: str
    version_before: str
    version_after: str
    began: datetime
    """The request was there, whole."""
    committed: datetime
    """The object changed."""
    ended: datetime
    """The answer left, or would have."""
    answered: bool
    """False: the answer was lost on purpose."""


class Refusal(msgspec.Struct, kw_only=True):
    """One write that the stand-in refused: nothing changed."""

    service: str
    intent: str
    action: str
    error: str
    message: str
    at: datetime
