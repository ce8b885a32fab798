"""Service level indicators of the simulated world, behind the agent's metric port.

Answers as a monitoring system does: from a window before the moment asked for,
with the age of the newest data behind a value, and with nothing where nothing
was measured (promise 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.ids import ServiceKey
from app.agent.models import SliSample, TelemetryHealth
from app.errors import TransientError
from app.sandbox.cluster.naming import SAME_NAMES, Naming
from app.sandbox.world import DEFAULT_WINDOW, World, WorldSource

_LOOK_BACK = timedelta(minutes=10)


class SandboxMetrics:
    """A `MetricSource` over a `World`."""

    def __init__(
        self,
        world: World | WorldSource,
        *,
        naming: Naming = SAME_NAMES,
        window: timedelta = DEFAULT_WINDOW,
    ) -> None:
        """`world`: one world, or what returns the world of the moment."""
        self._worlds: WorldSource = (lambda: world) if isinstance(world, World) else world
        self._naming = naming
        self._window = window

    @property
    def _world(self) -> World:
        return self._worlds()

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        self._ask()
        return self._world.traffic.measure(self._naming.name(key), at, self._window)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        """Each sample's `at` is the instant asked about; its data is at most a window older."""
        self._ask()
        found: list[SliSample] = []
        at = start
        while at <= end:
            sample = self._world.traffic.measure(self._naming.name(key), at, self._window)
            if not sample.empty:
                found.append(replace(sample, at=at))
            at += step
        return tuple(found)

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        self._world.catch_up()
        if self._world.traffic.source_down:
            return TelemetryHealth(known_services=0, silent_services=0, source_reachable=False)
        names = {self._naming.name(key) for key in keys}
        newest = self._world.traffic.newest
        known = {name for name in names if newest(name, at, _LOOK_BACK) is not None}
        silent = {name for name in known if newest(name, at, self._window) is None}
        return TelemetryHealth(known_services=len(known), silent_services=len(silent), source_reachable=True)

    def _ask(self) -> None:
        self._world.catch_up()
        if self._world.traffic.source_down:
            raise TransientError("the simulated monitoring does not answer")
