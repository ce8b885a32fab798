"""Field errors of events and requests, each with its fix: one wording for all interfaces.

`app.api.problems` puts these into problem documents, the readers of streams into
the reason of a dead letter.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from app.agent.ids import Json, JsonObject
from app.wire.fields import explain

_MAX_SHOWN_CHARS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One invalid field, and its fix."""

    field: str
    """Path inside the body (`[3].error_rate`), or the name of a parameter or header."""
    value: object
    message: str
    fix: str

    def as_json(self) -> JsonObject:
        return {
            "field": shown(self.field or '""'),
            "value": shown(self.value),
            "message": self.message,
            "fix": self.fix,
            "mend": self.fix,  # deprecated: the same text for one release
        }


def shown(value: object) -> Json:
    """A rejected value, cut to a readable length and safe to encode."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _MAX_SHOWN_CHARS else text[:_MAX_SHOWN_CHARS] + "..."


def field_errors(errors: Sequence[Mapping[str, object]], prefix: str = "") -> list[FieldError]:
    """Translate pydantic's error list; `prefix` is the index of the entry in a list body."""
    found = []
    for error in errors:
        location = cast("tuple[str | int, ...]", error["loc"])
        path = prefix
        for part in location:
            name = str(part) or '""'
            path += f"[{part}]" if isinstance(part, int) else f".{name}" if path else name
        message, fix = explain(error)
        value = None if error["type"] == "missing" else error.get("input")
        found.append(FieldError(field=path or "body", value=value, message=message, fix=fix))
    return found


def in_words(errors: Sequence[FieldError]) -> str:
    """The first of them as a sentence, with the number of the others."""
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    plain = isinstance(first.value, str | int | float) and first.message != "is missing"
    given = f" (given: {shown(first.value)!r})" if plain else ""
    return f"{shown(first.field)}: {first.message}{given}. Fix: {first.fix}.{more}"
