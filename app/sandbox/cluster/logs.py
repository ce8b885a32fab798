"""The logs of containers."""

from __future__ import annotations

from app.agent.workload import LogTail, ObjectRef
from app.errors import NotFound
from app.sandbox.cluster.access import WorldAccess
from app.sandbox.cluster.batches import pod_of
from app.sandbox.cluster.reader import SandboxReader
from app.sandbox.kubelet import service_name
from app.sandbox.objects import Job, Pod
from app.sandbox.picture import refused_by
from app.sandbox.services import ExternalKind
from app.sandbox.world import ContainerLog, World

_REFUSALS = {
    ExternalKind.DATABASE: 'FATAL: password authentication failed for user "app"',
    ExternalKind.QUEUE: "SASL authentication failed: invalid credentials",
    ExternalKind.THIRD_PARTY: "authentication failed: the API key is not valid",
}
"""What a driver writes when a system of that kind refuses what it was given."""
_REPEATED = 3


def refusals(pod: ObjectRef, world: World) -> tuple[str, ...]:
    """What a pod of a modelled service writes about the systems that refuse its credentials."""
    found = next((p for p in world.api.list(Pod, pod.namespace) if p.meta.name == pod.name), None)
    model = None if found is None else world.surroundings.models.get((pod.namespace, service_name(found)))
    if found is None or model is None:
        return ()
    refusing = sorted(refused_by(found, model, world.surroundings))
    return tuple(
        f"ERROR call to {name} failed: {_REFUSALS[world.surroundings.externals[name].kind]}"
        for name in refusing
        for _ in range(_REPEATED)
    )


class SandboxLogs:
    """`ContainerLogs` over a `World`."""

    def __init__(self, access: WorldAccess) -> None:
        self._access = access

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        self._access.ask("get", "Pod/log")
        owner = await self._owner(pod)
        if owner is None or container != "app":
            raise NotFound(f"pods/log {pod.namespace}/{pod.name}: there is no such container")
        world = self._access.world
        log = world.container_logs.get((pod.namespace, owner)) or ContainerLog(current=refusals(pod, world))
        ended = log.previous if previous else None
        lines = log.current if ended is None else ended
        return LogTail.within_bounds(lines, previous=ended is not None)

    async def _owner(self, pod: ObjectRef) -> str | None:
        """The name of the workload or of the Job that a pod is of."""
        jobs = self._access.world.api.list(Job, pod.namespace)
        run = next((job.meta.name for job in jobs if pod_of(job) == pod.name), None)
        if run is not None:
            return run
        found = await SandboxReader(self._access).owner(pod)
        return None if found is None else found.name
