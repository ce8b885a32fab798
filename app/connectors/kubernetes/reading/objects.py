"""Where the objects of a view come from: the API server, or the stores that its watches keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from app.agent.ids import JsonObject
from app.clock import Clock
from app.connectors.kubernetes.api import Kind, ReadApi
from app.connectors.kubernetes.controllers import ABSENT_FOR, FRESH_FOR, ControllerReader, Controllers
from app.connectors.kubernetes.errors import Absent
from app.connectors.kubernetes.fields import name
from app.connectors.kubernetes.index import NamespaceWorkloads, selector_query
from app.connectors.kubernetes.mapping import WORKLOADS, ServiceMap, WorkloadClaim, claim_of
from app.connectors.kubernetes.reading.pruning import pruned
from app.connectors.kubernetes.releases.migrations import JOB_PODS, is_migration
from app.connectors.kubernetes.routes.view import ROUTES, RouteObjects
from app.connectors.kubernetes.writing import owned
from app.errors import Forbidden, NotFound

_NONE = timedelta(0)
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

    async def workloads(self, namespace: str, *, fresh: bool = False) -> Mapping[str, NamespaceWorkloads]:
        """The workloads of a namespace, or of all, by namespace; `fresh`: as they are at this moment."""
        ...

    def refused(self) -> tuple[Kind, ...]:
        """The kinds of workloads that may not be listed, as far as it was tried."""
        ...

    async def find(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        """One object; None when it does not exist."""
        ...

    async def controlled(
        self, kind: Kind, namespace: str, selector: JsonObject, owners: set[str]
    ) -> tuple[JsonObject, ...]:
        """The objects that match a selector and are controlled by one of `owners`, by uid."""
        ...

    async def migrations(self, namespace: str) -> tuple[JsonObject, ...]:
        """The pods of Jobs that name a migration of data."""
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

    async def routes(self, namespace: str, environment: str) -> RouteObjects:
        """What carries requests to the pods of a namespace, and the changes of it that were seen.

        Its services are those of the environment.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    """A kind that could not be read at that time."""

    at: datetime
    refused: bool


class LiveObjects:
    """`Objects` from the API server, each read a request.

    What is there is listed as a whole and used for a few seconds, since the workloads of a
    namespace are read one after another. A kind that the cluster does not have, or that the
    agent may not read, is left out and asked for again later; only Deployments must be there.
    """

    def __init__(self, api: ReadApi, services: ServiceMap, clock: Clock) -> None:
        self._api = api
        self._services = services
        self._clock = clock
        self._controllers = ControllerReader(api, clock)
        self._known: dict[str, tuple[datetime, Mapping[str, NamespaceWorkloads]]] = {}
        self._missing: dict[tuple[Kind, str], _Missing] = {}

    async def workloads(self, namespace: str, *, fresh: bool = False) -> Mapping[str, NamespaceWorkloads]:
        now = self._clock.now()
        known = self._known.get(namespace)
        if fresh or known is None or not _NONE <= now - known[0] < FRESH_FOR:
            claims: dict[str, list[WorkloadClaim]] = {}
            for kind in WORKLOADS:
                for item in await self._listed_kind(kind, namespace):
                    claim = claim_of(item)
                    claims.setdefault(claim.namespace, []).append(claim)
            found = {space: NamespaceWorkloads(self._services, those) for space, those in claims.items()}
            known = self._known[namespace] = (now, found)
        return known[1]

    def refused(self) -> tuple[Kind, ...]:
        return tuple(kind for (kind, _), one in self._missing.items() if one.refused)

    async def find(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        if kind in _LISTED_BY_NAME:
            return await self._listed(kind, namespace, name)
        try:
            return {**await self._api.get(kind, namespace, name), "kind": kind.value}
        except Absent:
            return None

    async def controlled(
        self, kind: Kind, namespace: str, selector: JsonObject, owners: set[str]
    ) -> tuple[JsonObject, ...]:
        return await owned(self._api, kind, namespace, selector_query(selector), owners)

    async def migrations(self, namespace: str) -> tuple[JsonObject, ...]:
        listing = await self._api.list(Kind.POD, namespace, labels=JOB_PODS)
        return tuple(item for item in listing.items if is_migration(item))

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
        except Absent:
            return Supplement(items=())
        return Supplement(items=listing.items)

    async def controllers(self, namespace: str) -> Controllers:
        return await self._controllers.read(namespace)

    async def routes(
        self,
        namespace: str,
        environment: str,  # noqa: ARG002 - only a watch knows the services of the namespace
    ) -> RouteObjects:
        """As they are now: changes are known by the times that the objects give, if at all."""
        items: list[JsonObject] = []
        unread: list[Kind] = []
        for kind in ROUTES:
            try:
                listing = await self._api.list(kind, namespace)
            except Forbidden:
                unread.append(kind)
            except NotFound:
                continue
            else:
                items += [pruned(kind, item) for item in listing.items]
        return RouteObjects(items=tuple(items), unread=tuple(unread))

    async def _listed_kind(self, kind: Kind, namespace: str) -> Sequence[JsonObject]:
        now, missing = self._clock.now(), self._missing.get((kind, namespace))
        if missing is not None and _NONE <= now - missing.at < ABSENT_FOR:
            return ()
        self._missing.pop((kind, namespace), None)
        try:
            return (await self._api.list(kind, namespace)).items
        except (Forbidden, NotFound) as error:
            if kind is Kind.DEPLOYMENT:
                raise
            self._missing[kind, namespace] = _Missing(at=now, refused=isinstance(error, Forbidden))
            return ()

    async def _listed(self, kind: Kind, namespace: str, wanted: str) -> JsonObject | None:
        listing = await self._api.list(kind, namespace, fields=f"metadata.name={wanted}")
        return next((item for item in listing.items if name(item) == wanted), None)
