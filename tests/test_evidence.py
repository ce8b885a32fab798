"""The evidence of an incident, from its signals to its end.

The agent's own measurement takes precedence over posted samples, a source without a
usable answer is a telemetry outage, and one release is one change however often it is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from msgspec import structs

from app.agent.ids import ServiceKey
from app.agent.models import (
    CLUSTER_SOURCE,
    METRICS_SOURCE,
    Alert,
    Cause,
    Deploy,
    DeployStatus,
    DispositionKind,
    IncidentRecord,
    IncidentState,
    MetricSample,
    SliSample,
    TelemetryHealth,
    Trigger,
)
from app.agent.ports.metrics import MetricSource
from app.agent.ports.store.incidents import IncidentFilter
from app.bootstrap import Adapters
from app.errors import AgentError, Forbidden, Invalid, TransientError
from tests.stories import ACTING, KEY, NAMESPACE, SERVICE, Story, messages, story

ELSEWHERE = ServiceKey(environment="prod", service="somewhere-else")
"""A service that no workload of the cluster maps to."""


_EVERY = IncidentFilter()


@dataclass
class Moody:
    """A metric source with configured answers instead of measurements."""

    real: MetricSource
    error: AgentError | None = None
    only: frozenset[ServiceKey] | None = None
    """The services it fails for; None: all, and the questions about telemetry too."""
    silent: bool = False

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        self._refuse(key)
        return SliSample(at=at) if self.silent else await self.real.sli(key, at)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        self._refuse(key)
        return () if self.silent else await self.real.sli_range(key, start, end, step)

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        if self.error is not None and self.only is None:
            raise self.error
        return await self.real.telemetry(keys, at)

    def _refuse(self, key: ServiceKey) -> None:
        if self.error is not None and (self.only is None or key in self.only):
            raise self.error


def with_moods(found: list[Moody]) -> Callable[[Adapters], Adapters]:
    """Puts the source in front of the world's own, and gives it to the test."""

    def connected(world: Adapters) -> Adapters:
        assert world.metrics is not None
        found.append(Moody(real=world.metrics))
        return replace(world, metrics=found[-1])

    return connected


def firing(stage: Story, seconds_ago: float, fingerprint: str = "f1") -> Alert:
    return Alert(
        name="HighErrorRate",
        firing=True,
        fingerprint=fingerprint,
        starts_at=stage.clock.now() - timedelta(seconds=seconds_ago),
        trigger=Trigger.HIGH_ERROR_RATE,
    )


def causes(record: IncidentRecord) -> list[Cause]:
    assert record.incident.diagnosis is not None
    return [h.cause for h in record.incident.diagnosis.hypotheses]


# ---------------------------------------------------------------- one release is one change


async def test_a_release_reported_again_and_again_is_not_the_cause_of_a_later_incident(
    tmp_path: Path,
) -> None:
    """Three hours, 95 minutes and three minutes ago: it was released three hours ago."""
    succeeded = Deploy(version="1.15.0", status=DeployStatus.SUCCEEDED)
    async with story(tmp_path) as stage:
        for minutes in (180, 95, 3):
            await stage.tell(succeeded, key=ELSEWHERE, age_seconds=60 * minutes)
        await stage.tell(firing(stage, 120), key=ELSEWHERE, age_seconds=120)
        other = structs.replace(ELSEWHERE, service="told-once")
        await stage.tell(succeeded, key=other, age_seconds=180)
        await stage.tell(firing(stage, 120, "f2"), key=other, age_seconds=120)
        repeated = await stage.live_until_ended(key=ELSEWHERE)
        first = await stage.live_until_ended(key=other)
    assert Cause.BAD_RELEASE not in causes(repeated), messages(repeated.timeline)
    assert Cause.BAD_RELEASE in causes(first), messages(first.timeline)


@pytest.mark.parametrize("late", [False, True], ids=["in order", "the failure told last"])
async def test_a_failed_deploy_that_was_run_again_with_success_is_over(tmp_path: Path, late: bool) -> None:
    """Whatever arrives first; without the second report the pipeline's word stands."""
    reports = [
        (Deploy(version="1.15.0", status=DeployStatus.FAILED), 240.0),
        (Deploy(version="1.15.0", status=DeployStatus.SUCCEEDED), 60.0),
    ]
    async with story(tmp_path) as stage:
        for deploy, age in reversed(reports) if late else reports:
            accepted = await stage.tell(deploy, key=ELSEWHERE, age_seconds=age)
        if late:
            assert accepted.disposition.kind is DispositionKind.IGNORED
            assert "a later one succeeded" in accepted.disposition.reason
        else:
            record = await stage.live_until(lambda r: r.incident.diagnosis is not None, key=ELSEWHERE)
            assert causes(record) == [Cause.UNKNOWN], messages(record.timeline)
            assert "deploy failed" not in messages(record.timeline[2:])
        alone = structs.replace(ELSEWHERE, service="failed-once")
        await stage.tell(reports[0][0], key=alone, age_seconds=240)
        failed = await stage.live_until(lambda r: r.incident.diagnosis is not None, key=alone)
    assert causes(failed)[0] is Cause.BAD_RELEASE
    assert "0 s after" not in messages(failed.timeline)


