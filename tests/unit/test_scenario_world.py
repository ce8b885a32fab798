"""The mechanics of the simulated world: harm follows from what a fault or an action does to requests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from app.agent.workload import ObjectRef
from app.sandbox.cluster import SandboxCluster
from app.sandbox.objects import Deployment, Pod
from app.sandbox.scenarios.document import (
    AdmissionEvent,
    BehaviourSpec,
    CallSpec,
    ConfigEvent,
    CredentialsEvent,
    EndSpec,
    EnvEvent,
    Event,
    ExternalEvent,
    ExternalSpec,
    FlagEvent,
    FlagSpec,
    LoadEvent,
    MemoryEvent,
    NetworkEvent,
    NodeEvent,
    PlacementEvent,
    RegistryEvent,
    ReleaseEvent,
    ScaleEvent,
    ScenarioFile,
    SelectorEvent,
    ServiceSpec,
    TelemetryEvent,
    Topology,
)
from app.sandbox.scenarios.document import AutoscalerSpec as Scaler
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.naive import HandClock
from app.sandbox.scenarios.stage import NAMESPACE, PAST_SECONDS, ScenarioWorld
from app.sandbox.traffic import Level

START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)


class Play:
    """One topology, and a hand on its time."""

    def __init__(self, topology: Topology) -> None:
        scenario = ScenarioFile(
            schema=1,
            id="played",
            title="played by a test",
            family="test",
            topology=topology,
            timeline=(),
            right_ends=(EndSpec(end="no_action"),),
        )
        self.clock = HandClock(START - timedelta(seconds=PAST_SECONDS))
        self.scene = ScenarioWorld(Variant(file=Path("played.yaml"), number=0, scenario=scenario), self.clock)
        self.world = self.scene.world
        self.after(PAST_SECONDS)

    def after(self, seconds: float) -> None:
        self.clock.pass_to(self.clock.now() + timedelta(seconds=seconds))
        self.world.catch_up()

    def happens(self, event: Event, seconds: float = 120.0) -> None:
        self.scene.happen(event)
        self.after(seconds)

    def level(self, service: str) -> Level:
        found = self.world.traffic.level((NAMESPACE, service), self.clock.now())
        assert found is not None
        return found

    def pods(self, service: str) -> list[Pod]:
        return [p for p in self.world.api.list(Pod) if p.meta.name.startswith(f"{service}-")]

    def worst(self, service: str, seconds: float) -> float:
        """The largest share of failed requests over the last seconds."""
        since = self.clock.now() - timedelta(seconds=seconds)
        levels = self.world.traffic.levels((NAMESPACE, service))
        return max(level.failed for level in levels if level.since >= since)


def shop(**changes: object) -> Topology:
    """A caller, the service it calls, and the database behind that."""
    parts: dict[str, object] = {
        "services": (
            ServiceSpec(name="web", load=60.0, capacity=60.0, calls=(CallSpec(to="store"),)),
            ServiceSpec(
                name="store",
                capacity=50.0,
                env={"DB_URL": "postgres://db:5432"},
                memory_limit="256Mi",
                calls=(CallSpec(to="db", setting="DB_URL", connections=10),),
            ),
        ),
        "externals": (ExternalSpec(name="db", kind="database", capacity=300.0, max_connections=100),),
        "flags": (FlagSpec(name="promo", service="store", behaviour=BehaviourSpec(errors=0.4)),),
    }
    return Topology(**(parts | changes))  # type: ignore[arg-type]


@pytest.fixture
def play() -> Play:
    return Play(shop())


def test_a_world_without_faults_stays_within_its_objectives(play: Play) -> None:
    """Everything below is measured against this."""
    play.after(1800)
    assert play.level("web").failed < 0.01
    assert play.level("web").p95_latency_ms < 400
    assert play.level("store").requests_per_second == pytest.approx(60, rel=0.05)


def release(**behaviour: float | bool) -> ReleaseEvent:
    """Another version of the store, which does this."""
    return ReleaseEvent(at=0, service="store", version="2", behaviour=BehaviourSpec(**behaviour))  # type: ignore[arg-type]


FAILING: Sequence[tuple[str, Event]] = (
    ("errors", release(errors=0.5)),
    ("capacity", release(capacity_factor=0.2)),
    ("port", ReleaseEvent(at=0, service="store", version="2", port="9090")),
    ("address", EnvEvent(at=0, service="store", env={"DB_URL": "postgres://db:9999"})),
    ("selector", SelectorEvent(at=0, service="store")),
    ("network", NetworkEvent(at=0, caller="store", callee="db")),
    ("down", ExternalEvent(at=0, name="db", up=False)),
    ("saturated", ExternalEvent(at=0, name="db", capacity_factor=0.1)),
    ("credentials", CredentialsEvent(at=0, name="db")),
    ("flag", FlagEvent(at=0, name="promo")),
    ("load", LoadEvent(at=0, service="web", factor=6)),
    ("to zero", ScaleEvent(at=0, service="store", replicas=0)),
)


@pytest.mark.parametrize("event", [event for _, event in FAILING], ids=[name for name, _ in FAILING])
def test_a_fault_fails_the_requests_of_the_caller(play: Play, event: Event) -> None:
    """Whatever goes wrong behind it, the caller shows it."""
    play.happens(event)
    assert play.level("web").failed > 0.1


NO_CONFIG = ReleaseEvent(at=0, service="store", version="2", config_maps=("absent",))
HARMLESS: Sequence[tuple[str, Event, str]] = (
    ("image", release(image_missing=True), "ErrImagePull ImagePullBackOff"),
    ("crash", release(crashes=True), "CrashLoopBackOff"),
    ("memory", MemoryEvent(at=0, service="store", limit="40Mi"), "CrashLoopBackOff"),
    ("config", NO_CONFIG, "CreateContainerConfigError"),
)


@pytest.mark.parametrize(
    ("event", "reasons"), [(e, r) for _, e, r in HARMLESS], ids=[name for name, _, _ in HARMLESS]
)
def test_pods_that_never_start_leave_the_old_ones_serving(play: Play, event: Event, reasons: str) -> None:
    """A stuck rollout is a fault that users do not notice, until someone removes the old pods."""
    play.happens(event)
    assert any(pod.waiting_reason in reasons.split() for pod in play.pods("store"))
    assert play.level("web").failed < 0.01


def test_a_probe_of_a_wrong_path_keeps_new_pods_unready(play: Play) -> None:
    """They run, and no request reaches them."""
    play.happens(ReleaseEvent(at=0, service="store", version="2", probe="/nowhere"))
    assert [p.phase for p in play.pods("store") if not p.ready] == ["Running"]
    assert play.level("web").failed < 0.01


def test_refused_and_unschedulable_pods_leave_the_old_ones_serving(play: Play) -> None:
    """Admission and scheduling faults show in the rollout, not in the requests."""
    play.happens(PlacementEvent(at=0, service="web", node="absent"))
    assert [p.phase for p in play.pods("web") if p.node is None] == ["Pending"]
    play.happens(AdmissionEvent(at=0, refuses="exceeded quota"))
    play.happens(ReleaseEvent(at=0, service="store", version="2"))
    deployment = play.world.api.get(Deployment, NAMESPACE, "store")
    assert "exceeded quota" in (deployment.status.replica_failure or "")
    assert play.level("web").failed < 0.01


def test_a_registry_that_comes_back_ends_the_pull_error(play: Play) -> None:
    """The kubelet tries again by itself."""
    play.scene.happen(RegistryEvent(at=0, up=False))
    play.happens(ReleaseEvent(at=0, service="store", version="2"), 25)
    assert any(pod.waiting_reason in ("ErrImagePull", "ImagePullBackOff") for pod in play.pods("store"))
    play.happens(RegistryEvent(at=0, up=True))
    assert all(pod.ready and pod.template.image.endswith(":2") for pod in play.pods("store"))


def test_a_lost_node_fails_requests_until_its_pods_are_unready_and_then_replaces_them(play: Play) -> None:
    """Forty seconds of failures, five minutes with fewer pods."""
    play.happens(NodeEvent(at=0, node="node-2", lost=True), 30)
    assert play.level("web").failed > 0.1
    play.after(60)
    assert any(pod.phase == "Unknown" for pod in play.pods("store"))
    assert play.level("web").failed < 0.05
    play.after(400)
    assert all(pod.ready and pod.node != "node-2" for pod in play.pods("store"))


def test_a_grey_node_fails_the_share_of_requests_that_reach_it(play: Play) -> None:
    """Every service with a pod on it fails in part, and none of them wholly."""
    play.happens(NodeEvent(at=0, node="node-1", errors=0.9))
    assert 0.05 < play.level("store").failed < 0.7


def test_a_flag_survives_a_rollback(play: Play) -> None:
    """The flag is no part of the template."""
    play.happens(ReleaseEvent(at=0, service="store", version="2"))
    play.happens(FlagEvent(at=0, name="promo"))
    play.happens(ReleaseEvent(at=0, service="store", version="1.0.0"))
    assert play.level("store").failed > 0.3


def test_old_code_fails_on_migrated_data(play: Play) -> None:
    """Rolling back across a migration turns some errors into nothing but errors."""
    bad = BehaviourSpec(errors=0.2, schema=2)
    play.happens(ReleaseEvent(at=0, service="store", version="2", behaviour=bad, irreversible=True))
    before = play.level("store").failed
    play.happens(ReleaseEvent(at=0, service="store", version="1.0.0"))
    assert before < 0.3 < 0.9 < play.level("store").failed


def test_more_replicas_help_in_a_surge_and_take_connections_of_a_database() -> None:
    """The same action heals one service and breaks what it shares."""
    surge = Play(shop())
    surge.happens(LoadEvent(at=0, service="web", factor=2.9))
    before = surge.level("web").failed
    surge.happens(ScaleEvent(at=0, service="store", replicas=5))
    assert surge.level("web").failed < before
    greedy = Play(shop())
    greedy.happens(ScaleEvent(at=0, service="store", replicas=14))
    assert greedy.level("web").failed > 0.2


def test_a_restart_all_at_once_drops_every_request() -> None:
    """How many pods a rollout takes away at a time decides whether users notice it."""

    def restarted(share: float) -> float:
        store = ServiceSpec(name="store", load=80.0, capacity=50.0, max_unavailable=share, max_surge=0.0)
        play = Play(Topology(services=(store,)))
        play.happens(EnvEvent(at=0, service="store", env={"RESTARTED": "now"}))
        return play.worst("store", 120)

    assert restarted(1.0) > 0.9
    assert restarted(0.34) < 0.5


def test_a_cold_pod_serves_less(play: Play) -> None:
    """Restarting under load costs capacity while caches fill."""
    topology = Topology(
        services=(ServiceSpec(name="store", load=110.0, capacity=50.0, warm_up_seconds=120.0),)
    )
    warm = Play(topology)
    warm.happens(ReleaseEvent(at=0, service="store", version="2"), 60)
    assert warm.level("store").failed > 0.05
    warm.after(300)
    assert warm.level("store").failed < 0.01


def test_retries_are_load_on_the_callee() -> None:
    """A callee near its limit is pushed further by the callers that repeat."""

    def load(retries: int) -> float:
        calls = (CallSpec(to="store", retries=retries),)
        web = ServiceSpec(name="web", load=80.0, capacity=60.0, calls=calls)
        play = Play(Topology(services=(web, ServiceSpec(name="store", capacity=50.0))))
        play.happens(ReleaseEvent(at=0, service="store", version="2", behaviour=BehaviourSpec(errors=0.5)))
        return play.level("store").requests_per_second

    assert load(3) > 1.4 * load(0)


def test_a_slow_dependency_uses_up_the_threads_of_its_caller() -> None:
    """The caller is idle and answers nothing more."""
    calls = (CallSpec(to="slow", timeout_ms=4000.0),)
    web = ServiceSpec(name="web", load=60.0, capacity=60.0, concurrency=30, calls=calls)
    play = Play(Topology(services=(web,), externals=(ExternalSpec(name="slow", kind="third_party"),)))
    play.happens(ExternalEvent(at=0, name="slow", latency_factor=150))
    assert play.level("web").failed > 0.3


def test_a_leak_kills_pods_after_hours_and_a_restart_puts_it_off() -> None:
    """Memory grows from the start of each container."""
    behaviour = BehaviourSpec(memory_mib=96, leak_mib_per_minute=0.8)
    feed = ServiceSpec(name="feed", load=60.0, memory_limit="256Mi", behaviour=behaviour)
    left, restarted = Play(Topology(services=(feed,))), Play(Topology(services=(feed,)))
    restarted.happens(EnvEvent(at=0, service="feed", env={"RESTARTED": "now"}), 0)
    for play in (left, restarted):
        play.after(3600)
    assert any(pod.last_termination_reason == "OOMKilled" for pod in left.pods("feed"))
    assert all(pod.restarts == 0 for pod in restarted.pods("feed"))


def test_a_container_exits_while_its_dependency_is_down_at_start() -> None:
    """Pods that ran before go on; a restart makes it worse."""
    calls = (CallSpec(to="db", at_start=True, required=False),)
    topology = Topology(
        services=(ServiceSpec(name="app", load=30.0, calls=calls, max_unavailable=1.0),),
        externals=(ExternalSpec(name="db", kind="database"),),
    )
    left, restarted = Play(topology), Play(topology)
    for play in (left, restarted):
        play.happens(ExternalEvent(at=0, name="db", up=False))
    restarted.happens(EnvEvent(at=0, service="app", env={"RESTARTED": "now"}))
    assert left.level("app").failed < 0.01
    assert restarted.level("app").failed > 0.9


def test_an_autoscaler_follows_the_load_and_corrects_people() -> None:
    """It scales up at once, and never beyond its limits."""
    scaled = ServiceSpec(
        name="app", load=80.0, capacity=40.0, replicas=4, autoscaler=Scaler(least=3, most=8, target=0.6)
    )
    play = Play(Topology(services=(scaled,)))
    play.happens(LoadEvent(at=0, service="app", factor=2))
    assert play.world.api.get(Deployment, NAMESPACE, "app").replicas == 7
    play.happens(ScaleEvent(at=0, service="app", replicas=2))
    assert play.world.api.get(Deployment, NAMESPACE, "app").replicas == 7
    play.happens(LoadEvent(at=0, service="app", factor=9))
    assert play.world.api.get(Deployment, NAMESPACE, "app").replicas == 8
    shown = play.world.autoscalers[NAMESPACE, "app"]
    assert (shown.minimum, shown.maximum, shown.at_maximum) == (3, 8, True)


def measured(play: Play, service: str) -> tuple[float | None, float | None]:
    sample = play.world.traffic.measure((NAMESPACE, service), play.clock.now(), timedelta(minutes=1))
    return sample.error_rate, sample.request_rate


@pytest.mark.parametrize(
    ("shows", "seen"),
    [
        ("nothing", lambda error, rate: error is None and rate is None),
        ("zeros", lambda error, rate: error is None and rate == 0.0),
        ("frozen", lambda error, rate: error < 0.01 and rate > 50),
    ],
)
def test_telemetry_shows_nothing_zeros_or_what_it_last_saw(
    play: Play, shows: str, seen: Callable[[float | None, float | None], bool]
) -> None:
    """What is measured is not what happens: the service fails all the same."""
    play.happens(TelemetryEvent(at=0, shows=shows, services=("store",)), 90)  # type: ignore[arg-type]
    play.happens(FlagEvent(at=0, name="promo"))
    assert seen(*measured(play, "store"))
    assert play.level("store").failed > 0.3
    play.happens(TelemetryEvent(at=0, shows="all"))
    error_rate, _ = measured(play, "store")
    assert error_rate is not None
    assert error_rate > 0.3


def test_pods_behind_a_selector_that_fits_none_are_ready_and_unmeasured(play: Play) -> None:
    """No request arrives, so there is nothing to measure where it is missing."""
    play.happens(SelectorEvent(at=0, service="store"))
    assert all(pod.ready for pod in play.pods("store"))
    assert measured(play, "store") == (None, None)
    play.happens(SelectorEvent(at=0, service="store", selects=True))
    assert play.level("web").failed < 0.01


def test_a_config_map_that_is_changed_back_heals_without_a_restart() -> None:
    """Pods read it while they run."""
    topology = shop(
        config_maps={"store-config": {"DB_URL": "postgres://db"}},
        services=(
            ServiceSpec(
                name="store",
                load=30.0,
                config_maps=("store-config",),
                calls=(CallSpec(to="db", setting="DB_URL"),),
            ),
        ),
    )
    play = Play(topology)
    play.happens(ConfigEvent(at=0, config_map="store-config", data={"DB_URL": "postgres://bd"}))
    assert play.level("store").failed > 0.9
    play.happens(ConfigEvent(at=0, config_map="store-config", data={"DB_URL": "postgres://db"}))
    assert play.level("store").failed < 0.01


async def test_pods_write_that_their_credentials_are_refused(play: Play) -> None:
    """A driver names the system that refuses it; a pod that started since holds the new ones."""
    logs = SandboxCluster.over(play.world).logs

    async def lines(pod: Pod) -> tuple[str, ...]:
        ref = ObjectRef(kind="Pod", namespace=NAMESPACE, name=pod.meta.name)
        return (await logs.tail(ref, "app", previous=False)).lines

    assert await lines(play.pods("store")[0]) == ()
    play.happens(CredentialsEvent(at=0, name="db"))
    old = await lines(play.pods("store")[0])
    assert old
    assert all("call to db failed" in line and "authentication failed" in line for line in old)
    assert await lines(play.pods("web")[0]) == ()
    play.happens(release(), seconds=300)
    assert await lines(play.pods("store")[0]) == ()
