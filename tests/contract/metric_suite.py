"""What every `MetricSource` must do, over roles that each world fills with its own services.

A world is a monitoring system with known data: a subclass provides the `world`
fixture. The fake of the sandbox and the real Prometheus run the same tests, so
that neither can drift from what the loop believes (promise 8).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.ids import ServiceKey
from app.agent.ports.metrics import MetricSource
from app.connectors.observability import poll_once
from app.errors import TransientError

STEP = timedelta(seconds=15)


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricWorld:
    """A source over known data. Every role lives in one environment."""

    source: MetricSource
    unreachable: MetricSource
    """The same kind of source, pointed where nothing answers."""
    now: datetime
    window: timedelta
    """How old data may be and still count as current."""
    healthy: ServiceKey
    """Serves requests for at least ten minutes, without errors, p95 below 500 ms, to this instant."""
    failing: ServiceKey
    """Served well before `failing_since`; 20 % errors or more and a p95 above 1,000 ms since then."""
    failing_since: datetime
    """At least two windows before `now`, and within ten minutes of it."""
    idle: ServiceKey
    """Is measured, and gets no requests at all."""
    silent: tuple[ServiceKey, ServiceKey, ServiceKey]
    """Served and were measured until `silent_since`; nothing has been heard of them since."""
    silent_since: datetime
    """More than a window before `now`, and within five minutes of it."""
    unknown: ServiceKey
    """Never measured."""


class MetricSourceContract:
    """Subclass it as `TestSomething` and give it a `world` fixture."""

    async def test_many_services_at_once_are_answered_as_each_alone(self, world: MetricWorld) -> None:
        """Every role in one question: values, ages and missing data are those of single questions."""
        keys = [world.healthy, world.failing, world.idle, *world.silent, world.unknown]
        together = await poll_once(world.source, keys, world.now)
        assert [key for key, _ in together] == keys
        for key, sample in together:
            assert sample == await world.source.sli(key, world.now)

    async def test_a_served_service_has_all_indicators(self, world: MetricWorld) -> None:
        """Error rate, p95 and request rate come as numbers, as of a moment within the window."""
        sample = await world.source.sli(world.healthy, world.now)
        assert sample.error_rate == pytest.approx(0.0, abs=0.01)
        assert sample.p95_latency_ms is not None
        assert 0 < sample.p95_latency_ms < 500
        assert sample.request_rate is not None
        assert sample.request_rate > 0
        assert world.now - world.window < sample.at <= world.now
        assert sample.at.tzinfo is UTC

    async def test_a_failing_service_shows_both_breaches(self, world: MetricWorld) -> None:
        """Errors are a share of 0..1 and latency is in milliseconds."""
        sample = await world.source.sli(world.failing, world.now)
        assert sample.error_rate is not None
        assert 0.2 <= sample.error_rate <= 1
        assert sample.p95_latency_ms is not None
        assert 1_000 < sample.p95_latency_ms < 60_000

    async def test_the_past_is_answered_as_it_was(self, world: MetricWorld) -> None:
        """A question about the time before the fault is not answered with today's data."""
        then = world.failing_since - STEP
        sample = await world.source.sli(world.failing, then)
        assert sample.error_rate == pytest.approx(0.0, abs=0.01)
        assert sample.at <= then

    async def test_a_service_never_measured_is_no_data(self, world: MetricWorld) -> None:
        """No series means None, never zero (promise 8)."""
        sample = await world.source.sli(world.unknown, world.now)
        assert (sample.error_rate, sample.p95_latency_ms, sample.request_rate) == (None, None, None)

    async def test_no_requests_means_no_error_rate(self, world: MetricWorld) -> None:
        """Nothing divided by nothing is no data; only the request rate may be a true zero."""
        sample = await world.source.sli(world.idle, world.now)
        assert (sample.error_rate, sample.p95_latency_ms) == (None, None)
        assert sample.request_rate in (None, 0.0)

    async def test_a_service_that_fell_silent_is_no_data_after_a_window(self, world: MetricWorld) -> None:
        """The last values of a series that ended are not the present (promise 8)."""
        sample = await world.source.sli(world.silent[0], world.now)
        assert (sample.error_rate, sample.p95_latency_ms, sample.request_rate) == (None, None, None)

    async def test_the_age_of_a_sample_is_never_hidden(self, world: MetricWorld) -> None:
        """While the window still holds data of a silent service, `at` says how old it is."""
        half = world.silent_since + world.window / 2
        sample = await world.source.sli(world.silent[0], half)
        assert sample.at <= half
        if sample.error_rate is not None:
            assert sample.at <= world.silent_since

    async def test_a_range_is_ordered_and_shows_the_change(self, world: MetricWorld) -> None:
        """History comes oldest first, inside its bounds, healthy before the fault and unhealthy after."""
        start = world.failing_since - 2 * world.window
        samples = await world.source.sli_range(world.failing, start, world.now, STEP)
        times = [sample.at for sample in samples]
        assert times == sorted(set(times))
        assert start <= times[0]
        assert times[-1] <= world.now
        rates = [sample.error_rate for sample in samples if sample.error_rate is not None]
        assert rates[0] == pytest.approx(0.0, abs=0.01)
        assert rates[-1] >= 0.2

    async def test_instants_without_data_are_left_out_of_a_range(self, world: MetricWorld) -> None:
        """A gap stays a gap: nothing is carried on past the window."""
        start = world.silent_since - 2 * world.window
        samples = await world.source.sli_range(world.silent[0], start, world.now, STEP)
        assert samples
        assert all(s.at < world.silent_since + world.window for s in samples)
        assert all((s.error_rate, s.p95_latency_ms, s.request_rate) != (None, None, None) for s in samples)

    async def test_a_range_of_an_unknown_service_is_empty(self, world: MetricWorld) -> None:
        """Nothing measured, nothing answered."""
        assert await world.source.sli_range(world.unknown, world.now - world.window, world.now, STEP) == ()

    async def test_many_services_falling_silent_together_is_an_outage(self, world: MetricWorld) -> None:
        """Three of four vanish: the measuring is at fault, not the services (promise 8)."""
        health = await world.source.telemetry([world.healthy, *world.silent], world.now)
        assert (health.known_services, health.silent_services) == (4, 3)
        assert health.source_reachable
        assert health.outage

    async def test_one_silent_service_is_no_outage(self, world: MetricWorld) -> None:
        """A single service that stopped is that service's matter."""
        health = await world.source.telemetry([world.healthy, world.failing, world.silent[0]], world.now)
        assert health.silent_services == 1
        assert not health.outage

    async def test_services_never_measured_do_not_dilute_an_outage(self, world: MetricWorld) -> None:
        """Only services that had data count as known, however many the cluster runs."""
        strangers = [
            ServiceKey(environment=world.unknown.environment, service=f"stranger-{n}") for n in range(20)
        ]
        health = await world.source.telemetry([*strangers, *world.silent, world.healthy], world.now)
        assert (health.known_services, health.silent_services) == (4, 3)
        assert health.outage

    async def test_before_the_silence_all_was_well(self, world: MetricWorld) -> None:
        """The judgement is about the moment asked for."""
        health = await world.source.telemetry([world.healthy, *world.silent], world.silent_since - STEP)
        assert health.silent_services == 0
        assert not health.outage

    async def test_an_unreachable_source_is_an_error_for_samples(self, world: MetricWorld) -> None:
        """The caller learns that asking later may help."""
        with pytest.raises(TransientError):
            await world.unreachable.sli(world.healthy, world.now)
        with pytest.raises(TransientError):
            await world.unreachable.sli_range(world.healthy, world.now - world.window, world.now, STEP)

    async def test_an_unreachable_source_is_an_answer_for_telemetry(self, world: MetricWorld) -> None:
        """The source being down is exactly what this question is about."""
        health = await world.unreachable.telemetry([world.healthy], world.now)
        assert not health.source_reachable
        assert health.outage
