"""When a symptom began, beside the rollout of a change, other services and the load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.agent.actions import rollback
from app.agent.actions.spec import Resolved, Unmet
from app.agent.diagnosis import diagnose
from app.agent.evidence.onset.departure import departure
from app.agent.evidence.onset.patience import patience
from app.agent.ids import ServiceKey
from app.agent.models import (
    Cause,
    ChangeKind,
    DependencyLevels,
    Evidence,
    FailingBeside,
    Hypothesis,
    Objectives,
    SliSample,
    Trigger,
)
from app.agent.workload import PodView, RevisionHealth
from tests.unit.scenes import (
    CALLER,
    DATABASE,
    LIMITS,
    NEW,
    OLD,
    Curve,
    at,
    change,
    config_map,
    config_record,
    crashing,
    curves,
    evidence,
    pods,
    record,
    released,
    revision,
    step,
    workload,
)

OTHER = ServiceKey(environment="prod", service="letters")
GOALS = Objectives(max_error_rate=0.05, max_p95_latency_ms=1000.0, min_request_rate=0.0)


def measured(samples: Sequence[SliSample]) -> tuple[SliSample, ...]:
    return tuple(replace(one, measured=True) for one in samples)


def serving(since: float) -> tuple[PodView, ...]:
    """The pods of the release, ready since `since` (minutes)."""
    return pods(NEW, ready_changed_at=at(since))


def failing(rose: float, *, ready: float = -2.9, **changes: object) -> Evidence:
    """A release of minute -3 whose pods serve since `ready`, and errors from `rose` on."""
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=released(serving(ready)),
        sli=measured(curves(errors=step(rose, 0.001, 0.3))),
        objectives=GOALS,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]  # a test names real fields


def found(cause: Cause, seen: Evidence) -> Hypothesis | None:
    return next((h for h in diagnose(seen).hypotheses if h.cause is cause), None)


def confidence(cause: Cause, seen: Evidence) -> float:
    hypothesis = found(cause, seen)
    return 0.0 if hypothesis is None else hypothesis.confidence


def test_a_departure_lies_between_two_samples() -> None:
    """The first sample above the usual level, and the one before it."""
    left = departure(failing(-1.0))
    assert left is not None
    assert (left.after, left.by) == (at(-1.25), at(-1.0))


def test_the_windup_of_a_rate_over_a_window_is_part_of_the_symptom() -> None:
    """A rate that rises in steps departed at its first step, not in the middle."""
    ramp = {-1.5: 0.08, -1.25: 0.16, -1.0: 0.24}
    samples = curves(errors=lambda minute: ramp.get(minute, 0.3 if minute > -1.0 else 0.001))
    left = departure(failing(-1.5, sli=measured(samples)))
    assert left is not None
    assert left.by == at(-1.5)


@pytest.mark.parametrize(("rose", "cleared"), [(-2.75, False), (-2.0, True), (-1.0, True)])
def test_pods_that_served_well_clear_their_release(rose: float, *, cleared: bool) -> None:
    """A symptom that begins with the first pods is that of the release; one that begins later is not."""
    assert (confidence(Cause.BAD_RELEASE, failing(rose)) < 0.6) is cleared


def test_what_was_measured_before_a_change_is_not_its_effect() -> None:
    """Samples of the agent's own rise late, never early: new pods meet what was wrong before them."""
    triggers = (Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP)
    early, late = (
        found(Cause.BAD_RELEASE, failing(rose, workload=released(crashing(NEW)), triggers=triggers))
        for rose in (-3.25, -2.75)
    )
    assert early is not None
    assert late is not None
    assert early.confidence < 0.5 < late.confidence
    assert any("before the release" in one for one in early.evidence_against)


def test_pods_that_fail_outweigh_the_time() -> None:
    """A crash loop of new pods is evidence, however long after the rollout it begins."""
    seen = failing(-1.0, workload=released(crashing(NEW)), triggers=(Trigger.CRASH_LOOP,))
    assert confidence(Cause.BAD_RELEASE, seen) > 0.6


