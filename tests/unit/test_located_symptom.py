"""A symptom that starts at a dependency: its caller shows it, and is not acted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from app.agent.diagnosis import diagnose
from app.agent.ids import ServiceKey
from app.agent.localisation.dependencies import locate
from app.agent.models import Cause, DependencyLevels, Evidence, Hypothesis, IncidentState, SliSample, Trigger
from app.agent.workload import PodView, WorkloadView
from app.errors import TransientError
from app.sandbox.cluster.reader import SandboxReader
from tests.stories import ACTING, NAMESPACE, SERVICE, messages, story
from tests.test_evidence import Moody, with_moods
from tests.unit.scenes import (
    CRASH,
    DATABASE,
    KEY,
    NEW,
    Curve,
    crashing,
    curves,
    evidence,
    flat,
    released,
    step,
)
from tests.unit.test_rules import weighed

ONSET = -2.5
RISING = curves(errors=step(ONSET, 0.001, 0.13))
SLOW = curves(p95=step(ONSET, 200.0, 1400.0))
CALM = flat(0.001)
STEADY = flat(50.0)
QUICK = flat(40.0)


def with_dependency(
    trigger: Trigger,
    own: tuple[SliSample, ...],
    *,
    errors: Curve = CALM,
    p95: Curve = QUICK,
    requests: Curve = STEADY,
) -> Evidence:
    """A release half a minute before the onset, and what is measured of the database behind it."""
    levels = DependencyLevels(key=DATABASE, sli=curves(errors=errors, p95=p95, requests=requests), calls=())
    return evidence(trigger, workload=released(), sli=own, dependency_levels=(levels,))


def best(seen: Evidence) -> Hypothesis:
    return diagnose(seen).best


FAILING = with_dependency(Trigger.HIGH_ERROR_RATE, RISING, errors=step(ONSET - 0.2, 0.001, 0.2))
HEALTHY = with_dependency(Trigger.HIGH_ERROR_RATE, RISING)
WAITING = with_dependency(Trigger.HIGH_LATENCY, SLOW, p95=step(ONSET - 0.2, 40.0, 1200.0))


@pytest.mark.parametrize("seen", [FAILING, WAITING], ids=["errors", "latency"])
def test_a_release_is_not_blamed_for_what_a_dependency_explains(seen: Evidence) -> None:
    """A release just before is what a rollback would undo, and the rollback would help nothing."""
    alone = replace(seen, dependency_levels=())
    assert best(alone).cause is Cause.BAD_RELEASE
    found = best(seen)
    assert found.cause is Cause.DEPENDENCY_FAILURE
    assert any("starts at ledger" in text for text in found.evidence_for)
    release = weighed(Cause.BAD_RELEASE, seen)
    assert release.confidence < 0.3
    assert any("starts at ledger" in text for text in release.evidence_against)


def test_a_release_keeps_its_confidence_beside_a_healthy_dependency() -> None:
    """Nothing of the dependency explains the errors: the release is rolled back as before."""
    located = locate(HEALTHY)
    assert located is not None
    assert located.key == KEY
    assert (
        weighed(Cause.BAD_RELEASE, HEALTHY).confidence
        == weighed(Cause.BAD_RELEASE, replace(HEALTHY, dependency_levels=())).confidence
    )


def test_a_dependency_that_gets_more_requests_is_left_open() -> None:
    """The release may call it more often than before: then its caller is the cause."""
    seen = with_dependency(
        Trigger.HIGH_LATENCY,
        SLOW,
        p95=step(ONSET - 0.2, 40.0, 1200.0),
        requests=step(ONSET - 0.2, 50.0, 400.0),
    )
    assert locate(seen) is None
    assert best(seen).cause is Cause.BAD_RELEASE


def test_a_dependency_that_gets_no_calls_is_left_open() -> None:
    """Either the release stopped calling it, or it is out of reach: both look the same."""
    seen = with_dependency(Trigger.HIGH_ERROR_RATE, RISING, requests=step_down)
    assert locate(seen) is None


def step_down(minute: float) -> float:
    return 50.0 if minute < ONSET else 0.5


def test_pods_that_crash_are_the_services_own_fault() -> None:
    """No measurement of a dependency outweighs a crash loop of the new pods."""
    pods: tuple[PodView, ...] = crashing(NEW)
    seen = replace(
        FAILING,
        triggers=(Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP),
        workload=released(pods),
        conditions=CRASH,
    )
    assert weighed(Cause.BAD_RELEASE, seen).confidence == (
        weighed(Cause.BAD_RELEASE, replace(seen, dependency_levels=())).confidence
    )


def test_a_dependency_without_a_history_locates_nothing() -> None:
    """A range takes ten samples; without one, nothing is known of the dependency."""
    short = curves(errors=step(ONSET, 0.001, 0.2), since=-3)
    levels = DependencyLevels(key=DATABASE, sli=short, calls=())
    seen = replace(FAILING, dependency_levels=(levels,))
    assert best(seen).cause is best(replace(seen, dependency_levels=())).cause


def test_a_dependency_that_stopped_reporting_is_located() -> None:
    """Its series end at the onset while the caller's errors rise."""
    ended = tuple(
        s for s in FAILING.dependency_levels[0].sli if s.at < RISING[-1].at and s.error_rate == 0.001
    )
    seen = replace(FAILING, dependency_levels=(DependencyLevels(key=DATABASE, sli=ended, calls=()),))
    located = locate(seen)
    assert located is not None
    assert located.key == DATABASE


