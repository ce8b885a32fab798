"""Query templates in PromQL: filled in safely, and taken apart far enough to ask how fresh their data is.

Called by `app.connectors.prometheus.source`. A template is PromQL with the placeholders
`{{namespace}}`, `{{service}}`, `{{environment}}` and `{{cluster}}` inside quoted strings, and
`{{window}}` wherever a duration stands. Values come from outside, so each is
escaped for the very string it lands in, and quoted as a literal inside a regular
expression: no value can widen a selector.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from app.errors import ConfigurationError, Invalid

PLACEHOLDERS: Final = ("namespace", "service", "environment", "cluster", "window")

_STRING = r""" "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*' | `[^`]*` """
_TOKEN = re.compile(
    rf"(?P<comment>\#[^\n]*) | (?P<string>{_STRING}) | (?P<slot>\{{\{{[^{{}}]*\}}\}}) | (?P<other>.)",
    re.VERBOSE | re.DOTALL,
)
_SLOT = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_SELECTOR = re.compile(
    rf"""
    (?:{_STRING})
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)? \s*
      \{{ (?P<matchers>(?:{_STRING} | [^{{}}"'`])*) \}} \s*
      (?:\[[^\]]*\])? \s*
      (?:offset \s+ (?P<offset>[0-9][0-9a-z]*))?
    """,
    re.VERBOSE | re.DOTALL,
)
_DURATION = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
_DURATION_PART = re.compile(r"(\d+)(ms|[smhdwy])")
_UNIT_SECONDS = {
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
    "w": 604_800.0,
    "y": 31_536_000.0,
}
_LONGEST_QUERY = 12_000
"""Characters; VictoriaMetrics takes 16,384 bytes unless it is configured otherwise."""
_LONGEST_SECONDS = 10 * _UNIT_SECONDS["y"]


