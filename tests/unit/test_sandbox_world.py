"""The simulated world does what clusters do where the agent could notice, and does it the same each time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from app.agent.ids import IntentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Risk,
    SliSample,
)
from app.agent.workload import ObjectRef, WorkloadView
from app.errors import Conflict, Invalid, TransientError, UnknownOutcome
from app.sandbox.objects import parse_quantity
from app.testing import DEFAULT_START, SandboxCluster, SandboxMetrics, Template, VirtualClock, Workload, World

SHOP = ServiceKey(environment="prod", service="shop")
GOOD = "shop:1.0.0"


class Bench:
    """A world with one service on a virtual clock, and the agent's ports over it."""

    def __init__(self, seed: int = 0) -> None:
        self.clock = VirtualClock()
        self.world = World(self.clock, seed=seed)
        self.cluster = SandboxCluster.over(self.world)
        self.metrics = SandboxMetrics(self.world)

    def deploy(self, name: str = "shop", template: Template | None = None, *, deadline: float = 60.0) -> None:
        self.world.deploy(
            Workload(
                namespace="prod",
                name=name,
                template=template or Template(image=GOOD),
                progress_deadline_seconds=deadline,
            )
        )

    async def pass_time(self, seconds: float) -> WorkloadView:
        await self.clock.advance(seconds)
        view = await self.cluster.reader.workload(SHOP)
        assert view is not None
        return view

    async def sli(self, service: str = "shop") -> SliSample:
        key = ServiceKey(environment="prod", service=service)
        return await self.metrics.sli(key, self.clock.now())


def scale(replicas: int) -> Action:
    return Action(
        name=ActionName.SCALE,
        risk=Risk.LOW,
        target=ObjectRef(kind="Deployment", namespace="prod", name="shop"),
        parameters={"replicas": replicas},
        expected_effect="",
        undo=None,
    )


def reasons(view: WorkloadView) -> set[str | None]:
    return {pod.waiting_reason for pod in view.pods}


async def test_two_worlds_of_one_seed_are_the_same_world() -> None:
    """Whatever is read at a time depends on the seed and that time, not on the number of reads."""
    looked_at, left_alone = Bench(seed=5), Bench(seed=5)
    for bench in (looked_at, left_alone):
        bench.deploy()
    for _ in range(40):
        await looked_at.pass_time(1)
    looked_at.world.release("prod", "shop", "shop:1.1.0-crash")
    await left_alone.clock.advance(40)
    left_alone.world.release("prod", "shop", "shop:1.1.0-crash")
    for _ in range(50):
        one = await looked_at.pass_time(1)
    assert one == await left_alone.pass_time(50)
    assert await looked_at.sli() == await left_alone.sli()
    other = Bench(seed=6)
    other.deploy()
    assert (await other.pass_time(90)).target.uid != one.target.uid


@pytest.mark.parametrize(
    ("image", "reason"),
    [("shop:1.1.0-missing", "ImagePullBackOff"), ("shop:1.1.0-crash", "CrashLoopBackOff")],
)
async def test_a_release_that_cannot_run_leaves_the_old_pods_serving(image: str, reason: str) -> None:
    """maxUnavailable keeps the old ReplicaSet, users notice nothing, and the rollout is said to be stuck."""
    bench = Bench()
    bench.deploy()
    await bench.pass_time(60)
    bench.world.release("prod", "shop", image)
    view = await bench.pass_time(30)
    assert reason in reasons(view)
    assert view.available_replicas == 3
    assert not view.rollout_complete
    assert not view.progress_deadline_exceeded
    assert any("BackOff" in warning for warning in view.warnings)
    view = await bench.pass_time(60)
    assert view.progress_deadline_exceeded
    assert (await bench.sli()).error_rate == pytest.approx(0.001)


async def test_a_crash_loop_slows_down() -> None:
    """Restarts grow, and the pauses between them too."""
    bench = Bench()
    bench.deploy(template=Template(image="shop:1.0.0-crash"))
    counts = []
    for _ in range(4):
        view = await bench.pass_time(30)
        counts.append(max(pod.restarts for pod in view.pods))
    assert counts == sorted(counts)
    assert 2 <= counts[0] < counts[-1] <= 5
    assert {pod.last_termination_reason for pod in view.pods} == {"Error"}


