"""Where the objects of a view come from: the API server, or the stores that its watches keep."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from app.agent.ids import JsonObject, ServiceKey
from app.clock import Clock
from app.connectors.kubernetes.api import Kind, ReadApi
from app.connectors.kubernetes.controllers import ControllerReader, Controllers
from app.connectors.kubernetes.errors import Absent
from app.connectors.kubernetes.fields import name
from app.connectors.kubernetes.index import selector_query
from app.connectors.kubernetes.mapping import SERVICE_LABEL, ServiceMap
from app.connectors.kubernetes.writing import owned
from app.errors import Forbidden

_LISTED_BY_NAME = frozenset({Kind.POD, Kind.REPLICA_SET})
"""Read by name as a list: the agent has no right to `get` them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supplement:
    """Objects without which a view is still useful."""

    items: tuple[JsonObject, ...]
    unread: tuple[str, ...] = ()
    """Why they could not be read, in words."""


class Objects(Protocol):
    """Reads objects of one cluster, each in the shape that the API server gives it, or pruned."""

    async def services(self) -> tuple[ServiceKey, ...]:
        """Every service that a workload maps to, sorted."""
        ...

    async def find(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        """One object; None when it does not exist."""
        ...

    async def labelled(self, kind: Kind, namespace: str, service: str) -> tuple[JsonObject, ...]:
        """The workloads that carry the name of a service as their label."""
        ...

    async def controlled(
        self, kind: Kind, namespace: str, selector: JsonObject, owners: set[str]
    ) -> tuple[JsonObject, ...]:
        """The objects that match a selector and are controlled by one of `owners`, by uid."""
        ...

    async def warnings(self, namespace: str, about: Collection[str]) -> Supplement:
        """Warning events, at least those about the objects with these uids."""
        ...

    async def budgets(self, namespace: str) -> Supplement:
        """The PodDisruptionBudgets of a namespace."""
        ...

    async def controllers(self, namespace: str) -> Controllers:
        """What sets the replicas of the workloads of a namespace, or runs their pods."""
        ...


class LiveObjects:
    """`Objects` from the API server, each read a request."""

    def __init__(self, api: ReadApi, services: ServiceMap, clock: Clock) -> None:
        self._api = api
        self._services = services
        self._controllers = ControllerReader(api, clock)

    async def services(self) -> tuple[ServiceKey, ...]:
        found: set[ServiceKey] = set()
        for namespace in self._services.namespaces():
            listing = await self._api.list(Kind.DEPLOYMENT, namespace)
            found.update(key for item in listing.items if (key := self._services.key(item)) is not None)
        return tuple(sorted(found))

    async def find(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        if kind in _LISTED_BY_NAME:
            return await self._listed(kind, namespace, name)
        try:
            return await self._api.get(kind, namespace, name)
        except Absent:
            return None

    async def labelled(self, kind: Kind, namespace: str, service: str) -> tuple[JsonObject, ...]:
        return (await self._api.list(kind, namespace, labels=f"{SERVICE_LABEL}={service}")).items

    async def controlled(
        self, kind: Kind, namespace: str, selector: JsonObject, owners: set[str]
    ) -> tuple[JsonObject, ...]:
        return await owned(self._api, kind, namespace, selector_query(selector), owners)

    async def warnings(self, namespace: str, about: Collection[str]) -> Supplement:  # noqa: ARG002 - the API cannot filter by several uids
        try:
            listing = await self._api.list(Kind.EVENT, namespace, fields="type=Warning")
        except Forbidden as error:
            return Supplement(items=(), unread=(str(error),))
        return Supplement(items=listing.items)

    async def budgets(self, namespace: str) -> Supplement:
        try:
            listing = await self._api.list(Kind.DISRUPTION_BUDGET, namespace)
        except Forbidden as error:
            return Supplement(items=(), unread=(str(error),))
        return Supplement(items=listing.items)

    async def controllers(self, namespace: str) -> Controllers:
        return await self._controllers.read(namespace)

    async def _listed(self, kind: Kind, namespace: str, wanted: str) -> JsonObject | None:
        listing = await self._api.list(kind, namespace, fields=f"metadata.name={wanted}")
        return next((item for item in listing.items if name(item) == wanted), None)