@pytest.mark.parametrize(
    ("errors", "p95", "cleared"), [(0.95, 90.0, True), (0.2, 90.0, False), (0.95, 2400.0, False)]
)
def test_what_fails_at_pods_without_a_release_is_not_its_effect(
    errors: float, p95: float, *, cleared: bool
) -> None:
    """Its pods never became ready, so that others serve; fewer pods explain few errors, or slow answers."""
    beside = released((*crashing(NEW), *pods(OLD, 3)))
    levels = measured(curves(errors=step(-2.5, 0.001, errors), p95=step(-2.5, 90.0, p95)))
    triggers = (Trigger.CRASH_LOOP, Trigger.HIGH_ERROR_RATE)
    seen = failing(-2.5, workload=beside, sli=levels, triggers=triggers)
    assert (confidence(Cause.BAD_RELEASE, seen) < 0.5) is cleared


@pytest.mark.parametrize(
    ("since", "unrelated", "weighs"), [(-2.5, True, True), (-2.5, False, False), (-20.0, True, False)]
)
def test_services_that_fail_together_have_a_cause_in_common(
    since: float, *, unrelated: bool, weighs: bool
) -> None:
    """Unless one calls the other, or they fail at different times."""
    beside = FailingBeside(key=OTHER, since=at(since), unrelated=unrelated)
    alone = confidence(Cause.BAD_RELEASE, failing(-2.75))
    assert (confidence(Cause.BAD_RELEASE, failing(-2.75, failing_beside=(beside,))) < alone) is weighs


def test_a_dependency_that_fails_weighs_without_an_open_incident() -> None:
    """An escalated incident is closed, and its service still fails."""
    beside = FailingBeside(key=DATABASE, since=at(-2.75), unrelated=False)
    seen = failing(-2.75, failing_beside=(beside,))
    assert confidence(Cause.BAD_RELEASE, seen) < 0.5
    assert confidence(Cause.DEPENDENCY_FAILURE, seen) >= 0.6


def test_a_release_that_calls_more_often_is_the_cause_of_a_failing_dependency() -> None:
    """The dependency gets four times its requests since the rollout, the service as many as before."""
    flood = measured(curves(errors=step(-2.75, 0.001, 0.7), requests=step(-2.75, 50.0, 200.0)))
    seen = failing(
        -2.75,
        failing_beside=(FailingBeside(key=DATABASE, since=at(-2.75), unrelated=False),),
        dependency_levels=(DependencyLevels(key=DATABASE, sli=flood, calls=()),),
    )
    assert confidence(Cause.BAD_RELEASE, seen) > 0.8
    assert confidence(Cause.DEPENDENCY_FAILURE, seen) < 0.5


def test_a_dependency_that_changed_itself_is_not_overloaded_by_its_caller() -> None:
    """Failed calls are repeated, so that a dependency that its own release broke gets more of them."""
    flood = measured(curves(errors=step(-2.75, 0.001, 0.7), requests=step(-2.75, 50.0, 90.0)))
    seen = failing(
        -2.75,
        failing_beside=(FailingBeside(key=DATABASE, since=at(-2.75), unrelated=False),),
        dependency_levels=(DependencyLevels(key=DATABASE, sli=flood, calls=()),),
        changes=(change(ChangeKind.DEPLOY, -3.2, key=DATABASE),),
    )
    assert confidence(Cause.BAD_RELEASE, seen) < 0.5
    assert confidence(Cause.DEPENDENCY_FAILURE, seen) >= 0.6


