"""Objectives from annotations of a workload; those of the services file take precedence.

The value of an annotation is a number within bounds. An invalid one causes a warning, and the last valid
value stays in force; a removed one no longer counts. Annotations are known once this process has read the
workload, also after a restart.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from app.agent.ids import ServiceKey
from app.agent.models import Objectives
from app.agent.services.terms import ServiceCatalogue, ServiceTerms

log = logging.getLogger(__name__)

SLO_PREFIX = "self-healing-devops-agent/slo-"

MOST_SERVICES = 20_000
"""Annotations of more services are not remembered."""

_MOST_SHOWN = 60
"""The most characters that are shown of a value that is not valid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bounds:
    """The field of `ServiceTerms` that an annotation sets, and which values are valid."""

    field: str
    above: float
    most: float
    """The value is above `above`, and at most this."""


ANNOTATIONS: Mapping[str, _Bounds] = {
    "max-error-rate": _Bounds(field="max_error_rate", above=0.0, most=1.0),
    "max-p95-latency-ms": _Bounds(field="max_p95_latency_ms", above=0.0, most=3_600_000.0),
    "min-request-rate": _Bounds(field="min_request_rate", above=0.0, most=1_000_000.0),
}
"""By the part of the name after `SLO_PREFIX`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Annotated:
    """The values of the annotations of one service."""

    values: Mapping[str, float]
    """By field, the last valid value."""
    problems: tuple[str, ...] = ()


@dataclass(slots=True)
class AnnotatedServices:
    """The terms of a catalogue, with the objectives that annotations add."""

    base: ServiceCatalogue
    _known: dict[ServiceKey, _Annotated] = field(default_factory=dict)

    def learn(self, key: ServiceKey, annotations: Iterable[tuple[str, str]]) -> None:
        """Take in the annotations that a workload has now; a new problem is logged once."""
        before = self._known.get(key)
        values: dict[str, float] = {}
        problems = []
        for name, text in annotations:
            bounds = ANNOTATIONS.get(name.removeprefix(SLO_PREFIX))
            valid = None if bounds is None else _number(text, bounds)
            kept = None
            if bounds is not None and valid is None and before is not None:
                kept = before.values.get(bounds.field)
            value = kept if valid is None else valid
            if bounds is not None and value is not None:
                values[bounds.field] = value
            if valid is None:
                problems.append(_problem(name, text, bounds, kept))
        if values or problems:
            if before is not None or len(self._known) < MOST_SERVICES:
                self._known[key] = _Annotated(values=values, problems=tuple(problems))
        else:
            self._known.pop(key, None)
        for problem in problems:
            if before is None or problem not in before.problems:
                log.warning("%s: %s", key, problem)

    def problems(self, key: ServiceKey) -> tuple[str, ...]:
        """The annotations of a service that are not valid, in words."""
        known = self._known.get(key)
        return () if known is None else known.problems

    @property
    def usual(self) -> Objectives | None:
        """As in the catalogue."""
        return self.base.usual

    def of(self, key: ServiceKey) -> ServiceTerms | None:
        """The terms of a service: from the catalogue, and from annotations for fields that it omits."""
        terms, known = self.base.of(key), self._known.get(key)
        if known is None or not known.values:
            return terms
        own = ServiceTerms(key=key) if terms is None else terms
        values = known.values

        def first(own_value: float | None, name: str) -> float | None:
            return values.get(name) if own_value is None else own_value

        return replace(
            own,
            max_error_rate=first(own.max_error_rate, "max_error_rate"),
            max_p95_latency_ms=first(own.max_p95_latency_ms, "max_p95_latency_ms"),
            min_request_rate=first(own.min_request_rate, "min_request_rate"),
        )

    def all(self) -> Mapping[ServiceKey, ServiceTerms]:
        """The services of the catalogue."""
        return self.base.all()


def _number(text: str, bounds: _Bounds) -> float | None:
    try:
        value = float(text) if len(text) <= _MOST_SHOWN and text.isascii() else math.nan
    except ValueError:
        return None
    return value if bounds.above < value <= bounds.most else None


def _problem(name: str, text: str, bounds: _Bounds | None, kept: float | None) -> str:
    if bounds is None:
        names = ", ".join(f"{SLO_PREFIX}{one}" for one in ANNOTATIONS)
        return f"the annotation {name[:_MOST_SHOWN]!r} is unknown; known are {names}"
    valid = f"a number above {bounds.above:g} and up to {bounds.most:g}"
    stays = "the setting applies" if kept is None else f"{kept:g} stays in force"
    return f"the annotation {name} is not valid: {text[:_MOST_SHOWN]!r} is not {valid}; {stays}"
