"""Time order is causality: what changed at or after the onset is no evidence for itself."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.diagnosis import diagnose
from app.agent.evidence.symptoms import incident_onset
from app.agent.models import (
    Alert,
    Cause,
    Change,
    ChangeKind,
    ClusterCondition,
    Condition,
    Deploy,
    DeployStatus,
    Evidence,
    Hypothesis,
    MetricSample,
    Objectives,
    Signal,
    Trigger,
)
from tests.unit.scenes import (
    DATABASE,
    OLD,
    at,
    change,
    config_map,
    config_record,
    curves,
    evidence,
    pods,
    released,
    signal,
    step,
    workload,
)

OBJECTIVES = Objectives(max_error_rate=0.05, max_p95_latency_ms=1000)


def alert(minutes: float) -> Signal:
    fired = Alert(
        name="HighErrorRate",
        firing=True,
        fingerprint="f",
        starts_at=at(minutes),
        trigger=Trigger.HIGH_ERROR_RATE,
    )
    return signal(fired, minutes)


def deployed(version: str, minutes: float, status: DeployStatus = DeployStatus.SUCCEEDED) -> Change:
    summary = f"deploy of {version} {status}"
    return change(ChangeKind.DEPLOY, minutes, version=version, status=status, summary=summary)


def unseen(*triggers: Trigger, **changes: object) -> Evidence:
    """Nothing but signals and changes: no cluster, no metrics, no history."""
    plain = evidence(*triggers, workload=None, sli=(), revision_history=(), dependencies=())
    return replace(plain, objectives=OBJECTIVES, **changes)  # type: ignore[arg-type]  # a test names real fields


def named(seen: Evidence, cause: Cause) -> Hypothesis | None:
    return next((h for h in diagnose(seen).hypotheses if h.cause is cause), None)


def told(seen: Evidence) -> str:
    return "; ".join(finding for h in diagnose(seen).hypotheses for finding in h.evidence_for)


def test_a_release_that_is_reported_again_is_no_cause_of_what_came_after_the_repetition() -> None:
    """It has been in force for hours; reported for the first time then, it is a candidate."""
    repeated = deployed("1.15.0", -180)
    seen = unseen(
        Trigger.HIGH_ERROR_RATE,
        signals=(alert(-2), signal(Deploy(version="1.15.0", status=DeployStatus.SUCCEEDED), -1)),
        changes=(repeated,),
    )
    assert named(seen, Cause.BAD_RELEASE) is None
    first = named(replace(seen, changes=(deployed("1.15.0", -3),)), Cause.BAD_RELEASE)
    assert first is not None
    assert "the release of 1.15.0 was 1 m before the incident started" in first.evidence_for


def test_a_failed_deploy_alone_is_its_own_symptom_and_no_time_before_it() -> None:
    """The pipeline's word counts; that it came 0 s after itself does not."""
    failed = signal(Deploy(version="2", status=DeployStatus.FAILED), -1)
    found = named(unseen(Trigger.DEPLOY_FAILED, signals=(failed,)), Cause.BAD_RELEASE)
    assert found is not None
    assert found.evidence_for == ("the pipeline reported a failed deploy",)


def test_a_failed_deploy_whose_retry_succeeded_blames_no_change() -> None:
    """The failure is over: nothing is left that speaks for a bad release."""
    failed = signal(Deploy(version="2", status=DeployStatus.FAILED), -4)
    retried = signal(Deploy(version="2", status=DeployStatus.SUCCEEDED), -1)
    seen = unseen(Trigger.DEPLOY_FAILED, signals=(failed, retried))
    assert diagnose(seen).best.cause is Cause.UNKNOWN
    assert "deploy failed" not in told(seen)


def test_a_cancelled_deploy_is_no_release() -> None:
    """It did not finish: nothing is known to run that did not run before."""
    seen = unseen(
        Trigger.HIGH_ERROR_RATE,
        signals=(alert(-2),),
        changes=(deployed("2", -3, DeployStatus.CANCELLED),),
    )
    assert named(seen, Cause.BAD_RELEASE) is None


