"""Finds the workload of a service among those of every kind, and says which workloads are no service.

Called by the reader in `k8s`. Which workload a service is follows from all of a
namespace (`mapping`); the workload itself is read when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable

from app.agent.ids import JsonObject, ServiceKey
from app.agent.ports.cluster import UnwatchedWorkload
from app.connectors.kubernetes.api import Kind, plural
from app.connectors.kubernetes.fields import mapping
from app.connectors.kubernetes.index import NamespaceWorkloads
from app.connectors.kubernetes.mapping import (
    WORKLOADS,
    Place,
    ServiceMap,
    WorkloadClaim,
    claim_of,
    is_label_value,
    is_object_name,
)
from app.connectors.kubernetes.reading.objects import Objects
from app.errors import Invalid

_MAYBE_ABSENT = frozenset({Kind.ROLLOUT})
"""Not every cluster has them: an API server that refuses to list them does not say whether it has."""


class WorkloadCatalog:
    """The workloads of one cluster."""

    def __init__(self, services: ServiceMap, *, objects: Objects, around: Objects) -> None:
        """`around` gives what is there, `objects` the workload itself."""
        self._services = services
        self._objects = objects
        self._around = around

    async def services(self) -> tuple[ServiceKey, ...]:
        """Every service of the watched namespaces."""
        spaces = await self._watched()
        return tuple(sorted({key for space in spaces for key in space.assigned().keys.values()}))

    async def unwatched(self) -> tuple[UnwatchedWorkload, ...]:
        """The workloads of the watched namespaces that are no service, and the kinds that may not be read."""
        found = [
            UnwatchedWorkload(what=str(claim), why=why)
            for space in await self._watched()
            for claim, why in space.assigned().unwatched.items()
        ]
        found += [
            UnwatchedWorkload(what=f"every {kind}", why=f"the agent may not list {plural(kind)}")
            for kind in sorted({*self._around.refused()} - _MAYBE_ABSENT)
        ]
        return tuple(sorted(found, key=str))

    async def key_of(self, kind: str, namespace: str, named: str) -> ServiceKey | None:
        """The service that a workload is; None for kinds that run to an end, and where nothing is watched."""
        if kind not in WORKLOADS:
            return None
        for fresh in (False, True):
            space = await self._space(namespace, fresh=fresh)
            claim = space.named(kind, named)
            if claim is not None:
                return space.key_of(claim)
            if space.followed:
                break
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
            space = await self._space(namespace, fresh=fresh)
            claim = _claimed(key, space) if place is None else _placed(place, space)
            if claim is None and space.followed:
                return None
            found = None if claim is None else await self._get(claim)
            if found is not None and claim_of(found) == claim:
                return await self._with_template(found)
        return None

    async def _watched(self) -> Iterable[NamespaceWorkloads]:
        return [
            space
            for namespace in self._services.namespaces()
            for space in (await self._around.workloads(namespace)).values()
        ]

    async def _space(self, namespace: str, *, fresh: bool) -> NamespaceWorkloads:
        found = await self._around.workloads(namespace, fresh=fresh)
        return found.get(namespace) or NamespaceWorkloads(self._services, ())

    async def _with_template(self, workload: JsonObject) -> JsonObject:
        claim = claim_of(workload)
        if claim.runs_for is None or mapping(workload, "spec", "template"):
            return workload
        holder = await self._objects.find(Kind.DEPLOYMENT, claim.namespace, claim.runs_for)
        if holder is None:
            return workload
        spec = mapping(holder, "spec")
        lent: JsonObject = {field: spec[field] for field in ("template", "selector") if field in spec}
        return {**workload, "spec": {**mapping(workload, "spec"), **lent}}

    async def _get(self, claim: WorkloadClaim) -> JsonObject | None:
        return await self._objects.find(Kind(claim.kind), claim.namespace, claim.name)


def _placed(place: Place, space: NamespaceWorkloads) -> WorkloadClaim | None:
    return place.first(space.claims)


def _claimed(key: ServiceKey, space: NamespaceWorkloads) -> WorkloadClaim | None:
    found = space.workload(key)
    if found is not None:
        return found
    assignment = space.assigned(key.environment)
    rivals = [
        claim
        for claim in space.claims
        if claim.service == key.service and (claim in assignment.unwatched or claim in assignment.keys)
    ]
    if len(rivals) > 1:
        names = ", ".join(sorted(str(claim) for claim in rivals))
        raise Invalid(
            f"{key} maps to several workloads: {names}; each is watched under its own name, "
            "and SERVICE_WORKLOADS can name the one that this is"
        )
    return None
