"""The terms of single services: settings of one service in place of the global ones. Pure.

They are read from a file that people change while the agent runs; a decision asks for
the terms in force at that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from app.agent.ids import ServiceKey
from app.agent.models import Objectives
from app.agent.services.burn_rates import ErrorBudget


class Autonomy(StrEnum):
    """The autonomy of the agent for a service. It only restricts the global settings further."""

    OBSERVE = "observe"
    """It diagnoses and proposes; no action runs."""
    ASK = "ask"
    """Every action needs an approval."""
    ACT = "act"
    """As the global settings say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceTerms:
    """The settings of one service; None: the global setting."""

    key: ServiceKey
    max_error_rate: float | None = None
    """0..1; above it is a breach."""
    max_p95_latency_ms: float | None = None
    min_request_rate: float | None = None
    """Requests per second below which a measurement says nothing."""
    budget: ErrorBudget | None = None
    """How fast it may use up its error budget, in addition to the thresholds."""
    on_baseline: bool = False
    """Whether a level clearly above its baseline opens an incident, although it is within the objective."""
    owner: str | None = None
    dependencies: tuple[ServiceKey, ...] | None = None
    """The services that it calls."""
    autonomy: Autonomy = Autonomy.ACT

    def objectives(self, usual: Objectives) -> Objectives:
        """Its objectives: its own, and the usual ones where it has none."""
        own = {
            "max_error_rate": self.max_error_rate,
            "max_p95_latency_ms": self.max_p95_latency_ms,
            "min_request_rate": self.min_request_rate,
        }
        return replace(usual, **{name: value for name, value in own.items() if value is not None})


class ServiceCatalogue(Protocol):
    """The terms in force now."""

    @property
    def usual(self) -> Objectives | None:
        """The objectives of services without their own; None: as at the start."""
        ...

    def of(self, key: ServiceKey) -> ServiceTerms | None:
        """The terms of a service; None: it has no own terms."""
        ...

    def all(self) -> Mapping[ServiceKey, ServiceTerms]:
        """The terms of every service that has some."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedServices:
    """Terms that do not change while the agent runs."""

    terms: Mapping[ServiceKey, ServiceTerms]
    usual: Objectives | None = None

    def of(self, key: ServiceKey) -> ServiceTerms | None:
        """The terms of a service, if it has some."""
        return self.terms.get(key)

    def all(self) -> Mapping[ServiceKey, ServiceTerms]:
        """Every service with terms."""
        return self.terms


NO_SERVICES: ServiceCatalogue = FixedServices(terms={})
"""Every service is as the global settings say."""


def autonomy_of(services: ServiceCatalogue, key: ServiceKey) -> Autonomy:
    """The autonomy of the agent for a service, in addition to the global settings."""
    terms = services.of(key)
    return Autonomy.ACT if terms is None else terms.autonomy


def objectives_of(services: ServiceCatalogue, key: ServiceKey, at_start: Objectives) -> Objectives:
    """The objectives of one service: its own, and the usual ones where it has none."""
    terms, usual = services.of(key), services.usual or at_start
    return usual if terms is None else terms.objectives(usual)


def with_dependencies(
    known: Mapping[ServiceKey, tuple[ServiceKey, ...]], services: ServiceCatalogue
) -> Mapping[ServiceKey, tuple[ServiceKey, ...]]:
    """The calls between services; the terms of a service take precedence."""
    own = {key: terms.dependencies for key, terms in services.all().items() if terms.dependencies is not None}
    return {**known, **own} if own else known
