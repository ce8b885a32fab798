"""Writes the published JSON schemas: actions and causes of the code, scenarios, the services file.

Run as `python -m scripts.schemas` after a change of either; a test fails while they differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import cast

from app.agent.actions import ACTIONS, ActionSpec
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import Json, JsonObject
from app.agent.models import ActionName, Cause
from app.sandbox.scenarios.files import schema_text
from app.settings import services

ROOT = Path(__file__).resolve().parent.parent
RUNBOOK = ROOT / "app" / "agent" / "runbook.schema.json"
POLICY_INPUT = ROOT / "docs" / "policy-input.schema.json"
SERVICES = ROOT / "app" / "settings" / "services.schema.json"
SCENARIO = ROOT / "app" / "sandbox" / "scenarios" / "scenario.schema.json"


def written(file: Path) -> str:
    """The text of one of the schemas with the actions and causes of the code."""
    if file == SCENARIO:
        return schema_text()
    if file == SERVICES:
        return services.schema_text()
    schema = cast("JsonObject", json.loads(file.read_text(encoding="utf-8")))
    if file == RUNBOOK:
        _write_runbook(schema)
    else:
        for values in _enums(schema):
            for names in (ActionName, Cause):
                _replace(values, names)
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _write_runbook(schema: JsonObject) -> None:
    specs = [spec for spec in ACTIONS.values() if spec.in_runbooks]
    properties = cast("dict[str, JsonObject]", schema["properties"])
    causes: list[Json] = [str(cause) for cause in Cause if cause is not Cause.UNKNOWN]
    cast("JsonObject", properties["causes"]["items"])["enum"] = causes
    example = cast("dict[str, dict[str, JsonObject]]", properties["examples"]["items"])
    example["properties"]["cause"]["enum"] = causes
    scope = cast("dict[str, dict[str, JsonObject]]", properties["scope"])
    cast("JsonObject", scope["properties"]["kinds"]["items"])["enum"] = [*WORKLOAD_KINDS]
    defs = cast("dict[str, JsonObject]", schema["$defs"])
    step = defs["step"]
    cast("dict[str, JsonObject]", step["properties"])["action"]["enum"] = [str(spec.name) for spec in specs]
    step["allOf"] = [_condition(spec) for spec in specs]
    schema["$defs"] = {"step": step, **{str(spec.name): spec.schema() for spec in specs}}


def _condition(spec: ActionSpec) -> JsonObject:
    """The parameters of a step with this action; they may be left out where none is required."""
    then: JsonObject = {"properties": {"parameters": {"$ref": f"#/$defs/{spec.name}"}}}
    if spec.exactly_one_parameter or any(parameter.required for parameter in spec.parameters):
        then["required"] = ["parameters"]
    return {
        "if": {"properties": {"action": {"const": str(spec.name)}}, "required": ["action"]},
        "then": then,
    }


def _enums(value: Json) -> Iterator[list[Json]]:
    """Every list of allowed values in a schema."""
    if isinstance(value, dict):
        found = value.get("enum")
        if isinstance(found, list):
            yield found
        for child in value.values():
            yield from _enums(child)
    elif isinstance(value, list):
        for child in value:
            yield from _enums(child)


def _replace(values: list[Json], names: type[StrEnum]) -> None:
    """Complete a list that names members of `names`; null stays in it."""
    known = [str(name) for name in names]
    if sum(value in known for value in values) > 1:
        values[:] = [*known, *(value for value in values if value is None)]


if __name__ == "__main__":
    for path in (RUNBOOK, POLICY_INPUT, SCENARIO, SERVICES):
        path.write_text(written(path), encoding="utf-8")
