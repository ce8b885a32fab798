"""Feature flags as flagd keeps them: JSON documents in a ConfigMap. Pure.

A document has an object `flags`; each flag has a `state`, `variants`, and the name of a `defaultVariant`.
The agent ignores a document that it cannot write back unchanged (not JSON, a duplicate name, or a number or
character that would be written differently), or whose names are not short lines: it changes only documents
that it understands completely.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from app.agent.ids import Json, JsonObject

ENABLED, DISABLED = "ENABLED", "DISABLED"
STATE, DEFAULT_VARIANT = "state", "defaultVariant"

_MOST_CHARACTERS = 1_048_576
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagPlace:
    """Where a flag is: the entry of the ConfigMap's data, and its name there."""

    key: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlagChange:
    """One flag that differs between two contents of a ConfigMap."""

    place: FlagPlace
    before: JsonObject | None
    """None for a flag that was not there."""
    now: JsonObject | None

    @property
    def fields(self) -> frozenset[str]:
        """The fields that differ."""
        one, other = self.before or {}, self.now or {}
        return frozenset(name for name in {*one, *other} if one.get(name) != other.get(name))


def document_of(text: str) -> JsonObject | None:
    """The flags of one entry; None if it is not a flag document."""
    if len(text) > _MOST_CHARACTERS or '"flags"' not in text:
        return None
    try:
        found = json.loads(text, object_pairs_hook=_unique, parse_float=_exact, parse_constant=_not_of_json)
        json.dumps(found, ensure_ascii=False).encode()  # half a character cannot be written
    except (ValueError, ArithmeticError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    flags = found.get("flags")
    if not isinstance(flags, dict) or not flags:
        return None
    return found if all(_is_name(name) and _is_flag(one) for name, one in flags.items()) else None


def flags_of(data: Mapping[str, str]) -> dict[FlagPlace, JsonObject]:
    """Every flag of a ConfigMap."""
    found: dict[FlagPlace, JsonObject] = {}
    for key, text in data.items():
        document = document_of(text) or {}
        flags = document.get("flags")
        for name, flag in (flags if isinstance(flags, dict) else {}).items():
            if isinstance(flag, dict):
                found[FlagPlace(key=key, name=name)] = flag
    return found


def changed_flags(before: Mapping[str, str], now: Mapping[str, str]) -> tuple[FlagChange, ...] | None:
    """The flags that differ; None where anything else differs too."""
    if {k: _rest(v) for k, v in before.items()} != {k: _rest(v) for k, v in now.items()}:
        return None
    these, those = flags_of(before), flags_of(now)
    places = sorted({*these, *those}, key=lambda place: (place.key, place.name))
    return tuple(
        FlagChange(place=place, before=these.get(place), now=those.get(place))
        for place in places
        if these.get(place) != those.get(place)
    )


def with_field(text: str, name: str, field: str, value: str) -> str | None:
    """The document with one field of one flag set; None where it holds no such flag.

    Order and indentation stay as a formatter would leave them.
    """
    document = document_of(text)
    flags = document.get("flags") if document is not None else None
    flag = flags.get(name) if isinstance(flags, dict) else None
    if not isinstance(flag, dict):
        return None
    flag[field] = value
    indent = None if "\n" not in text.strip() else _indent(text)
    try:
        written = json.dumps(document, indent=indent, ensure_ascii=False)
    except RecursionError:
        return None
    return written + ("\n" if text.endswith("\n") else "")


def _indent(text: str) -> int:
    line = next((line for line in text.splitlines()[1:] if line.strip()), "")
    return max(1, len(line) - len(line.lstrip(" ")))


def _rest(text: str) -> Json:
    """A document without its flags; any other text unchanged."""
    document = document_of(text)
    return text if document is None else {name: one for name, one in document.items() if name != "flags"}


def _is_flag(one: Json) -> bool:
    if not isinstance(one, dict) or one.get(STATE) not in (ENABLED, DISABLED):
        return False
    return isinstance(one.get("variants"), dict) and _is_name(one.get(DEFAULT_VARIANT) or "none")


def _is_name(one: Json) -> bool:
    """Whether timelines, chats and terminals can show it on one line."""
    return isinstance(one, str) and len(one) <= _LONGEST_NAME and one.isprintable()


def _exact(text: str) -> float:
    found = float(text)
    if Decimal(repr(found)) != Decimal(text):
        raise ValueError(f"{text} would be written as {found}")
    return found


def _not_of_json(text: str) -> float:
    raise ValueError(f"{text} is not valid JSON")


def _unique(pairs: list[tuple[str, Json]]) -> JsonObject:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found