def parse_duration(text: str, setting: str) -> timedelta:
    """A Prometheus duration such as `90s` or `1m30s`; `ConfigurationError` naming `setting` otherwise."""
    if not _DURATION.fullmatch(text):
        raise ConfigurationError(f"{setting} must be a duration such as 30s, 1m or 1h30m, not {text!r}")
    seconds = sum(int(number) * _UNIT_SECONDS[unit] for number, unit in _DURATION_PART.findall(text))
    if not 0 < seconds <= _LONGEST_SECONDS:
        raise ConfigurationError(f"{setting} must be longer than zero and at most ten years, not {text}")
    return timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Selector:
    """The series that one part of a query reads."""

    series: str
    """Metric name and matchers, without range and offset."""
    offset: str = ""
    """How far in the past it reads, as written; empty for now."""

    def instant(self) -> str:
        """As an instant vector."""
        return f"{self.series} offset {self.offset}" if self.offset else self.series

    @property
    def shift(self) -> timedelta:
        return parse_duration(self.offset, "offset") if self.offset else timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """A template filled in for one service."""

    text: str
    selectors: tuple[Selector, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    placeholder: str
    escape: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class QueryTemplate:
    """A checked template; made by `parse`."""

    setting: str
    parts: tuple[str | _Slot, ...]

    @staticmethod
    def parse(text: str, setting: str) -> QueryTemplate:
        """Raises `ConfigurationError`, naming `setting` and the fix, for what cannot be filled in safely."""
        parts: list[str | _Slot] = []
        literal = ""
        for token in _TOKEN.finditer(text):
            piece = token.group()
            if token.lastgroup == "comment":
                continue
            if token.lastgroup == "string":
                parts.append(literal)
                parts.extend(_string_parts(piece, literal, setting))
                literal = ""
            elif token.lastgroup == "slot":
                parts += [literal, _bare_slot(piece, setting)]
                literal = ""
            elif piece in "\"'`":
                raise ConfigurationError(
                    f"{setting} has a quoted string that never ends: {text[token.start() :]}"
                )
            elif piece == "@":
                raise ConfigurationError(f"{setting} must not use @: the agent asks about its own moments")
            else:
                literal += piece
        parts.append(literal)
        template = QueryTemplate(setting, tuple(part for part in parts if part))
        template._check()
        return template

    def fill(self, values: Mapping[str, str]) -> Query:
        """The query for one service; `Invalid` when a value cannot be written into its place."""
        text = "".join(
            part
            if isinstance(part, str)
            else part.escape(_printable(values[part.placeholder], part.placeholder))
            for part in self.parts
        )
        found = {
            Selector(
                series=f"{match['name'] or ''}{{{match['matchers']}}}", offset=match["offset"] or ""
            ): None
            for match in _SELECTOR.finditer(text)
            if match["matchers"] is not None
        }
        return Query(text=text, selectors=tuple(found))

    def _check(self) -> None:
        slots = {part.placeholder for part in self.parts if isinstance(part, _Slot)}
        if "service" not in slots:
            raise ConfigurationError(
                f'{self.setting} must select by "{{{{service}}}}": one value for all services is useless'
            )
        query = self.fill(dict.fromkeys(PLACEHOLDERS, "x") | {"window": "1m"})
        if not query.selectors:
            raise ConfigurationError(
                f'{self.setting} must select series with braces, such as http_requests_total{{service="..."}}'
            )


def _string_parts(literal: str, before: str, setting: str) -> list[str | _Slot]:
    """A quoted string cut at its placeholders, each with the escape that fits its quotes and matcher."""
    quote = literal[0]
    is_pattern = before.rstrip().endswith(("=~", "!~"))

    def escape(value: str) -> str:
        return _quoted(re.escape(value) if is_pattern else value, quote)

    pieces = _SLOT.split(literal)
    if quote != "`" and any(
        (len(piece) - len(piece.rstrip("\\"))) % 2 for index, piece in enumerate(pieces) if not index % 2
    ):
        raise ConfigurationError(f"{setting} has a backslash right before a placeholder in {literal}")
    return [
        _Slot(_known(piece, setting), escape) if index % 2 else piece for index, piece in enumerate(pieces)
    ]


def _bare_slot(text: str, setting: str) -> _Slot:
    name = _known(text.strip("{} \t\n"), setting)
    if name != "window":
        raise ConfigurationError(
            f'{setting}: {{{{{name}}}}} must stand inside quotes, as in "{{{{{name}}}}}"'
        )
    return _Slot(name, lambda value: value)


def _known(name: str, setting: str) -> str:
    if name not in PLACEHOLDERS:
        known = ", ".join(f"{{{{{p}}}}}" for p in PLACEHOLDERS)
        raise ConfigurationError(f"{setting} has an unknown placeholder {{{{{name}}}}}; known are {known}")
    return name


def _quoted(value: str, quote: str) -> str:
    if quote == "`":
        if "`" in value:
            raise Invalid("a backtick string cannot contain a backtick; use double quotes")
        return value
    return value.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\n", "\\n")


def _printable(value: str, placeholder: str) -> str:
    if not value.isprintable():
        raise Invalid(f"{placeholder} {value!r} has characters that no query may carry")
    return value


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_DURATION_PART = re.compile(r"(\d+)(ms|[smhdwy])")


def duration(text: str) -> timedelta:
    """How long a duration of PromQL is, such as `1m30s`; zero for what is none."""
    if _DURATION_PART.sub("", text):
        return timedelta(0)
    seconds = sum(int(count) * _UNITS[unit] for count, unit in _DURATION_PART.findall(text))
    return timedelta(seconds=seconds)


def joined(parts: Sequence[str]) -> list[str]:
    """Unions of vectors that share no series, each as long as every server of this API takes a query."""
    queries: list[str] = []
    for part in parts:
        if queries and len(queries[-1]) + len(part) < _LONGEST_QUERY:
            queries[-1] += f" or {part}"
        else:
            queries.append(part)
    return queries
