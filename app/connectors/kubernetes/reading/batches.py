"""Reads Jobs and CronJobs from the API server; each read is a list."""

from __future__ import annotations

import logging

from app.agent.batch.runs import BatchRun, BatchView, EndedContainer, batch_named
from app.agent.ids import JsonObject, ServiceKey
from app.clock import Clock
from app.connectors.kubernetes.api import Kind, ReadApi
from app.connectors.kubernetes.fields import text
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.views.batches import batches_of, failures_of
from app.errors import Forbidden

_OF_RUN = "batch.kubernetes.io/controller-uid"

log = logging.getLogger(__name__)


class KubernetesBatches:
    """`BatchReader` over one API server."""

    def __init__(self, api: ReadApi, services: ServiceMap, clock: Clock) -> None:
        self._api = api
        self._services = services
        self._clock = clock
        self._listed: dict[str, tuple[BatchView, ...]] = {}
        """What each namespace listed last."""

    async def batches(self) -> tuple[BatchView, ...]:
        """As the port says; of a namespace whose Jobs may not be listed, as they were listed last.

        `Forbidden` only where that holds for every namespace.
        """
        scopes, denied = self._services.namespaces(), []
        for scope in scopes:
            try:
                self._listed[scope] = await self._in(scope)
            except Forbidden as error:
                denied.append(error)
        if denied and len(denied) == len(scopes):
            raise denied[0]
        for why in denied:
            log.warning("failed Jobs are not seen: %s", why)
        return tuple(batch for scope in scopes for batch in self._listed.get(scope, ()))

    async def _in(self, scope: str) -> tuple[BatchView, ...]:
        jobs = _by_namespace((await self._api.list(Kind.JOB, scope)).items)
        crons = _by_namespace((await self._api.list(Kind.CRON_JOB, scope)).items)
        found: list[BatchView] = []
        for namespace, those in jobs.items():
            environment = self._services.environment(namespace)
            if environment is not None:
                found += batches_of(environment, those, crons.get(namespace, ()), self._clock.now())
        return tuple(found)

    async def batch(self, key: ServiceKey) -> BatchView | None:
        namespace = self._services.namespace(key.environment)
        if batch_named(key) is None or namespace is None:
            return None
        return await read_batch(self._api, key, namespace, self._clock)

    async def failures(self, batch: BatchView, run: BatchRun) -> tuple[EndedContainer, ...]:
        pods = await self._api.list(Kind.POD, batch.ref.namespace, labels=f"{_OF_RUN}={run.uid}")
        return failures_of(run.uid, pods.items)


async def read_batch(api: ReadApi, key: ServiceKey, namespace: str, clock: Clock) -> BatchView | None:
    """One batch of a namespace, with its runs."""
    jobs = (await api.list(Kind.JOB, namespace)).items
    crons = (await api.list(Kind.CRON_JOB, namespace)).items
    found = batches_of(key.environment, jobs, crons, clock.now())
    return next((one for one in found if one.key == key), None)


def _by_namespace(items: tuple[JsonObject, ...]) -> dict[str, tuple[JsonObject, ...]]:
    found: dict[str, list[JsonObject]] = {}
    for item in items:
        found.setdefault(text(item, "metadata", "namespace") or "", []).append(item)
    return {namespace: tuple(those) for namespace, those in found.items()}
