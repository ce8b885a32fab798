"""The logs of containers."""

from __future__ import annotations

from app.agent.workload import LOG_BYTES, LOG_LINES, LogTail, ObjectRef
from app.errors import NotFound
from app.sandbox.cluster.access import WorldAccess
from app.sandbox.cluster.batches import pod_of
from app.sandbox.cluster.reader import SandboxReader
from app.sandbox.objects import Job
from app.sandbox.world import ContainerLog


class SandboxLogs:
    """`ContainerLogs` over a `World`."""

    def __init__(self, access: WorldAccess) -> None:
        self._access = access

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        self._access.ask("get", "Pod/log")
        owner = await self._owner(pod)
        if owner is None or container != "app":
            raise NotFound(f"pods/log {pod.namespace}/{pod.name}: there is no such container")
        log = self._access.world.container_logs.get((pod.namespace, owner), ContainerLog())
        ended = log.previous if previous else None
        lines = log.current if ended is None else ended
        kept = "\n".join(lines[-LOG_LINES:]).encode()[-LOG_BYTES:]
        return LogTail(lines=tuple(kept.decode(errors="replace").splitlines()), previous=ended is not None)

    async def _owner(self, pod: ObjectRef) -> str | None:
        """The name of the workload or of the Job that a pod is of."""
        jobs = self._access.world.api.list(Job, pod.namespace)
        run = next((job.meta.name for job in jobs if pod_of(job) == pod.name), None)
        if run is not None:
            return run
        found = await SandboxReader(self._access).owner(pod)
        return None if found is None else found.name
