"""The changes of an action, field by field, in words: the old and the new value. Pure.

The one place that describes such a difference in words. Both connectors call it with the object before and
after a rehearsal, and their answer is what timeline, approvals page and chat show. Secrets never enter it
(promise 12): a value is hidden if its name or its form suggests a credential, or if it is configuration
that looks like one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from app.agent.ids import Json, JsonObject
from app.lists import some_of
from app.redaction import HIDDEN, redacted

_MOST_FIELDS = 6
_LONGEST = 60
"""Characters of a value."""
_LONGEST_PATH = 200
_DEEPEST = 32
"""Levels of an object that are compared by their fields."""
_CONFIGURED = re.compile(r"(?:^|\.)(?:data|binaryData|env|args|command|annotations)\b")
"""Values that people chose, and that may be secrets under an innocent name."""
_SECRET_NAME = re.compile(
    r"(?i)pass|pwd|secret|token|key|cred|auth|salt|cert|dsn|conn|(?:^|[^a-z])pin(?![a-z])"
)
"""Parts of the names under which people keep credentials; other values go by such names too."""
_SWITCH = re.compile(r"(?i)true|false|on|off|yes|no|enabled|disabled|\d{1,3}")
"""Values that are not secret, regardless of their name."""
_DATA = re.compile(r"(?:^|\.)data\.")
_RANDOM = re.compile(r"[A-Za-z0-9+/=_-]{16,}")
_PARTS = re.compile(r"[.\[\]]")
_ABSENT = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One field that differs; None: it is not there."""

    path: str
    before: Json
    after: Json


def field_changes(before: Json, after: Json) -> tuple[FieldChange, ...]:
    """The fields that differ, in order of their paths."""
    these, those = dict(_leaves(before, "")), dict(_leaves(after, ""))
    paths = sorted({*these, *those})
    return tuple(
        FieldChange(path=path, before=these.get(path), after=those.get(path))
        for path in paths
        if these.get(path) != those.get(path)
    )


def in_words(before: Json, after: Json) -> str:
    """`spec.replicas 3 -> 5, spec.paused false -> true`; empty where nothing differs."""
    found = field_changes(before, after)
    said = [
        f"{_line(redacted(one.path), _LONGEST_PATH)} "
        f"{_value(one.path, one.before)} -> {_value(one.path, one.after)}"
        for one in found
    ]
    return some_of(said, _MOST_FIELDS)


def _leaves(value: Json, path: str, depth: int = 0) -> Iterator[tuple[str, Json]]:
    """Each value with its path; entries of lists by their name, documents in ConfigMaps by their fields."""
    if isinstance(value, str) and _DATA.search(path):
        value = _document(value)
    if depth > _DEEPEST:
        yield path, value
    elif isinstance(value, Mapping):
        if "value" in value and _name(value) is not None:
            yield path, value["value"]
            return
        for name, item in value.items():
            yield from _leaves(item, f"{path}.{name}" if path else name, depth + 1)
    elif isinstance(value, list) and value and all(_name(item) is not None for item in value):
        for item in value:
            yield from _leaves(item, f"{path}[{_name(item)}]", depth + 1)
    elif path:
        yield path, value


def _document(text: str) -> Json:
    """A JSON object as its fields; any other text unchanged."""
    if not text.lstrip().startswith("{"):
        return text
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, dict) else text


def _name(item: Json) -> str | None:
    found = item.get("name") if isinstance(item, Mapping) else None
    return found if isinstance(found, str) else None


def _value(path: str, value: Json) -> str:
    """A value as it may be shown."""
    if value is None:
        return _ABSENT
    if path.startswith("binaryData"):
        return HIDDEN
    try:
        text = value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    except RecursionError:
        return HIDDEN
    named = (f"{part}={text}" for part in _PARTS.split(path) if part)
    if redacted(text) != text or any(redacted(one) != one for one in named):
        return HIDDEN
    if _CONFIGURED.search(path) and _may_be_secret(path, text):
        return HIDDEN
    return _line(text, _LONGEST)


def _line(text: str, longest: int) -> str:
    """The text on one line, without characters that change how the text around it is shown."""
    begin = text[: 4 * longest]
    line = " ".join("".join(c if c.isprintable() else " " for c in begin).split())
    return line if len(line) <= longest and begin == text else f"{line[:longest]}…"


def _may_be_secret(path: str, text: str) -> bool:
    """Whether the name is one of credentials, or the text may hold one.

    Long words of letters and digits look like a key, and several lines may hold anything.
    """
    if _SWITCH.fullmatch(text):
        return False
    # A list or an object holds names too.
    named = f"{path} {text}" if text.startswith(("[", "{")) else path
    if _SECRET_NAME.search(named) or "\n" in text.strip():
        return True
    return any(
        any(c.isdigit() for c in word) and any(c.isalpha() for c in word) for word in _RANDOM.findall(text)
    )


def parts_shown(item: JsonObject, *, status: bool = False) -> JsonObject:
    """The part of an object that an action may change, without fields that servers and the agent write."""
    metadata = item.get("metadata")
    about = metadata if isinstance(metadata, dict) else {}
    marks = {
        kind: {name: value for name, value in found.items() if not name.startswith(_OWN)}
        for kind in ("labels", "annotations")
        if isinstance(found := about.get(kind), dict)
    }
    parts = ("spec", "data", "binaryData", *(("status",) if status else ()))
    shown: JsonObject = {part: item[part] for part in parts if part in item}
    return {**shown, "metadata": {kind: dict(found) for kind, found in marks.items()}}


_OWN = "self-healing-devops-agent/intent"
