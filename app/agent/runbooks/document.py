"""YAML files that people write, as plain values with the place of each: runbooks, scenarios, services.

Anything but plain data (anchors, tags, duplicate keys, deep nesting) is refused with file, line and column.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import yaml

from app.agent.ids import Json, JsonObject, JsonScalar
from app.bounds import regular_file
from app.errors import ConfigurationError

_MAX_BYTES = 64 * 1024
_MAX_DEPTH = 16

_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser, ten times as fast, where PyYAML was built with it."""

_SCALARS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null"))

Place = tuple[str | int, ...]


def content_of(file: Path, kind: str = "runbook", max_bytes: int = _MAX_BYTES) -> bytes:
    """The content of the file; raises `ConfigurationError` for an unreadable or larger file."""
    try:
        return regular_file.read(file, max_bytes).data
    except regular_file.Unsuitable as error:
        raise ConfigurationError(f"{file}:1:1: cannot be read as a {kind}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{file}:1:1: cannot be read ({error.strerror})") from error


class Document:
    """One YAML document as plain JSON values, with the position of each in the file."""

    def __init__(
        self, file: Path, kind: str = "runbook", *, max_bytes: int = _MAX_BYTES, raw: bytes | None = None
    ) -> None:
        """`raw` is the content of the file; None: read it. Raises `ConfigurationError` with the position."""
        self.file = file
        self._kind = kind
        self._marks: dict[Place, yaml.Mark] = {}
        self._keys: dict[Place, yaml.Mark] = {}
        text = self._read(content_of(file, kind, max_bytes) if raw is None else raw)
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

    def _read(self, raw: bytes) -> str:
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
