"""References in a policy to fields of the input that the published schema does not have.

Called once for each bundle, on the syntax tree that the embedded engine gives. A
field that no document has is undefined, so that a rule with a typing mistake never
holds: a `deny` that is meant to forbid something forbids nothing. Only what decides
is looked at: the package of the decision, and what its rules ask in other packages.

What cannot be followed with certainty is not judged: arguments of functions, names
with several definitions, and rules that are asked `with input as` something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from app.agent.ids import Json, JsonObject
from app.connectors.policy.bundle import TEST_SUFFIX, BundleProblem
from app.connectors.policy.checks import DECISION_RULE, reachable_rules, scope_of
from app.connectors.policy.tree import (
    Node,
    Path,
    constant,
    constant_path,
    imported_names,
    nodes,
    references,
    span_text,
    specs,
)
from app.settings.shipped import shipped
from app.spelling import nearest

Schema = Mapping[str, Any]
"""A part of the published JSON Schema."""

_ANYTHING: Schema = {}
_FORMER_FIELDS = frozenset({"budget", "max_actions"})
"""Names of an older version of the document, which a policy for both may ask for with a default."""
_SCHEMA = "docs/policy-input.schema.json"
_MOST_PASSES = 10


@cache
def input_schema() -> Schema:
    """The published schema of the input: in a source tree, else where a wheel puts it."""
    schema: Schema = json.loads(shipped(_SCHEMA).read_text())
    return schema


def example_input() -> JsonObject:
    """An ordinary document of the published schema: what it requires, with the first value that fits."""
    example = _example(input_schema())
    if not isinstance(example, dict):
        raise TypeError("the schema of the policy input does not describe an object")
    return example


def _example(part: Schema) -> Json:
    if "const" in part:
        return part["const"]  # type: ignore[no-any-return]  # the schema is JSON
    if part.get("enum"):
        return part["enum"][0]  # type: ignore[no-any-return]
    kinds = _kinds(part)
    if "object" in kinds:
        return {name: _example(part["properties"][name]) for name in part.get("required", ())}
    if "array" in kinds:
        return []
    if "boolean" in kinds:
        return part.get("default", False)  # type: ignore[no-any-return]
    if kinds & {"integer", "number"}:
        return part.get("minimum", 0)  # type: ignore[no-any-return]
    if "string" in kinds:
        return "2026-02-20T17:02:00+00:00" if part.get("format") == "date-time" else "example"
    return None


def check_fields(trees: Sequence[Node], schema: Schema) -> list[BundleProblem]:
    """Every reference to a field that no input has, in the order of their places."""
    deciding = [tree for tree in trees if not tree["source"]["file"].endswith(TEST_SUFFIX)]
    package = tuple(DECISION_RULE.split("."))[:-1]
    looked_at = reachable_rules(deciding, DECISION_RULE)
    elsewhere = _asked_about_other_input(deciding)
    found: dict[BundleProblem, None] = {}
    for tree in deciding:
        for spec, head, name in specs(tree):
            if (name[: len(package)] == package or name in looked_at) and name not in elsewhere:
                rule = _Rule.read(tree, spec, head, schema)
                found.update(dict.fromkeys(rule.problems()))
    return sorted(found, key=lambda problem: (problem.file, problem.line or 0, problem.column or 0))


def _asked_about_other_input(trees: Sequence[Node]) -> set[Path]:
    """The rules that some statement asks about another input than the agent's."""
    found: set[Path] = set()
    for tree in trees:
        for spec, head, _ in specs(tree):
            scope = scope_of(tree, spec, head)
            for statement in _replacing(spec):
                for reference in references(statement):
                    full = scope.resolve(reference)
                    if full is not None:
                        found |= reachable_rules(trees, ".".join(full))
    return found


