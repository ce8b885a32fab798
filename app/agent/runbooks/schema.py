"""The errors that the JSON Schema of a runbook finds, in words for its author."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import cast

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from app.agent.ids import Json, JsonObject
from app.agent.runbooks.document import Place

_SCHEMA_FILE = "runbook.schema.json"

_SHELL_KEYS = frozenset({"args", "bash", "cmd", "command", "exec", "kubectl", "run", "script", "sh", "shell"})


@cache
def runbook_schema() -> JsonObject:
    """The JSON Schema of a runbook, as shipped: editors can use the same file."""
    text = resources.files("app.agent").joinpath(_SCHEMA_FILE).read_text(encoding="utf-8")
    return cast("JsonObject", json.loads(text))


def _is_integer(_: object, value: object) -> bool:
    """JSON Schema takes 2.0 for an integer; a runbook's author surely did not mean it as one."""
    return isinstance(value, int) and not isinstance(value, bool)


_extend = cast("Callable[..., type[Validator]]", extend)  # its stubs leave it untyped

_VALIDATOR = _extend(
    Draft202012Validator, type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", _is_integer)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Complaint:
    """Where something is wrong, and what to do about it."""

    place: Place
    message: str
    at_key: bool = False


def first_complaint(content: Json) -> Complaint | None:
    errors = sorted(_VALIDATOR(runbook_schema()).iter_errors(content), key=_reading_order)
    return _complaint(errors[0]) if errors else None


def _reading_order(error: ValidationError) -> tuple[list[str], bool, str]:
    """Unknown fields are reported before missing ones."""
    return [str(p) for p in error.absolute_path], error.validator != "additionalProperties", error.message


def _complaint(error: ValidationError) -> Complaint:
    place: Place = tuple(cast("deque[str | int]", error.absolute_path))
    allowed: Mapping[str, object] = {}
    if isinstance(error.schema, Mapping):
        allowed = error.schema.get("properties", {})
    message = error.message
    match error.validator:
        case "additionalProperties":
            key = min(set(cast("JsonObject", error.instance)) - set(allowed))
            return Complaint(place=(*place, key), message=_unknown_key(key, sorted(allowed)), at_key=True)
        case "required":
            wanted = set(cast("list[str]", error.validator_value)) - set(cast("JsonObject", error.instance))
            message = f"{', '.join(sorted(wanted))} is missing"
        case "enum":
            choices = ", ".join(str(v) for v in cast("list[object]", error.validator_value))
            message = f"{error.instance!r} is not one of: {choices}"
        case "minProperties" | "maxProperties":
            message = f"exactly one of {', '.join(sorted(allowed))} is needed"
        case "minItems":
            message = "at least one is needed"
        case "oneOf":
            message = "exactly one of escalate, steps is needed"
    return Complaint(place=place, message=message)


def _unknown_key(key: str, allowed: list[str]) -> str:
    known = f"allowed here: {', '.join(allowed)}" if allowed else "no keys are allowed here"
    if key.lower() in _SHELL_KEYS:
        return f"a runbook runs no commands; name one of the typed actions instead ({known})"
    return f"unknown key; {known}"
