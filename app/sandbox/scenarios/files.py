"""Reading scenario files: YAML with places, values of a variant put in, types and references checked.

A mistake is a `ConfigurationError` with file, line and column, whichever variant it
is found in.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import cast

import msgspec

from app.agent.guardrails.workload_kinds import DAEMON_SET, DEPLOYMENT, STATEFUL_SET
from app.agent.ids import Json, JsonObject, JsonScalar
from app.agent.runbooks import Document, Place
from app.errors import ConfigurationError
from app.sandbox.scenarios.document import (
    ConfigEvent,
    CredentialsEvent,
    Event,
    ExternalEvent,
    FlagEvent,
    LoadEvent,
    NetworkEvent,
    NodeEvent,
    PauseEvent,
    PlacementEvent,
    RangeSpec,
    ScaleEvent,
    ScenarioFile,
    TelemetryEvent,
)
from app.wire.misfits import misfit

KIND = "scenario"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One scenario with the values of one of its variants."""

    file: Path
    number: int
    scenario: ScenarioFile

    @property
    def name(self) -> str:
        """`bad-release/3`, as results are reported by."""
        return f"{self.scenario.id}/{self.number}"

    @property
    def seed(self) -> str:
        """What every random draw of this variant begins with."""
        return self.name

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """What happens in this variant, in order."""
        mine = (e for e in self.scenario.timeline if e.variants is None or self.number in e.variants)
        return tuple(sorted(mine, key=lambda event: event.at))

    @property
    def fault_at(self) -> float | None:
        """When the fault begins, in seconds; None where nothing is wrong."""
        begun = min((event.at for event in self.events if event.role == "fault"), default=None)
        return begun if self.scenario.fault_at is None else self.scenario.fault_at


def scenario_files(folder: Path) -> list[Path]:
    """The scenario files of a folder and of the folders in it, or the one file; in order."""
    if folder.is_file():
        return [folder]
    found = sorted(p for p in folder.rglob("*.y*ml") if p.suffix in (".yaml", ".yml") and p.is_file())
    if not found:
        raise ConfigurationError(f"{folder}: no scenario (*.yaml) in this folder")
    return found


def load_scenarios(folder: Path, variants: int | None = None) -> list[Variant]:
    """Every variant of every scenario, at most `variants` of each; raises `ConfigurationError`."""
    loaded: list[Variant] = []
    taken: dict[str, Path] = {}
    for file in scenario_files(folder):
        found = load_file(file, variants)
        identity = found[0].scenario.id
        if identity in taken:
            raise Document(file, KIND).error(("id",), f"{identity!r} is taken by {taken[identity]}")
        taken[identity] = file
        loaded += found
    return loaded


def load_file(file: Path, variants: int | None = None) -> list[Variant]:
    """The variants of one file; raises `ConfigurationError` with file and line."""
    document = Document(file, KIND)
    if not isinstance(document.content, dict):
        raise document.error((), "a scenario is a mapping of fields")
    content: JsonObject = document.content
    vary = _vary(document, content)
    wanted = content.get("variants", 10)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise document.error(("variants",), "a whole number of at least 1 is needed")
    found = []
    for number in range(wanted):
        drawn = _drawn(vary, f"{content.get('id')}/{number}", number)
        scenario = _typed(document, _filled(document, content, drawn, ()), number)
        _check(document, scenario)
        found.append(Variant(file=file, number=number, scenario=scenario))
    return found if variants is None else found[:variants]


def _vary(document: Document, content: JsonObject) -> Mapping[str, RangeSpec | tuple[JsonScalar, ...]]:
    try:
        return msgspec.convert(
            content.get("vary", {}), dict[str, RangeSpec | tuple[str | float | int | bool, ...]]
        )
    except msgspec.ValidationError as error:
        raise misfit(document, error, ("vary",)) from error


def _drawn(
    vary: Mapping[str, RangeSpec | tuple[JsonScalar, ...]], seed: str, number: int
) -> dict[str, JsonScalar]:
    """The value of each name in one variant: values in turn, ranges by the seed."""
    drawn: dict[str, JsonScalar] = {}
    for name, choice in vary.items():
        if isinstance(choice, RangeSpec):
            random_source = random.Random(f"{seed}/{name}")  # noqa: S311 - reproducible, no secret
            value = random_source.uniform(choice.least, choice.most)
            drawn[name] = round(value) if choice.whole else round(value, 3)
        elif choice:
            drawn[name] = choice[number % len(choice)]
    return drawn


