"""What counts as healthy, unhealthy or inconclusive, one observation at a time (promise 8)."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import IntentId
from app.agent.models import (
    Condition,
    Observation,
    SliSample,
    TelemetryHealth,
    Trigger,
    Verdict,
    VerdictKind,
    Verification,
)
from app.agent.slo import SloThresholds
from app.agent.verification.assessment import Assessment, Health, assess
from app.agent.verification.rules import VerifyRules
from app.agent.verification.verdict import advance, judge
from tests.unit.scenes import OLD, at, pods, workload

SECOND = timedelta(seconds=1)
RULES = VerifyRules(
    slo=SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=60 * SECOND,
        reopen_after=timedelta(hours=1),
    ),
    soak=60 * SECOND,
    timeout=600 * SECOND,
    interval=5 * SECOND,
    max_sample_age=60 * SECOND,
)
NOW = at(10)
RUNNING = workload([OLD], pods(OLD))
WELL = SliSample(at=NOW, error_rate=0.001, p95_latency_ms=80)
SEEN = Observation(at=NOW, sli=WELL, workload=RUNNING)
TESTED = Verification(intent_id=IntentId("int_1"), started_at=NOW - 300 * SECOND, baseline=WELL)


def health(seen: Observation, *triggers: Trigger, tested: Verification | None = TESTED) -> Health:
    return assess(seen, triggers or (Trigger.CRASH_LOOP,), RULES, tested).health


def test_a_whole_rollout_within_the_slo_is_healthy() -> None:
    """Everything that was sick is freshly measured and well."""
    assert health(SEEN) is Health.HEALTHY


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, sli=replace(WELL, error_rate=0.06)),
        replace(SEEN, sli=replace(WELL, p95_latency_ms=1001)),
        replace(SEEN, workload=replace(RUNNING, rollout_complete=False)),
        replace(SEEN, workload=replace(RUNNING, available_replicas=2)),
        replace(SEEN, workload=replace(RUNNING, progress_deadline_exceeded=True)),
        replace(SEEN, workload=None, reported_conditions=(Condition.CRASH_LOOP_BACK_OFF,)),
    ],
    ids=["errors", "latency", "rollout", "replicas", "deadline", "told"],
)
def test_any_one_unhealthy_sign_is_unhealthy(seen: Observation) -> None:
    """Good figures elsewhere do not outweigh it."""
    assert health(seen) is Health.UNHEALTHY


ROLLING = replace(RUNNING, rollout_complete=False)


@pytest.mark.parametrize(
    ("seen", "of_another"),
    [
        (replace(SEEN, workload=ROLLING), Health.HEALTHY),
        (replace(SEEN, workload=ROLLING, sli=replace(WELL, error_rate=0.06)), Health.UNHEALTHY),
        (replace(SEEN, workload=ROLLING, sli=None), Health.UNKNOWN),
        (replace(SEEN, workload=replace(ROLLING, available_replicas=0)), Health.UNHEALTHY),
    ],
)
def test_a_rollout_that_someone_else_began_is_no_fault_while_replicas_serve(
    seen: Observation, of_another: Health
) -> None:
    """After an action the rollout must be complete; once the action is superseded, it is another rollout."""
    triggers = (Trigger.CRASH_LOOP,)
    assert assess(seen, triggers, RULES, TESTED).health is Health.UNHEALTHY
    assert assess(seen, triggers, RULES, TESTED, superseded=True).health is of_another


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"updated_replicas": 1, "available_replicas": 2},
            "1 of 3 updated, 2 pods of an older revision not removed yet, 2 of 3 available",
        ),
        ({"total_replicas": 4}, "1 pod of an older revision not removed yet"),
        (
            {"updated_replicas": 4, "available_replicas": 4, "total_replicas": 4},
            "1 pod too many not removed yet",
        ),
        ({"spec_observed": False}, "the controller has not observed the newest specification"),
        ({"progress_deadline_exceeded": True}, "its progress deadline is exceeded"),
        ({}, "the controller has not reported its end"),
    ],
)
def test_a_rollout_that_is_not_complete_says_what_is_missing(changes: dict[str, Any], said: str) -> None:
    """`3 of 3 updated, 3 available` names nothing that is missing."""
    view = replace(RUNNING, updated_replicas=3, total_replicas=3, rollout_complete=False)
    found = assess(replace(SEEN, workload=replace(view, **changes)), (Trigger.CRASH_LOOP,), RULES, TESTED)
    assert f"the rollout is not complete: {said}" in found.reasons


@pytest.mark.parametrize(
    "seen",
    [
        replace(SEEN, sli=None),
        replace(SEEN, sli=replace(WELL, error_rate=None)),
        replace(SEEN, sli=replace(WELL, at=NOW - 61 * SECOND)),
        replace(SEEN, sli=replace(WELL, at=NOW + SECOND)),
        replace(SEEN, sli=replace(WELL, at=TESTED.started_at - SECOND)),
        replace(SEEN, telemetry=TelemetryHealth(known_services=4, silent_services=3, source_reachable=True)),
        replace(SEEN, telemetry=TelemetryHealth(known_services=1, silent_services=0, source_reachable=False)),
        replace(SEEN, workload=replace(RUNNING, desired_replicas=0, available_replicas=0)),
    ],
    ids=["none", "no rate", "old", "future", "before the action", "outage", "source down", "scaled to zero"],
)
def test_what_is_not_freshly_measured_is_inconclusive(seen: Observation) -> None:
    """Missing data is neither health nor sickness."""
    assert health(seen) is Health.UNKNOWN


def test_scaled_to_zero_is_inconclusive_even_where_nothing_is_measured() -> None:
    """Without any metric source, no replicas out of none available is not health."""
    nothing_runs = replace(
        SEEN, sli=None, workload=replace(RUNNING, desired_replicas=0, available_replicas=0)
    )
    unmeasured = replace(TESTED, baseline=None)
    assert health(replace(nothing_runs, workload=RUNNING), tested=unmeasured) is Health.HEALTHY
    assert health(nothing_runs, tested=unmeasured) is Health.UNKNOWN


def test_a_trigger_wants_its_own_indicator() -> None:
    """What was reported as unhealthy must be measured as healthy, whatever else looks fine."""
    unmeasured = replace(TESTED, baseline=None)
    seen = replace(SEEN, sli=None)
    assert health(seen, Trigger.CRASH_LOOP, tested=unmeasured) is Health.HEALTHY
    assert health(seen, Trigger.HIGH_ERROR_RATE, tested=unmeasured) is Health.UNKNOWN
    assert health(seen, Trigger.HIGH_LATENCY, tested=unmeasured) is Health.UNKNOWN


def assessment(found: Health) -> Assessment:
    return Assessment(health=found, reasons=("because",))


def verdict(
    found: Health, *, since_start: float, healthy_for: float | None = None, seen: Observation = SEEN
) -> VerdictKind | None:
    verification = Verification(
        intent_id=IntentId("int_1"),
        started_at=NOW - since_start * SECOND,
        healthy_since=None if healthy_for is None else NOW - healthy_for * SECOND,
        last_observed_at=NOW - RULES.interval,
        baseline=replace(WELL, error_rate=0.1),
    )
    given = judge(verification, assessment(found), seen, RULES)
    return given.kind if given is not None else None


def test_recovery_needs_the_whole_soak() -> None:
    """Not a second less."""
    assert verdict(Health.HEALTHY, since_start=100, healthy_for=59) is None
    assert verdict(Health.HEALTHY, since_start=100, healthy_for=60) is VerdictKind.RECOVERED


def test_the_time_out_distinguishes_unhealthy_from_silent() -> None:
    """Unhealthy is not recovered; silent is inconclusive; before the time-out there is no verdict."""
    assert verdict(Health.UNHEALTHY, since_start=599) is None
    assert verdict(Health.UNHEALTHY, since_start=600) is VerdictKind.NOT_RECOVERED
    assert verdict(Health.UNKNOWN, since_start=599) is None
    assert verdict(Health.UNKNOWN, since_start=600) is VerdictKind.CANNOT_TELL


def test_health_that_comes_and_goes_is_waited_for_one_soak_and_no_longer() -> None:
    """Healthy at the time-out, but not yet for the whole soak."""
    assert verdict(Health.HEALTHY, since_start=600, healthy_for=10) is None
    assert verdict(Health.HEALTHY, since_start=660, healthy_for=10) is VerdictKind.NOT_RECOVERED


def test_materially_worse_is_said_before_the_time_out() -> None:
    """Twenty points more errors than before the action, once the soak has passed."""
    worse = replace(SEEN, sli=replace(WELL, error_rate=0.31))
    assert verdict(Health.UNHEALTHY, since_start=59, seen=worse) is None
    assert verdict(Health.UNHEALTHY, since_start=60, seen=worse) is VerdictKind.WORSE


def test_unhealthy_and_silent_looks_restart_the_soak_again() -> None:
    """The soak is without a break."""
    healthy = advance(TESTED, assessment(Health.HEALTHY), NOW, RULES)
    assert healthy.healthy_since == NOW
    later = NOW + RULES.interval
    assert advance(healthy, assessment(Health.HEALTHY), later, RULES).healthy_since == NOW
    assert advance(healthy, assessment(Health.UNHEALTHY), later, RULES).healthy_since is None
    assert advance(healthy, assessment(Health.UNKNOWN), later, RULES).healthy_since is None


def test_a_time_without_observation_restarts_verification() -> None:
    """An absence of the agent says nothing about the service, either way."""
    before = replace(TESTED, healthy_since=NOW, last_observed_at=NOW)
    later = NOW + timedelta(hours=1)
    assert judge(before, assessment(Health.HEALTHY), replace(SEEN, at=later), RULES) is None
    assert judge(before, assessment(Health.UNHEALTHY), replace(SEEN, at=later), RULES) is None
    after = advance(before, assessment(Health.HEALTHY), later, RULES)
    assert (after.started_at, after.healthy_since) == (later, later)


def test_a_verification_that_restarts_again_and_again_ends_undecided() -> None:
    """Looks that always come too far apart give no verdict of health; they do not go on for ever."""
    found = looked_at(itertools.repeat((75 * SECOND, Health.HEALTHY)))
    assert found.kind is VerdictKind.CANNOT_TELL
    assert RULES.longest <= found.at - NOW < RULES.longest + 75 * SECOND
    assert found.reasons == (
        "the agent observed the service less often than every 1 m, "
        "so the verification kept restarting for 36 m 15 s",
    )


def test_after_one_long_pause_a_verification_gets_a_complete_try() -> None:
    """An outage of days is one pause: what is seen afterwards is judged as ever."""
    looks = [(timedelta(days=2), Health.HEALTHY), *[(RULES.interval, Health.HEALTHY)] * 20]
    assert looked_at(looks).kind is VerdictKind.RECOVERED


@given(
    st.lists(st.tuples(st.integers(1, 7200), st.sampled_from(Health)), min_size=1, max_size=40),
)
def test_every_verification_ends(rhythm: list[tuple[int, Health]]) -> None:
    """Whatever is seen and however far apart: after a bounded number of restarts and one complete attempt."""
    looks = [(seconds * SECOND, health) for seconds, health in rhythm]
    ended = looked_at(itertools.cycle(looks)).at - NOW
    longest = max(apart for apart, _ in looks)
    gaps = RULES.longest / RULES.longest_gap + 1
    assert ended < RULES.longest + RULES.timeout + RULES.soak + gaps * longest


HEALTHY = (RULES.interval, Health.HEALTHY)
HOUR = timedelta(hours=1)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(10 * HOUR, Health.HEALTHY), HEALTHY, (70 * SECOND, Health.HEALTHY)], id="a gap"),
        pytest.param([(10 * HOUR, Health.HEALTHY), HEALTHY] * 4, id="four pauses"),
        pytest.param([HEALTHY, (-HOUR, Health.HEALTHY), HEALTHY, (HOUR, Health.HEALTHY)], id="clock"),
        pytest.param([HEALTHY, (HOUR, Health.HEALTHY), HEALTHY, (-HOUR, Health.HEALTHY)] * 3, id="often"),
    ],
)
def test_pauses_and_jumps_of_the_clock_use_up_no_attempt(looks: list[tuple[timedelta, Health]]) -> None:
    """After a pause of hours, or a clock that jumps, what is seen without a gap is judged as ever."""
    assert looked_at([*looks, *[HEALTHY] * 20]).kind is VerdictKind.RECOVERED


def test_a_clock_that_never_stops_jumping_ends_undecided() -> None:
    """An hour back and an hour forth every 40 s leave no soak without a gap; verification still ends."""
    cycle = [(-HOUR, Health.HEALTHY), *[HEALTHY] * 8, (HOUR, Health.HEALTHY), *[HEALTHY] * 8]
    assert looked_at(itertools.cycle(cycle)).kind is VerdictKind.CANNOT_TELL


def test_a_verification_without_telemetry_ends() -> None:
    """Nothing is ever measured, before and after a pause of a day."""
    looks = [(RULES.interval, Health.UNKNOWN), (timedelta(days=1), Health.UNKNOWN)]
    verdict = looked_at([*looks, *[(RULES.interval, Health.UNKNOWN)] * 200])
    assert verdict.kind is VerdictKind.CANNOT_TELL
    assert verdict.at - NOW < timedelta(days=1) + RULES.timeout + 2 * RULES.interval


def test_a_verdict_names_the_action_that_it_judges() -> None:
    """So that it never stands for another one; a watched service has none."""
    assert looked_at(itertools.repeat(HEALTHY)).intent_id == IntentId("int_1")
    assert looked_at(itertools.repeat((75 * SECOND, Health.HEALTHY))).intent_id == IntentId("int_1")


def looked_at(looks: Iterable[tuple[timedelta, Health]]) -> Verdict:
    """The verdict of looks that follow each other in these times; fails where none comes."""
    verification, when = Verification(intent_id=IntentId("int_1"), started_at=NOW), NOW
    for apart, found in itertools.islice(looks, 20_000):
        when += apart
        seen = replace(SEEN, at=when, sli=replace(WELL, at=when))
        given_now = judge(verification, assessment(found), seen, RULES)
        if given_now is not None:
            return given_now
        verification = advance(verification, assessment(found), when, RULES)
    raise AssertionError(f"no verdict within {when - NOW}")
