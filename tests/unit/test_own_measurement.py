"""What the agent measures itself outranks what was posted; too little traffic, or no answer, says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.diagnosis import FLOOR, diagnose
from app.agent.evidence.symptoms import ERROR_RATE, rise
from app.agent.ids import IntentId
from app.agent.intake import IntakeRules
from app.agent.models import (
    POLLED,
    Alert,
    Cause,
    Change,
    ChangeKind,
    DispositionKind,
    Evidence,
    MetricSample,
    Objectives,
    Observation,
    Payload,
    Signal,
    SliSample,
    TelemetryHealth,
    Trigger,
    VerdictKind,
    Verification,
)
from app.agent.planner import make_plan
from app.agent.ports.store.signals import IntakeVerdict, ServiceLevels
from app.agent.slo import SloThresholds
from app.agent.verification.assessment import Health, assess
from app.agent.verification.rules import VerifyRules
from app.agent.verification.verdict import judge
from tests.unit.scenes import (
    CATALOGUE,
    LIMITS,
    OLD,
    at,
    change,
    curves,
    evidence,
    flat,
    pods,
    released,
    signal,
    step,
    workload,
)

SECOND = timedelta(seconds=1)
SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=60 * SECOND,
    reopen_after=timedelta(hours=1),
    min_request_rate=0.2,
)
OBJECTIVES = SLO.objectives
RULES = VerifyRules(
    slo=SLO, soak=60 * SECOND, timeout=600 * SECOND, interval=5 * SECOND, max_sample_age=60 * SECOND
)


def own(samples: Sequence[SliSample]) -> tuple[SliSample, ...]:
    return tuple(replace(sample, measured=True) for sample in samples)


def posted(error_rate: float, minutes: float) -> Signal:
    return signal(MetricSample(error_rate=error_rate), minutes)


def alert(minutes: float, trigger: Trigger = Trigger.HIGH_ERROR_RATE) -> Signal:
    fired = Alert(name="Any", firing=True, fingerprint="f", starts_at=at(minutes), trigger=trigger)
    return signal(fired, minutes)


def accused(**changes: object) -> Evidence:
    """A release half a minute before posted errors; the agent's own series is what a test makes it."""
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=released(),
        signals=(posted(0.4, -2), posted(0.4, -1)),
        objectives=OBJECTIVES,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]  # a test names real fields


def sentences(seen: Evidence) -> str:
    found = diagnose(seen).hypotheses
    return "; ".join(text for h in found for text in (*h.evidence_for, *h.evidence_against))


def plans(seen: Evidence) -> bool:
    return bool(make_plan(diagnose(seen), seen, CATALOGUE, LIMITS).actions)


# ---------------------------------------------------------------- diagnosis


def test_a_fresh_own_series_inside_its_objective_clears_every_cause_of_that_symptom() -> None:
    """0.1 % is not above an objective of 5 %, whatever was posted; the same errors measured are."""
    well = accused(sli=own(curves(errors=flat(0.001))))
    assert diagnose(well).best.cause is Cause.UNKNOWN
    assert all(h.confidence < FLOOR for h in diagnose(well).hypotheses if h.cause is not Cause.UNKNOWN)
    assert not plans(well)
    assert "its measured error rate is 0.1%, within its objective" in sentences(well)
    assert "above its objective" not in sentences(well)
    sick = accused(sli=own(curves(errors=step(-2.5, 0.001, 0.4))))
    assert diagnose(sick).best.cause is Cause.BAD_RELEASE
    assert plans(sick)


def test_an_old_own_measurement_clears_nothing() -> None:
    """It says how things were, not how they are."""
    ended = tuple(s for s in curves(errors=flat(0.001)) if s.at <= at(-4))
    assert diagnose(accused(sli=own(ended))).best.cause is not Cause.UNKNOWN


def test_a_symptom_of_another_kind_still_stands() -> None:
    """The error rate is measured to be well; the pods crash all the same."""
    crash = replace(accused(sli=own(curves())), triggers=(Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP))
    sick = pods(
        released().revisions[0],
        ready=False,
        restarts=4,
        waiting_reason="CrashLoopBackOff",
        last_termination_reason="Error",
    )
    assert diagnose(replace(crash, workload=released(sick))).best.cause is Cause.BAD_RELEASE


def test_posted_and_measured_samples_are_two_histories() -> None:
    """Posted errors between measured ones make no rise, and posted health hides none."""
    lies = tuple(replace(s, error_rate=0.9) for s in curves(since=-5))
    mixed = accused(sli=(*own(curves(errors=flat(0.001))), *lies))
    assert "went from" not in sentences(mixed)
    praise = tuple(replace(s, error_rate=0.0) for s in curves(since=-5))
    risen = accused(sli=(*own(curves(errors=step(-2.5, 0.001, 0.4))), *praise))
    assert "error rate went from 0.1% to 40.0%" in sentences(risen)


