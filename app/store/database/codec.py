"""Models to JSON and back: the only place that knows how a value is written in a JSON column.

Called by the statements of this package. Reading is tolerant towards records
of an older version: fields it did not know take their defaults, and obsolete
fields are skipped. A record that cannot be read at all is a
`PermanentError` that says which value it was.

JSON knows neither NaN nor infinity (written as null, which the models read as
"no data"), and neither database stores NUL characters or half surrogate pairs
in text (written as U+FFFD), so hostile text from outside cannot stop a write.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar, cast

import msgspec

from app.agent.identity.people import Answer, ApprovalTerms
from app.agent.ids import Json, JsonObject
from app.agent.models import (
    Action,
    ActionName,
    Alert,
    ByPerson,
    Cause,
    ClusterCondition,
    ConfigChange,
    Decision,
    Deploy,
    Diagnosis,
    Incident,
    Lesson,
    MetricSample,
    Payload,
    Plan,
    Rehearsal,
    SignalKind,
    Snapshot,
    UndoRequest,
    Verdict,
    Verification,
)
from app.agent.workload import ObjectRef
from app.errors import Invalid, PermanentError

T = TypeVar("T")

PAYLOADS: Mapping[SignalKind, type[Payload]] = {
    SignalKind.DEPLOY: Deploy,
    SignalKind.METRIC: MetricSample,
    SignalKind.ALERT: Alert,
    SignalKind.CONDITION: ClusterCondition,
    SignalKind.CHANGE: ConfigChange,
}
"""A payload is stored without a tag: the kind of the signal determines its type."""

LATER_CAUSES = frozenset({Cause.SERVICE_ROUTING, Cause.NETWORK_POLICY, Cause.SCALED_TOO_LOW})
"""Causes that programs of 0.2.0 do not know. During a rolling upgrade of a shared database, and after a
return to 0.2.0, they could not read a record with such a cause, nor a page with such a record. Therefore
each is stored as unknown, together with its name."""
_LATER_CAUSE = "later_cause"
"""Beside `cause`; older programs skip it."""

_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def storable_text(value: str) -> str:
    """The text as both databases can keep it."""
    if value.isascii() and "\x00" not in value:
        return value
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", value)


def dumps(value: object) -> str:
    """JSON text of a model or of plain values, compact; never fails on text from outside."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        text = "\\u0000"
    if "\\u0000" in text:
        text = msgspec.json.encode(_clean(msgspec.to_builtins(value))).decode()
    return text


def loads(text: str | bytes) -> Json:
    """The plain values of a JSON text; numbers keep the kind (integer or not) they were written with."""
    return cast("Json", msgspec.json.decode(text))


def storable_object(value: JsonObject) -> JsonObject:
    """`value` exactly as it will be read back after it was stored."""
    return cast("JsonObject", loads(dumps(value)))


def read(kind: type[T], value: object) -> T:
    """A model from the plain values that `loads` gave."""
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise PermanentError(f"a stored {kind.__name__} cannot be read: {error}") from error


def read_text(kind: type[T], text: str) -> T:
    """A model from the JSON text of a larger value, without building the rest: for many rows."""
    try:
        return msgspec.json.decode(text, type=kind)
    except msgspec.ValidationError as error:
        raise PermanentError(f"a stored {kind.__name__} cannot be read: {error}") from error


def writable(kind: type[T], value: T) -> Json:
    """The plain values of a model, checked to be readable again; `Invalid` if they are not.

    Otherwise a NaN in place of a number would be noticed too late.
    """
    plain = loads(dumps(value))
    try:
        msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"this {kind.__name__} could not be read back: {error}") from error
    return plain


def part_of(kind: type[T], value: object) -> Json:
    """The plain values of the part of a model that `kind` names the fields of."""
    return writable(kind, kind(**fields_of(kind, value)))


def fields_of(kind: type[Any], value: object) -> dict[str, Any]:
    """The fields that `kind` has, as `value` has them."""
    return {name: getattr(value, name) for name in kind.__dataclass_fields__}


def read_optional(kind: type[T], value: object) -> T | None:
    return None if value is None else read(kind, value)


def read_payload(kind: SignalKind, value: object) -> Payload:
    return read(PAYLOADS[kind], value)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentBody:
    """The part of an incident that no statement searches by."""

    diagnosis: Diagnosis | None = None
    plan: Plan | None = None
    next_action: int = 0
    verification: Verification | None = None
    verdict: Verdict | None = None
    lesson: Lesson | None = None
    failing_since: datetime | None = None
    without_reason_since: datetime | None = None
    summary: str = ""
    requested_by: str | None = None
    also_requested_by: tuple[str, ...] = ()
    reported_by: tuple[str, ...] = ()
    cluster: str = ""
    acknowledged: ByPerson | None = None
    owner: str | None = None
    taken_over: ByPerson | None = None
    resolved: ByPerson | None = None
    recovered_at: datetime | None = None
    undo: UndoRequest | None = None


def incident_body(incident: Incident) -> dict[str, Any]:
    """The stored body of an incident."""
    body = part_of(IncidentBody, incident)
    assert isinstance(body, dict)  # noqa: S101 - fields of a model
    for one in _with_causes(body):
        if one["cause"] in LATER_CAUSES:
            one |= {"cause": Cause.UNKNOWN.value, _LATER_CAUSE: one["cause"]}
    return body


def read_incident_body(value: Any) -> IncidentBody:
    """What `incident_body` or a program of another version wrote; `PermanentError` if it cannot be read."""
    for one in _with_causes(value):
        named = one.get(_LATER_CAUSE)
        if isinstance(named, str) and named in LATER_CAUSES and one["cause"] == Cause.UNKNOWN:
            one["cause"] = named
    return read(IncidentBody, value)


def _with_causes(body: Any) -> Iterator[dict[str, Any]]:
    """The parts of a body that name a cause."""
    if not isinstance(body, dict):
        return
    diagnosis = body.get("diagnosis")
    found = diagnosis.get("hypotheses") if isinstance(diagnosis, dict) else None
    for one in (*(found if isinstance(found, list) else ()), body.get("lesson")):
        if isinstance(one, dict) and "cause" in one:
            yield one


@dataclass(frozen=True, slots=True, kw_only=True)
class IntentBody:
    """The part of an intent that is fixed when it is decided."""

    action: Action
    decision: Decision
    rehearsal: Rehearsal | None = None
    requested_by: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalBody:
    """The part of an approval that no statement searches by."""

    action_index: int
    action: ActionName
    plan_hash: str
    target_token: str | None
    reasons: tuple[str, ...]
    comment: str = ""
    terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    answers: tuple[Answer, ...] = ()
    escalated: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _SnapshotHead:
    ref: ObjectRef
    token: str
    available: int | None = None
    sent_at: str | None = None


def read_snapshot(value: object) -> Snapshot | None:
    """A snapshot; its body is stored unchanged, because only the connector knows its form."""
    if value is None:
        return None
    head = read(_SnapshotHead, value)
    body = cast("Mapping[str, Any]", value).get("body")
    if not isinstance(body, dict):
        raise PermanentError("a stored Snapshot cannot be read: its body is not an object")
    return Snapshot(ref=head.ref, token=head.token, body=body, available=head.available, sent_at=head.sent_at)


def _clean(value: object) -> Json:
    if isinstance(value, str):
        return storable_text(value)
    if isinstance(value, Mapping):
        return {storable_text(str(key)): _clean(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_clean(item) for item in value]
    return cast("Json", value)