async def test_an_innocent_release_beside_a_failing_dependency_is_not_rolled_back(tmp_path: Path) -> None:
    """The database is a known dependency, measured and run by others: no change, and a person is asked."""
    services = tmp_path / "services.yaml"
    services.write_text("schema: 1\nservices: {prod/db: {autonomy: observe}}\n")
    given = {"service_dependencies": {"prod/shop": ["db"]}, "services_file": services, **ACTING}
    async with story(tmp_path, **given) as stage:
        stage.deploy()
        stage.deploy("db", "db:1")
        stage.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db"})
        await stage.live(600)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(20)
        stage.world.release(NAMESPACE, "db", "db:2-errors")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert record.intents == ()
        assert stage.image() == "shop:2"
        assert "the symptom starts at db" in messages(record.timeline)


def naming(monkeypatch: pytest.MonkeyPatch, named: Mapping[str, Sequence[str]]) -> None:
    """The environment of these services names others; the simulated world declares no calls."""
    read = SandboxReader.workload

    async def workload(self: SandboxReader, key: ServiceKey) -> WorkloadView | None:
        found, names = await read(self, key), named.get(key.service, ())
        calls = tuple(ServiceKey(environment=NAMESPACE, service=name) for name in names)
        return None if found is None else replace(found, calls=calls)

    monkeypatch.setattr(SandboxReader, "workload", workload)


@pytest.mark.parametrize("case", ["has failed for long", "fails later", "names the service too"])
async def test_an_address_alone_does_not_hold_a_rollback_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    """It may be that of a collector of traces, or of a caller, which fails because of the release."""
    both = {"web": (SERVICE,)} if case == "names the service too" else {}
    naming(monkeypatch, {SERVICE: ("web",), **both})
    services = tmp_path / "services.yaml"
    services.write_text("schema: 1\nservices: {prod/web: {autonomy: observe}}\n")
    async with story(tmp_path, services_file=services, **ACTING) as stage:
        stage.deploy()
        stage.deploy("web", "web:1")
        await stage.live(600)
        if case == "has failed for long":
            stage.world.release(NAMESPACE, "web", "web:2-errors")
            await stage.live(2400)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        if case == "names the service too":
            stage.world.release(NAMESPACE, "web", "web:2-errors")
        elif case == "fails later":
            await stage.live(50)
            stage.world.release(NAMESPACE, "web", "web:2-errors")
        await stage.live(900)
        assert stage.image() == "shop:1"


async def test_a_dependency_is_known_from_the_environment_of_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call is not declared; the address in the environment of the caller names the service."""
    naming(monkeypatch, {SERVICE: ("db", "x")})
    services = tmp_path / "services.yaml"
    services.write_text("schema: 1\nservices: {prod/db: {autonomy: observe}}\n")
    async with story(tmp_path, services_file=services, **ACTING) as stage:
        stage.deploy()
        stage.deploy("db", "db:1")
        stage.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db"})
        await stage.live(600)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(20)
        stage.world.release(NAMESPACE, "db", "db:2-errors")
        record = await stage.live_until_ended()
        assert record.intents == (), messages(record.timeline)
        assert stage.image() == "shop:2"
        assert record.incident.diagnosis is not None
        assert record.incident.diagnosis.best.cause is Cause.DEPENDENCY_FAILURE, messages(record.timeline)
        assert "the symptom starts at db" in messages(record.timeline)


async def test_a_dependency_that_cannot_be_measured_is_reported_missing(tmp_path: Path) -> None:
    """The incident is diagnosed without it, and the timeline has the reason."""
    sources: list[Moody] = []
    async with story(
        tmp_path, connected=with_moods(sources), service_dependencies={"prod/shop": ["db"]}
    ) as stage:
        sources[0].error = TransientError("the source is overloaded")
        sources[0].only = frozenset({ServiceKey(environment=NAMESPACE, service="db")})
        stage.deploy()
        await stage.live(240)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-errors")
        record = await stage.live_until_ended()
        assert record.incident.diagnosis is not None
        assert record.incident.diagnosis.best.cause is Cause.BAD_RELEASE
        assert "db in prod: service level history: the source is overloaded" in messages(record.timeline)