def test_posted_samples_make_no_rise_in_a_measured_series() -> None:
    """Posted twice as often as the agent measures, they would be the later level of a mixed series."""
    posted_often = tuple(SliSample(at=at(-3 + n / 12), error_rate=0.9) for n in range(36))
    measured = own(curves(errors=flat(0.001), since=-6))
    assert rise(accused(signals=(), sli=posted_often + curves(since=-6)), ERROR_RATE) is not None
    assert rise(accused(signals=(), sli=(*measured, *posted_often)), ERROR_RATE) is None


def test_crashing_pods_are_no_remedy_for_errors_that_are_not_there() -> None:
    """Their condition opens an incident of its own; this one rests on errors that are measured to be gone."""
    sick = pods(released().revisions[0], ready=False, restarts=4, waiting_reason="CrashLoopBackOff")
    seen = accused(sli=own(curves(errors=flat(0.001))), workload=released(sick))
    assert diagnose(seen).best.cause is Cause.UNKNOWN
    assert not plans(seen)


def test_a_value_from_before_the_symptom_is_not_reported_as_its_value() -> None:
    """An alert without a value is reported as such, beside an older posted sample that was healthy."""
    seen = accused(signals=(alert(-2),), sli=(SliSample(at=at(-40), error_rate=0.001),))
    assert "(alert without a value)" in sentences(seen)
    assert "0.1%" not in sentences(seen)


@given(
    value=st.floats(0, 0.05),
    triggers=st.sets(st.sampled_from([Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY]), min_size=1),
    claimed=st.floats(0.06, 1),
    kind=st.sampled_from([None, ChangeKind.DEPLOY, ChangeKind.CONFIG]),
    cluster=st.booleans(),
)
def test_no_sentence_and_no_plan_rests_on_what_is_measured_to_be_well(
    value: float, triggers: set[Trigger], claimed: float, kind: ChangeKind | None, cluster: bool
) -> None:
    """Whatever is posted, whatever changed, with a cluster or without."""
    changes: tuple[Change, ...] = () if kind is None else (change(kind, -3, version="2"),)
    seen = accused(
        triggers=tuple(sorted(triggers)),
        signals=(posted(claimed, -2), alert(-1), alert(-1, Trigger.HIGH_LATENCY)),
        sli=own(curves(errors=flat(value), p95=flat(900))),
        changes=changes,
        workload=released() if cluster else None,
    )
    assert "is above its objective" not in sentences(seen)
    assert ", above its objective" not in sentences(seen)
    assert not plans(seen)


# ---------------------------------------------------------------- too little traffic


def test_a_ratio_over_a_handful_of_requests_names_no_cause() -> None:
    """One failure in three requests after a release is no reason to roll it back."""
    handful = own(curves(errors=step(-2.5, 0.0, 0.33), requests=flat(0.05)))
    seen = accused(sli=handful)
    assert diagnose(seen).best.cause is Cause.UNKNOWN
    assert not plans(seen)
    assert "only 0.05 requests/s measured: too few" in sentences(seen)
    many = own(curves(errors=step(-2.5, 0.0, 0.33), requests=flat(5.0)))
    assert plans(accused(sli=many))


def take(levels: ServiceLevels | None, payload: Payload, minutes: float, source: str) -> IntakeVerdict:
    made = replace(signal(payload, minutes), source=source, received_at=at(minutes))
    return IntakeRules(slo=SLO)(made, levels, None, None)


def kinds(*told: tuple[MetricSample, float, str]) -> list[DispositionKind]:
    levels: ServiceLevels | None = None
    found = []
    for payload, minutes, source in told:
        verdict = take(levels, payload, minutes, source)
        levels = verdict.levels or levels
        found.append(verdict.disposition.kind)
    return found


def test_intake_opens_nothing_on_a_handful_of_polled_requests() -> None:
    """A posted sample of unknown traffic counts as it did."""
    few = MetricSample(error_rate=0.5, request_rate=0.1)
    many = MetricSample(error_rate=0.5, request_rate=10.0)
    bare = MetricSample(error_rate=0.5)
    assert kinds((few, -2, POLLED), (few, -1, POLLED)) == [DispositionKind.IGNORED] * 2
    for sample, source in ((many, POLLED), (bare, "http")):
        assert kinds((sample, -2, source), (sample, -1, source))[-1] is DispositionKind.OPENED


def test_posted_and_polled_samples_are_not_one_breach() -> None:
    """Half a breach of each opens nothing; posted health does not end what the agent measures."""
    bad, well = MetricSample(error_rate=0.5), MetricSample(error_rate=0.0)
    assert kinds((bad, -2, POLLED), (bad, -1, "http")) == [DispositionKind.PENDING] * 2
    assert kinds((bad, -2, POLLED), (well, -1.5, "http"), (bad, -1, POLLED))[-1] is DispositionKind.OPENED
    assert kinds((bad, -2, "http"), (well, -1.5, POLLED), (bad, -1, "http"))[-1] is DispositionKind.PENDING


