"""Finds the workload of a service among those of every kind, and says which workloads are no service.

Called by the reader in `k8s`. Which workload a service is follows from all of a
namespace (`mapping`), so a namespace is listed as a whole; the list is used for a few
seconds, since the workloads of a namespace are read one after another. The workload
itself is read when it is asked for. A kind that the cluster does not have, or that the
agent may not read, is left out and asked for again later; only Deployments must be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.guardrails.workload_kinds import DEPLOYMENT
from app.agent.ids import JsonObject, ServiceKey
from app.agent.ports.cluster import UnwatchedWorkload
from app.clock import Clock
from app.connectors.kubernetes.api import Kind, ReadApi, plural
from app.connectors.kubernetes.controllers import ABSENT_FOR, FRESH_FOR
from app.connectors.kubernetes.errors import Absent
from app.connectors.kubernetes.fields import mapping
from app.connectors.kubernetes.mapping import (
    WORKLOADS,
    ServiceMap,
    WorkloadClaim,
    claim_of,
    is_label_value,
    is_object_name,
)
from app.errors import Forbidden, Invalid, NotFound

_NONE = timedelta(0)
_MAYBE_ABSENT = frozenset({Kind.ROLLOUT})
"""Not every cluster has them: an API server that refuses to list them does not say whether it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _NamespaceRead:
    """The workloads of one namespace, or of all, as read at that time."""

    at: datetime
    claims: tuple[WorkloadClaim, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Missing:
    """A kind that could not be read at that time."""

    at: datetime
    refused: bool


class WorkloadCatalog:
    """The workloads behind one connection."""

    def __init__(self, api: ReadApi, services: ServiceMap, clock: Clock) -> None:
        self._api = api
        self._services = services
        self._clock = clock
        self._known: dict[str, _NamespaceRead] = {}
        self._missing: dict[tuple[Kind, str], _Missing] = {}

    async def services(self) -> tuple[ServiceKey, ...]:
        """Every service of the watched namespaces."""
        found: set[ServiceKey] = set()
        for namespace in self._services.namespaces():
            for claims in _by_namespace((await self._read(namespace)).claims):
                found.update(self._services.assigned(claims).keys.values())
        return tuple(sorted(found))

    async def unwatched(self) -> tuple[UnwatchedWorkload, ...]:
        """The workloads of the watched namespaces that are no service, and the kinds that may not be read."""
        found: list[UnwatchedWorkload] = []
        for namespace in self._services.namespaces():
            for claims in _by_namespace((await self._read(namespace)).claims):
                unwatched = self._services.assigned(claims).unwatched
                found += [UnwatchedWorkload(what=str(claim), why=why) for claim, why in unwatched.items()]
        refused = sorted({kind for (kind, _), one in self._missing.items() if one.refused} - _MAYBE_ABSENT)
        found += [
            UnwatchedWorkload(what=f"every {kind}", why=f"the agent may not list {plural(kind)}")
            for kind in refused
        ]
        return tuple(sorted(found, key=str))

    async def key_of(self, kind: str, namespace: str, named: str) -> ServiceKey | None:
        """The service that a workload is; None for kinds that run to an end, and where nothing is watched."""
        if kind not in WORKLOADS:
            return None
        for fresh in (False, True):
            read = await self._read(namespace, fresh=fresh)
            claim = next((one for one in read.claims if (one.kind, one.name) == (kind, named)), None)
            if claim is not None:
                return self._services.assigned(read.claims).keys.get(claim)
        return None

    async def workload(self, key: ServiceKey) -> JsonObject | None:
        """The one workload of a service; `Invalid` where several share its name and none is called so.

        A Rollout without a template has that of the Deployment whose pods it runs.
        """
        place = self._services.place(key)
        namespace = self._services.namespace(key.environment) if place is None else place.namespace
        if namespace is None or not (is_label_value(key.service) or is_object_name(key.service)):
            return None
        for fresh in (False, True):
            read = await self._read(namespace, fresh=fresh)
            claim = place.first(read.claims) if place is not None else self._claimed(key, read.claims)
            found = None if claim is None else await self._get(claim)
            if found is not None and claim_of(found) == claim:
                return await self._with_template(found)
        return None

    def _claimed(self, key: ServiceKey, claims: Sequence[WorkloadClaim]) -> WorkloadClaim | None:
        assignment = self._services.assigned(claims, key.environment)
        found = assignment.workload(key)
        rivals = [
            claim
            for claim in claims
            if claim.service == key.service and (claim in assignment.unwatched or claim in assignment.keys)
        ]
        if found is None and len(rivals) > 1:
            names = ", ".join(sorted(str(claim) for claim in rivals))
            raise Invalid(
                f"{key} maps to several workloads: {names}; each is watched under its own name, "
                "and SERVICE_WORKLOADS can name the one that this is"
            )
        return found

    async def _with_template(self, workload: JsonObject) -> JsonObject:
        claim = claim_of(workload)
        if claim.runs_for is None or mapping(workload, "spec", "template"):
            return workload
        try:
            holder = await self._api.get(Kind.DEPLOYMENT, claim.namespace, claim.runs_for)
        except Absent:
            return workload
        spec = mapping(holder, "spec")
        lent: JsonObject = {field: spec[field] for field in ("template", "selector") if field in spec}
        return {**workload, "spec": {**mapping(workload, "spec"), **lent}}

    async def _get(self, claim: WorkloadClaim) -> JsonObject | None:
        try:
            found = await self._api.get(Kind(claim.kind), claim.namespace, claim.name)
        except Absent:
            return None
        return {**found, "kind": claim.kind}

    async def _read(self, namespace: str, *, fresh: bool = False) -> _NamespaceRead:
        now = self._clock.now()
        known = self._known.get(namespace)
        if fresh or known is None or not _NONE <= now - known.at < FRESH_FOR:
            claims = [claim_of(item) for kind in WORKLOADS for item in await self._list(kind, namespace)]
            known = self._known[namespace] = _NamespaceRead(at=now, claims=tuple(claims))
        return known

    async def _list(self, kind: Kind, namespace: str) -> Sequence[JsonObject]:
        now, missing = self._clock.now(), self._missing.get((kind, namespace))
        if missing is not None and _NONE <= now - missing.at < ABSENT_FOR:
            return ()
        self._missing.pop((kind, namespace), None)
        try:
            return (await self._api.list(kind, namespace)).items
        except (Forbidden, NotFound) as error:
            if kind == DEPLOYMENT:
                raise
            self._missing[kind, namespace] = _Missing(at=now, refused=isinstance(error, Forbidden))
            return ()


def _by_namespace(claims: Iterable[WorkloadClaim]) -> Iterable[tuple[WorkloadClaim, ...]]:
    spaces: dict[str, list[WorkloadClaim]] = {}
    for claim in claims:
        spaces.setdefault(claim.namespace, []).append(claim)
    return tuple(tuple(those) for those in spaces.values())