@pytest.mark.parametrize(
    ("earlier", "errors_between", "overloaded"),
    [(-4.75, 0.001, True), (-4.75, 0.2, False), (-4.0, 0.001, False)],
)
def test_a_dependency_that_served_well_after_its_own_release_is_overloaded(
    earlier: float, errors_between: float, *, overloaded: bool
) -> None:
    """It rolled out before its caller changed, and no measurement in between was outside the objectives."""

    def errors(minute: float) -> float:
        return 0.7 if minute >= -2.75 else errors_between if -4.0 <= minute < -3.5 else 0.001

    flood = measured(curves(errors=errors, requests=step(-2.75, 50.0, 200.0)))
    seen = failing(
        -2.75,
        failing_beside=(FailingBeside(key=DATABASE, since=at(-2.75), unrelated=False),),
        dependency_levels=(DependencyLevels(key=DATABASE, sli=flood, calls=()),),
        changes=(change(ChangeKind.DEPLOY, earlier, key=DATABASE),),
    )
    assert (confidence(Cause.BAD_RELEASE, seen) > 0.8) is overloaded
    assert (confidence(Cause.DEPENDENCY_FAILURE, seen) < 0.5) is overloaded


@pytest.mark.parametrize(("callers", "weighs"), [((), True), ((CALLER,), False)])
def test_load_that_rose_after_a_release_explains_slow_answers_too(
    callers: tuple[ServiceKey, ...], *, weighs: bool
) -> None:
    """Cold pods were slow first; unless a caller repeats what was too slow, the load is another cause."""
    slow = measured(curves(p95=step(-2.75, 90.0, 2400.0), requests=step(-1.5, 50.0, 160.0)))
    seen = failing(-2.75, triggers=(Trigger.HIGH_LATENCY,), sli=slow, callers=callers)
    assert (confidence(Cause.BAD_RELEASE, seen) < 0.5) is weighs


def growing(minute: float) -> float:
    """Traffic that grows for minutes before it is complete."""
    return 160.0 if minute >= -1.5 else 30.0 + 4.0 * max(0.0, minute + 12.0)


@pytest.mark.parametrize("requests", [step(-1.5, 90.0, 160.0), growing])
def test_traffic_that_is_no_surge_clears_no_release(requests: Curve) -> None:
    """It rose a little, or was rising before the release too."""
    slow = measured(curves(p95=step(-2.75, 90.0, 2400.0), requests=requests))
    seen = failing(-2.75, triggers=(Trigger.HIGH_LATENCY,), sli=slow, callers=())
    assert confidence(Cause.BAD_RELEASE, seen) >= 0.6


@pytest.mark.parametrize(
    ("changed", "started", "cleared"), [(-1.5, -60.0, False), (-6.0, -60.0, True), (-6.0, -2.0, False)]
)
def test_pods_that_ran_on_well_clear_a_config_map(changed: float, started: float, *, cleared: bool) -> None:
    """Running pods have read it after three minutes; a pod that started since reads it as it starts."""
    running = (*pods(OLD, 2, created_at=at(-60)), *pods(OLD, 1, created_at=at(started)))
    seen = failing(
        -1.0,
        workload=workload([OLD], running, config_maps=(config_map("new", changed),)),
        config_history=(config_record("old"),),
    )
    assert (confidence(Cause.BAD_CONFIG, seen) < 0.5) is cleared


@pytest.mark.parametrize(
    ("restarts", "ready", "cleared"), [(1, -2.0, False), (1, -50.0, True), (0, -2.0, True)]
)
def test_a_container_that_restarted_read_a_config_map_then(
    restarts: int, ready: float, *, cleared: bool
) -> None:
    """It starts in its old pod, with the present content in its environment."""
    again = pods(OLD, 1, created_at=at(-60), restarts=restarts, ready_changed_at=at(ready))
    running = (*pods(OLD, 2, created_at=at(-60)), *again)
    seen = failing(
        -1.0,
        workload=workload([OLD], running, config_maps=(config_map("new", -6.0),)),
        config_history=(config_record("old"),),
    )
    assert (confidence(Cause.BAD_CONFIG, seen) < 0.5) is cleared


SURGE = evidence(
    Trigger.HIGH_LATENCY,
    sli=measured(curves(p95=step(-2.0, 90.0, 2400.0), requests=step(-2.0, 50.0, 160.0))),
    objectives=GOALS,
)
"""Load and latency rise within one sample."""