async def test_too_little_memory_is_out_of_memory() -> None:
    """A limit under 32Mi kills the container, and the pod says why."""
    bench = Bench()
    bench.deploy()
    await bench.pass_time(30)
    bench.world.set_memory_limit("prod", "shop", "16Mi")
    view = await bench.pass_time(30)
    killed = [pod for pod in view.pods if pod.last_termination_reason == "OOMKilled"]
    assert killed
    assert view.revisions[0].code_hash == view.revisions[1].code_hash
    assert view.revisions[0].config_hash != view.revisions[1].config_hash


async def test_a_missing_config_map_holds_the_container_back() -> None:
    """The pod waits with the kubelet's reason, and starts once the ConfigMap is there."""
    bench = Bench()
    bench.deploy(template=Template(image=GOOD, config_maps=("shop-config",)))
    assert reasons(await bench.pass_time(5)) == {"CreateContainerConfigError"}
    bench.world.put_config_map("prod", "shop-config", {"MODE": "fast"})
    assert (await bench.pass_time(15)).rollout_complete


async def test_a_complete_rollout_does_not_fail_later() -> None:
    """A deadline that passes long after the rollout finished means nothing."""
    bench = Bench()
    bench.deploy()
    view = await bench.pass_time(600)
    assert view.rollout_complete
    assert not view.progress_deadline_exceeded


@pytest.mark.parametrize(
    ("image", "error_rate", "latency"),
    [("shop:2.0.0-errors", 0.5, 80), ("shop:2.0.0-slow", 0.001, 1500), ("shop:2.0.0", 0.001, 80)],
)
async def test_service_levels_follow_what_the_ready_pods_run(
    image: str, error_rate: float, latency: float
) -> None:
    """A release shows in the window after it, not before."""
    bench = Bench()
    bench.deploy()
    await bench.pass_time(60)
    bench.world.release("prod", "shop", image)
    before = await bench.sli()
    assert before.error_rate == pytest.approx(0.001)
    await bench.pass_time(60)
    sample = await bench.sli()
    assert sample.error_rate == pytest.approx(error_rate, abs=0.002)
    assert sample.p95_latency_ms == pytest.approx(latency, rel=0.04)
    assert sample.request_rate == pytest.approx(50, rel=0.04)


async def test_no_answer_is_no_data() -> None:
    """Without a ready pod nothing is measured, which is not a zero."""
    bench = Bench()
    bench.deploy(template=Template(image="shop:1.0.0-crash"))
    await bench.pass_time(120)
    sample = await bench.sli()
    assert (sample.error_rate, sample.p95_latency_ms, sample.request_rate) == (None, None, None)


async def test_a_dependency_that_is_down_fails_its_callers() -> None:
    """By name and by namespace, and healthy again with it; a caller of a missing service fails too."""
    bench = Bench()
    bench.deploy("ledger")
    bench.deploy("shop", Template(image=GOOD, env=(("DEPENDENCY_URL", "http://ledger.prod.svc:8080/x"),)))
    await bench.pass_time(60)
    assert (await bench.sli()).error_rate == pytest.approx(0.002, abs=0.001)
    bench.world.set_replicas("prod", "ledger", 0)
    await bench.pass_time(60)
    assert (await bench.sli()).error_rate == pytest.approx(1.0)
    bench.world.set_replicas("prod", "ledger", 2)
    await bench.pass_time(60)
    assert (await bench.sli()).error_rate == pytest.approx(0.002, abs=0.001)
    bench.world.set_env("prod", "shop", {"DEPENDENCY_URL": "http://nobody"})
    await bench.pass_time(60)
    assert (await bench.sli()).error_rate == pytest.approx(1.0)


async def test_services_that_call_each_other_in_a_circle_can_be_simulated() -> None:
    """A circle of dependencies ends; it neither hangs nor fails by itself."""
    bench = Bench()
    bench.deploy("shop", Template(image=GOOD, env=(("DEPENDENCY_URL", "http://ledger"),)))
    bench.deploy("ledger", Template(image=GOOD, env=(("DEPENDENCY_URL", "http://shop"),)))
    await bench.pass_time(60)
    assert ((await bench.sli()).error_rate or 0) < 0.05


