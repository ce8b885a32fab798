"""The view of a cluster that its watches keep: every kind that is read, listed once, then followed.

Shared by everything that reads in steady state, which then costs no request. While the
view is not current (right after start, a watch is interrupted, a kind may not be
watched), the read goes to the API server.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace

from app.agent.ids import JsonObject
from app.clock import Clock
from app.connectors.kubernetes.api import EVERYWHERE, Kind, ReadApi
from app.connectors.kubernetes.controllers import AUTOSCALERS, STAND_INS, Controllers
from app.connectors.kubernetes.fields import condition_of, controller, controller_uid, text, texts, uid
from app.connectors.kubernetes.index import NamespaceWorkloads, WorkloadIndex, WorkloadName, selects
from app.connectors.kubernetes.mapping import WORKLOADS, ServiceMap
from app.connectors.kubernetes.reading.feed import Feed
from app.connectors.kubernetes.reading.history import PodTemplates, RouteHistory, RouteStore
from app.connectors.kubernetes.reading.informer import Informer, InformerState, WatchTiming
from app.connectors.kubernetes.reading.objects import Objects, Supplement
from app.connectors.kubernetes.reading.store import ObjectStore, PodStore, object_name
from app.connectors.kubernetes.routes.view import ROUTES, RouteObjects

_REQUIRED = (Kind.DEPLOYMENT, Kind.REPLICA_SET, Kind.POD, Kind.CONFIG_MAP)
_SUPPLEMENTARY = tuple(
    dict.fromkeys(
        kind
        for kind in (
            *WORKLOADS,
            Kind.CONTROLLER_REVISION,
            Kind.EVENT,
            Kind.DISRUPTION_BUDGET,
            *AUTOSCALERS,
            *STAND_INS,
            *ROUTES,
        )
        if kind not in _REQUIRED
    )
)
"""Left out where the cluster does not have them, or the agent may not watch them."""
WATCHED = (*_REQUIRED, *_SUPPLEMENTARY)
"""Every kind that is followed with a watch."""
_QUIET = frozenset({Kind.DISRUPTION_BUDGET, *AUTOSCALERS, *STAND_INS, *ROUTES} - {*WORKLOADS})
"""Their changes are read with the next look at a workload, and cause none."""
_SUPPLEMENTS_WITHIN_SECONDS = 5.0
"""So long the first report waits for the supplementary kinds after the required ones."""
_LISTS_WITHIN_SECONDS = 20.0
"""So long a reader waits for lists that are under way, before it has the API server list a second time."""
_TURNS_TO_START = 10
"""Of the event loop: readers start beside the watcher, and may be a few turns ahead."""
_SHOW_CRASHES = frozenset({Kind.DEPLOYMENT, Kind.POD})
_LISTED_LAST = frozenset({Kind.REPLICA_SET, Kind.CONFIG_MAP})
"""Long lists without which a pod that crashes can be looked at: what a look needs of them is little."""
_CRASHES_FIRST = 50
"""So many services with pods that are not ready are reported before the other lists are complete."""
_OWNERS_ABOVE = 3


class ClusterView:
    """`Objects` from the stores of the informers of one cluster."""

    def __init__(
        self,
        api: Callable[[str], ReadApi],
        live: Objects,
        services: ServiceMap,
        clock: Clock,
        *,
        timing: WatchTiming | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """`api` gives the connection for a namespace; each holds one stream open for a kind."""
        self._api = api
        self._live = live
        self._services = services
        self._clock = clock
        self.timing = timing or WatchTiming()
        self._jitter = jitter
        self._scopes = services.namespaces()
        self._index = WorkloadIndex(services)
        self._history = RouteHistory(clock)
        self._templates = PodTemplates()
        self._routes = {kind: RouteStore(kind, clock, self._history) for kind in ROUTES}
        self._pods = PodStore()
        self._stores: dict[Kind, ObjectStore] = {
            **{kind: ObjectStore(kind) for kind in WATCHED},
            **self._routes,
            Kind.POD: self._pods,
        }
        self._touched: set[WorkloadName] = set()
        """Workloads that changed and are not reported yet."""
        self._unready: set[str] = set()
        """The uids of pods that are not ready."""
        self._informers: dict[tuple[Kind, str], Informer] = {}
        self._feeds: list[Feed] = []
        self._tasks: list[asyncio.Task[None]] = []

    # ------------------------------------------------------------ following

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[Feed]:
        """A feed of the services that change, after every known service once; the view is kept meanwhile."""
        feed = Feed()
        self._feeds.append(feed)
        if not self._tasks:
            self._start()
        announcing = asyncio.create_task(self._announce(feed))
        try:
            yield feed
        finally:
            announcing.cancel()
            self._feeds.remove(feed)
            if not self._feeds:
                await self._stop()
            await asyncio.gather(announcing, return_exceptions=True)

    def _start(self) -> None:
        gate = asyncio.Semaphore(self.timing.lists_at_once)
        self._informers = {
            (kind, scope): Informer(
                api=self._api(scope),
                kind=kind,
                namespace=scope,
                store=self._stores[kind],
                keeps=self._services.watches,
                changed=self._changed,
                clock=self._clock,
                timing=self.timing,
                gate=gate,
                required=kind in _REQUIRED,
                jitter=self._jitter,
            )
            for kind in self._stores
            for scope in self._scopes
        }
        self._tasks = [asyncio.create_task(self._in_turn(one)) for one in self._informers.values()]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    async def _in_turn(self, informer: Informer) -> None:
        if informer.kind in _LISTED_LAST:
            await self._settled_first()
        await informer.run()

    async def _settled_first(self) -> None:
        """Return once what shows crashes is listed, and the short lists, which are not waited for long."""
        first = [one for one in self._informers.values() if one.kind not in _LISTED_LAST]
        await _settled(one for one in first if one.kind in _SHOW_CRASHES)
        await self._settled_in_time(first)

    async def _settled_in_time(
        self, informers: Iterable[Informer], seconds: float = _SUPPLEMENTS_WITHIN_SECONDS
    ) -> None:
        rest = asyncio.ensure_future(_settled(informers))
        late = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait({rest, late}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rest.cancel()
            late.cancel()

    async def _stop(self) -> None:
        tasks, self._tasks, self._informers = self._tasks, [], {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            for feed in self._feeds:
                feed.fail(error)

    async def _announce(self, feed: Feed) -> None:
        """Report every known service after the first lists, those with pods that are not ready first."""
        await self._settled_first()
        self.report()
        feed.takes_changes = True
        feed.add(sorted(self._index.resolved(self._unready_workloads()))[:_CRASHES_FIRST])
        await _settled(one for one in self._informers.values() if one.required)
        await self._settled_in_time(self._informers.values())
        self.report()
        feed.add(sorted(self._index.resolved(self._unready_workloads())))
        feed.add(sorted(self._index.services()), urgent=False)

    def _unready_workloads(self) -> set[WorkloadName]:
        pods = self._stores[Kind.POD]
        return {
            place
            for item in (pods.of_uid(one) for one in self._unready)
            if item is not None
            for place in self._above_pod(item)
        }

    def _above_pod(self, pod: JsonObject) -> set[WorkloadName]:
        """The workload of a pod; by the name of its ReplicaSet while these are not listed.

        Each look for a service without a workload counts.
        """
        found = self._above(controller_uid(pod) or "")
        space, (kind, owner) = object_name(pod)[0], controller(pod) or ("", "")
        if found or kind != Kind.REPLICA_SET.value or self._current(Kind.REPLICA_SET, space) is not None:
            return found
        return {(space, Kind.DEPLOYMENT.value, owner.rpartition("-")[0])}

    def report(self) -> None:
        """Work out which services the changes since the last call belong to, and add them to every feed."""
        touched, self._touched = self._touched, set()
        keys = sorted(self._index.resolved(touched))
        for feed in self._open_feeds():
            feed.add(keys)

    def _open_feeds(self) -> list[Feed]:
        """The feeds that take changes; the others are given them with every known service."""
        return [feed for feed in self._feeds if feed.takes_changes]

    def _changed(self, kind: Kind, item: JsonObject, present: bool) -> None:
        touched = self._touches(kind, item, present)
        informer = self._informer(kind, object_name(item)[0])
        if kind not in WORKLOADS and (informer is None or not informer.settled.is_set()):
            return  # reported with every known service
        self._touched |= touched
        for feed in self._open_feeds() if touched else ():
            feed.wake()

    def _touches(self, kind: Kind, item: JsonObject, present: bool) -> set[WorkloadName]:
        """The workloads that a changed object belongs to; keeps the indexes."""
        if kind in WORKLOADS:
            self._templates.changed(item, present=present)
            return self._index.put(item) if present else self._index.removed(item)
        if kind in _QUIET:
            if kind in self._routes and not present:
                informer = self._informer(kind, object_name(item)[0])
                self._history.deleted(item, None if informer is None else informer.heard_at)
            return set()
        if kind is Kind.CONFIG_MAP:
            return self._index.of_config_map(item)
        if kind is Kind.EVENT:
            return self._above(text(item, "involvedObject", "uid") or "") if present else set()
        if kind is Kind.POD:
            unready = present and text(condition_of(item, "Ready"), "status") != "True"
            (self._unready.add if unready else self._unready.discard)(uid(item))
            return self._above_pod(item)
        return self._above(controller_uid(item) or "")

    def _above(self, wanted: str) -> set[WorkloadName]:
        """The workload with that uid, or the one that controls the object with it."""
        for _ in range(_OWNERS_ABOVE):
            found = self._index.of_uid(wanted)
            if found or not wanted:
                return found
            owners = (self._stores[kind].owner_of(wanted) for kind in (Kind.POD, Kind.REPLICA_SET))
            wanted = next((owner for owner in owners if owner), "")
        return set()

    # ------------------------------------------------------------ reading

    async def workloads(self, namespace: str, *, fresh: bool = False) -> Mapping[str, NamespaceWorkloads]:
        if not fresh:
            await self._first_lists(namespace)
        if fresh or not all(self._usable(kind, namespace) for kind in WORKLOADS):
            return await self._live.workloads(namespace, fresh=fresh)
        spaces = self._index.namespaces() if namespace == EVERYWHERE else (namespace,)
        return {space: self._index.workloads(space) for space in spaces}

    async def _first_lists(self, namespace: str) -> None:
        """Wait for lists of workloads that are under way, for as long as a second one may take."""
        for _ in range(_TURNS_TO_START):
            if self._tasks:
                break
            await asyncio.sleep(0)
        found = [self._informer(kind, namespace) for kind in WORKLOADS]
        starting = [one for one in found if one is not None and one.state is InformerState.STARTING]
        if starting:
            await self._settled_in_time(starting, _LISTS_WITHIN_SECONDS)

    def refused(self) -> tuple[Kind, ...]:
        found = {one.kind for one in self._informers.values() if one.state is InformerState.REFUSED}
        return tuple(kind for kind in WORKLOADS if kind in found or kind in self._live.refused())

    async def find(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        store = self._current(kind, namespace)
        found = None if store is None else store.get((namespace, name))
        if found is None and (store is None or kind is Kind.POD):
            # An alert may name a pod before the watch does.
            return await self._live.find(kind, namespace, name)
        return found

    async def controlled(
        self, kind: Kind, namespace: str, selector: JsonObject, owners: set[str]
    ) -> tuple[JsonObject, ...]:
        store = self._current(kind, namespace)
        if store is None:
            return await self._live.controlled(kind, namespace, selector, owners)
        found = (item for owner in sorted(owners) for item in store.owned_by(owner))
        return tuple(item for item in found if selects(selector, texts(item, "metadata", "labels")))

    async def migrations(self, namespace: str) -> tuple[JsonObject, ...]:
        if self._current(Kind.POD, namespace) is None:
            return await self._live.migrations(namespace)
        return self._pods.migrations(namespace)

    async def warnings(self, namespace: str, about: Collection[str]) -> Supplement:
        store = self._current(Kind.EVENT, namespace)
        if store is None:
            refused = self._refused(Kind.EVENT, namespace)
            return refused or await self._live.warnings(namespace, about)
        return Supplement(items=tuple(item for one in sorted(about) for item in store.owned_by(one)))

    async def budgets(self, namespace: str) -> Supplement:
        store = self._current(Kind.DISRUPTION_BUDGET, namespace)
        if store is None:
            return self._refused(Kind.DISRUPTION_BUDGET, namespace) or await self._live.budgets(namespace)
        return Supplement(items=tuple(store.within(namespace)))

    async def controllers(self, namespace: str) -> Controllers:
        found: dict[Kind, Supplement] = {}
        for kind in (*AUTOSCALERS, *STAND_INS):
            store = self._current(kind, namespace)
            refused = self._refused(kind, namespace)
            if store is None and refused is None:
                return await self._live.controllers(namespace)
            items = () if store is None else store.within(namespace)
            found[kind] = refused or Supplement(items=tuple(items))
        return Controllers(
            autoscalers=tuple(item for kind in AUTOSCALERS for item in found[kind].items),
            stand_ins=tuple(item for kind in STAND_INS for item in found[kind].items),
            unread=tuple(reason for one in found.values() for reason in one.unread),
        )

    async def routes(self, namespace: str, environment: str) -> RouteObjects:
        """Where a kind is not current, all are as the API server lists them, with what was seen before."""
        pods = self._templates.by_service(self._index.workloads(namespace), namespace, environment)
        if not all(self._usable(kind, namespace) for kind in ROUTES):
            live = await self._live.routes(namespace, environment)
            return replace(live, seen=self._history.within(namespace), pods=pods)
        current = [kind for kind in ROUTES if self._current(kind, namespace) is not None]
        stores = [self._routes[kind] for kind in current]
        return RouteObjects(
            items=tuple(item for store in stores for item in store.within(namespace)),
            seen=self._history.within(namespace),
            compared_since={one: since for store in stores for one, since in store.first_read.items()},
            pods=pods,
            unread=tuple(kind for kind in ROUTES if (one := self._refused(kind, namespace)) and one.unread),
        )

    @property
    def sizes(self) -> dict[Kind, tuple[int, int]]:
        """How many objects of each kind are kept, and the bytes of their text."""
        return {kind: store.size for kind, store in self._stores.items()}

    def ages(self) -> dict[str, float]:
        """Seconds since the API server last sent something, by kind; the longest of its namespaces."""
        now, found = self._clock.now(), dict[str, float]()
        for (kind, _), informer in self._informers.items():
            if informer.heard_at is not None:
                age = max(0.0, (now - informer.heard_at).total_seconds())
                found[kind.value] = max(age, found.get(kind.value, 0.0))
        return found

    def _current(self, kind: Kind, namespace: str) -> ObjectStore | None:
        """The store of a kind, where it can be read in place of the API server."""
        informer = self._informer(kind, namespace)
        return (
            self._stores[kind] if informer is not None and informer.state is InformerState.CURRENT else None
        )

    def _usable(self, kind: Kind, namespace: str) -> bool:
        """Whether the view knows what there is of a kind, none of it included."""
        return self._current(kind, namespace) is not None or self._refused(kind, namespace) is not None

    def _refused(self, kind: Kind, namespace: str) -> Supplement | None:
        """The answer for a kind that the cluster does not have, or that may not be read."""
        informer = self._informer(kind, namespace)
        if informer is None or informer.state not in (InformerState.ABSENT, InformerState.REFUSED):
            return None
        refusal = informer.refusal if informer.state is InformerState.REFUSED else None
        return Supplement(items=(), unread=() if refusal is None else (refusal,))

    def _informer(self, kind: Kind, namespace: str) -> Informer | None:
        if namespace != EVERYWHERE and not self._services.watches(namespace):
            return None
        scope = EVERYWHERE if self._scopes == (EVERYWHERE,) else namespace
        return self._informers.get((kind, scope))


async def _settled(informers: Iterable[Informer]) -> None:
    for one in tuple(informers):
        await one.settled.wait()