def _filled(document: Document, value: Json, drawn: Mapping[str, JsonScalar], place: Place) -> Json:
    """The content with every `$name` replaced by its value."""
    if isinstance(value, dict):
        return {
            key: item if not place and key == "vary" else _filled(document, item, drawn, (*place, key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_filled(document, item, drawn, (*place, index)) for index, item in enumerate(value)]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in drawn:
            known = ", ".join(f"${name}" for name in sorted(drawn)) or "none"
            raise document.error(place, f"{value} is not defined under vary; defined: {known}")
        return drawn[value[1:]]
    return value


def _typed(document: Document, content: Json, number: int) -> ScenarioFile:
    try:
        return msgspec.convert(content, ScenarioFile)
    except msgspec.ValidationError as error:
        raise misfit(document, error, note=f" (variant {number})" if number else "") from error


def _check(document: Document, scenario: ScenarioFile) -> None:
    """References that the types cannot check."""
    for place, kind, name, known in _references(scenario):
        if name not in known:
            raise document.error(place, f"there is no {kind} {name!r}; known: {', '.join(sorted(known))}")
    allowed = [one for end in scenario.right_ends for one in end.by]
    for index, one in enumerate(scenario.forbidden):
        if any(one.overlaps(other) for other in allowed):
            said = one.action if one.service is None else f"{one.action} of {one.service}"
            raise document.error(("forbidden", index), f"{said} is also part of a right end")
    for index, event in enumerate(scenario.timeline):
        if event.at >= scenario.horizon:
            raise document.error(("timeline", index, "at"), "it is not before the horizon")
        if scenario.control and event.role == "fault":
            raise document.error(("timeline", index), "a control has no fault: give it the role decoy")
    for place, why in _unfit(scenario):
        raise document.error(place, why)
    begun = scenario.fault_at is not None
    if not begun and not scenario.control and all(event.role != "fault" for event in scenario.timeline):
        raise document.error(
            ("timeline",), "no event has the role fault: is this a control, or is fault_at missing?"
        )


def _unfit(scenario: ScenarioFile) -> Iterator[tuple[Place, str]]:
    """What workloads of a kind do not have, and events that do not happen to them."""
    kinds = {service.name: service.kind for service in scenario.topology.services}
    for index, service in enumerate(scenario.topology.services):
        at: Place = ("topology", "services", index)
        if service.on_delete and service.kind == DEPLOYMENT:
            yield (*at, "on_delete"), "a Deployment has no update strategy OnDelete"
        if service.partition and service.kind != STATEFUL_SET:
            yield (*at, "partition"), "only a StatefulSet has a partition"
        if service.on_nodes is not None and service.kind != DAEMON_SET:
            yield (*at, "on_nodes"), "only a DaemonSet has nodes of its own"
        if service.autoscaler is not None and service.kind == DAEMON_SET:
            yield (*at, "autoscaler"), "a DaemonSet has no replicas to scale"
    for index, event in enumerate(scenario.timeline):
        match event:
            case ScaleEvent(service=name) | PlacementEvent(service=name) if kinds.get(name) == DAEMON_SET:
                yield ("timeline", index, "service"), "a DaemonSet runs one pod on each of its nodes"
            case PauseEvent(service=name) if kinds.get(name, DEPLOYMENT) != DEPLOYMENT:
                yield ("timeline", index, "service"), f"the rollout of a {kinds[name]} cannot be paused"


def _references(scenario: ScenarioFile) -> Iterator[tuple[Place, str, str, set[str]]]:
    """Place, kind, name and known names of everything that refers to something else."""
    topology = scenario.topology
    services = {service.name for service in topology.services}
    externals = {external.name for external in topology.externals}
    nodes = {node_name(number) for number in range(1, topology.nodes + 1)}
    for index, service in enumerate(topology.services):
        at: Place = ("topology", "services", index)
        for number, call in enumerate(service.calls):
            yield (*at, "calls", number, "to"), "service or external", call.to, services | externals
        for number, node in enumerate(service.on_nodes or ()):
            yield (*at, "on_nodes", number), "node", node, nodes
        for number, config in enumerate(service.config_maps):
            yield (*at, "config_maps", number), "ConfigMap", config, set(topology.config_maps)
    for index, flag in enumerate(topology.flags):
        yield ("topology", "flags", index, "service"), "service", flag.service, services
    for index, event in enumerate(scenario.timeline):
        at = ("timeline", index)
        yield from _event_references(event, at, services, externals, nodes, scenario)
    for index, end in enumerate(scenario.right_ends):
        for number, one in enumerate(end.by):
            if one.service is not None:
                yield ("right_ends", index, "by", number, "service"), "service", one.service, services
    for index, one in enumerate(scenario.forbidden):
        if one.service is not None:
            yield ("forbidden", index, "service"), "service", one.service, services


def _event_references(
    event: Event,
    at: Place,
    services: set[str],
    externals: set[str],
    nodes: set[str],
    scenario: ScenarioFile,
) -> Iterator[tuple[Place, str, str, set[str]]]:
    match event:
        case NetworkEvent(caller=caller, callee=callee):
            yield (*at, "caller"), "service", caller, services
            yield (*at, "callee"), "service or external", callee, services | externals
        case NodeEvent(node=node):
            yield (*at, "node"), "node", node, nodes
        case ExternalEvent(name=name) | CredentialsEvent(name=name):
            yield (*at, "name"), "external", name, externals
        case FlagEvent(name=name):
            yield (*at, "name"), "flag", name, {flag.name for flag in scenario.topology.flags}
        case ConfigEvent(config_map=name):
            yield (*at, "config_map"), "ConfigMap", name, set(scenario.topology.config_maps)
        case TelemetryEvent(services=named):
            for number, name in enumerate(named):
                yield (*at, "services", number), "service", name, services
        case LoadEvent(service=name):
            yield (*at, "service"), "service", name, services
        case _:
            service = getattr(event, "service", None)
            if service is not None:
                yield (*at, "service"), "service", service, services


def node_name(number: int) -> str:
    """Nodes are named by their number, from 1."""
    return f"node-{number}"


def schema_text() -> str:
    """The JSON Schema of a scenario, as it ships in `scenario.schema.json`."""
    schema = msgspec.json.schema(ScenarioFile)
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A scenario of the healing benchmark",
        **cast("dict[str, object]", _with_names(schema)),
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2).decode() + "\n"


_NAMED = {"type": "string", "pattern": r"^\$\w+$"}


def _with_names(schema: object) -> object:
    """The schema, in which `$name` may stand for any value that is no free text."""
    if isinstance(schema, list):
        return [_with_names(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    choice = len(schema.get("enum", ())) > 1 or "pattern" in schema
    if choice or schema.get("type") in ("number", "integer", "boolean"):
        return {"anyOf": [schema, _NAMED]}
    return {key: _with_names(item) for key, item in schema.items()}