def test_a_load_that_rises_with_the_symptom_is_a_surge() -> None:
    """Neither came first, as far as samples show; errors that came first are counter-evidence."""
    assert confidence(Cause.TRAFFIC_SURGE, SURGE) >= 0.6
    late = measured(curves(p95=step(-2.0, 90.0, 2400.0), requests=step(-1.5, 50.0, 160.0)))
    assert confidence(Cause.TRAFFIC_SURGE, replace(SURGE, sli=late)) < 0.5


def test_a_surge_that_takes_others_with_it_is_not_scaled() -> None:
    """More replicas add load to what the services share, such as a database."""
    beside = FailingBeside(key=OTHER, since=at(-2.0), unrelated=True)
    assert confidence(Cause.TRAFFIC_SURGE, replace(SURGE, failing_beside=(beside,))) < 0.5


def test_errors_that_rise_with_the_load_may_be_repeated_by_callers() -> None:
    """Replicas do not answer repeated calls of a service that fails for another reason."""
    both = measured(curves(errors=step(-2.0, 0.001, 0.4), requests=step(-2.0, 50.0, 160.0)))
    seen = replace(SURGE, triggers=(Trigger.HIGH_ERROR_RATE,), sli=both)
    assert confidence(Cause.TRAFFIC_SURGE, seen) >= 0.6
    assert confidence(Cause.TRAFFIC_SURGE, replace(seen, callers=(CALLER,))) < 0.5


def test_a_load_that_a_change_of_a_caller_brought_is_no_surge() -> None:
    """More replicas would serve calls that should not be made."""
    by_caller = change(ChangeKind.DEPLOY, -2.3, key=CALLER)
    seen = replace(SURGE, callers=(CALLER,), changes=(by_caller,))
    assert confidence(Cause.TRAFFIC_SURGE, seen) < 0.5


def test_a_release_that_did_not_correct_a_bad_one_is_rolled_back_with_it() -> None:
    """The symptom began with the revision before; the target lies before both."""
    first, second = revision(7, -3), revision(8, -2)
    seen = failing(-2.75, workload=workload([second, first, OLD], pods(second, ready_changed_at=at(-1.9))))
    best = diagnose(seen).best
    assert best.cause is Cause.BAD_RELEASE
    assert "did not correct" in best.evidence_for[0]
    target = rollback.resolve({"to": "previous_healthy"}, seen, LIMITS)
    assert isinstance(target, Resolved)
    assert target.parameters == {"revision": OLD.number}


def test_a_bad_release_that_another_corrected_is_not_called_uncorrected() -> None:
    """Bad, good, bad again: the symptom had ended in between, and is rolled back as before."""
    bad, good, newest = revision(7, -15), revision(8, -9), revision(9, -3)

    def errors(minute: float) -> float:
        return 0.3 if -14.75 <= minute < -8.75 or minute >= -2.75 else 0.001

    seen = failing(
        -2.75,
        workload=workload([newest, good, bad, OLD], pods(newest, ready_changed_at=at(-2.9))),
        sli=measured(curves(errors=errors)),
    )
    best = diagnose(seen).best
    assert best.cause is Cause.BAD_RELEASE
    assert "the release of revision 7, whose symptom returned with revision 9," in best.evidence_for[0]
    lasting = replace(seen, sli=measured(curves(errors=step(-14.75, 0.001, 0.3))))
    assert "which revision 9 did not correct" in diagnose(lasting).best.evidence_for[0]


def test_the_revision_that_served_when_the_symptom_began_is_no_target() -> None:
    """Its pods still serve beside the newest ones, and it has no record of serving well."""
    first, second = revision(7, -3), revision(8, -2)
    both = (*pods(second, 2, ready_changed_at=at(-1.9)), *pods(first, 1, ready_changed_at=at(-2.9)))
    seen = failing(-2.75, workload=workload([second, first], both), revision_history=())
    target = rollback.resolve({"to": "previous_healthy"}, seen, LIMITS)
    assert isinstance(target, Unmet)
    assert "served when the symptom began" in target.reason


