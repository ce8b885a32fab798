"""The configured limits, and the messages for an action that would exceed one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from app.agent.guardrails.circuit_breaker import Breaker
from app.agent.guardrails.freeze import FreezeWindow
from app.agent.guardrails.limits.clusters import Clusters


class LimitName(StrEnum):
    """The limit that an action would exceed."""

    INCIDENT = "actions_per_incident"
    SERVICE = "actions_per_service"
    NAMESPACE = "actions_per_namespace"
    CLUSTER = "actions_per_cluster"
    FLEET_SHARE = "fleet_share"
    COOLDOWN = "cooldown"
    BACKOFF = "backoff"
    SAME_EVIDENCE = "same_evidence"
    OSCILLATION = "oscillation"
    FREEZE = "freeze"
    SERVICE_CIRCUIT = "service_circuit"
    CLUSTER_CIRCUIT = "cluster_circuit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The configured limits; the defaults limit nothing."""

    window: timedelta = timedelta(hours=1)
    """The rolling window of the counts and of the share of the fleet."""
    per_service: int | None = None
    per_namespace: int | None = None
    per_cluster: int | None = None
    fleet_share: float = 1.0
    """The share of known services that may be acted on in one window: above 0, up to 1."""
    cooldown: timedelta = timedelta(0)
    """The cooldown of a service after an action of another incident began on it."""
    backoff_base: timedelta = timedelta(0)
    """The backoff after a first action that did not help; it doubles with each consecutive one."""
    backoff_max: timedelta = timedelta(0)
    memory: timedelta = timedelta(0)
    """How long failed actions and the states they left are remembered."""
    service_breaker: Breaker | None = None
    cluster_breaker: Breaker | None = None
    freezes: tuple[FreezeWindow, ...] = ()
    clusters: Clusters = field(default_factory=Clusters)
    """`per_cluster`, `fleet_share` and `cluster_breaker` count in each of them on its own."""

    @property
    def look_back(self) -> timedelta:
        """How far back a service's own actions count."""
        breakers = [b.remembers for b in (self.service_breaker, self.cluster_breaker) if b is not None]
        return max(self.window, self.cooldown, self.backoff_max, self.memory, *breakers)


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The limits that an action must stay within to begin."""

    per_incident: int
    limits: Limits = UNLIMITED
    known_services: int | None = None
    """The number of services in the cluster; None if unknown."""
    alone: bool = False
    """No other action of this name, and no undo with its effect, may be running, so that the limited
    objects can be counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """A limit that an action would exceed."""

    limit: LimitName
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spending:
    """How much of a budget is spent, for the record and for custom policies."""

    limit: LimitName
    spent: int
    allowed: int | None
    """None: no limit is set."""
