"""The sandbox's metrics keep the promises of the metric port, as the real Prometheus does."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.agent.ids import ServiceKey
from app.testing import SandboxMetrics, Template, VirtualClock, Workload, World
from tests.contract.metric_suite import MetricSourceContract, MetricWorld

WINDOW = timedelta(seconds=60)


async def _measured_world() -> MetricWorld:
    clock = VirtualClock()
    world = World(clock, seed=3)
    silent = ("cart", "search", "mail")
    for service in ("payments", "shop", *silent):
        world.deploy(Workload(namespace="prod", name=service, template=Template(image="shop:1.0.0")))
    world.deploy(
        Workload(
            namespace="prod", name="idle", template=Template(image="shop:1.0.0"), requests_per_second=0.0
        )
    )
    await clock.advance(900)
    world.release("prod", "shop", "shop:2.0.0-errors-slow")
    failing_since = world.catch_up()
    await clock.advance(80)
    world.lose_telemetry(*(("prod", name) for name in silent))
    silent_since = world.catch_up()
    await clock.advance(130)
    down = World(clock)
    down.traffic.source_down = True

    def key(service: str) -> ServiceKey:
        return ServiceKey(environment="prod", service=service)

    return MetricWorld(
        source=SandboxMetrics(world, window=WINDOW),
        unreachable=SandboxMetrics(down, window=WINDOW),
        now=clock.now(),
        window=WINDOW,
        healthy=key("payments"),
        failing=key("shop"),
        failing_since=failing_since,
        idle=key("idle"),
        silent=(key(silent[0]), key(silent[1]), key(silent[2])),
        silent_since=silent_since,
        unknown=key("nobody"),
    )


class TestSandboxMetrics(MetricSourceContract):
    @pytest.fixture
    async def world(self) -> MetricWorld:
        return await _measured_world()
