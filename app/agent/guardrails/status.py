"""The status of all guardrails at one moment, for display. Pure.

The API and the command line show it. Limits are evaluated again when an action
begins (`app.agent.guardrails.limits`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from app.agent.guardrails.circuit_breaker import (
    Breaker,
    Tried,
    open_reason,
    since_closed,
)
from app.agent.guardrails.freeze import FreezeWindow
from app.agent.guardrails.limits import Limits
from app.agent.guardrails.limits.clusters import UNNAMED, in_words
from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import KillSwitch

_NO_INCIDENT = IncidentId("")

CircuitKey: TypeAlias = ServiceKey | str | None
"""The scope of a circuit breaker: a service, a cluster by name, or None for the cluster without a name."""


def circuit_in_words(key: CircuitKey) -> str:
    """`payments-api in prod`, `cluster east` or `the cluster`."""
    return str(key) if isinstance(key, ServiceKey) else in_words(key or UNNAMED)


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeStatus:
    """One freeze window and its status."""

    window: FreezeWindow
    holds_until: datetime | None
    next_start: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitStatus:
    """A circuit breaker that is open or half-open."""

    key: CircuitKey
    reason: str

    @property
    def in_words(self) -> str:
        """Its scope."""
        return circuit_in_words(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempts:
    """Recent actions, and the manual closes of breakers."""

    tried: Mapping[ServiceKey, Sequence[Tried]]
    closed: Mapping[CircuitKey, datetime]
    """When a breaker was closed manually."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardrailStatus:
    """The kill switch, the freeze windows, and the circuit breakers that are not closed."""

    kill_switch: KillSwitch | None
    freezes: tuple[FreezeStatus, ...]
    circuits: tuple[CircuitStatus, ...]


def guardrail_status(
    kill_switch: KillSwitch | None, attempts: Attempts, limits: Limits, at: datetime
) -> GuardrailStatus:
    """The status of all guardrails at that moment."""
    circuits = [
        _circuit(key, tried, limits.service_breaker, attempts, at)
        for key, tried in sorted(attempts.tried.items())
    ]
    of_clusters: dict[str, list[Tried]] = {name: [] for name in (UNNAMED, *limits.clusters.names)}
    for key, tried in attempts.tried.items():
        of_clusters[limits.clusters.of(key.environment)].extend(tried)
    circuits[:0] = [
        _circuit(name or None, tried, limits.cluster_breaker, attempts, at)
        for name, tried in of_clusters.items()
    ]
    return GuardrailStatus(
        kill_switch=kill_switch,
        freezes=tuple(
            FreezeStatus(window=window, holds_until=window.holds_until(at), next_start=window.next_start(at))
            for window in limits.freezes
        ),
        circuits=tuple(circuit for circuit in circuits if circuit is not None),
    )


def _circuit(
    key: CircuitKey, tried: Sequence[Tried], breaker: Breaker | None, attempts: Attempts, at: datetime
) -> CircuitStatus | None:
    if breaker is None:
        return None
    why = open_reason(since_closed(tried, attempts.closed.get(key)), breaker, _NO_INCIDENT, at)
    return None if why is None else CircuitStatus(key=key, reason=why)