@pytest.mark.parametrize("minutes", [-2, -1.9, -1.5, -0.5])
def test_a_release_made_while_the_incident_is_open_hides_no_earlier_one(minutes: float) -> None:
    """The hotfix is not the cause of what came before it; the release before is the candidate."""
    seen = unseen(
        Trigger.HIGH_ERROR_RATE,
        signals=(alert(-2),),
        changes=(deployed("hotfix", minutes), deployed("1.15.0", -4)),
    )
    found = named(seen, Cause.BAD_RELEASE)
    assert found is not None
    assert "the release of 1.15.0" in found.evidence_for[0]
    alone = replace(seen, changes=seen.changes[:1])
    assert named(alone, Cause.BAD_RELEASE) is None


@pytest.mark.parametrize("minutes", [-2.5, -2.0, 0.0])
def test_nothing_speaks_for_a_change_in_the_cluster_at_or_after_the_onset(minutes: float) -> None:
    """Of the release, of a ConfigMap and of what the service calls alike."""
    risen = {"sli": curves(errors=step(-2.5, 0.001, 0.13))}
    release = evidence(Trigger.HIGH_ERROR_RATE, workload=released(created=minutes), **risen)
    assert named(release, Cause.BAD_RELEASE) is None
    config = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=workload([OLD], pods(OLD), config_maps=(config_map("new", minutes),)),
        config_history=(config_record("old"),),
        **risen,
    )
    assert named(config, Cause.BAD_CONFIG) is None
    called = evidence(
        Trigger.HIGH_ERROR_RATE, changes=(change(ChangeKind.DEPLOY, minutes, key=DATABASE),), **risen
    )
    assert named(called, Cause.DEPENDENCY_FAILURE) is None


def test_a_stuck_release_is_not_the_cause_of_errors_from_before_it() -> None:
    """Its pods crash, which is another matter: the errors came first, from the pods that serve."""
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=released(
            (*pods(OLD), *pods(replace(OLD, number=7, template_hash="template-7"), 1, ready=False)),
            created=-3,
        ),
        sli=curves(errors=step(-15, 0.001, 0.13)),
    )
    found = named(seen, Cause.BAD_RELEASE)
    assert found is None or found.confidence < 0.5


def test_the_onset_is_the_earliest_sign_of_the_symptom() -> None:
    """A breaching sample, an alert's start, a condition, a rise of the series: whichever came first."""
    condition = ClusterCondition(condition=Condition.CRASH_LOOP_BACK_OFF, present=True, message="1 of 3 pods")
    cleared = replace(condition, present=False)
    both = (Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP)
    sample = signal(MetricSample(error_rate=0.2), -3)
    assert incident_onset(unseen(*both, signals=(sample, alert(-2)))) == at(-3)
    assert incident_onset(unseen(*both, signals=(alert(-2), signal(condition, -4)))) == at(-4)
    well = signal(MetricSample(error_rate=0.001), -9)
    assert incident_onset(unseen(*both, signals=(well, signal(cleared, -8), alert(-2)))) == at(-2)
    series = replace(unseen(*both, signals=(alert(-2),)), sli=curves(errors=step(-3, 0.001, 0.2)))
    assert incident_onset(series) == at(-3)
    failed = signal(Deploy(version="2", status=DeployStatus.FAILED), -6)
    assert incident_onset(unseen(Trigger.DEPLOY_FAILED, *both, signals=(failed, alert(-2)))) == at(-2)
    assert incident_onset(unseen(Trigger.DEPLOY_FAILED, signals=(failed,))) == at(-6)


@given(
    onset=st.floats(-10, -1),
    after=st.floats(0, 9),
    status=st.sampled_from([DeployStatus.STARTED, DeployStatus.SUCCEEDED]),
    cluster=st.booleans(),
)
def test_no_finding_says_that_a_later_change_speaks_for_itself(
    onset: float, after: float, status: DeployStatus, cluster: bool
) -> None:
    """For any distance and any reporter: no cause is named for it."""
    late = min(onset + after, 0.0)
    seen = unseen(Trigger.HIGH_ERROR_RATE, signals=(alert(onset),), changes=(deployed("2", late, status),))
    if cluster:
        seen = replace(seen, workload=released(created=late))
    assert {h.cause for h in diagnose(seen).hypotheses} == {Cause.UNKNOWN}
