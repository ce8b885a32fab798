"""Entries of `deny`, `ask` and their like that are not of the shape the decision reads.

Called once for each bundle, on the syntax tree that the embedded engine gives. The
decision of the shipped policy reads `rule` and `reason` of each entry; an entry that
is a text, or that lacks one of them, decides without a reason on record, or not at
all. Which fields are read is taken from the bundle, so that a custom decision
may have entries of its own shape. An entry that is computed is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.connectors.policy.bundle import TEST_SUFFIX, BundleProblem
from app.connectors.policy.checks import DECISION_RULE, reachable_rules, scope_of
from app.connectors.policy.tree import (
    Node,
    Path,
    constant,
    constant_path,
    nodes,
    references,
    specs,
)
from app.spelling import nearest

_PACKAGE = tuple(DECISION_RULE.split("."))[:-1]
_TEXT_FUNCTIONS = frozenset(
    {"sprintf", "concat", "lower", "upper", "trim", "trim_space", "replace", "substring"}
)
_NEVER_OBJECTS = ("String", "RawString", "Number", "Bool", "Null", "Array", "Set", "ArrayCompr", "SetCompr")
_NEVER_TEXT = ("Number", "Bool", "Null", "Array", "Set", "Object", "ArrayCompr", "SetCompr", "ObjectCompr")
_LIKELY_MEANT = frozenset(
    {"require_approval", "needs_approval", "approve", "denied", "denies", "block", "forbid"}
)
"""Names under which other tools collect what the shipped policy collects under `deny` and `ask`."""


@dataclass(slots=True)
class _Collected:
    """A set of entries: the fields that the decision reads of each."""

    fields: set[str] = field(default_factory=set)


def check_entries(trees: Sequence[Node]) -> list[BundleProblem]:
    """Every entry that cannot work, and every set of entries that nothing reads."""
    deciding = [tree for tree in trees if not tree["source"]["file"].endswith(TEST_SUFFIX)]
    collected = _collected(deciding)
    found: list[BundleProblem] = []
    for tree in deciding:
        for spec, head, name in specs(tree):
            if name in collected:
                found += _shape(tree, spec, head, name, sorted(collected[name].fields))
    found += _unread(deciding, collected)
    return sorted(found, key=lambda problem: (problem.file, problem.line or 0, problem.column or 0))


def _collected(trees: Sequence[Node]) -> Mapping[Path, _Collected]:
    """The sets of the decision's package whose entries what decides reads by their fields."""
    found: dict[Path, _Collected] = {}
    deciding = reachable_rules(trees, DECISION_RULE)
    for tree in trees:
        for spec, head, name in specs(tree):
            if name not in deciding:
                continue
            scope = scope_of(tree, spec, head)
            for some in nodes(spec, "SomeIn"):
                path = constant_path(some["collection"]) if _is_name(some["collection"]) else ()
                full = scope.resolve(path) if path else None
                if full is None or full[:-1] != _PACKAGE or "Var" not in some["value"]:
                    continue
                read = set(_fields_of(spec, some["value"]["Var"]["value"]))
                if read:
                    found.setdefault(full, _Collected()).fields |= read
    return found


def _is_name(node: Node) -> bool:
    return "Var" in node or "RefDot" in node


def _fields_of(spec: Node, variable: str) -> Iterator[str]:
    for ref in nodes(spec, "RefDot"):
        if "Var" in ref["refr"] and ref["refr"]["Var"]["value"] == variable:
            yield str(ref["field"][1])


def _shape(tree: Node, spec: Node, head: Node, name: Path, fields: Sequence[str]) -> Iterator[BundleProblem]:
    """What is wrong with one definition of a set of entries."""
    own = name[-1]
    shape = ", ".join(f'"{each}": ...' for each in fields)
    wanted = f"write `{own} contains {{{shape}}} if {{ ... }}`"
    kind = next(iter(spec["head"])) if "head" in spec else "Default"
    if kind != "Set":
        yield _problem(tree, head, f"{own} is a set of entries, and this is none: {wanted}", spec)
        return
    entry = _entry(spec, head["key"])
    why = None if entry is None else _wrong(entry, fields)
    if why is not None:
        yield _problem(tree, head["key"], f"{why}: {wanted}", spec)


