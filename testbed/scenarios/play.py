"""One variant of a scenario, played to the real agent on a real control plane.

The agent is wired as in the simulated benchmark and with the same settings; its cluster
ports are the product's own connector to the API server, on a clock that runs `speed`
times as fast as the machine's.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.models import IncidentRecord, IncidentState
from app.agent.workload import RevisionHealth
from app.benchmarks.healing_agent import OWNER, PACE, RECHECK, benchmark_settings, seen
from app.bootstrap import Adapters, Container, assemble
from app.clock import Clock
from app.connectors.k8s import KubernetesCluster, connect
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.runner import InlineRunner
from app.sandbox.scenarios.document import Event, LoadEvent
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.judge import Run
from app.sandbox.scenarios.naive import WINDOW, fared
from app.sandbox.scenarios.stage import PAST_SECONDS, ScenarioWorld, key_of
from app.settings.shipped import shipped
from app.simulation.wiring import observing, report
from app.store import open_in_memory
from app.testing import PacedClock
from testbed import TestbedError
from testbed.kubeapi import Api
from testbed.scenarios.lens import Lens, LensConnection
from testbed.scenarios.manifests import autoscaler
from testbed.scenarios.nodes import SCENARIO_LABEL
from testbed.scenarios.world import ControlPlaneWorld
from testbed.workloads import Workloads

LEAD_SECONDS = 60.0
"""From when the agent knows the services to the first event; what a file has more is left out."""
KNOWN_WITHIN_SECONDS = 300.0
"""The agent is waited for so long; a service without traffic it may never know."""
QUIET_AFTER_SECONDS = 300.0
"""A run ends when no incident is open for so long, and long enough after the last event."""
CONTROL_SECONDS = 480.0
"""After the last event of a control."""
_SET_UP_SECONDS = 120.0
_LOOK_SECONDS = 5.0
_A_MOMENT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """Where scenarios are played, and how fast."""

    admin: Path
    agent: Path
    """Kubeconfigs of the one who plays people and pipelines, and of the agent."""
    speed: float


class StageClock:
    """Time that stands still while a scenario is set up, and then passes `speed` times as fast."""

    def __init__(self, moment: datetime) -> None:
        self._moment = moment
        self._paced: Clock | None = None
        self._began = asyncio.Event()

    def now(self) -> datetime:
        return self._moment if self._paced is None else self._paced.now()

    def stand_at(self, moment: datetime) -> None:
        """It is this moment until `run`."""
        self._moment = moment

    def run(self, speed: float) -> None:
        """Time passes from now on."""
        self._paced = PacedClock(speed, self._moment)
        self._began.set()

    async def sleep(self, seconds: float) -> None:
        """While time stands still, what takes a moment is over soon, and what takes long goes on later."""
        if self._paced is not None:
            await self._paced.sleep(seconds)
        elif seconds <= _A_MOMENT_SECONDS:
            await asyncio.sleep(0.05)
        else:
            due = self._moment + timedelta(seconds=seconds)
            await self._began.wait()
            await self.sleep(max(0.0, (due - self.now()).total_seconds()))


def play(variant: Variant, stand: Stand, start: datetime) -> tuple[Run, float]:
    """The run, and the real seconds that it took. Blocks until it has ended."""
    began = time.monotonic()
    run = asyncio.run(_play(shortened(variant), stand, start))
    return run, time.monotonic() - began


def shortened(variant: Variant) -> Variant:
    """The variant without the quiet time before its first event that exceeds `LEAD_SECONDS`."""
    first = min((event.at for event in variant.events), default=0.0)
    return _moved(variant, -max(0.0, first - LEAD_SECONDS))


def _moved(variant: Variant, seconds: float) -> Variant:
    """The variant with everything so much later, or earlier."""
    scenario = variant.scenario
    timeline = tuple(msgspec.structs.replace(event, at=event.at + seconds) for event in scenario.timeline)
    fault_at = None if scenario.fault_at is None else max(0.0, scenario.fault_at + seconds)
    moved = msgspec.structs.replace(
        scenario, timeline=timeline, fault_at=fault_at, horizon=scenario.horizon + seconds
    )
    return replace(variant, scenario=moved)


async def _play(variant: Variant, stand: Stand, start: datetime) -> Run:
    namespace = f"scenario-{secrets.token_hex(4)}"
    clock = StageClock(start - timedelta(seconds=PAST_SECONDS))
    async with AsyncExitStack() as stack:
        api = Api(stand.admin)
        stack.push_async_callback(api.close)
        people = Workloads.connect(stand.admin)
        make = partial(
            ControlPlaneWorld,
            api=api,
            namespace=namespace,
            speed=stand.speed,
            refuse=lambda why: _refuse(people, namespace, why),
        )
        played = ScenarioWorld(variant, clock, namespace, make)
        world = played.world
        assert isinstance(world, ControlPlaneWorld)  # noqa: S101 - narrows the type
        await stack.enter_async_context(_namespace(api, world))
        await _set_up(played, world, clock, start)
        began = await _on_the_second()
        lens = Lens(began=began, start=start, speed=stand.speed, past_seconds=PAST_SECONDS)
        clock.run(stand.speed)
        return await _with_agent(played, world, clock, lens, stand, start)


@asynccontextmanager
async def _namespace(api: Api, world: ControlPlaneWorld) -> AsyncIterator[None]:
    """The namespace of a scenario with its nodes and what is played on them, and nothing of it afterwards."""
    name = world.namespace
    marks = {"scheduler.alpha.kubernetes.io/node-selector": f"{SCENARIO_LABEL}={name}"}
    await api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "annotations": marks}})
    await world.node_agents.register(world.surroundings.pods_per_node)
    mirror = asyncio.create_task(world.follow())
    try:
        yield
    finally:
        mirror.cancel()
        await asyncio.gather(mirror, return_exceptions=True)
        await world.node_agents.stop()
        await _empty(api, name)
        await world.node_agents.remove()


async def _empty(api: Api, namespace: str) -> None:
    """Delete the namespace; its pods at once, because no kubelet is left that ends them."""
    await api.request("DELETE", f"/apis/apps/v1/namespaces/{namespace}/deployments")
    now = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0}
    await api.request("DELETE", f"/apis/apps/v1/namespaces/{namespace}/replicasets")
    await api.request("DELETE", f"/api/v1/namespaces/{namespace}/pods", now)
    await api.request("DELETE", f"/api/v1/namespaces/{namespace}")


async def _set_up(
    played: ScenarioWorld, world: ControlPlaneWorld, clock: StageClock, start: datetime
) -> None:
    """Everything runs, and has run under steady load for `PAST_SECONDS`."""
    deadline = time.monotonic() + _SET_UP_SECONDS
    await _until(lambda: _account(world), deadline, world)
    await world.settle()
    await _until_settled(played, world, deadline)
    for service in played.services:
        if service.autoscaler is not None:
            scaler = service.autoscaler
            home = f"/apis/autoscaling/v2/namespaces/{world.namespace}/horizontalpodautoscalers"
            body = autoscaler(world.namespace, service.name, scaler.least, scaler.most, scaler.target)
            await world.remote.request("POST", home, body)
    world.catch_up()
    clock.stand_at(start)
    world.catch_up()
    await world.settle()
    await _until_settled(played, world, deadline)
    world.catch_up()


async def _until(holds: Callable[[], Awaitable[bool]], deadline: float, world: ControlPlaneWorld) -> None:
    while not await holds():
        if time.monotonic() > deadline:
            raise TestbedError(f"what should run did not start: {world.unsettled() or 'nothing was made'}")
        await asyncio.sleep(0.1)


async def _account(world: ControlPlaneWorld) -> bool:
    """Whether pods can be made in the new namespace."""
    path = f"/api/v1/namespaces/{world.namespace}/serviceaccounts/default"
    return (await world.remote.request("GET", path)).status_code == 200


async def _until_settled(played: ScenarioWorld, world: ControlPlaneWorld, deadline: float) -> None:
    async def settled() -> bool:
        return world.mirrored >= {service.name for service in played.services} and world.settled

    await _until(settled, deadline, world)


async def _on_the_second() -> datetime:
    """The API server says when something happened to the second: begin with one."""
    now = datetime.now(UTC)
    began = datetime.fromtimestamp(math.ceil(now.timestamp()), UTC)
    await asyncio.sleep((began - now).total_seconds())
    return began


async def _with_agent(
    played: ScenarioWorld,
    world: ControlPlaneWorld,
    clock: StageClock,
    lens: Lens,
    stand: Stand,
    start: datetime,
) -> Run:
    variant = played.variant
    known = played.dependencies if variant.scenario.topology.dependencies_known else {}
    settings = benchmark_settings(shipped("runbooks")).model_copy(
        update={
            "service_dependencies": known,
            "kubeconfig": stand.agent,
            "enabled_actions": ENABLED_BY_DEFAULT | {*variant.scenario.enables},
            "environment_namespaces": {world.namespace: world.namespace},
            "watch_concurrency": 4,
            "log_evidence": False,  # the containers of the stand-in kubelet write nothing
        }
    )
    cluster = connect(settings, clock, partial(LensConnection, lens=lens))
    assert cluster is not None  # noqa: S101 - a kubeconfig is set
    policy = EmbeddedPolicy(shipped_policies())
    store = open_in_memory()
    runner = InlineRunner(clock)
    outside = _adapters(cluster, SandboxMetrics(world, window=WINDOW), policy)
    container = assemble(settings, clock=clock, store=store, world=outside, runner=runner)
    runner.attach(replace(container.loop, owner=OWNER))
    try:
        async with observing(container, recheck_every=RECHECK):
            await _until_known(played, world, clock, container, start)
            variant = _moved(variant, (clock.now() - start).total_seconds())
            for event in variant.events:
                await _pass_to(clock, world, start + timedelta(seconds=event.at))
                reported = played.happen(event)
                await world.settle()
                await report(container, reported, "benchmark")
                runner.check()
            horizon = await _quiet(variant, world, clock, container, runner, start)
        world.catch_up()
        records = await _records(container, runner)
    finally:
        await runner.close()
        await cluster.close()
        await policy.aclose()
        await store.close()
    ended = replace(variant, scenario=msgspec.structs.replace(variant.scenario, horizon=horizon))
    return fared(played, start, seen(records, ended, start))


def _adapters(cluster: KubernetesCluster, metrics: SandboxMetrics, policy: EmbeddedPolicy) -> Adapters:
    return Adapters(
        reader=cluster.reader,
        steady=cluster.steady,
        owners=cluster.reader,
        rehearsal=cluster.rehearsal,
        writer=cluster.writer,
        watch=cluster.watch,
        coverage=cluster.reader,
        metrics=metrics,
        pace=PACE,
        policy_engine=policy,
    )


async def _pass_to(clock: StageClock, world: ControlPlaneWorld, moment: datetime) -> None:
    """Let time pass, and what is due meanwhile happen."""
    while (left := (moment - clock.now()).total_seconds()) > 0:
        world.catch_up()
        await world.show_autoscalers()
        await world.settle()
        await clock.sleep(min(left, _LOOK_SECONDS))


async def _until_known(
    played: ScenarioWorld, world: ControlPlaneWorld, clock: StageClock, container: Container, start: datetime
) -> None:
    """Let time pass until the agent has seen every service serve well: on a busy machine it begins late."""
    waited_for = {key_of(service.name, world.namespace) for service in played.services if service.replicas}
    while waited_for and (clock.now() - start).total_seconds() < KNOWN_WITHIN_SECONDS:
        await _pass_to(clock, world, clock.now() + timedelta(seconds=_LOOK_SECONDS))
        for key in tuple(waited_for):
            known = await container.store.history.revisions(key)
            if any(one.health is RevisionHealth.SERVED_WELL for one in known):
                waited_for.discard(key)


async def _quiet(
    variant: Variant,
    world: ControlPlaneWorld,
    clock: StageClock,
    container: Container,
    runner: InlineRunner,
    start: datetime,
) -> float:
    """Play on until all is decided, at most to the horizon; the seconds that were played."""
    least = least_seconds(variant)
    quiet_since = 0.0
    while (now := (clock.now() - start).total_seconds()) < variant.scenario.horizon:
        await _pass_to(clock, world, clock.now() + timedelta(seconds=_LOOK_SECONDS))
        runner.check()
        records = await _records(container, runner)
        if any(not record.incident.state.closed for record in records):
            quiet_since = now
        decided = variant.scenario.control or any(map(_decided, records))
        if decided and now >= least and now - quiet_since >= QUIET_AFTER_SECONDS:
            return now
    return variant.scenario.horizon


def _decided(record: IncidentRecord) -> bool:
    """Whether something was changed, or a person was asked; what passes by itself may return."""
    changed = any(intent.outcome is not None and not intent.dry_run for intent in record.intents)
    return changed or record.incident.state is IncidentState.ESCALATED


def least_seconds(variant: Variant) -> float:
    """How long a variant is played at least, in its own seconds.

    A fault that is there from the start shows itself at some time before the horizon.
    """
    if not variant.scenario.control and all(event.role != "fault" for event in variant.events):
        return variant.scenario.horizon
    last = max((_over(event) for event in variant.events), default=0.0)
    return last + (CONTROL_SECONDS if variant.scenario.control else QUIET_AFTER_SECONDS)


def _over(event: Event) -> float:
    """When an event has had its effect."""
    return event.at + (event.over_seconds if isinstance(event, LoadEvent) else 0.0)


async def _records(container: Container, runner: InlineRunner) -> list[IncidentRecord]:
    found = [await container.store.incidents.get(one) for one in runner.woken]
    return [record for record in found if record is not None]


async def _refuse(people: Workloads, namespace: str, why: str | None) -> None:
    if why is None:
        await asyncio.to_thread(people.admit_pods, namespace)
    else:
        await asyncio.to_thread(people.refuse_pods, namespace, why)
