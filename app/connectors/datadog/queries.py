"""Query templates of Datadog metrics, filled in safely, and taken apart into queries and a formula. Pure.

A template is written as in a dashboard: metric queries joined by arithmetic, such as
`sum:trace.http.request.errors{env:{{environment}},service:{{service}}}.as_count()`.
The second version of the query API wants each metric query by itself and a formula
over their names; `split` makes these.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.errors import ConfigurationError, Invalid

PLACEHOLDERS = ("namespace", "service", "environment", "cluster")

_SLOT = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_METRIC_QUERY = re.compile(
    r"[a-z0-9]+:[A-Za-z][\w.]*\{[^{}]*\}(?:\s*by\s*\{[^{}]*\})?(?:\.[a-z_]+\([^()]*\))*", re.IGNORECASE
)
_TAG_VALUE = re.compile(r"[\w./-]{1,200}")
"""What a tag's value may hold here: nothing that ends the value, negates it or matches several."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitQueries:
    """Metric queries by the names under which the formulas use them."""

    queries: Mapping[str, str]
    formulas: tuple[str, ...]
    """One for each question, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DatadogTemplate:
    """A checked template; made by `parse`."""

    setting: str
    text: str

    @staticmethod
    def parse(text: str, setting: str) -> DatadogTemplate:
        """Raises `ConfigurationError`, naming `setting`, for what cannot be filled in for one service."""
        named = {found.group(1) for found in _SLOT.finditer(text)}
        unknown = sorted(named - set(PLACEHOLDERS))
        if unknown:
            known = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
            raise ConfigurationError(f"{setting}: {{{{{unknown[0]}}}}} is unknown; use one of {known}")
        if "service" not in named:
            raise ConfigurationError(
                f"{setting} must select by {{{{service}}}}: one value for all is useless"
            )
        template = DatadogTemplate(setting=setting, text=text)
        if not split([template.fill(dict.fromkeys(PLACEHOLDERS, "x"))]).queries:
            raise ConfigurationError(
                f"{setting} has no metric query such as sum:requests{{service:{{{{service}}}}}}.as_count()"
            )
        return template

    def fill(self, values: Mapping[str, str]) -> str:
        """The query for one service; `Invalid` for a value that no tag can have."""

        def value(found: re.Match[str]) -> str:
            name = found.group(1)
            if not _TAG_VALUE.fullmatch(values[name]):
                raise Invalid(f"{self.setting}: the {name} {values[name]!r} cannot be the value of a tag")
            return values[name].lower()

        return _SLOT.sub(value, self.text)


def split(questions: Sequence[str]) -> SplitQueries:
    """Each metric query once, and each question as a formula over their names."""
    names: dict[str, str] = {}

    def name(found: re.Match[str]) -> str:
        return names.setdefault(found.group(), f"q{len(names)}")

    formulas = tuple(_METRIC_QUERY.sub(name, question) for question in questions)
    return SplitQueries(queries={name: query for query, name in names.items()}, formulas=formulas)
