"""Checks that Open Policy Agent makes at load time and the embedded engine does not.

Called once for each bundle, on the syntax tree that the embedded engine gives. A
function that calls itself ends the whole process there, for it has no bound on
its stack; a call of a function that does not exist is an error only when it is
reached; and what depends on more than the document (a request over the network,
the clock of this machine) would make a decision that cannot be explained later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from app.connectors.policy.bundle import BundleProblem
from app.connectors.policy.tree import (
    Node,
    Path,
    constant_path,
    imported_names,
    nodes,
    package_of,
    references,
    specs,
)

DECISION_RULE = "data.heal.decision"

_IMPURE = {
    "http.send": "a policy makes no network calls",
    "opa.runtime": "a policy does not read its host",
    "rand.intn": "a decision must be deterministic",
    "time.now_ns": "the document's `time` is when it is decided",
    "uuid.rfc4122": "a decision must be deterministic",
}


@dataclass(slots=True)
class _NamedRule:
    """Everything of one name: its places and what it refers to."""

    file: str
    line: int
    refers: set[Path] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleScope:
    """How names are read within one rule."""

    package: Path
    imports: Mapping[str, Path]
    local: frozenset[str]

    def resolve(self, path: Path) -> Path | None:
        """The full path of a name; None for a variable or the input."""
        first = path[0]
        if first in self.local or first == "input":
            return None
        if first == "data":
            return path
        if first in self.imports:
            return self.imports[first] + path[1:]
        return self.package + path


def check_modules(trees: Sequence[Node], builtins: frozenset[str]) -> list[BundleProblem]:
    """Every problem of all modules together, in the order of their places."""
    rules = _rules(trees)
    calls: list[tuple[str, int, int, Path, Path | None]] = []
    for tree in trees:
        for spec, head, _ in specs(tree):
            scope = scope_of(tree, spec, head)
            for call in nodes(spec, "Call"):
                called = constant_path(call["fcn"])
                full = scope.resolve(called) if called else None
                span = call["fcn"][next(iter(call["fcn"]))]["span"]
                calls.append((tree["source"]["file"], span["line"], span["col"], called, full))
    found = [*_calls(calls, rules, builtins), *_recursive(rules)]
    return sorted(found, key=lambda problem: (problem.file, problem.line or 0, problem.column or 0))


def reachable_rules(trees: Sequence[Node], start: str) -> set[Path]:
    """A rule and every rule that it asks, directly or through others."""
    rules = _rules(trees)
    wanted = tuple(start.split("."))
    begin = {name for name in rules if name[: len(wanted)] == wanted or wanted[: len(name)] == name}
    edges = {name: _targets(rule, rules) for name, rule in rules.items()}
    return begin.union(*(_reachable(name, edges) for name in begin))


def _rules(trees: Sequence[Node]) -> dict[Path, _NamedRule]:
    rules: dict[Path, _NamedRule] = {}
    for tree in trees:
        for spec, head, name in specs(tree):
            scope = scope_of(tree, spec, head)
            rule = rules.setdefault(name, _NamedRule(tree["source"]["file"], spec["span"]["line"]))
            for reference in references(spec):
                full = scope.resolve(reference)
                if full is not None and full != name[: len(full)]:
                    rule.refers.add(full)
            for call in nodes(spec, "Call"):
                called = constant_path(call["fcn"])
                full = scope.resolve(called) if called else None
                if full == name:
                    rule.refers.add(full)
    return rules


def defines_decision(trees: Sequence[Node]) -> bool:
    """Whether a rule `decision` stands in package `heal`."""
    wanted = tuple(DECISION_RULE.split("."))
    return any(name == wanted for name in _rule_names(trees))


def test_names(trees: Sequence[Node]) -> list[str]:
    """The full paths of all rules whose name begins with `test_`, each once, in order."""
    names = (".".join(name) for name in _rule_names(trees) if name[-1].startswith("test_"))
    return list(dict.fromkeys(names))


def scope_of(tree: Node, spec: Node, head: Node) -> RuleScope:
    """How names are read within one rule of a module."""
    return RuleScope(
        package=package_of(tree),
        imports=dict(_imports(tree)),
        local=frozenset(_local_names(spec, head)),
    )


def _rule_names(trees: Sequence[Node]) -> Iterator[Path]:
    for tree in trees:
        for _, _, name in specs(tree):
            yield name


def _calls(
    calls: Sequence[tuple[str, int, int, Path, Path | None]],
    rules: Mapping[Path, _NamedRule],
    builtins: frozenset[str],
) -> Iterator[BundleProblem]:
    for file, line, column, called, full in calls:
        name = ".".join(called)
        if full in rules:
            continue
        if name in _IMPURE:
            why = f"{name} may not be called: {_IMPURE[name]}"
        elif name not in builtins:
            why = f"there is no function {name}"
        else:
            continue
        yield BundleProblem(file=file, line=line, column=column, message=why)


def _recursive(rules: Mapping[Path, _NamedRule]) -> Iterator[BundleProblem]:
    """A rule that depends on itself, directly or through others: OPA refuses each."""
    edges = {name: _targets(rule, rules) for name, rule in rules.items()}
    for name, rule in rules.items():
        if name in _reachable(name, edges):
            message = f"{'.'.join(name)} depends on itself"
            yield BundleProblem(file=rule.file, line=rule.line, message=message)


def _targets(rule: _NamedRule, rules: Mapping[Path, _NamedRule]) -> set[Path]:
    """The rules that a rule may ask: by their path, one above it, or one below it."""
    return {
        name
        for reference in rule.refers
        for name in rules
        if name[: len(reference)] == reference or reference[: len(name)] == name
    }


def _reachable(start: Path, edges: Mapping[Path, set[Path]]) -> set[Path]:
    seen: set[Path] = set()
    pending = list(edges[start])
    while pending:
        name = pending.pop()
        if name not in seen:
            seen.add(name)
            pending.extend(edges[name])
    return seen


def _imports(tree: Node) -> Iterator[tuple[str, Path]]:
    for name, imported in imported_names(tree):
        if imported[:1] == ("data",):
            yield name, imported


def _local_names(spec: Node, head: Node) -> Iterator[str]:
    """The variables of a rule: arguments, what `some`, `every` and `:=` introduce."""
    for argument in head.get("args") or ():
        yield from (var["value"] for var in nodes(argument, "Var"))
    for some in nodes(spec, "SomeIn"):
        for part in (some["key"], some["value"]):
            yield from (var["value"] for var in nodes(part, "Var"))
    for assigned in nodes(spec, "AssignExpr"):
        if assigned["op"] == "ColEq":
            yield from (var["value"] for var in nodes(assigned["lhs"], "Var"))
