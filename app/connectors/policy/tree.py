"""Reads the syntax tree that the embedded Rego engine gives for a module. Pure.

Used by the checks of a bundle. The engine publishes no schema for its tree, so that
everything that knows how it is built stands here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Node = Any
"""What the engine's syntax tree consists of: JSON without a schema of its own."""

Path = tuple[str, ...]


def package_of(tree: Node) -> Path:
    """The full path of a module's package: `("data", "heal")`."""
    return ("data", *constant_path(tree["ast"]["package"]["refr"]))


def specs(tree: Node) -> Iterator[tuple[Node, Node, Path]]:
    """Every rule of a module: the rule, its head, and its full path."""
    package = package_of(tree)
    for node in tree["ast"]["rules"]:
        spec = node.get("Spec") or node["Default"]
        head = next(iter(spec["head"].values())) if "head" in spec else spec
        yield spec, head, package + constant_path(head["refr"])


def imported_names(tree: Node) -> Iterator[tuple[str, Path]]:
    """Every import of a module: the name it has there, and the path it stands for."""
    for node in tree["ast"]["imports"]:
        imported = constant_path(node["refr"])
        alias = node.get("as")
        if imported:
            yield imported[-1] if alias is None else span_text(tree, alias), imported


def span_text(tree: Node, span: Node) -> str:
    """The source text of a span."""
    text: bytes = tree["source"]["contents"].encode()
    return text[span["start"] : span["end"]].decode()


def constant(index: Node) -> str | None:
    """The text of an index that is a string literal; None for any other."""
    for kind in ("String", "RawString"):
        if kind in index:
            return str(index[kind]["value"])
    return None


def references(node: Node) -> Iterator[Path]:
    """The longest constant path of every reference within."""
    pending = [node]
    while pending:
        one = pending.pop()
        if isinstance(one, list):
            pending.extend(one)
        elif isinstance(one, dict):
            kind = next(iter(one), None)
            if kind in ("Var", "RefDot", "RefBrack"):
                path = constant_path(one)
                if path:
                    yield path
                pending.extend(indices(one))
            else:
                pending.extend(one.values())


def indices(node: Node) -> Iterator[Node]:
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


def constant_path(node: Node) -> Path:
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
            chain.append(constant(index) or "")
            node = node["RefBrack"]["refr"]
        else:
            return ()
    for part in reversed(chain):
        if not part:
            break
        parts.append(part)
    return tuple(parts)


def nodes(node: Node, kind: str) -> Iterator[Node]:
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
