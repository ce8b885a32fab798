"""The routes of requests to the pods of a workload, and their changes: Services, Ingresses and
NetworkPolicies, as far as the agent may read them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SERVICE, INGRESS, NETWORK_POLICY = "Service", "Ingress", "NetworkPolicy"
ROUTE_KINDS = (SERVICE, INGRESS, NETWORK_POLICY)


class RouteEffect(StrEnum):
    """The effect of a change on requests."""

    CUTS = "cuts"
    """It can keep requests from pods that received them, or from what these pods call."""
    HARMLESS = "harmless"
    """Every request that was let through still is."""
    UNKNOWN = "unknown"
    """The changed fields are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteObject:
    """One object that concerns the pods of the workload."""

    kind: str
    name: str
    unchanged_since: datetime
    """Its specification is unchanged since then: created, changed, or first read by the agent."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteChange:
    """One change of the specification of such an object."""

    kind: str
    name: str
    at: datetime
    by: str | None
    """The field manager; None where the object does not say, or is deleted."""
    difference: tuple[str, ...]
    """Each field with its value before and after; empty where the agent did not see the change."""
    effect: RouteEffect
    services: tuple[str, ...]
    """The services of the same environment whose pods it concerns, sorted."""
    not_before: datetime | None = None
    """It may be as old as this, because the watch was interrupted; None: it was made at `at`."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteFault:
    """What keeps requests from the pods of the workload now."""

    kind: str
    name: str
    words: str
    """A clause: `selects no pod (selector app=shop-2)`."""
    written_at: datetime
    """Since when the object is unchanged, as far as known."""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutesView:
    """Read together with a workload, only from its namespace."""

    objects: tuple[RouteObject, ...] = ()
    """The routes that concern its pods, by kind and name."""
    changes: tuple[RouteChange, ...] = ()
    """Newest first; also changes that concern other services of the namespace."""
    faults: tuple[RouteFault, ...] = ()
    unread: tuple[str, ...] = ()
    """The kinds that the agent may not read."""
