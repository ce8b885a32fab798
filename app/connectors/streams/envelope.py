"""Decodes stream messages in every supported format into events, or gives the reason of the failure.

Pure. The readers of streams call `read_message`; what is inside an envelope is
exactly what `POST /events/deploy` and `POST /events/metric` take, checked by the
same models. Forms (docs/streams.md shows each): plain JSON that names its kind,
CloudEvents 1.0 in structured, batched and binary mode, and Avro in the wire
format of schema registries. A message that is none of these is `Poison`, with a
reason for the person who finds it among the dead letters.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from app.agent.ids import Json, JsonObject
from app.agent.ports.streams import StreamMessage
from app.connectors.streams.avro import FlatSchema, read_record, schema_id
from app.connectors.text import shorten
from app.errors import Invalid
from app.wire.events import (
    DeployEvent,
    Event,
    EventModel,
    MetricEvent,
    Misfit,
    check_length,
    read_events,
)
from app.wire.field_errors import in_words
from app.wire.strict_json import UnreadableJson, check_contents, decode

EVENT_TYPE_PREFIX = "com.self-healing-devops-agent."
_KINDS: Mapping[str, EventModel] = {
    "deploy": DeployEvent,
    "metric": MetricEvent,
    f"{EVENT_TYPE_PREFIX}deploy": DeployEvent,
    f"{EVENT_TYPE_PREFIX}metric": MetricEvent,
}
_RECORDS: Mapping[str, EventModel] = {
    "Deploy": DeployEvent,
    "DeployEvent": DeployEvent,
    "Metric": MetricEvent,
    "MetricEvent": MetricEvent,
}
_STRUCTURED = "application/cloudevents+json"
_BATCHED = "application/cloudevents-batch+json"
_ATTRIBUTES = ("specversion", "id", "source", "type")


class Poison(Invalid):
    """A message that will never be an event, and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One event's fields, and what its envelope says about it."""

    fields: Json
    kind: str | None
    at: str | None = None
    """The envelope's time, for an event without one."""


def read_message(
    message: StreamMessage, *, latest: datetime, max_bytes: int, schema: FlatSchema | None = None
) -> tuple[Event, ...]:
    """The events of a message, in order; raises `Poison`.

    `latest` is the furthest future that a sender's timestamp may have. `schema` is
    the one that `schema_id(message.body)` names, where it names one.
    """
    if len(message.body) > max_bytes:
        raise Poison(f"it is larger than {max_bytes} bytes (MAX_BODY_BYTES): {len(message.body)}")
    headers = {name.lower(): value for name, value in message.headers.items()}
    try:
        _check_headers(headers)
        entries, listed = _entries(message.body, headers, schema)
        check_length(entries)
        shaped = [(_model(entry), _complete(entry)) for entry in entries]
        events = read_events(shaped, latest=latest, listed=listed)
    except UnreadableJson as error:
        raise Poison(in_words(error.errors) if error.errors else str(error)) from None
    except Misfit as error:
        raise Poison(str(error)) from None
    _check_key(message.key, events)
    return events


def _entries(body: bytes, headers: Mapping[str, str], schema: FlatSchema | None) -> tuple[list[_Entry], bool]:
    """What the envelope holds, and whether it is a list."""
    media_type = _media_type(headers)
    attributes: JsonObject = {
        name.removeprefix("ce_"): value for name, value in headers.items() if name.startswith("ce_")
    }
    said = headers.get("type")
    if schema_id(body) is not None:
        entry = _avro(body, schema)
        return [_in_event(attributes, entry.fields) if attributes else _named(entry, said)], False
    value = decode(body)
    if media_type == _STRUCTURED:
        return [_structured(value)], False
    if media_type == _BATCHED:
        if not isinstance(value, list):
            raise Poison(f"Content-Type {_BATCHED} wants a list of CloudEvents")
        return [_structured(one) for one in value], True
    if media_type not in {"", "application/json", "text/json"}:
        raise Poison(f"Content-Type {shorten(media_type)!r} is not supported; send application/json")
    if attributes:
        return [_in_event(attributes, value)], False
    if isinstance(value, list):
        return [_bare(one, said) for one in value], True
    return [_bare(value, said)], False


# ------------------------------------------------------------------ the forms


def _bare(value: Json, said: str | None) -> _Entry:
    """Our own JSON: the event itself with its kind as `type`, or the kind in the header `type`."""
    if not isinstance(value, dict):
        return _Entry(fields=value, kind=said)
    if "specversion" in value:  # a CloudEvent without a content type
        return _structured(value)
    if "type" not in value:
        return _Entry(fields=value, kind=said)
    kind = value["type"]
    if not isinstance(kind, str):
        raise Poison("its type is not a text; send 'deploy' or 'metric'")
    fields = {name: item for name, item in value.items() if name != "type"}
    return _named(_Entry(fields=fields, kind=kind), said)


