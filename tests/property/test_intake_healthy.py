"""The short way of a healthy sample through the rules finds what the long way finds."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.intake import samples
from app.agent.intake.signals import new_signal
from app.agent.models import POLLED, Condition, MetricSample, SliSample
from app.agent.ports.store.signals import ServiceLevels
from tests.contract.store_values import NOW, PAYMENTS
from tests.contract.store_values import SLO as OBJECTIVES
from tests.property.healthy_levels import REASON, moments
from tests.sizes import examples

SLO = replace(OBJECTIVES, min_request_rate=1.0)

_times = st.none() | moments(-3, 3)
_samples = st.builds(
    MetricSample,
    error_rate=st.none() | st.sampled_from([0.0, 0.039, 0.04, 0.05, 0.051, 1.0]),
    p95_latency_ms=st.none() | st.sampled_from([0.0, 800.0, 801.0, 1000.0, 1001.0]),
    crash_looping=st.none() | st.booleans(),
    request_rate=st.none() | st.sampled_from([0.5, 2.0]),
)
_levels = st.builds(
    ServiceLevels,
    key=st.just(PAYMENTS),
    error_rate_breach_since=_times,
    latency_breach_since=_times,
    error_rate_breach_until=_times,
    latency_breach_until=_times,
    error_rate_clear_at=_times,
    latency_clear_at=_times,
    crash_told_at=_times,
    last_sample_at=_times,
    last_sample=st.none() | st.just(SliSample(at=NOW, error_rate=0.5)),
    rhythm_seconds=st.none() | st.just(30.0),
    conditions=st.sampled_from([(), (Condition.CRASH_LOOP_BACK_OFF,), (Condition.OOM_KILLED,)]),
    reasons=st.sampled_from([(), (), (REASON,)]),
) | st.builds(
    ServiceLevels,
    key=st.just(PAYMENTS),
    error_rate_clear_at=_times,
    latency_clear_at=_times,
    crash_told_at=_times,
    last_sample_at=_times,
)


@settings(max_examples=examples(400), deadline=None)
@given(
    sample=_samples,
    levels=_levels,
    source=st.sampled_from(["http", "http", POLLED]),
    minutes=st.integers(-3, 3),
)
def test_the_short_way_finds_what_the_long_way_finds(
    sample: MetricSample, levels: ServiceLevels, source: str, minutes: int
) -> None:
    """The same meaning, and the same levels afterwards, of every sample that it takes."""
    signal = new_signal(
        key=PAYMENTS,
        source=source,
        observed_at=NOW + timedelta(minutes=minutes),
        received_at=NOW + timedelta(minutes=2),
        payload=sample,
        stale_after=timedelta(minutes=10),
    )
    short = samples.judge_healthy(SLO, signal, sample, levels)
    long = samples.judge_any_sample(SLO, signal, sample, levels)
    if short is not None:
        assert short == long
    elif source != POLLED and levels == ServiceLevels(key=PAYMENTS):
        assert long.breaching or long.triggers or long.levels is None, "it takes plain healthy samples"