NOW = at(10)
RUNNING = workload([OLD], pods(OLD))
BEFORE = SliSample(at=NOW - 300 * SECOND, error_rate=0.4, p95_latency_ms=80, request_rate=50)
TESTED = Verification(
    intent_id=IntentId("int_1"),
    started_at=NOW - 300 * SECOND,
    baseline=BEFORE,
    healthy_since=NOW - 120 * SECOND,
    last_observed_at=NOW - 5 * SECOND,
)
WELL = SliSample(at=NOW, error_rate=0.001, p95_latency_ms=80, request_rate=50, measured=True)
SEEN = Observation(at=NOW, sli=WELL, workload=RUNNING)


@pytest.mark.parametrize(
    "sli",
    [
        replace(WELL, error_rate=0.0, request_rate=0.1),
        replace(WELL, error_rate=None, p95_latency_ms=None, request_rate=0.0),
        replace(WELL, error_rate=1.0, request_rate=0.1),
    ],
    ids=["few", "none", "few that fail"],
)
def test_no_traffic_after_an_action_is_inconclusive(sli: SliSample) -> None:
    """Neither recovered nor worse: the service had no requests."""
    seen = replace(SEEN, sli=sli)
    now = assess(seen, (Trigger.HIGH_ERROR_RATE,), RULES, TESTED)
    assert now.health is Health.UNKNOWN
    assert "too few for a verdict" in "; ".join(now.reasons)
    verdict = judge(replace(TESTED, started_at=NOW - 601 * SECOND), now, seen, RULES)
    assert verdict is not None
    assert verdict.kind is VerdictKind.CANNOT_TELL


def test_a_sample_without_a_known_request_rate_is_judged_as_it_stands() -> None:
    """Posted samples do not say how many requests are behind them."""
    seen = replace(SEEN, sli=replace(WELL, request_rate=None, measured=False))
    assert assess(seen, (Trigger.HIGH_ERROR_RATE,), RULES, TESTED).health is Health.HEALTHY


# ---------------------------------------------------------------- failing to measure


def test_what_cannot_be_measured_is_a_telemetry_fault_and_no_reason() -> None:
    """A source that answers 403 leaves posted errors standing, and no plan on them."""
    seen = accused(unmeasured="service level history: Prometheus (PROMETHEUS_URL) answered 403")
    assert diagnose(seen).best.cause is Cause.TELEMETRY_OUTAGE
    assert not plans(seen)
    assert "answered 403" in sentences(seen)
    assert plans(accused(sli=()))


def test_a_fault_of_telemetry_says_which_source_and_why() -> None:
    """Not that none of the services fell silent."""
    down = TelemetryHealth(
        known_services=3, silent_services=0, source_reachable=False, fault="Prometheus answered 403"
    )
    assert "Prometheus answered 403" in sentences(accused(telemetry=down))
    now = assess(replace(SEEN, telemetry=down), (Trigger.HIGH_ERROR_RATE,), RULES, TESTED)
    assert now.health is Health.UNKNOWN
    assert "Prometheus answered 403" in now.reasons[0]


def test_a_failed_measurement_is_not_health() -> None:
    """Not even where the pods are all ready and the trigger is of the cluster."""
    seen = replace(SEEN, sli=None, unmeasured="service levels: Prometheus answered 403")
    tested = replace(TESTED, baseline=None)
    for trigger in (Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP):
        assert assess(seen, (trigger,), RULES, tested).health is Health.UNKNOWN


# ---------------------------------------------------------------- a rollout under way


def test_an_unfinished_rollout_alone_is_not_unhealthy() -> None:
    """It is the normal course of a release, while what was reported is measured to be well."""
    rolling = replace(RUNNING, rollout_complete=False, updated_replicas=1, available_replicas=2)
    seen = replace(SEEN, workload=rolling)
    assert assess(seen, (Trigger.HIGH_ERROR_RATE,), RULES, None).health is Health.HEALTHY
    for trigger in (Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP):
        assert assess(seen, (trigger,), RULES, None).health is Health.UNHEALTHY
    assert assess(seen, (Trigger.HIGH_ERROR_RATE,), RULES, TESTED).health is Health.UNHEALTHY
    nothing = replace(seen, workload=replace(rolling, available_replicas=0))
    assert assess(nothing, (Trigger.HIGH_ERROR_RATE,), RULES, None).health is Health.UNHEALTHY


def test_the_thresholds_give_the_objectives_of_the_evidence() -> None:
    """One definition for intake, diagnosis and verification."""
    assert Objectives(max_error_rate=0.05, max_p95_latency_ms=1000, min_request_rate=0.2) == OBJECTIVES
