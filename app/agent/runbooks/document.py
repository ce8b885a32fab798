"""The reader of YAML files that people write: plain values, each with its position.

It reads runbooks, scenarios, SERVICES_FILE and CONFIG_FILE. It refuses everything but plain data (anchors,
tags, duplicate keys, deep nesting), and values that YAML 1.1 and 1.2 read differently (`010`, `yes`,
`1:30`, a date), with file, line and column.
"""

from __future__ import annotations

import math
import re
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

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_NUMBER_OF_1_2 = re.compile(
    r"0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
)
"""What YAML 1.2 reads as a number, and YAML 1.1 partly as text."""
_ANOTHER_LINE_BREAK = re.compile("[\x85\u2028\u2029]")
_BOOLEANS = frozenset({"true", "True", "TRUE", "false", "False", "FALSE"})
_NUMBER_FIX = "write it in decimal, without leading zeros, or put it in quotes"

Place = tuple[str | int, ...]


def content_of(file: Path, kind: str = "runbook", max_bytes: int = _MAX_BYTES) -> bytes:
    """The content of the file; raises `ConfigurationError` for an unreadable or larger file."""
    try:
        return regular_file.read(file, max_bytes).data
    except regular_file.Unsuitable as error:
        raise ConfigurationError(f"{file}:1:1: cannot be read as a {kind}: {error}") from error
    except OSError as error:
        raise ConfigurationError(f"{file}:1:1: cannot be read ({error.strerror})") from error


class NoDocument(ConfigurationError):
    """The file holds nothing but comments."""


class Document:
    """One YAML document as plain JSON values, with the position of each in the file."""

    def __init__(
        self,
        file: Path,
        kind: str = "runbook",
        *,
        max_bytes: int = _MAX_BYTES,
        raw: bytes | None = None,
        secret: bool = False,
    ) -> None:
        """Raises `ConfigurationError` with the position.

        `raw` is the content of the file; None: read it. `secret`: values may be credentials, so no error
        repeats a value.
        """
        self.file = file
        self._kind = kind
        self._secret = secret
        self._marks: dict[Place, yaml.Mark] = {}
        self._keys: dict[Place, yaml.Mark] = {}
        text = self._read(content_of(file, kind, max_bytes) if raw is None else raw)
        self._refuse_line_breaks(text)
        try:
            self._refuse_ambiguity(text)
            nodes = list(yaml.compose_all(text, Loader=_LOADER))
        except yaml.MarkedYAMLError as error:
            raise self._at(
                error.problem_mark or error.context_mark, f"no valid YAML: {error.problem}"
            ) from error
        except yaml.YAMLError as error:
            raise self._at(None, f"no valid YAML: {error}") from error
        if len(nodes) != 1 or nodes[0] is None:
            why = f"one {self._kind} is expected in a file, found {len(nodes)} documents"
            raise self._at(None, why) if nodes else NoDocument(self._line(None, why))
        self.content: Json = self._value(nodes[0], ())

    def error(self, place: Place, message: str, *, at_key: bool = False) -> ConfigurationError:
        """The complaint at a value, or at its key where it is the key that should not be there."""
        mark = (self._keys if at_key else self._marks).get(place)
        return self._at(mark, f"{_in_words(place)}: {message}" if place else message)

    def key_error(self, place: Place, message: str) -> ConfigurationError:
        """The complaint at a key, in which the message itself names the key."""
        return self._at(self._keys.get(place), message)

    def _read(self, raw: bytes) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self._at(None, f"not UTF-8: byte {error.start}") from error

    def _refuse_line_breaks(self, text: str) -> None:
        """YAML 1.1 ends a line, and a comment, at characters that YAML 1.2 reads as part of it."""
        found = _ANOTHER_LINE_BREAK.search(text)
        if found is None:
            return
        before = text[: found.start()]
        line, column = before.count("\n"), len(before) - before.rfind("\n") - 1
        mark = yaml.Mark(str(self.file), found.start(), line, column, None, 0)
        raise self._at(
            mark, f"the character U+{ord(found[0]):04X} ends a line in some versions of YAML: remove it"
        )

    def _refuse_ambiguity(self, text: str) -> None:
        """Anchors, aliases, explicit tags and depth have no use here, and each is a known attack."""
        depth = 0
        for event in yaml.parse(text, Loader=_LOADER):
            if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
                raise self._at(event.start_mark, "anchors and aliases are not allowed: write it out")
            tag = getattr(event, "tag", None)
            if tag is not None:
                given = "a tag" if self._secret else f"the tag {tag!r}"
                raise self._at(event.start_mark, f"{given} is not allowed: plain values only")
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
        given = "this value" if self._secret else repr(node.value[:40])
        if node.tag not in _SCALARS:
            raise self._at(node.start_mark, f"{given} is neither text nor number: put it in quotes")
        plain = not cast("yaml.ScalarNode", node).style
        if plain and (fix := _two_meanings(node.tag.rpartition(":")[2], node.value)):
            raise self._at(node.start_mark, f"{given} has another meaning in another version of YAML: {fix}")
        try:
            value = yaml.constructor.SafeConstructor().construct_object(node)
        except (ValueError, OverflowError) as error:
            why = "" if self._secret else f": {error}"
            raise self._at(node.start_mark, f"{given} is no number{why}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise self._at(node.start_mark, f"{given} is not a finite number")
        return cast("JsonScalar", value)

    def _at(self, mark: Any, message: str) -> ConfigurationError:
        return ConfigurationError(self._line(mark, message))

    def _line(self, mark: Any, message: str) -> str:
        # `mark` is one of PyYAML's two unrelated classes of the same shape
        line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        return f"{self.file}:{line}:{column}: {message}"


def _two_meanings(kind: str, text: str) -> str:
    """What to write instead of a value without quotes that YAML 1.1 and 1.2 read differently; or empty."""
    match kind:
        case "bool" if text not in _BOOLEANS:
            return "write true or false, or put it in quotes"
        case "int" if _INTEGER.fullmatch(text) is None:
            return _NUMBER_FIX
        case "float" if _FLOAT.fullmatch(text) is None and _NOT_FINITE.fullmatch(text) is None:
            return _NUMBER_FIX
        case "str" if _NUMBER_OF_1_2.fullmatch(text) is not None:
            return _NUMBER_FIX
        case _:
            return ""


def _in_words(place: Place) -> str:
    """`steps[0].parameters.to`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")