# ---------------------------------------------------------------- the agent's own measurement


async def test_posted_errors_do_not_roll_back_what_the_agent_measures_to_be_well(tmp_path: Path) -> None:
    """An alert and a bad sample right after an innocent release, while it measures 0.1 % itself."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(15)
        for seconds in (40, 5):
            await stage.tell(MetricSample(error_rate=0.4), age_seconds=seconds)
        await stage.tell(firing(stage, 5), age_seconds=5)
        await stage.live(120)
        record = await stage.newest()
        assert record is not None
        assert record.intents == (), messages(record.timeline)
        assert (stage.image(), stage.marker()) == ("shop:2", None)
        assert "above its objective" not in messages(record.timeline)


# ---------------------------------------------------------------- failing to measure

NO_ANSWERS = {
    "403": Forbidden("Prometheus (PROMETHEUS_URL) answered 403: forbidden"),
    "several series": Invalid("the error_rate query answers 2 series where one is meant"),
    "out of reach": TransientError("Prometheus (PROMETHEUS_URL) cannot be reached"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_no_remediation_rests_on_a_source_that_gives_no_usable_answer(
    tmp_path: Path, name: str
) -> None:
    """A release that only fails, reported by posted samples; the source fails as the incident opens."""
    found: list[Moody] = []
    async with story(tmp_path, connected=with_moods(found), **ACTING) as stage:
        stage.deploy()
        await stage.live(180)
        found[0].error, found[0].only = NO_ANSWERS[name], frozenset({KEY})
        stage.world.release(NAMESPACE, SERVICE, "shop:2")
        await stage.live(15)
        for seconds in (40, 5):
            await stage.tell(MetricSample(error_rate=0.4), age_seconds=seconds)
        record = await stage.live_until_ended()
        assert record.intents == (), messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED
        assert str(NO_ANSWERS[name]) in record.incident.summary
        assert stage.marker() is None


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_a_source_that_fails_is_one_incident_for_all_services(tmp_path: Path, name: str) -> None:
    """It says which source and why, leads to no action, and comes once, not once for each service."""
    found: list[Moody] = []
    async with story(tmp_path, connected=with_moods(found), **ACTING) as stage:
        for service in ("one", "two", "three", "four", "five"):
            stage.deploy(service)
        await stage.live(120)
        found[0].error = NO_ANSWERS[name]
        await stage.live(300)
        page = await stage.agent.store.incidents.find(_EVERY, limit=50, cursor=None)
        (record,) = page.items
        assert record.incident.key == METRICS_SOURCE
        assert record.incident.triggers == (Trigger.TELEMETRY_OUTAGE,)
        assert record.incident.state is IncidentState.ESCALATED, messages(record.timeline)
        assert record.intents == ()
        assert str(NO_ANSWERS[name]) in record.incident.summary
        assert "5 of 5 services" in record.incident.summary
        found[0].error = None
        await stage.live(60)
        found[0].error = NO_ANSWERS[name]
        await stage.live(60)
        assert len((await stage.agent.store.incidents.find(_EVERY, limit=50, cursor=None)).items) == 1


async def test_services_that_fall_silent_together_are_one_incident_of_telemetry(tmp_path: Path) -> None:
    """Nothing is posted and nothing crashes: the measuring stopped."""
    found: list[Moody] = []
    async with story(tmp_path, connected=with_moods(found), **ACTING) as stage:
        for service in ("one", "two", "three", "four"):
            stage.deploy(service)
        await stage.live(120)
        found[0].silent = True
        record = await stage.live_until_ended(key=METRICS_SOURCE)
        assert "4 of 4 services fell silent together" in messages(record.timeline)


async def test_a_fault_that_passes_at_once_is_no_incident(tmp_path: Path) -> None:
    """It has to last as long as a breach; one time-out says nothing."""
    found: list[Moody] = []
    async with story(tmp_path, connected=with_moods(found), **ACTING) as stage:
        stage.deploy()
        await stage.live(60)
        for _ in range(4):
            found[0].error = NO_ANSWERS["out of reach"]
            await stage.live(20)
            found[0].error = None
            await stage.live(10)
        assert (await stage.agent.store.incidents.find(_EVERY, limit=50, cursor=None)).items == ()


async def test_a_cluster_that_cannot_be_listed_is_one_incident_too(tmp_path: Path) -> None:
    """The services to be measured are not known: the poller says so after it has lasted."""
    async with story(tmp_path, **ACTING) as stage:
        stage.deploy()
        await stage.live(60)
        stage.poller = replace(stage.poller, reader=_NoList())  # type: ignore[arg-type]  # one method is used
        for _ in range(10):
            await stage.clock.advance(5)
            with pytest.raises(Forbidden):
                await stage.poller.poll()
        record = await stage.newest(CLUSTER_SOURCE)
        assert record is not None
        assert "cannot list deployments" in messages(record.timeline)


class _NoList:
    async def services(self) -> tuple[ServiceKey, ...]:
        raise Forbidden("forbidden: cannot list deployments in all namespaces")
