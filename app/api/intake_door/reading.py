"""The formats of the fast door: plain headers, plain events and plain deliveries of alerts.

Each function returns None for anything that the ordinary route has to handle. Its results are exactly those
of the ordinary route: `tests/api/test_intake_door.py` compares the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from pydantic_core import PydanticCustomError

from app.agent.ids import Json, ServiceKey
from app.agent.models import Deploy, DeployStatus, PostedSample
from app.redaction import redacted
from app.wire.events import MAX_ENTRIES
from app.wire.fields import (
    COMMIT_SHA,
    LABEL,
    MAX_LABEL_CHARS,
    MAX_LATENCY_MS,
    MAX_VERSION_CHARS,
    event_time,
)

_IGNORED = frozenset({b"user-agent", b"accept", b"accept-encoding", b"connection"})
_LABEL = re.compile(LABEL)
_COMMIT_SHA = re.compile(COMMIT_SHA)
_ODD_JSON = re.compile(
    rb"""[0-9]{17}      # an integer that the ordinary decoder may refuse
    | [:,\[]\s*-0       # a zero with a sign
    | \\u0000 | \\u[dD][89a-fA-F]  # NUL, a surrogate
    """,
    re.VERBOSE,
)


@dataclass(frozen=True, slots=True)
class PlainHeaders:
    """The headers of a plain delivery."""

    length: int
    authorization: bool
    """The sender presents a credential."""
    host: str
    """Empty without one."""


class PlainEvent(msgspec.Struct, frozen=True):
    """One event, with the values that its pydantic model would hold."""

    key: ServiceKey
    at: datetime
    payload: Deploy


T = TypeVar("T")

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]


def plain_headers(headers: Headers) -> PlainHeaders | None:
    """The headers, where each is known and given once; None for all others."""
    length, typed, authorization = -1, False, False
    host: str | None = None
    for name, value in headers:
        if name in _IGNORED:
            continue
        if name == b"content-length" and length < 0 and value.isdigit() and len(value) < 10:
            length = int(value)
        elif name == b"content-type" and not typed and value == b"application/json":
            typed = True
        elif name == b"authorization" and not authorization:
            authorization = True
        elif name == b"host" and host is None:
            host = value.decode("latin-1")
        else:
            return None
    return PlainHeaders(length, authorization, host or "") if typed and length > 0 else None


# ------------------------------------------------------------------ events


class _Metric(msgspec.Struct, forbid_unknown_fields=True):
    service: str
    environment: str
    timestamp: str
    error_rate: Annotated[float, msgspec.Meta(ge=0, le=1)] | UnsetType | None = UNSET
    p95_latency_ms: Annotated[float, msgspec.Meta(ge=0, le=MAX_LATENCY_MS)] | UnsetType | None = UNSET
    crash_looping: bool | UnsetType | None = UNSET

    def quotes(self) -> int:
        """How many a body has of this, if it names every field once."""
        optional = (self.error_rate is not UNSET) + (self.p95_latency_ms is not UNSET)
        return 12 + 2 * (optional + (self.crash_looping is not UNSET))

    def sample(self, latest: datetime) -> PostedSample | None:
        error_rate, latency = _given(self.error_rate), _given(self.p95_latency_ms)
        crash_looping = _given(self.crash_looping)
        if error_rate is None and latency is None and crash_looping is None:
            return None
        if (not error_rate and _signed_zero(error_rate)) or (not latency and _signed_zero(latency)):
            return None
        key, at = _key(self.environment, self.service), _at(self.timestamp, latest)
        if key is None or at is None:
            return None
        return PostedSample(key, at, error_rate, latency, crash_looping)


class _Deploy(msgspec.Struct, forbid_unknown_fields=True):
    service: str
    environment: str
    timestamp: str
    version: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_VERSION_CHARS)]
    status: DeployStatus
    commit_sha: str | UnsetType | None = UNSET
    irreversible: bool | UnsetType = UNSET

    def quotes(self) -> int:
        """As above; a commit is a text itself."""
        commit = 0 if self.commit_sha is UNSET else 2 if self.commit_sha is None else 4
        return 20 + commit + (0 if self.irreversible is UNSET else 2)

    def payload(self) -> Deploy | None:
        commit = _given(self.commit_sha)
        if commit is not None and not _COMMIT_SHA.fullmatch(commit):
            return None
        if not self.version.isprintable() or not self.version.strip():
            return None
        if redacted(self.version) != self.version:  # a credential: the ordinary route takes it out
            return None
        return Deploy(
            version=self.version,
            status=self.status,
            commit_sha=commit,
            irreversible=self.irreversible is True,
        )


_METRIC, _METRICS = msgspec.json.Decoder(_Metric), msgspec.json.Decoder(list[_Metric])
_DEPLOY, _DEPLOYS = msgspec.json.Decoder(_Deploy), msgspec.json.Decoder(list[_Deploy])


def metric_events(body: bytes, latest: datetime) -> Sequence[PostedSample] | None:
    """The samples of a body of `POST /events/metric`."""
    entries = _entries(body, _METRIC, _METRICS)
    if entries is None:
        return None
    samples = []
    for entry in entries:
        sample = entry.sample(latest)
        if sample is None:
            return None
        samples.append(sample)
    return samples


def deploy_events(body: bytes, latest: datetime) -> Sequence[PlainEvent] | None:
    """The releases of a body of `POST /events/deploy`."""
    entries = _entries(body, _DEPLOY, _DEPLOYS)
    if entries is None:
        return None
    events = []
    for entry in entries:
        event = _event(entry, latest)
        if event is None:
            return None
        events.append(event)
    return events


E = TypeVar("E", _Metric, _Deploy)


def _entries(
    body: bytes, one: msgspec.json.Decoder[E], many: msgspec.json.Decoder[list[E]]
) -> Sequence[E] | None:
    """The entries of a body that names every field once."""
    if b"\\" in body or not body.isascii():
        return None
    try:
        entries = many.decode(body) if body[:1] == b"[" else [one.decode(body)]
    except (msgspec.MsgspecError, RecursionError):
        return None
    # A field that is given twice has more quotes: the decoder takes the last of them.
    if not 1 <= len(entries) <= MAX_ENTRIES or body.count(b'"') != sum([entry.quotes() for entry in entries]):
        return None
    return entries


def _event(entry: _Deploy, latest: datetime) -> PlainEvent | None:
    payload = entry.payload()
    key, at = _key(entry.environment, entry.service), _at(entry.timestamp, latest)
    if payload is None or key is None or at is None:
        return None
    return PlainEvent(key, at, payload)


def _at(text: str, latest: datetime) -> datetime | None:
    try:
        return event_time(text, latest)
    except PydanticCustomError:
        return None


@lru_cache(maxsize=16_384)
def _key(environment: str, service: str) -> ServiceKey | None:
    """The service, if both names are labels; kept, because senders name the same ones again and again."""
    if not _is_label(environment) or not _is_label(service):
        return None
    return ServiceKey(environment=environment, service=service)


def _is_label(text: str) -> bool:
    return len(text) <= MAX_LABEL_CHARS and _LABEL.fullmatch(text) is not None


def _given(value: T | UnsetType | None) -> T | None:
    return None if value is UNSET else value


def _signed_zero(value: float | None) -> bool:
    return value == 0 and math.copysign(1, value) < 0


# ------------------------------------------------------------------ alerts


def plain_json(body: bytes) -> Json | None:
    """The value of a body of which both ordinary decoders, the strict and the lenient, make the same.

    Of a field that is given twice the last counts, as where a delivery of alerts is
    decoded leniently; the caller checks that it is one.
    """
    if _ODD_JSON.search(body):
        return None
    try:
        body.decode("utf-8")
        value: Json = msgspec.json.decode(body)
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError):
        return None
    return value
