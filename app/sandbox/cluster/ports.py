"""The ports over a world, as one identity sees it."""

from __future__ import annotations

from dataclasses import dataclass

from app.sandbox.api import Identity
from app.sandbox.cluster.access import AGENT, WorldAccess
from app.sandbox.cluster.batches import SandboxBatches
from app.sandbox.cluster.changes import SandboxRehearsal, SandboxWriter
from app.sandbox.cluster.logs import SandboxLogs
from app.sandbox.cluster.naming import SAME_NAMES, Naming
from app.sandbox.cluster.reader import SandboxReader
from app.sandbox.cluster.watch import WATCH_SECONDS, SandboxWatch
from app.sandbox.world import World, WorldSource


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxCluster:
    """The ports over a world, as one identity sees it; a writer exists only where one is asked for."""

    reader: SandboxReader
    rehearsal: SandboxRehearsal
    watch: SandboxWatch
    _access: WorldAccess

    @classmethod
    def over(
        cls,
        world: World,
        *,
        naming: Naming = SAME_NAMES,
        identity: Identity = AGENT,
        watch_seconds: float = WATCH_SECONDS,
    ) -> SandboxCluster:
        """The ports over one world."""
        return cls.following(lambda: world, naming=naming, identity=identity, watch_seconds=watch_seconds)

    @classmethod
    def following(
        cls,
        worlds: WorldSource,
        *,
        naming: Naming = SAME_NAMES,
        identity: Identity = AGENT,
        watch_seconds: float = WATCH_SECONDS,
    ) -> SandboxCluster:
        """The ports over the world that `worlds` returns; a watch notices when the world is replaced."""
        access = WorldAccess(worlds=worlds, naming=naming, identity=identity)
        return cls(
            reader=SandboxReader(access),
            rehearsal=SandboxRehearsal(access),
            watch=SandboxWatch(access, watch_seconds),
            _access=access,
        )

    @property
    def logs(self) -> SandboxLogs:
        """The lines of containers; a dry run may read them too."""
        return SandboxLogs(self._access)

    @property
    def batches(self) -> SandboxBatches:
        """The Jobs of the world; a dry run may read them too."""
        return SandboxBatches(self._access)

    def writer(self) -> SandboxWriter:
        """The side that changes the world; a dry run never asks for it (promise 5)."""
        return SandboxWriter(self._access)