@pytest.mark.parametrize(
    ("ratio", "expected"), [("0.4", 0.4), ("7", 1.0), ("-1", 0.0), ("nan", 0.0), ("much", 0.0), ("", 0.0)]
)
async def test_a_config_map_changes_behaviour_without_a_restart(ratio: str, expected: float) -> None:
    """`FAIL_RATIO` is read from the mounted ConfigMap; what is no share is none."""
    bench = Bench()
    bench.world.put_config_map("prod", "shop-config", {"FAIL_RATIO": "0"})
    bench.deploy(template=Template(image=GOOD, config_maps=("shop-config",)))
    await bench.pass_time(60)
    bench.world.put_config_map("prod", "shop-config", {"FAIL_RATIO": ratio})
    view = await bench.pass_time(60)
    assert view.current_revision == 1
    assert (await bench.sli()).error_rate == pytest.approx(expected, abs=0.002)


async def test_lost_telemetry_comes_back() -> None:
    """An outage hides the present and leaves the past as it was."""
    bench = Bench()
    bench.deploy()
    await bench.pass_time(120)
    bench.world.lose_telemetry()
    await bench.pass_time(60)
    assert (await bench.sli()).error_rate is None
    then = await bench.metrics.sli(SHOP, DEFAULT_START + timedelta(seconds=110))
    assert then.error_rate == pytest.approx(0.001)
    bench.world.restore_telemetry()
    await bench.pass_time(60)
    assert (await bench.sli()).error_rate == pytest.approx(0.001)


async def test_a_lost_answer_is_an_unknown_outcome_whose_effect_can_be_found() -> None:
    """The write took place and carries its mark; its copy is a conflict."""
    bench = Bench()
    bench.deploy()
    await bench.pass_time(30)
    act, intent = scale(5), IntentId("int_1")
    target = await bench.cluster.reader.target(act)
    bench.world.api.lose_answers = 1
    with pytest.raises(UnknownOutcome):
        await bench.cluster.writer().apply(act, intent, target, None)
    assert (await bench.cluster.reader.target(act)).marker == intent
    with pytest.raises(Conflict):
        await bench.cluster.writer().apply(act, intent, target, None)
    assert (await bench.pass_time(30)).desired_replicas == 5


async def test_an_api_server_out_of_reach_is_transient_for_every_port() -> None:
    """Reading, rehearsing and writing all say: try again."""
    bench = Bench()
    bench.deploy()
    await bench.pass_time(30)
    act = scale(5)
    target = await bench.cluster.reader.target(act)
    bench.world.api.unreachable = True
    with pytest.raises(TransientError, match="does not answer"):
        await bench.cluster.reader.workload(SHOP)
    with pytest.raises(TransientError, match="does not answer"):
        await bench.cluster.rehearsal.rehearse(act, target, None)
    with pytest.raises(TransientError, match="does not answer"):
        await bench.cluster.writer().apply(act, IntentId("int_1"), target, None)


async def test_a_request_that_changes_nothing_moves_nothing() -> None:
    """As on the real server: no new version, no generation, no line in the audit log."""
    bench = Bench()
    bench.deploy()
    before = (await bench.pass_time(60)).target
    bench.world.set_replicas("prod", "shop", 3)
    after = (await bench.pass_time(10)).target
    assert after == before
    assert bench.world.api.audit == []


async def test_a_watch_that_ends_is_forgotten() -> None:
    """A listener that stops costs the world nothing more."""
    bench = Bench()
    bench.deploy()
    listeners = len(bench.world.api.changed)
    events = bench.cluster.watch.events()
    assert (await anext(events)).key == SHOP
    assert len(bench.world.api.changed) == listeners + 1
    await events.aclose()
    assert len(bench.world.api.changed) == listeners


def test_quantities_are_read_as_kubernetes_writes_them() -> None:
    """Binary and decimal units; anything else is refused."""
    assert [parse_quantity(text) for text in ("16Mi", "1G", "512", "1.5Ki")] == [16 * 2**20, 10**9, 512, 1536]
    for wrong in ("", "Mi", "16 Mi", "-1Mi", "16mi"):
        with pytest.raises(Invalid, match="quantity"):
            parse_quantity(wrong)
