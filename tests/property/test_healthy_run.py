"""A run of healthy samples finds what the rules find in each sample, one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from app.agent.intake import IntakeRules
from app.agent.intake.posted import HEALTHY, run_of, signals_of
from app.agent.models import Condition, PostedSample, PostedSamples, SliSample, Trigger
from app.agent.ports.store.signals import ServiceLevels
from app.store.signals.openings import new_incident
from tests.contract.store_values import NOW, PAYMENTS, SLO
from tests.property.healthy_levels import REASON, moments

RULES = IntakeRules(slo=SLO)
OPEN = new_incident(PAYMENTS, [Trigger.DEPLOY_FAILED], stale=False, dry_run=True, at=NOW)

_times = st.none() | moments(-3, 20)
_samples = st.builds(
    PostedSample,
    key=st.just(PAYMENTS),
    observed_at=moments(-3, 8),
    error_rate=st.none() | st.sampled_from([0.0, 0.04, 0.05, 0.051]),
    p95_latency_ms=st.none() | st.sampled_from([0.0, 800.0, 1000.0, 1001.0]),
    crash_looping=st.none() | st.booleans(),
)
_well = st.builds(
    ServiceLevels,
    key=st.just(PAYMENTS),
    error_rate_clear_at=_times,
    latency_clear_at=_times,
    crash_told_at=_times,
    last_sample_at=_times,
    last_sample=st.none() | st.just(SliSample(at=NOW, error_rate=0.5)),
    rhythm_seconds=st.none() | st.just(30.0),
    watchdog_at=_times,
)
_levels = _well | _well.flatmap(
    lambda well: st.sampled_from(
        [
            structs.replace(well, error_rate_breach_since=NOW),
            structs.replace(well, latency_breach_until=NOW),
            structs.replace(well, conditions=(Condition.OOM_KILLED,)),
            structs.replace(well, reasons=(REASON,)),
        ]
    )
)


@settings(max_examples=400, deadline=None)
@given(
    samples=st.lists(_samples, min_size=1, max_size=8),
    levels=_levels,
    newest=st.integers(-3, 3),
    arrives=st.integers(0, 6),
    is_open=st.booleans(),
)
def test_a_run_finds_what_the_rules_find(
    samples: Sequence[PostedSample], levels: ServiceLevels, newest: int, arrives: int, is_open: bool
) -> None:
    """Every sample that it takes is ignored as healthy, with the same levels afterwards, incident or not."""
    received_at = NOW + timedelta(minutes=arrives)
    run = run_of(levels, NOW + timedelta(minutes=newest))
    if run is None:
        return
    run.judge_by(RULES.slo)
    taken, expected, opened = [], levels, OPEN if is_open else None
    for sample in samples:
        if not run.takes(sample, received_at):
            continue
        run.take(sample, received_at)
        taken.append(sample)
        posted = PostedSamples([sample], received_at, timedelta(hours=1), None)
        [signal] = signals_of(posted)
        verdict = RULES(signal, expected, opened, None)
        assert verdict.disposition == HEALTHY
        assert not verdict.triggers
        assert verdict.change is None
        assert not verdict.release_pending
        assert verdict.levels is not None
        expected = verdict.levels
    assert run.after() == expected
    assert [one.observed_at for one in taken] == sorted({one.observed_at for one in taken})


@settings(max_examples=200, deadline=None)
@given(sample=_samples, minutes=st.integers(0, 3))
def test_a_run_takes_every_plain_healthy_sample(sample: PostedSample, minutes: int) -> None:
    """Within the objectives, newer than all before, of a service without a breach: it is taken."""
    run = run_of(ServiceLevels(key=PAYMENTS), NOW - timedelta(days=1))
    assert run is not None
    run.judge_by(RULES.slo)
    healthy = (
        not sample.crash_looping and (sample.error_rate or 0) <= 0.05 and (sample.p95_latency_ms or 0) <= 1000
    )
    assert run.takes(sample, NOW + timedelta(minutes=minutes)) is healthy