def waits_for(seen: Evidence) -> str | None:
    wait = patience(seen, diagnose(seen))
    return None if wait is None else wait.waits_for


def test_a_lasting_symptom_is_decided() -> None:
    """Two minutes of errors are long enough."""
    assert waits_for(failing(-2.75)) is None


def test_what_has_just_begun_is_given_time() -> None:
    """A percentile over a window longer than an error rate."""
    assert waits_for(failing(-0.5)) == "duration"
    assert waits_for(failing(-1.25)) is None
    slow = measured(curves(p95=step(-1.25, 90.0, 2400.0)))
    assert waits_for(failing(-1.25, triggers=(Trigger.HIGH_LATENCY,), sli=slow)) == "duration"


def test_a_symptom_that_falls_is_given_time_but_not_for_ever() -> None:
    """The window of a measurement stretches a short breach, falling at its end."""
    falls = {-0.5: 0.3, -0.25: 0.2, 0.0: 0.1}
    samples = measured(curves(errors=lambda minute: falls.get(minute, 0.4 if minute >= -2 else 0.001)))
    seen = failing(-2.0, ready=-60.0, sli=samples)
    assert waits_for(seen) == "falling"
    assert waits_for(replace(seen, opened_at=at(-5))) is None


def test_a_symptom_that_ended_and_returns_is_as_old_as_its_return() -> None:
    """Errors that new pods showed while their caches were cold say nothing about those of a later spike."""
    waves = curves(errors=lambda minute: 0.2 if -15 <= minute <= -2 or minute >= -0.5 else 0.001)
    seen = failing(-15.0, ready=-15.1, sli=measured(waves), opened_at=at(-8))
    assert waits_for(seen) == "duration"
    assert waits_for(replace(seen, at=at(1.0))) is None
    assert waits_for(replace(seen, opened_at=at(-14))) is None


def test_cold_caches_are_given_time() -> None:
    """Slow answers since new pods serve; not where most requests fail, and not after three minutes."""
    slow = measured(curves(p95=step(-2.25, 90.0, 2400.0), errors=step(-2.25, 0.001, 0.3)))
    triggers = (Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY)
    seen = failing(-2.25, ready=-2.25, triggers=triggers, sli=slow)
    assert waits_for(seen) == "warm-up"
    assert waits_for(replace(seen, at=at(1.0))) is None
    broken = measured(curves(p95=step(-2.25, 90.0, 2400.0), errors=step(-2.25, 0.001, 0.95)))
    assert waits_for(replace(seen, sli=broken)) is None


def test_no_wait_is_renewed_for_ever() -> None:
    """Pods that are replaced again and again, or a symptom that begins again, are decided in the end."""
    slow = measured(curves(p95=step(-2.25, 90.0, 2400.0), errors=step(-2.25, 0.001, 0.3)))
    triggers = (Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY)
    cold = failing(-2.25, ready=-2.25, triggers=triggers, sli=slow)
    for seen, wait in ((cold, "warm-up"), (failing(-0.5), "duration")):
        assert waits_for(replace(seen, opened_at=at(-9))) == wait
        assert waits_for(replace(seen, opened_at=at(-11))) is None


def test_pods_that_fail_are_not_waited_for() -> None:
    """Their conditions have their own times."""
    seen = failing(-0.5, workload=released(crashing(NEW)), triggers=(Trigger.CRASH_LOOP,))
    assert waits_for(seen) is None


def test_a_proved_target_is_not_held_against_its_age() -> None:
    """A record of serving well outweighs that it ran when the symptom began."""
    seen = failing(-3.5, revision_history=(record(OLD, RevisionHealth.SERVED_WELL),))
    assert isinstance(rollback.resolve({"to": "previous_healthy"}, seen, LIMITS), Resolved)
