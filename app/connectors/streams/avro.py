"""Events in Avro: schemas that an event can have, and records read by them.

Used by the schema registry's connector and by `app.connectors.streams.envelope`. A
sender chooses the schema, so a schema is trusted only as far as an event needs:
one flat record of plain values. Arrays, maps and nesting are refused, which also
bounds what a few hostile bytes can make the reader do.
"""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import Any, cast

from app.agent.ids import Json, JsonObject
from app.connectors.text import shorten
from app.errors import ConfigurationError, Invalid

_MAGIC = 0
_FRAME = struct.Struct(">bI")
_PLAIN = frozenset({"null", "boolean", "int", "long", "float", "double", "string"})
_MAX_FIELDS = 64
_MAX_SYMBOLS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatSchema:
    """A schema whose records are flat."""

    name: str
    """The record's name without its namespace."""
    parsed: Mapping[str, Any]  # Any: fastavro's own form of a schema, handed back to it unread


def schema_id(body: bytes) -> int | None:
    """The schema's id when the body is framed in the wire format of schema registries, else None."""
    return _FRAME.unpack_from(body)[1] if len(body) >= _FRAME.size and body[0] == _MAGIC else None


def require_library() -> None:
    """Raise `ConfigurationError` when the extra is not installed: at the start, not at the first message."""
    _library()


def flat_schema(text: str) -> FlatSchema:
    """The schema that a registry gave as text; raises `Invalid` for one that no event can have."""
    try:
        schema: Json = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("it is not JSON") from None
    if not isinstance(schema, dict) or schema.get("type") != "record":
        raise Invalid("it is not a record")
    fields = schema.get("fields")
    name = schema.get("name")
    if not isinstance(fields, list) or not isinstance(name, str) or len(fields) > _MAX_FIELDS:
        raise Invalid(f"it is not a record of up to {_MAX_FIELDS} fields with a name")
    for field in fields:
        if not isinstance(field, dict) or not _is_plain(field.get("type")):
            what = field.get("name") if isinstance(field, dict) else field
            raise Invalid(
                f"field {shorten(str(what))} is neither a plain value, an enum, nor a union of these"
            )
    names = [str(field["name"]) for field in fields if isinstance(field, dict) and "name" in field]
    if len(set(names)) < len(names):
        raise Invalid("two of its fields have the same name")
    fastavro = _library()
    try:
        parsed = fastavro.parse_schema(schema)
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType) as error:
        raise Invalid(shorten(f"it does not parse: {error}")) from None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise Invalid(shorten(f"it does not parse: {type(error).__name__} {error}")) from None
    return FlatSchema(name=name.rpartition(".")[2], parsed=parsed)


def read_record(schema: FlatSchema, body: bytes) -> JsonObject:
    """The one record of a framed body as a JSON object, times as RFC 3339; raises `Invalid`."""
    stream = io.BytesIO(body[_FRAME.size :])
    try:
        record = _library().schemaless_reader(stream, schema.parsed, None)
    except (EOFError, ValueError, IndexError, OverflowError, TypeError, struct.error) as error:
        raise Invalid(shorten(f"the bytes do not fit the schema {schema.name}: {error}")) from None
    if stream.read(1):
        raise Invalid(f"more bytes follow the record that the schema {schema.name} describes")
    return {name: _as_json(value) for name, value in cast("Mapping[str, object]", record).items()}


def _as_json(value: object) -> Json:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _is_plain(kind: Json) -> bool:
    """A primitive (with or without a logical type), an enum, or a union of such."""
    if isinstance(kind, str):
        return kind in _PLAIN
    if isinstance(kind, list):
        return 1 <= len(kind) <= len(_PLAIN) + 1 and all(
            not isinstance(one, list) and _is_plain(one) for one in kind
        )
    if not isinstance(kind, dict):
        return False
    symbols = kind.get("symbols")
    if kind.get("type") == "enum":
        return isinstance(symbols, list) and 1 <= len(symbols) <= _MAX_SYMBOLS
    return isinstance(kind.get("type"), str) and kind["type"] in _PLAIN


def _library() -> ModuleType:
    try:
        import fastavro
        import fastavro.schema
    except ImportError:
        raise ConfigurationError("reading Avro needs the extra 'avro': pip install '.[avro]'") from None
    return fastavro
