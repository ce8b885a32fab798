"""What Open Policy Agent refuses in a policy and the embedded engine would only find out too late.

Called once for each bundle, on the syntax tree that the embedded engine gives. A
function that calls itself ends the whole process there, for it has no bound on
its stack; a call of a function that does not exist is an error only when it is
reached; and what depends on more than the document (a request over the network,
the clock of this machine) would make a decision that nobody can explain later.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.connectors.rego_bundle import Problem

DECISION_RULE = "data.heal.decision"

_IMPURE = {
    "http.send": "a policy asks nobody else",
    "opa.runtime": "a policy does not look at the machine it runs on",
    "rand.intn": "a decision is no game of chance",
    "time.now_ns": "the document's `time` is when it is decided",
    "uuid.rfc4122": "a decision is no game of chance",
}

Node = Any  # what the engine's syntax tree consists of: JSON without a schema of its own
Path = tuple[str, ...]


@dataclass(slots=True)
class _Rule:
    """Everything of one name: its places and what it refers to."""

    file: str
    line: int
    refers: set[Path] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scope:
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


def check_modules(trees: Sequence[Node], builtins: frozenset[str]) -> list[Problem]:
    """Every problem of all modules together, in the order of their places."""
    rules: dict[Path, _Rule] = {}
    calls: list[tuple[str, int, int, Path, Path | None]] = []
    for tree in trees:
        file, ast = tree["source"]["file"], tree["ast"]
        package = ("data", *_path(ast["package"]["refr"]))
        imports = dict(_imports(tree))
        for node in ast["rules"]:
            spec = node.get("Spec") or node["Default"]
            head = next(iter(spec["head"].values())) if "head" in spec else spec
            scope = _Scope(package=package, imports=imports, local=frozenset(_local_names(spec, head)))
            name = package + _path(head["refr"])
            rule = rules.setdefault(name, _Rule(file, spec["span"]["line"]))
            for reference in _references(spec):
                full = scope.resolve(reference)
                if full is not None and full != name[: len(full)]:
                    rule.refers.add(full)
            for call in _nodes(spec, "Call"):
                called = _path(call["fcn"])
                full = scope.resolve(called) if called else None
                if full == name:
                    rule.refers.add(full)
                span = call["fcn"][next(iter(call["fcn"]))]["span"]
                calls.append((file, span["line"], span["col"], called, full))
    found = [*_calls(calls, rules, builtins), *_recursive(rules)]
    return sorted(found, key=lambda problem: (problem.file, problem.line or 0, problem.column or 0))


def defines_decision(trees: Sequence[Node]) -> bool:
    """Whether a rule `decision` stands in package `heal`."""
    wanted = tuple(DECISION_RULE.split("."))
    return any(name == wanted for name in _rule_names(trees))


def test_names(trees: Sequence[Node]) -> list[str]:
    """The full paths of all rules whose name begins with `test_`, each once, in order."""
    names = (".".join(name) for name in _rule_names(trees) if name[-1].startswith("test_"))
    return list(dict.fromkeys(names))


def _rule_names(trees: Sequence[Node]) -> Iterator[Path]:
    for tree in trees:
        package = ("data", *_path(tree["ast"]["package"]["refr"]))
        for node in tree["ast"]["rules"]:
            spec = node.get("Spec") or node["Default"]
            head = next(iter(spec["head"].values())) if "head" in spec else spec
            yield package + _path(head["refr"])


def _calls(
    calls: Sequence[tuple[str, int, int, Path, Path | None]],
    rules: Mapping[Path, _Rule],
    builtins: frozenset[str],
) -> Iterator[Problem]:
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
        yield Problem(file=file, line=line, column=column, message=why)


def _recursive(rules: Mapping[Path, _Rule]) -> Iterator[Problem]:
    """A rule that depends on itself, directly or through others: OPA refuses each."""
    edges = {name: _targets(rule, rules) for name, rule in rules.items()}
    for name, rule in rules.items():
        if name in _reachable(name, edges):
            message = f"{'.'.join(name)} depends on itself"
            yield Problem(file=rule.file, line=rule.line, message=message)


def _targets(rule: _Rule, rules: Mapping[Path, _Rule]) -> set[Path]:
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
    for node in tree["ast"]["imports"]:
        path = _path(node["refr"])
        if path[:1] != ("data",):
            continue
        alias = node.get("as")
        if alias is None:
            yield path[-1], path
        else:
            text = tree["source"]["contents"].encode()
            yield text[alias["start"] : alias["end"]].decode(), path


def _local_names(spec: Node, head: Node) -> Iterator[str]:
    """The variables of a rule: arguments, what `some`, `every` and `:=` introduce."""
    for argument in head.get("args") or ():
        yield from (var["value"] for var in _nodes(argument, "Var"))
    for some in _nodes(spec, "SomeIn"):
        for part in (some["key"], some["value"]):
            yield from (var["value"] for var in _nodes(part, "Var"))
    for assigned in _nodes(spec, "AssignExpr"):
        if assigned["op"] == "ColEq":
            yield from (var["value"] for var in _nodes(assigned["lhs"], "Var"))


def _references(node: Node) -> Iterator[Path]:
    """The longest constant path of every reference within."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            kind = next(iter(one), None)
            if kind in ("Var", "RefDot", "RefBrack"):
                path = _path(one)
                if path:
                    yield path
                pending.extend(_indices(one))
            else:
                pending.extend(one.values())


def _indices(node: Node) -> Iterator[Node]:
    """What stands in the brackets of a reference, which may refer to rules itself."""
    while node:
        if "RefBrack" in node:
            yield node["RefBrack"]["index"]
            node = node["RefBrack"]["refr"]
        elif "RefDot" in node:
            node = node["RefDot"]["refr"]
        else:
            if "Var" not in node:
                yield node
            return


def _path(node: Node) -> Path:
    """`a.b["c"]` as a path, up to the first part that is not constant; empty when it begins with no name."""
    parts: list[str] = []
    chain = []
    while True:
        if "Var" in node:
            parts.append(str(node["Var"]["value"]))
            break
        if "RefDot" in node:
            chain.append(str(node["RefDot"]["field"][1]))
            node = node["RefDot"]["refr"]
        elif "RefBrack" in node:
            index = node["RefBrack"]["index"]
            chain.append(str(index["String"]["value"]) if "String" in index else "")
            node = node["RefBrack"]["refr"]
        else:
            return ()
    for part in reversed(chain):
        if not part:
            break
        parts.append(part)
    return tuple(parts)


def _nodes(node: Node, kind: str) -> Iterator[Node]:
    """Every node of a kind within, the outer one first."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            if kind in one and isinstance(one[kind], dict):
                yield one[kind]
            pending.extend(one.values())
