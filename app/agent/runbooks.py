"""The approved catalogue: reviewed data that names typed actions, checked whole before the agent starts.

`load_catalogue` is called once at start. Anything it does not fully understand
(an unknown key, an action outside the closed set, a missing parameter, a shell
string, a YAML trick) is a `ConfigurationError` with file, line and column:
there is no free-form command anywhere.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.protocols import Validator
from jsonschema.validators import extend

from app.agent.evidence.format import confidence, in_words
from app.agent.ids import Json, JsonObject, JsonScalar, ServiceKey
from app.agent.models import ActionName, Cause
from app.errors import ConfigurationError

_SCHEMA_FILE = "runbook.schema.json"
_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 16

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, ten times as fast, where PyYAML was built with it."""

_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))

_SHELL_KEYS = frozenset({"args", "bash", "cmd", "command", "exec", "kubectl", "run", "script", "sh", "shell"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One action of a runbook, its parameters still symbolic."""

    action: ActionName
    parameters: Mapping[str, JsonScalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunbookScope:
    """Where a runbook applies; an empty list limits nothing."""

    environments: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    """Kinds of workloads."""

    def outside(self, key: ServiceKey, kind: str | None) -> str | None:
        """Why a service is outside, or None; `kind` is None where no workload is known."""
        for what, allowed, found in (
            ("environment", self.environments, key.environment),
            ("service", self.services, key.service),
            ("kind of workload", self.kinds, kind),
        ):
            if allowed and found not in allowed:
                return f"is limited to the {what} {' or '.join(allowed)}, not {found or 'an unknown one'}"
        return None


EVERYWHERE = RunbookScope()


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A diagnosis for which the runbook must apply, or must not."""

    cause: Cause
    confidence: float
    key: ServiceKey
    kind: str | None
    selected: bool

    def __str__(self) -> str:
        kind = "" if self.kind is None else f", {self.kind}"
        return f"{self.cause.replace('_', ' ')} at {self.confidence:.0%} of {self.key}{kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """One approved answer to one or more causes."""

    id: str
    version: int
    title: str
    causes: tuple[Cause, ...]
    min_confidence: float
    """A diagnosis below it does not warrant these steps."""
    steps: tuple[Step, ...]
    """Empty for one that escalates."""
    hash: str
    """SHA-256 over the canonical form of its content: comments, examples and order of keys do not count."""
    source: str
    """The file it came from."""
    escalate: tuple[str, ...] = ()
    """The instructions for the person to whom it hands the incident; empty for one with steps."""
    scope: RunbookScope = EVERYWHERE
    examples: tuple[Example, ...] = ()

    @property
    def reference(self) -> str:
        """`id@version`, as plans and timelines cite it."""
        return f"{self.id}@{self.version}"

    def objection(self, cause: Cause, found: float, key: ServiceKey, kind: str | None) -> str | None:
        """Why it does not apply to a diagnosis of this confidence; None if it does."""
        if cause not in self.causes:
            return f"addresses {', '.join(in_words(one) for one in self.causes)}, not {in_words(cause)}"
        if found < self.min_confidence:
            return (
                f"the confidence of {confidence(found)} is below "
                f"the {confidence(self.min_confidence)} that {self.id} requires"
            )
        return self.scope.outside(key, kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Every approved runbook, sorted by id."""

    runbooks: tuple[Runbook, ...]

    @property
    def hash(self) -> str:
        """SHA-256 over the hashes of all runbooks."""
        return _sha256([r.hash for r in self.runbooks])

    def check_examples(self) -> int:
        """Test the examples of every runbook; their number. `ConfigurationError` for the first that fails."""
        tested = 0
        for runbook in self.runbooks:
            for one in runbook.examples:
                objection = runbook.objection(one.cause, one.confidence, one.key, one.kind)
                if (objection is None) is not one.selected:
                    why = objection or "it applies"
                    raise ConfigurationError(f"{runbook.source}: the example {one} fails: {why}")
                tested += 1
        return tested


def load_catalogue(path: Path) -> Catalogue:
    """Read every `*.yaml` and `*.yml` of a folder, one runbook each.

    Raises `ConfigurationError` for the first thing wrong, an example that fails included; an empty or missing
    folder is wrong too, for an agent without runbooks was surely not meant.
    """
    try:
        files = sorted(p for p in path.iterdir() if p.suffix in (".yaml", ".yml") and p.is_file())
    except OSError as error:
        raise ConfigurationError(
            f"{path}: the folder of runbooks cannot be read ({error.strerror}); check RUNBOOKS_DIR"
        ) from error
    if not files:
        raise ConfigurationError(f"{path}: no runbook (*.yaml) in this folder; check RUNBOOKS_DIR")
    found: dict[str, Runbook] = {}
    for file in files:
        document = Document(file)
        runbook = _runbook(document)
        if runbook.id in found:
            taken = f"{runbook.id!r} is taken by {found[runbook.id].source}; each runbook needs its own"
            raise document.error(("id",), taken)
        found[runbook.id] = runbook
    catalogue = Catalogue(runbooks=tuple(found[name] for name in sorted(found)))
    catalogue.check_examples()
    return catalogue


def _runbook(document: Document) -> Runbook:
    complaint = _first_complaint(document.content)
    if complaint is not None:
        raise document.error(complaint.place, complaint.message, at_key=complaint.at_key)
    content = cast("JsonObject", document.content)
    return Runbook(
        id=cast("str", content["id"]),
        version=cast("int", content["version"]),
        title=cast("str", content["title"]),
        causes=tuple(Cause(c) for c in cast("list[str]", content["causes"])),
        min_confidence=float(cast("float", content["min_confidence"])),
        steps=tuple(
            Step(
                action=ActionName(cast("str", step["action"])),
                parameters=cast("dict[str, JsonScalar]", step.get("parameters", {})),
            )
            for step in cast("list[JsonObject]", content.get("steps", []))
        ),
        hash=_sha256({name: value for name, value in content.items() if name != "examples"}),
        source=str(document.file),
        escalate=tuple(cast("list[str]", content.get("escalate", []))),
        scope=_scope(cast("dict[str, list[str]]", content.get("scope", {}))),
        examples=tuple(_example(one) for one in cast("list[JsonObject]", content.get("examples", []))),
    )


def _scope(content: Mapping[str, list[str]]) -> RunbookScope:
    return RunbookScope(**{name: tuple(values) for name, values in content.items()})


def _example(content: JsonObject) -> Example:
    return Example(
        cause=Cause(cast("str", content["cause"])),
        confidence=float(cast("float", content["confidence"])),
        key=ServiceKey(
            environment=str(content.get("environment", "prod")), service=str(content.get("service", "shop"))
        ),
        kind=cast("str | None", content.get("kind")),
        selected=content["selected"] is True,
    )


def _sha256(content: Json | list[str]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


# ---------------------------------------------------------------- YAML with places

Place = tuple[str | int, ...]


class Document:
    """One YAML document as plain JSON values, and where in the file each of them stands."""

    def __init__(self, file: Path, kind: str = "runbook", *, max_bytes: int = _MAX_BYTES) -> None:
        self.file = file
        self._max_bytes = max_bytes
        self._kind = kind
        self._marks: dict[Place, yaml.Mark] = {}
        self._keys: dict[Place, yaml.Mark] = {}
        text = self._read()
        try:
            self._refuse_tricks(text)
            nodes = list(yaml.compose_all(text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            raise self._at(
                error.problem_mark or error.context_mark, f"no valid YAML: {error.problem}"
            ) from error
        except yaml.YAMLError as error:
            raise self._at(None, f"no valid YAML: {error}") from error
        if len(nodes) != 1 or nodes[0] is None:
            raise self._at(None, f"one {self._kind} is expected in a file, found {len(nodes)} documents")
        self.content: Json = self._value(nodes[0], ())

    def error(self, place: Place, message: str, *, at_key: bool = False) -> ConfigurationError:
        """The complaint at a value, or at its key where it is the key that should not be there."""
        mark = (self._keys if at_key else self._marks).get(place)
        return self._at(mark, f"{_spoken(place)}: {message}" if place else message)

    def _read(self) -> str:
        try:
            raw = self.file.read_bytes()
        except OSError as error:
            raise self._at(None, f"cannot be read ({error.strerror})") from error
        if len(raw) > self._max_bytes:
            raise self._at(
                None, f"{len(raw)} bytes are more than a {self._kind} may have ({self._max_bytes})"
            )
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._at(None, f"not UTF-8: byte {error.start}") from error

    def _refuse_tricks(self, text: str) -> None:
        """Anchors, aliases, explicit tags and depth have no use here, and each is a known attack."""
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise self._at(event.start_mark, "anchors and aliases are not allowed: write it out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise self._at(event.start_mark, f"the tag {tag!r} is not allowed: plain values only")
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise self._at(event.start_mark, f"nested deeper than {_MAX_DEPTH} levels")
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1

    def _value(self, node: yaml.Node, place: Place) -> Json:
        self._marks[place] = node.start_mark
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(child, (*place, index)) for index, child in enumerate(node.value)]
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> JsonObject:
        found: JsonObject = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != "tag:yaml.org,2002:str":
                raise self._at(
                    key_node.start_mark, "keys are plain words; put this one in quotes if it is meant"
                )
            key = key_node.value
            if key in found:
                raise self._at(key_node.start_mark, f"the key {key!r} stands here twice")
            self._keys[(*place, key)] = key_node.start_mark
            found[key] = self._value(value_node, (*place, key))
        return found

    def _scalar(self, node: yaml.Node) -> JsonScalar:
        if node.tag not in _SCALARS:
            raise self._at(node.start_mark, f"{node.value!r} is neither text nor number: put it in quotes")
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, OverflowError) as error:
            raise self._at(node.start_mark, f"{node.value[:40]!r} is no number: {error}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise self._at(node.start_mark, f"{node.value!r} is not a finite number")
        return cast("JsonScalar", value)

    def _at(self, mark: Any, message: str) -> ConfigurationError:
        # `mark` is one of PyYAML's two unrelated classes of the same shape
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return ConfigurationError(f"{self.file}:{line}:{column}: {message}")


def _spoken(place: Place) -> str:
    """`steps[0].parameters.to`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


# ---------------------------------------------------------------- JSON Schema


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
class _Complaint:
    """Where something is wrong, and what to do about it."""

    place: Place
    message: str
    at_key: bool = False


def _first_complaint(content: Json) -> _Complaint | None:
    errors = sorted(_VALIDATOR(runbook_schema()).iter_errors(content), key=_reading_order)
    return _told(errors[0]) if errors else None


def _reading_order(error: ValidationError) -> tuple[list[str], bool, str]:
    """Unknown fields are reported before missing ones."""
    return [str(p) for p in error.absolute_path], error.validator != "additionalProperties", error.message


def _told(error: ValidationError) -> _Complaint:
    place: Place = tuple(cast("deque[str | int]", error.absolute_path))
    allowed: Mapping[str, object] = {}
    if isinstance(error.schema, Mapping):
        allowed = error.schema.get("properties", {})
    message = error.message
    match error.validator:
        case "additionalProperties":
            key = min(set(cast("JsonObject", error.instance)) - set(allowed))
            return _Complaint(place=(*place, key), message=_unknown_key(key, sorted(allowed)), at_key=True)
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
    return _Complaint(place=place, message=message)


def _unknown_key(key: str, allowed: list[str]) -> str:
    known = f"allowed here: {', '.join(allowed)}" if allowed else "nothing is allowed here"
    if key.lower() in _SHELL_KEYS:
        return f"a runbook runs no commands; name one of the typed actions instead ({known})"
    return f"unknown key; {known}"
