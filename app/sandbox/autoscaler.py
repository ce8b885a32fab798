"""A horizontal autoscaler over the simulated world: it follows the load, and writes as its own manager."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.workload import AutoscalerView
from app.sandbox.world import World

EVERY_SECONDS = 15.0
_TOLERANCE = 0.1
_STABLE_FOR = timedelta(minutes=5)
"""It removes replicas that were not needed for this time."""


@dataclass(slots=True, kw_only=True)
class Autoscaler:
    """Keeps one workload at a share of its capacity."""

    world: World
    namespace: str
    name: str
    least: int
    most: int
    target: float
    needed_at: datetime | None = None
    """When it last needed as many replicas as there are."""

    def start(self) -> None:
        """Look every 15 seconds, for as long as the world is played."""
        self._show(None)
        self.world.engine.after(EVERY_SECONDS, self._look)

    def _show(self, wanted: int | None) -> None:
        """What the API server says of it; its maximum may have been changed there."""
        held = self.world.autoscalers.get((self.namespace, self.name))
        self.most = self.most if held is None or held.maximum is None else held.maximum
        self.world.autoscalers[self.namespace, self.name] = AutoscalerView(
            kind="HorizontalPodAutoscaler",
            name=self.name,
            minimum=self.least,
            maximum=self.most,
            wanted=wanted,
        )

    def _look(self) -> None:
        self.world.engine.after(EVERY_SECONDS, self._look)
        world, now = self.world, self.world.engine.now
        present = world.api.workload(self.namespace, self.name)
        if present.replicas == 0 or present.status.ready == 0:
            return
        used = world.traffic.utilisation((self.namespace, self.name)) / self.target
        wanted = present.replicas
        self._show(None)
        if abs(used - 1) > _TOLERANCE:
            wanted = min(self.most, max(self.least, math.ceil(present.status.ready * used)))
        self._show(wanted)
        if wanted >= present.replicas:
            self.needed_at = now
        if wanted > present.replicas or (
            wanted < present.replicas and now - (self.needed_at or now) >= _STABLE_FOR
        ):
            world.autoscale(self.namespace, self.name, wanted)