def _replacing(spec: Node) -> Iterator[Node]:
    """The statements with a modifier `with input as`, or `with input.field as`."""
    pending = [spec]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            changed = (constant_path(each["refr"])[:1] for each in one.get("with_mods") or ())
            if ("input",) in changed:
                yield one
            else:
                pending.extend(one.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rule:
    """One rule and what its names stand for."""

    tree: Node
    body: list[Node]
    names: Mapping[str, tuple[Path, Schema]]
    """Names that certainly stand for a part of the input: where it is, and what is known of it."""

    @staticmethod
    def read(tree: Node, spec: Node, head: Node, schema: Schema) -> _Rule:
        root: dict[str, tuple[Path, Schema]] = {"input": (("input",), schema)}
        skipped = [id(statement) for statement in _replacing(spec)]
        body = list(_pruned(spec, frozenset(skipped)))
        for name, path in imported_names(tree):
            if path[0] == "input":
                part = _follow(schema, path[1:])
                root[name] = (path, _ANYTHING if part is None else part)
        defined = list(_definitions(tree, spec, head))
        for name, _, _ in defined:
            root.pop(name, None)
        for _ in range(_MOST_PASSES):
            before = len(root)
            for name, value, of_each in defined:
                if name in root or sum(other == name for other, _, _ in defined) > 1 or value is None:
                    continue
                meant = _meant(value, root)
                if meant is not None:
                    path, part = meant
                    root[name] = ((*path, "[_]"), _items(part)) if of_each else meant
            if len(root) == before:
                break
        return _Rule(tree=tree, body=body, names=root)

    def problems(self) -> Iterator[BundleProblem]:
        """Every reference in the rule to a field that is not there."""
        for one in self.body:
            if "RefDot" in one or "RefBrack" in one:
                yield from self._reference(one)
            elif isinstance(one.get("Call"), dict):
                yield from self._default(one["Call"])

    def _reference(self, one: Node) -> Iterator[BundleProblem]:
        """The last part of a reference; what stands before it is a node of its own."""
        ref = one.get("RefDot") or one["RefBrack"]
        name = _part(one)
        meant = _meant(ref["refr"], self.names)
        if meant is None or name is None:
            return
        path, part = meant
        if _step(part, name) is None:
            span = ref["field"][0] if "RefDot" in one else ref["span"]
            yield self._problem(span, path, part, name)

    def _default(self, call: Node) -> Iterator[BundleProblem]:
        """`object.get(input, "enviroment", ...)`: only a name close to one, for a default may be meant."""
        if constant_path(call["fcn"]) != ("object", "get") or len(call["params"]) != 3:
            return
        meant, name = _meant(call["params"][0], self.names), constant(call["params"][1])
        if meant is None or name is None or name in _FORMER_FIELDS:
            return
        path, part = meant
        if _step(part, name) is None and nearest(name, _fields(part)) is not None:
            span = next(iter(call["params"][1].values()))["span"]
            yield self._problem(span, path, part, name)

    def _problem(self, span: Node, path: Path, part: Schema, name: str) -> BundleProblem:
        parent = ".".join(path).replace(".[_]", "[_]")
        known = _fields(part)
        likely = nearest(name, known)
        if likely is not None:
            hint = f"did you mean {parent}.{likely}?"
        elif known:
            hint = f"{parent} has {', '.join(sorted(known))}"
        else:
            hint = f"{parent} has no fields"
        message = f"{parent}.{name} is not a field of the policy input: {hint}"
        return BundleProblem(
            file=self.tree["source"]["file"], line=span["line"], column=span["col"], message=message
        )


def _pruned(spec: Node, skipped: frozenset[int]) -> Iterator[Node]:
    """Every object of a rule's tree, without the statements about another input."""
    pending: list[Node] = [spec]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict) and id(one) not in skipped:
            yield one
            pending.extend(one.values())


def _definitions(tree: Node, spec: Node, head: Node) -> Iterator[tuple[str, Node | None, bool]]:
    """Names of a rule with what defines them (None: not known), and whether they are each element of that."""
    for argument in head.get("args") or ():
        yield from ((var["value"], None, False) for var in nodes(argument, "Var"))
    for assigned in nodes(spec, "AssignExpr"):
        if assigned["op"] == "ColEq":
            whole = "Var" in assigned["lhs"]
            for var in nodes(assigned["lhs"], "Var"):
                yield var["value"], assigned["rhs"] if whole else None, False
    for some in nodes(spec, "SomeIn"):
        if some["key"] is not None:
            yield from ((var["value"], None, False) for var in nodes(some["key"], "Var"))
        whole = "Var" in some["value"]
        for var in nodes(some["value"], "Var"):
            yield var["value"], some["collection"] if whole else None, True
    for some in nodes(spec, "SomeVars"):
        yield from ((span_text(tree, span), None, False) for span in some["vars"])
    for every in nodes(spec, "Every"):
        if every["key"] is not None:
            yield span_text(tree, every["key"]), None, False
        yield span_text(tree, every["value"]), every["domain"], True


def _meant(node: Node, names: Mapping[str, tuple[Path, Schema]]) -> tuple[Path, Schema] | None:
    """The part of the input that an expression certainly stands for."""
    if "Var" in node:
        return names.get(node["Var"]["value"])
    if "RefDot" in node or "RefBrack" in node:
        ref = node.get("RefDot") or node["RefBrack"]
        parent = _meant(ref["refr"], names)
        if parent is None:
            return None
        name = _part(node)
        if name is None:
            return (*parent[0], "[_]"), _items(parent[1])
        part = _step(parent[1], name)
        return None if part is None else ((*parent[0], name), part)
    if "Call" in node and constant_path(node["Call"]["fcn"]) == ("object", "get"):
        first, name = node["Call"]["params"][0], constant(node["Call"]["params"][1])
        parent = _meant(first, names)
        part = None if parent is None or name is None else _step(parent[1], name)
        return None if parent is None or part is None or name is None else ((*parent[0], name), part)
    return None


def _part(node: Node) -> str | None:
    """The name of the last part of a reference; None where it is computed, or a number."""
    return str(node["RefDot"]["field"][1]) if "RefDot" in node else constant(node["RefBrack"]["index"])


def _follow(schema: Schema, path: Path) -> Schema | None:
    part: Schema | None = schema
    for name in path:
        part = None if part is None else _step(part, name)
    return part


def _step(part: Schema, name: str) -> Schema | None:
    """What the schema says of a field; None where there is none."""
    properties = part.get("properties", {})
    if name in properties:
        found: Schema = properties[name]
        return found
    others = part.get("additionalProperties", True)
    kinds = _kinds(part)
    if kinds and "object" not in kinds:
        return None
    if others is False:
        return None
    return others if isinstance(others, dict) else _ANYTHING


def _items(part: Schema) -> Schema:
    """What the schema says of each element, or of each value where they are all alike."""
    items: Schema = part.get("items") or _ANYTHING
    others = part.get("additionalProperties")
    return others if isinstance(others, dict) and not part.get("properties") else items


def _fields(part: Schema) -> frozenset[str]:
    return frozenset(part.get("properties", {}))


def _kinds(part: Schema) -> frozenset[str]:
    kind = part.get("type")
    if kind is None:
        return frozenset({"string"}) if "const" in part or "enum" in part else frozenset()
    return frozenset([kind] if isinstance(kind, str) else kind)
