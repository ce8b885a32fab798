"""The approved catalogue: reviewed data that names typed actions, completely checked before the agent starts.

`load_catalogue` is called once at start. Any content that it does not fully understand (an unknown key, an
action outside the closed set, a missing parameter, a shell string, a YAML trick) is a `ConfigurationError`
with file, line and column: there is no free-form command anywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import cast

from app.agent.evidence.format import confidence, in_words
from app.agent.ids import Json, JsonObject, JsonScalar, ServiceKey
from app.agent.models import ActionName, Cause
from app.agent.runbooks.document import Document, content_of
from app.agent.runbooks.schema import first_complaint
from app.errors import ConfigurationError


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
    """Empty for a runbook that escalates."""
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

    Raises `ConfigurationError` for the first error, including a failing example. An empty or missing folder
    is also an error, because an agent without runbooks is hardly intended.
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
        document, runbook = _checked(file, content_of(file))
        if runbook.id in found:
            taken = f"{runbook.id!r} is taken by {found[runbook.id].source}; each runbook needs its own"
            raise document.error(("id",), taken)
        found[runbook.id] = runbook
    catalogue = Catalogue(runbooks=tuple(found[name] for name in sorted(found)))
    catalogue.check_examples()
    return catalogue


@lru_cache(maxsize=256)
def _checked(file: Path, raw: bytes) -> tuple[Document, Runbook]:
    """A runbook that was checked. A process that loads the same bytes again does not check them again."""
    document = Document(file, raw=raw)
    return document, _runbook(document)


def _runbook(document: Document) -> Runbook:
    complaint = first_complaint(document.content)
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