def _named(entry: _Entry, said: str | None) -> _Entry:
    """The header `type`, where there is one, agrees with what the content says of itself."""
    if said is not None and _KINDS.get(said) is not _of_kind(entry.kind):
        raise Poison(
            f"its header says the type {shorten(said)!r}, and its content {shorten(str(entry.kind))!r}"
        )
    return entry


def _structured(event: Json) -> _Entry:
    """A CloudEvent as one JSON object."""
    if not isinstance(event, dict):
        raise Poison("it is said to be a CloudEvent, and is not a JSON object")
    if event.get("data") is not None and event.get("data_base64") is not None:
        raise Poison("its CloudEvent has both data and data_base64")
    content_type = event.get("datacontenttype")
    if content_type is not None and not _is_json(content_type):
        raise Poison(f"its CloudEvent's datacontenttype {shorten(str(content_type))!r} is not JSON")
    data = event.get("data")
    if isinstance(encoded := event.get("data_base64"), str):
        try:
            data = decode(base64.b64decode(encoded, validate=True))
        except (binascii.Error, ValueError):
            raise Poison("its CloudEvent's data_base64 is not base64") from None
    return _in_event(event, data)


def _in_event(attributes: JsonObject, data: Json) -> _Entry:
    """The data of a CloudEvent, its attributes checked."""
    for name in _ATTRIBUTES:
        value = attributes.get(name)
        if not isinstance(value, str) or not value:
            raise Poison(f"its CloudEvent has no attribute {name!r}; required are {', '.join(_ATTRIBUTES)}")
    if attributes["specversion"] != "1.0":
        raise Poison(
            f"its CloudEvent's specversion is {shorten(str(attributes['specversion']))!r}, not '1.0'"
        )
    if data is None:
        raise Poison("its CloudEvent has no data")
    at = attributes.get("time")
    return _Entry(fields=data, kind=str(attributes["type"]), at=at if isinstance(at, str) else None)


def _avro(body: bytes, schema: FlatSchema | None) -> _Entry:
    if schema is None:
        raise Poison(
            f"it is Avro (schema {schema_id(body)}), and no schema registry is configured "
            "(SCHEMA_REGISTRY_URL)"
        )
    try:
        record = read_record(schema, body)
    except Invalid as error:
        raise Poison(str(error)) from None
    check_contents(record)
    return _Entry(fields=record, kind=schema.name)


# ------------------------------------------------------------------ checks


def _of_kind(kind: str | None) -> EventModel | None:
    return None if kind is None else _KINDS.get(kind) or _RECORDS.get(kind)


def _model(entry: _Entry) -> EventModel:
    model = _of_kind(entry.kind)
    if model is not None:
        return model
    known = f"'deploy' or 'metric' (or as a CloudEvent '{EVENT_TYPE_PREFIX}deploy' or '...metric')"
    if entry.kind is None:
        raise Poison(f"nothing says which kind of event it is; send a type, {known}")
    raise Poison(f"its type {shorten(entry.kind)!r} is not known; send {known}")


def _complete(entry: _Entry) -> Json:
    """The event, with its envelope's time if it has none."""
    if entry.at is None or not isinstance(entry.fields, dict) or "timestamp" in entry.fields:
        return entry.fields
    return {**entry.fields, "timestamp": entry.at}


def _check_headers(headers: Mapping[str, str]) -> None:
    encoding = headers.get("content-encoding", "identity").strip().lower()
    if encoding not in {"identity", ""}:
        raise Poison(f"Content-Encoding {shorten(encoding)!r} is not supported; send it uncompressed")
    for parameter in headers.get("content-type", "").split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip().strip('"').lower() not in {"utf-8", "utf8"}:
            raise Poison(f"charset {shorten(value.strip())!r} is not supported; JSON is UTF-8")


def _media_type(headers: Mapping[str, str]) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(content_type: Json) -> bool:
    if not isinstance(content_type, str):
        return False
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type in {"application/json", "text/json"} or media_type.endswith("+json")


def _check_key(key: str | None, events: tuple[Event, ...]) -> None:
    """A key that is not the service's own would order a service's events by something else."""
    if key is None:
        return
    for event in events:
        right = f"{event.environment}/{event.service}"
        if key != right:
            raise Poison(
                f"its key is {shorten(key)!r}, and its event is about {right!r}: "
                "send that as the key, or no key at all"
            )
