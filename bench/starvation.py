"""How much a storm of invented services delays a real one: `python -m bench.starvation` prints the ratio.

One run: the real agent (store, intake, loop, driver, watcher, poller) over the
simulated cluster, in compressed time. A real service is released badly and its
incident is timed from the report to its end; first alone, then while one sender
reports thousands of services that do not exist. Bounded in counts and time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import Deploy, DeployStatus, Signal
from app.bootstrap import Adapters, Container, assemble
from app.config import Settings
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.objects import Template
from app.sandbox.world import Workload
from app.sandbox.world import World as SimulatedWorld
from app.store import open_shared
from app.testing import PacedClock
from app.workers import LocalRunner, attended

BOGUS = 8_000
AT_ONCE = 500
"""Entries in one delivery of the storm."""
SPEED = 4.0
"""Simulated seconds in a real one."""
NAMESPACE = "prod"
STEP_SECONDS = 0.05
PATIENCE_SECONDS = 1_200.0
TRUST_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One agent over one world."""

    world: SimulatedWorld
    clock: PacedClock
    container: Container

    def report(self, service: str) -> Signal:
        """A failed deploy of a service, by the one sender of the bench."""
        now = self.clock.now()
        return new_signal(
            key=ServiceKey(environment=NAMESPACE, service=service),
            source="http",
            observed_at=now,
            received_at=now,
            payload=Deploy(version="2", status=DeployStatus.FAILED),
            stale_after=self.container.stale_after,
        )


@asynccontextmanager
async def stage(folder: Path) -> AsyncIterator[Stage]:
    """The agent at work, the real service healthy for long enough to be known."""
    clock = PacedClock(SPEED)
    world = SimulatedWorld(clock)
    template = Template(image="shop:1", memory_limit="256Mi")
    world.deploy(Workload(namespace=NAMESPACE, name="shop", template=template))
    settings = Settings(
        _env_file=None,
        database_url=f"sqlite:///{folder}/heal.db",
        runbooks_dir=Path("runbooks"),
        dry_run=False,
        allow_high_risk_actions=True,
        trust_revision_after_seconds=TRUST_SECONDS,
        incident_settle_seconds=10,
        verify_soak_seconds=30,
    )
    cluster, bell = SandboxCluster.over(world), LocalRunner()
    policy = EmbeddedPolicy(shipped_policies(), timeout_seconds=60)
    outside = Adapters(
        reader=cluster.reader,
        rehearsal=cluster.rehearsal,
        writer=cluster.writer(),
        watch=cluster.watch,
        metrics=SandboxMetrics(world),
        policy_engine=policy,
    )
    store, fleet = await open_shared(settings.database_url.get_secret_value())
    container = assemble(settings, clock=clock, store=store, world=outside, fleet=fleet, runner=bell)
    moving = asyncio.create_task(_move(world))
    try:
        async with attended(container, bell):
            found = Stage(world=world, clock=clock, container=container)
            await _until_trusted(found)
            yield found
    finally:
        moving.cancel()
        await asyncio.gather(moving, return_exceptions=True)
        await policy.aclose()
        await container.close()


async def _move(world: SimulatedWorld) -> None:
    while True:
        world.engine.catch_up()
        await asyncio.sleep(STEP_SECONDS)


async def _until_trusted(one: Stage) -> None:
    key = ServiceKey(environment=NAMESPACE, service="shop")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await one.container.store.history.revisions(key):
            await one.clock.sleep(STEP_SECONDS * SPEED)


async def _ended(one: Stage, incident_id: IncidentId) -> str:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            record = await one.container.store.incidents.get(incident_id)
            if record is not None and record.incident.state.closed:
                return str(record.incident.state)
            await one.clock.sleep(STEP_SECONDS * SPEED)


async def heal(bogus: int) -> tuple[float, str]:
    """Real seconds from the report of the real service to its incident's end, and how it ended."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        async with stage(Path(folder)) as one:
            storming = asyncio.create_task(_storm(one, bogus))
            if bogus:
                await asyncio.sleep(2)
            one.world.release(NAMESPACE, "shop", "shop:2-crash")
            began = time.monotonic()
            [accepted] = await one.container.intake.accept([one.report("shop")])
            incident_id = accepted.disposition.incident_id
            if incident_id is None:
                raise RuntimeError(f"the real service was not opened: {accepted.disposition}")
            end = await _ended(one, incident_id)
            took = time.monotonic() - began
            storming.cancel()
            await asyncio.gather(storming, return_exceptions=True)
            return took, end


async def _storm(one: Stage, bogus: int) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        for start in range(0, bogus, AT_ONCE):
            await one.container.intake.accept(
                [one.report(f"bogus-{number}") for number in range(start, min(bogus, start + AT_ONCE))]
            )


def report(alone: Sequence[tuple[float, str]], beside: Sequence[tuple[float, str]], bogus: int) -> None:
    """The ratio of the medians."""
    middle = [sorted(took for took, _ in each)[len(each) // 2] for each in (alone, beside)]
    ends = {end for _, end in (*alone, *beside)}
    Console().print(
        f"A real service: {middle[0]:.1f} s alone, {middle[1]:.1f} s beside {bogus:,} bogus ones; "
        f"ratio {middle[1] / middle[0]:.2f}. Ended: {', '.join(sorted(ends))}."
    )


def main() -> None:
    """Alone, then beside the storm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bogus", type=int, default=BOGUS)
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    alone = [asyncio.run(heal(0)) for _ in range(given.rounds)]
    report(alone, [asyncio.run(heal(given.bogus)) for _ in range(given.rounds)], given.bogus)


if __name__ == "__main__":
    main()
