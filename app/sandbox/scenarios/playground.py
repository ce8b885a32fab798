"""The scenarios that a person starts while the sandbox runs, one after the other.

Each start makes a world of its own, with hours of healthy traffic behind it, in an
environment of its own: what the agent remembers of an earlier run, such as a failed
revision, a budget or a circuit breaker, does not change the next one. The services of
the run before are gone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias

from app.agent.ids import ServiceKey
from app.agent.models import Payload, SliSample
from app.agent.workload import WorkloadView
from app.clock import Clock
from app.errors import NotFound
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.scenarios.document import Event
from app.sandbox.scenarios.files import Variant, load_scenarios
from app.sandbox.scenarios.stage import PAST_SECONDS, ScenarioWorld, key_of
from app.sandbox.world import World

OFFERED = Path(__file__).parent / "offered"
"""The scenarios that come with the agent."""
STEP_SECONDS = 1.0
"""How far apart the events of a scenario are looked for."""

Report: TypeAlias = Callable[[Sequence[tuple[ServiceKey, Payload]]], Awaitable[None]]
"""Passes on to the agent what a pipeline posts."""


def offered(folder: Path | None) -> tuple[Variant, ...]:
    """The first variant of each scenario on offer: those of the agent, then those of `folder`.

    A file of `folder` replaces the agent's of the same id. Raises `ConfigurationError`
    for the first invalid file.
    """
    found = {one.scenario.id: one for one in load_scenarios(OFFERED, 1)}
    if folder is not None:
        found |= {one.scenario.id: one for one in load_scenarios(folder, 1)}
    return tuple(found.values())


@dataclass(slots=True, kw_only=True)
class ScenarioRun:
    """One start of a scenario."""

    variant: Variant
    environment: str
    started_at: datetime
    stage: ScenarioWorld
    coming: list[Event]
    """Events that have not happened yet, in order."""

    @property
    def ends_at(self) -> datetime:
        """The horizon of the file: its end is judged then; the services run on."""
        return self.started_at + timedelta(seconds=self.variant.scenario.horizon)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServicePicture:
    """One service of the run, as the agent can read it."""

    name: str
    workload: WorkloadView | None
    sli: SliSample | None
    """None while the monitoring does not answer."""


@dataclass(slots=True, kw_only=True)
class Playground:
    """The scenarios on offer, and the world of the one that was started last."""

    clock: Clock
    scenarios: tuple[Variant, ...]
    environment: str
    """The environment of the first run; later ones get a number: `sandbox-2`."""
    dependencies: dict[ServiceKey, tuple[ServiceKey, ...]] = field(default_factory=dict)
    """The calls between services, of every run so far; the observer reads it."""
    run: ScenarioRun | None = None
    """The newest run; None before the first start."""
    counted_in: Path | None = None
    """The file with the number of runs on this store; None: the count starts at 0."""
    runs: int = 0
    _nothing: World = field(init=False)

    def __post_init__(self) -> None:
        self._nothing = World(self.clock)
        if self.counted_in is not None and self.counted_in.is_file():
            self.runs = int(self.counted_in.read_text(encoding="ascii"))

    def world(self) -> World:
        """The world that the agent sees now; nothing runs in it before the first start."""
        return self._nothing if self.run is None else self.run.stage.world

    def start(self, name: str) -> ScenarioRun:
        """Start a scenario in an environment of its own; raises `NotFound` for an unknown name."""
        variant = next((one for one in self.scenarios if one.scenario.id == name), None)
        if variant is None:
            known = ", ".join(one.scenario.id for one in self.scenarios)
            raise NotFound(f"there is no scenario {name!r}; the sandbox offers {known}")
        self.runs += 1
        if self.counted_in is not None:
            self.counted_in.write_text(str(self.runs), encoding="ascii")
        environment = self.environment if self.runs == 1 else f"{self.environment}-{self.runs}"
        now = self.clock.now()
        past = _PastClock(self.clock, now - timedelta(seconds=PAST_SECONDS))
        stage = ScenarioWorld(variant, past, environment)
        past.catch_up()
        stage.world.catch_up()
        if variant.scenario.topology.dependencies_known:
            self.dependencies |= _keys(stage.calls, environment)
        self.run = ScenarioRun(
            variant=variant,
            environment=environment,
            started_at=now,
            stage=stage,
            coming=list(variant.events),
        )
        return self.run

    async def play(self, report: Report) -> None:
        """Let the events of each run happen when they are due, without end."""
        while True:
            await self.step(report)
            await self.clock.sleep(STEP_SECONDS)

    async def step(self, report: Report) -> None:
        """Let the events happen that are due now."""
        run = self.run
        while run is not None and run.coming:
            if run.started_at + timedelta(seconds=run.coming[0].at) > self.clock.now():
                return
            reported = run.stage.happen(run.coming.pop(0))
            if reported:
                await report(reported)

    async def services(self) -> tuple[ServicePicture, ...]:
        """What runs in the environment of the newest run, and how it fares."""
        if self.run is None:
            return ()
        world = self.run.stage.world
        reader, metrics = SandboxCluster.over(world).reader, SandboxMetrics(world)
        found = []
        for _, name in self.run.stage.names:
            key = key_of(name, self.run.environment)
            silent = world.traffic.source_down
            found.append(
                ServicePicture(
                    name=name,
                    workload=await reader.workload(key),
                    sli=None if silent else await metrics.sli(key, world.catch_up()),
                )
            )
        return tuple(found)


class _PastClock:
    """The clock of a world that is set up at an earlier moment, and then follows another clock."""

    def __init__(self, clock: Clock, start: datetime) -> None:
        self._clock = clock
        self._start: datetime | None = start

    def now(self) -> datetime:
        return self._clock.now() if self._start is None else self._start

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)

    def catch_up(self) -> None:
        """From now on it is the other clock's time."""
        self._start = None


def _keys(calls: Mapping[str, Sequence[str]], environment: str) -> dict[ServiceKey, tuple[ServiceKey, ...]]:
    return {
        key_of(caller, environment): tuple(key_of(callee, environment) for callee in callees)
        for caller, callees in calls.items()
    }