def _entry(spec: Node, key: Node) -> Node | None:
    """The expression of an entry: what stands there, or what the one variable there is defined as."""
    if "Var" not in key:
        return key
    name = key["Var"]["value"]
    defined = [
        assigned["rhs"]
        for assigned in nodes(spec, "AssignExpr")
        if "Var" in assigned["lhs"] and assigned["lhs"]["Var"]["value"] == name
    ]
    return defined[0] if len(defined) == 1 else None


def _wrong(entry: Node, fields: Sequence[str]) -> str | None:
    """Why an entry cannot work; None where it can, or is computed."""
    called = constant_path(entry["Call"]["fcn"]) if "Call" in entry else ()
    if any(kind in entry for kind in _NEVER_OBJECTS) or ".".join(called) in _TEXT_FUNCTIONS:
        return f"an entry must be an object with {' and '.join(fields)}"
    if "Object" not in entry:
        return None
    given = {constant(key): value for _, key, value in entry["Object"]["fields"]}
    if None in given:
        return None
    missing = [each for each in fields if each not in given]
    if missing:
        return f"the entry lacks {' and '.join(missing)}"
    for each in fields:
        if any(kind in given[each] for kind in _NEVER_TEXT):
            return f"{each} of the entry must be a text"
    return None


def _unread(trees: Sequence[Node], collected: Mapping[Path, _Collected]) -> Iterator[BundleProblem]:
    """Sets of entries that nothing asks for: under another name they decide nothing."""
    if not collected:
        return
    names = {name[-1] for name in collected}
    asked = set(_asked(trees))
    for tree in trees:
        for spec, head, name in specs(tree):
            is_set = "head" in spec and "Set" in spec["head"]
            if name in collected or any(name[: len(one)] == one for one in asked) or not is_set:
                continue
            entry = _entry(spec, head["key"])
            alike = entry is not None and "Object" in entry and _same_shape(entry, collected)
            if name[:-1] != _PACKAGE:
                if name[-1] in names and (alike or _nearly_the_package(name[:-1])):
                    package, meant = ".".join(name[1:-1]), ".".join(_PACKAGE[1:])
                    why = f"nothing reads {name[-1]} of package {package}: write `package {meant}`"
                    yield _problem(tree, head["key"], why, spec)
                continue
            if alike or name[-1] in _LIKELY_MEANT or nearest(name[-1], names, most=1):
                meant = " or ".join(sorted(names))
                why = f"nothing reads {name[-1]}, so that it decides nothing: name it {meant}"
                yield _problem(tree, head["key"], why, spec)


def _nearly_the_package(package: Path) -> bool:
    """Whether the package of the decision was probably meant."""
    return len(package) == len(_PACKAGE) and nearest(package[-1], {_PACKAGE[-1]}, most=2) is not None


def _asked(trees: Sequence[Node]) -> Iterator[Path]:
    for tree in trees:
        for spec, head, name in specs(tree):
            scope = scope_of(tree, spec, head)
            for reference in references(spec):
                full = scope.resolve(reference)
                if full is not None and full != name:
                    yield full[: len(_PACKAGE) + 1]


def _same_shape(entry: Node, collected: Mapping[Path, _Collected]) -> bool:
    given = {constant(key) for _, key, _ in entry["Object"]["fields"]}
    return any(given == each.fields for each in collected.values())


def _problem(tree: Node, node: Node, message: str, spec: Node) -> BundleProblem:
    """At the expression, or else at the rule."""
    inner = next(iter(node.values())) if len(node) == 1 else None
    span = inner["span"] if isinstance(inner, dict) and "span" in inner else spec["span"]
    return BundleProblem(file=tree["source"]["file"], line=span["line"], column=span["col"], message=message)
