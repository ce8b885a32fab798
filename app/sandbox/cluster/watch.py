"""What moved."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from app.agent.ports.cluster import ClusterEvent
from app.sandbox.api import Thing
from app.sandbox.cluster.access import WorldAccess

WATCH_SECONDS = 0.5


class SandboxWatch:
    """A `ClusterWatch` over a `World`: looks what moved every so many seconds of the world's time."""

    def __init__(self, access: WorldAccess, every_seconds: float = WATCH_SECONDS) -> None:
        self._access = access
        self._every_seconds = every_seconds

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        access, world = self._access, self._access.world
        for kind in ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod", "ConfigMap"):
            access.ask("watch", kind)
        moved = set(world.services())

        def notice(thing: Thing) -> None:
            moved.update(world.affected(thing))

        world.api.changed.append(notice)
        try:
            while True:
                if access.world is not world:
                    world.api.changed.remove(notice)
                    world = access.world
                    world.api.changed.append(notice)
                    moved = set(world.services())
                keys = [access.naming.key(*name) for name in sorted(moved)]
                moved.clear()
                for key in keys:
                    if key is not None:
                        yield ClusterEvent(key=key)
                await world.clock.sleep(self._every_seconds)
                world.catch_up()
        finally:
            world.api.changed.remove(notice)
