"""Runs the tests of a bundle, and finds where a failing one fails: file, line, expected and got.

Called by `heal policy test`. A test is a rule named `test_...`; it fails where one of
its statements does not hold. That statement, and the values of its two sides, are
found by asking the engine for the statements before it, then for each side of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path as File

from app.connectors.policy.bundle import Bundle, Module
from app.connectors.policy.checks import test_names
from app.connectors.policy.engine import Compiled, EngineFault
from app.connectors.policy.tree import (
    Node,
    nodes,
    span_text,
    specs,
)
from app.connectors.text import shorten

_UNDEFINED = "undefined"
_PROBE = "heal_probe"
_LITERALS = ("String", "RawString", "Number", "Bool", "Null", "Array", "Set", "Object")


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a test failed, and where."""

    place: str
    """File and line of the statement that does not hold."""
    statement: str
    expected: str | None = None
    got: str | None = None

    def __str__(self) -> str:
        values = "" if self.expected is None else f"; expected {self.expected}, got {self.got}"
        return f"{self.place}: {self.statement}{values}"


def run_tests(bundle: Bundle) -> dict[str, Failure | None]:
    """What came of each `test_` rule: None for a pass, else why it failed. Raises `EngineFault`."""
    compiled = Compiled(bundle)
    trees = compiled.trees()
    results: dict[str, Failure | None] = {}
    for name in test_names(trees):
        try:
            value = compiled.value(name, "{}")
        except EngineFault as fault:
            where = fault.problem
            place = ":".join(str(part) for part in (where.file, where.line) if part)
            results[name] = Failure(place=place, statement=where.message)
            compiled = Compiled(bundle)
        else:
            results[name] = None if value == b"true" else _explained(bundle, trees, name)
    return results


def _explained(bundle: Bundle, trees: Sequence[Node], name: str) -> Failure:
    """The first statement of a test that does not hold; where that cannot be found, the test itself."""
    tree, spec = next(
        (tree, spec) for tree in trees for spec, _, found in specs(tree) if ".".join(found) == name
    )
    file = tree["source"]["file"]
    whole = Failure(place=f"{file}:{spec['span']['line']}", statement="the test does not hold")
    if len(spec.get("bodies") or ()) != 1:
        return whole
    statements = spec["bodies"][0]["query"]["stmts"]
    try:
        probed = Compiled(_with_probes(bundle, tree, statements))
        path = name.rpartition(".")[0]
        for index, statement in enumerate(statements):
            if probed.value(f"{path}.{_PROBE}_holds_{index}", "{}") != b"true":
                return _failure(probed, path, tree, statement, index)
    except EngineFault:
        return whole
    return whole


def _failure(probed: Compiled, path: str, tree: Node, statement: Node, index: int) -> Failure:
    place = f"{tree['source']['file']}:{statement['span']['line']}"
    text = shorten(_text(tree, statement, statement["span"]), 200)
    sides = _sides(statement)

    def value(side: str) -> str:
        try:
            found = probed.value(f"{path}.{_PROBE}_{side}_{index}", "{}")
        except EngineFault:
            return "several values"
        return _UNDEFINED if found is None else shorten(found.decode())

    if sides is None:
        return Failure(place=place, statement=text, expected="it to hold", got=_UNDEFINED)
    left, right, same = sides
    if not same:
        return Failure(
            place=place, statement=text, expected="it to hold", got=f"{value('left')} and {value('right')}"
        )
    expected, got = ("left", "right") if _literal(left) and not _literal(right) else ("right", "left")
    return Failure(place=place, statement=text, expected=value(expected), got=value(got))


def _sides(statement: Node) -> tuple[Node, Node, bool] | None:
    """The two sides of a comparison, and whether it is for equality."""
    expression = statement["literal"].get("Expr", {}).get("expr", {})
    compared = expression.get("BoolExpr")
    if compared is not None:
        return compared["lhs"], compared["rhs"], compared["op"] == "Eq"
    member = expression.get("Membership")
    if member is not None:
        return member["value"], member["collection"], False
    return None


def _literal(node: Node) -> bool:
    return any(kind in node for kind in _LITERALS)


def _with_probes(bundle: Bundle, tree: Node, statements: Sequence[Node]) -> Bundle:
    """The bundle with rules beside a test: for each statement, whether all up to it hold, and its sides."""
    texts = [_text(tree, statement, statement["span"]) for statement in statements]
    lines = [_head(tree)]
    for index, statement in enumerate(statements):
        lines.append(f"{_PROBE}_holds_{index} if {{\n" + "\n".join(texts[: index + 1]) + "\n}\n")
        sides = _sides(statement)
        for side, node in zip(("left", "right"), (sides or ())[:2], strict=False):
            value = f"{_PROBE}_value := {_source(tree, node)} {_modifiers(tree, statement)}"
            body = "\n".join([*texts[:index], value])
            lines.append(f"{_PROBE}_{side}_{index} := {_PROBE}_value if {{\n{body}\n}}\n")
    probes = Module(file=str(File(tree["source"]["file"]).with_name("probes.rego")), text="\n".join(lines))
    return Bundle(folder=bundle.folder, modules=(*bundle.modules, probes), data=bundle.data)


def _head(tree: Node) -> str:
    """The package and the imports of a module, as they are written there: all lines before its first rule."""
    first = min(spec["span"]["start"] for spec, _, _ in specs(tree))
    return str(tree["source"]["contents"].encode()[:first].decode())


def _source(tree: Node, node: Node) -> str:
    return _text(tree, node, next(iter(node.values()))["span"])


def _text(tree: Node, node: Node, span: Node) -> str:
    """The source of a node: the engine's spans leave out the quotes of a text that begins or ends it."""
    texts = [text["span"] for kind in ("String", "RawString") for text in nodes(node, kind)]
    start, end = span["start"], span["end"]
    begins, ends = any(each["start"] == start for each in texts), any(each["end"] == end for each in texts)
    return span_text(tree, {"start": start - begins, "end": end + ends})


def _modifiers(tree: Node, statement: Node) -> str:
    """`with ... as ...`, as it is written."""
    given = statement.get("with_mods") or ()
    if not given:
        return ""
    last = given[-1]
    return _text(tree, last, {"start": given[0]["span"]["start"], "end": last["span"]["end"]})
