"""Single rules and findings: what raises a confidence, what lowers it, and the words that say so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.facts import PodFault, pod_fault
from app.agent.evidence.format import milliseconds, rate, relative, share
from app.agent.evidence.symptoms import (
    ERROR_RATE,
    LATENCY,
    TRAFFIC,
    onset,
    rise,
)
from app.agent.ids import ServiceKey
from app.agent.models import (
    ActionName,
    Alert,
    Cause,
    ChangeKind,
    ClusterCondition,
    Condition,
    ConfigChange,
    Deploy,
    DeployStatus,
    Evidence,
    Hypothesis,
    MetricSample,
    SliSample,
    Trigger,
)
from app.agent.workload import RevisionHealth
from app.durations import span
from tests.unit.scenes import (
    CALLER,
    CRASH,
    DATABASE,
    DAY,
    NEW,
    OLD,
    OPENED,
    at,
    change,
    config_map,
    config_record,
    crashing,
    curves,
    evidence,
    flat,
    pods,
    pulling,
    record,
    released,
    revision,
    signal,
    step,
    workload,
)

RISING = curves(errors=step(-2.5, 0.001, 0.13))
RELEASE = evidence(Trigger.HIGH_ERROR_RATE, workload=released(), sli=RISING)
"""Errors from half a minute after a release."""


def weighed(cause: Cause, seen: Evidence) -> Hypothesis:
    (found,) = [h for h in diagnose(seen).hypotheses if h.cause is cause]
    return found


def causes(seen: Evidence) -> set[Cause]:
    return {h.cause for h in diagnose(seen).hypotheses}


def against(seen: Evidence, cause: Cause = Cause.BAD_RELEASE) -> str:
    return "; ".join(weighed(cause, seen).evidence_against)


# ---------------------------------------------------------------- a release and its alibis


def test_a_release_is_blamed_in_figures_and_ages() -> None:
    """The person who reads it sees what, when and how much."""
    found = weighed(Cause.BAD_RELEASE, RELEASE)
    assert found.confidence >= 0.7
    assert "the release of revision 7 was 30 s before the incident started" in found.evidence_for
    assert "error rate went from 0.1% to 13.0% 30 s after it" in found.evidence_for
    assert found.evidence_against == ()


ALIBIS = {
    "a dependency in trouble": (
        {"other_open_incidents": (DATABASE,)},
        "ledger, a dependency, is unhealthy too",
    ),
    "a dependency that changed in between": (
        {"changes": (change(ChangeKind.DEPLOY, -2.7, key=DATABASE),)},
        "ledger, a dependency, changed 18 s after it",
    ),
    "a surge in between": (
        {
            "workload": released(created=-6),
            "sli": curves(errors=step(-2, 0.001, 0.1), requests=step(-4, 50, 120)),
        },
        "request rate went from 50.0 requests/s to 120.0 requests/s in between",
    ),
    "a flag switched in between": (
        {"workload": released(created=-6), "changes": (change(ChangeKind.FLAG, -3),)},
        "another change was 3 m after it, closer to the start of the incident: flag of checkout",
    ),
    "a ConfigMap changed in between": (
        {
            "workload": released(created=-6, config_maps=(config_map("new", -3),)),
            "config_history": (config_record("old"),),
        },
        "closer to the start of the incident: ConfigMap checkout-settings",
    ),
    "a while of serving well": (
        {
            "workload": released(created=-40),
            "revision_history": (record(OLD), record(revision(7, -40), seen=-20)),
        },
        "revision 7 was healthy for at least 20 m",
    ),
    "trouble that began long after it": (
        {"workload": released(created=-30)},
        "the incident started only 27 m 30 s after it",
    ),
    "trouble that began some time after it": (
        {"workload": released(created=-12)},
        "the incident started 9 m 30 s after it",
    ),
    "errors that were as many before": ({"sli": curves(errors=flat(0.13))}, "no difference"),
    "many services in trouble": (
        {"other_open_incidents": tuple(ServiceKey(environment="prod", service=f"s{n}") for n in range(3))},
        "3 other services are unhealthy at the same time",
    ),
    "the same remedy tried": (
        {"failed_actions": (ActionName.ROLLBACK,)},
        "rollback was tried on this incident and did not help",
    ),
    "an old template": (
        {"workload": workload([OLD, revision(5, -9 * DAY)], pods(OLD))},
        "had been active for",
    ),
}

PODS_THAT_CLEAR = {
    "pods that the cluster never created": (
        {"workload": released(pods(OLD))},
        "the cluster has not created a pod",
    ),
    "pods that cannot be scheduled": (
        {"workload": released((*pods(NEW, 1, ready=False, phase="Pending"), *pods(OLD)))},
        "1 of its pods cannot be scheduled",
    ),
    "pods on a lost node": (
        {"workload": released(pods(NEW, ready=False, phase="Unknown"))},
        "3 of its pods are on an unreachable node",
    ),
    "older pods that are unhealthy as well": (
        {"workload": released((*crashing(NEW, 1), *crashing(OLD, 2)))},
        "2 of 2 pods without it are unhealthy too",
    ),
    "pods with it that are well": (
        {"workload": released((*crashing(NEW, 1), *pods(NEW, 2)))},
        "2 of 3 pods with it are healthy and never restarted",
    ),
}


@pytest.mark.parametrize("name", ALIBIS)
def test_every_piece_of_counter_evidence_lowers_the_confidence_in_a_release_and_is_listed(name: str) -> None:
    """Another explanation for the same symptom, in words with figures."""
    changes, told = ALIBIS[name]
    seen = replace(RELEASE, **changes)  # type: ignore[arg-type]  # a row names real fields
    found = weighed(Cause.BAD_RELEASE, seen)
    assert told in "; ".join(found.evidence_against)
    assert found.confidence < weighed(Cause.BAD_RELEASE, RELEASE).confidence


@pytest.mark.parametrize("name", PODS_THAT_CLEAR)
def test_pods_can_clear_a_release_too(name: str) -> None:
    """Sick without it, well with it, or never given a chance to run."""
    changes, told = PODS_THAT_CLEAR[name]
    assert told in against(replace(RELEASE, **changes))  # type: ignore[arg-type]  # a row names real fields


def test_a_surge_that_the_service_bore_before_the_release_is_no_counter_evidence() -> None:
    """The release is what changed the outcome."""
    surge = curves(errors=step(-2.5, 0.001, 0.13), requests=step(-8, 50, 120))
    assert "request rate" not in against(replace(RELEASE, sli=surge))


def test_irreversible_outranks_bad_release_and_clears_it() -> None:
    """No rollback to code that cannot run against the migrated schema."""
    marked = workload([replace(NEW, irreversible=True), OLD], pods(NEW))
    seen = replace(RELEASE, workload=marked)
    assert weighed(Cause.BAD_RELEASE, seen).confidence < 0.2
    assert weighed(Cause.IRREVERSIBLE_RELEASE, seen).confidence > 0.7
    assert Cause.IRREVERSIBLE_RELEASE not in causes(RELEASE)


def test_a_release_that_failed_before_is_believed_sooner() -> None:
    """History counts, and makes even an old template a suspect again."""
    failed = replace(RELEASE, revision_history=(record(OLD), record(NEW, RevisionHealth.FAILED)))
    assert weighed(Cause.BAD_RELEASE, failed).confidence > weighed(Cause.BAD_RELEASE, RELEASE).confidence
    again = replace(failed, workload=released(created=-20 * DAY))
    assert "had been in force" not in against(again)


def test_a_release_that_replaced_a_failed_one_is_compared_with_the_last_good_one() -> None:
    """The failed revision in between is no reference: same code as the good one is a config change."""
    failed, good = revision(7, -20), OLD
    current = revision(8, -3, code_hash=good.code_hash, config_hash="config-new")
    seen = replace(
        RELEASE,
        workload=workload([current, failed, good], pods(current)),
        revision_history=(record(failed, RevisionHealth.FAILED), record(good)),
    )
    assert diagnose(seen).best.cause is Cause.BAD_CONFIG


def test_an_old_template_that_a_pipeline_deploys_again_is_as_new_as_the_deploy() -> None:
    """The ReplicaSet keeps its age; the deploy of its version is more exact."""
    again = replace(
        RELEASE,
        workload=released(created=-2 * DAY),
        changes=(change(ChangeKind.DEPLOY, -3, version="1.7.0"),),
    )
    assert diagnose(again).best.cause is Cause.BAD_RELEASE
    other = replace(again, changes=(change(ChangeKind.DEPLOY, -3, version="9.9.9"),))
    assert diagnose(other).best.cause is Cause.UNKNOWN


def test_breaches_without_history_weigh_less_than_a_visible_rise() -> None:
    """An alert alone is enough beside a release that the cluster confirms, and not more than that."""
    alert = Alert(name="HighErrorRate", firing=True, fingerprint="f", starts_at=at(-2), trigger=None)
    alone = replace(RELEASE, sli=(), signals=(signal(alert, -2),))
    assert (
        0.6 <= weighed(Cause.BAD_RELEASE, alone).confidence < weighed(Cause.BAD_RELEASE, RELEASE).confidence
    )
    assert "(alert without a value)" in "; ".join(weighed(Cause.BAD_RELEASE, alone).evidence_for)


def test_a_crash_loop_between_two_crashes_is_still_one() -> None:
    """The pods happen to run at the moment of looking; their restarts tell."""
    view = released(pods(NEW, restarts=4))
    seen = evidence(Trigger.CRASH_LOOP, conditions=CRASH, workload=view)
    assert "its pods restarted 12 times" in "; ".join(weighed(Cause.BAD_RELEASE, seen).evidence_for)


def test_an_image_that_cannot_be_had_speaks_against_a_change_of_configuration() -> None:
    """Configuration names no image: with the same code something else is wrong."""
    new = revision(7, -3, code_hash=OLD.code_hash, config_hash="config-new")
    seen = evidence(Trigger.DEPLOY_FAILED, workload=workload([new, OLD], (*pulling(new), *pods(OLD))))
    assert diagnose(seen).best.cause is Cause.UNKNOWN
    assert "cannot pull their image" in against(seen, Cause.BAD_CONFIG)


# ---------------------------------------------------------------- without a cluster

PUSHED = (
    signal(Deploy(version="1.15.0", status=DeployStatus.FAILED), -1, stale=True),
    signal(MetricSample(error_rate=0.13, p95_latency_ms=1450, crash_looping=True), 0, stale=True),
)
ALL = (Trigger.DEPLOY_FAILED, Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY, Trigger.CRASH_LOOP)


def unseen(*triggers: Trigger, **changes: object) -> Evidence:
    """Nothing but signals: no cluster, no metrics, no history."""
    plain = evidence(*triggers, workload=None, sli=(), revision_history=(), dependencies=())
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names real fields


@pytest.mark.parametrize("age", [0, 276 * DAY])
def test_two_pushed_events_alone_name_the_release_with_honest_doubt(age: float) -> None:
    """A failed deploy and a bad sample, of today or of last February."""
    told = tuple(replace(s, observed_at=s.observed_at - timedelta(minutes=age)) for s in PUSHED)
    seen = unseen(*ALL, conditions=CRASH, signals=told)
    best = diagnose(seen).best
    assert best.cause is Cause.BAD_RELEASE
    assert 0.6 <= best.confidence <= 0.8
    text = "; ".join((*best.evidence_for, *best.evidence_against))
    for part in (
        "the release of 1.15.0",
        "13.0%",
        "1450 ms",
        "failed deploy",
        "stale on arrival",
        "no workload",
    ):
        assert part in text


def test_a_failed_deploy_alone_is_weaker_than_with_symptoms() -> None:
    """Nothing confirms that the service is unhealthy."""
    alone = unseen(Trigger.DEPLOY_FAILED, signals=PUSHED[:1])
    both = unseen(*ALL, conditions=CRASH, signals=PUSHED)
    assert weighed(Cause.BAD_RELEASE, alone).confidence < weighed(Cause.BAD_RELEASE, both).confidence


def test_a_deploy_of_another_service_blames_no_change_here() -> None:
    """Only the service's own changes are suspects."""
    seen = unseen(Trigger.HIGH_ERROR_RATE, changes=(change(ChangeKind.DEPLOY, -1, key=CALLER),))
    assert causes(seen) == {Cause.UNKNOWN}


def test_the_end_of_a_deploy_may_be_reported_after_the_first_errors() -> None:
    """Only where its start is not known; long before is no excuse."""
    sample = signal(MetricSample(error_rate=0.2), -5)
    ended = signal(Deploy(version="2.0.0", status=DeployStatus.FAILED), -1)
    started = signal(Deploy(version="2.0.0", status=DeployStatus.STARTED), -1)

    told = unseen(Trigger.HIGH_ERROR_RATE, signals=(sample, ended))
    assert 0 < weighed(Cause.BAD_RELEASE, told).confidence < 0.5
    assert causes(unseen(Trigger.HIGH_ERROR_RATE, signals=(sample, started))) == {Cause.UNKNOWN}
    early = signal(MetricSample(error_rate=0.2), -30)
    assert causes(unseen(Trigger.HIGH_ERROR_RATE, signals=(early, ended))) == {Cause.UNKNOWN}


def test_an_irreversible_deploy_reported_by_the_pipeline_alone_is_never_a_bad_release() -> None:
    """Even the pushed event carries the mark."""
    told = (signal(Deploy(version="2.0.0", status=DeployStatus.FAILED, irreversible=True), -1), PUSHED[1])
    assert diagnose(unseen(*ALL, conditions=CRASH, signals=told)).best.cause is Cause.IRREVERSIBLE_RELEASE


def test_a_reported_change_of_configuration_is_a_candidate_without_a_cluster() -> None:
    """With memory kills it is a limit, else configuration; both stay doubtful."""
    told = (change(ChangeKind.CONFIG, -2),)
    errors = unseen(
        Trigger.HIGH_ERROR_RATE, changes=told, signals=(signal(MetricSample(error_rate=0.3), -1),)
    )
    assert weighed(Cause.BAD_CONFIG, errors).confidence < 0.6
    killed = unseen(Trigger.CRASH_LOOP, changes=told, conditions=(Condition.OOM_KILLED,))
    assert {Cause.RESOURCE_LIMIT, Cause.MEMORY_LEAK} <= causes(killed)


# ---------------------------------------------------------------- other causes


def test_a_leak_needs_age_and_nothing_changed() -> None:
    """Young templates, deploys, ConfigMaps and surges are counter-evidence; so is a restart without help."""
    kills = (*crashing(OLD, 1, reason="OOMKilled"), *pods(OLD, 2))
    leak = evidence(Trigger.CRASH_LOOP, workload=workload([OLD], kills))
    base = weighed(Cause.MEMORY_LEAK, leak)
    assert base.confidence >= 0.6
    assert "the same template had been running for 3 days" in base.evidence_for
    weaker: tuple[dict[str, object], ...] = (
        {"changes": (change(ChangeKind.DEPLOY, -5),)},
        {
            "workload": workload([OLD], kills, config_maps=(config_map("new", -5),)),
            "config_history": (config_record("old"),),
        },
        {"sli": curves(requests=step(-5, 50, 150))},
        {"failed_actions": (ActionName.RESTART,)},
        {"workload": released((*crashing(NEW, 1, reason="OOMKilled"), *pods(NEW, 2)))},
        {"workload": None, "conditions": (Condition.OOM_KILLED,)},
    )
    for changes in weaker:
        seen = replace(leak, **changes)  # type: ignore[arg-type]  # a row names real fields
        assert weighed(Cause.MEMORY_LEAK, seen).confidence < min(base.confidence, 0.6), changes


@pytest.mark.parametrize(
    ("restarts", "told"),
    [
        (0, "1 of 3 pods ran out of memory"),
        (1, "1 of 3 pods ran out of memory and restarted once"),
        (2, "1 of 3 pods ran out of memory and restarted up to 2 times"),
    ],
)
def test_restarts_after_a_kill_are_counted_in_plain_words(restarts: int, told: str) -> None:
    """One restart is `once`, and none is left out."""
    kills = (*crashing(OLD, 1, reason="OOMKilled", restarts=restarts), *pods(OLD, 2))
    leak = evidence(Trigger.CRASH_LOOP, workload=workload([OLD], kills))
    assert told in weighed(Cause.MEMORY_LEAK, leak).evidence_for


def test_an_old_kill_of_a_pod_that_runs_well_again_is_no_leak() -> None:
    """The last termination stays on the pod for days."""
    view = workload([OLD], pods(OLD, restarts=1, last_termination_reason="OOMKilled"))
    seen = evidence(Trigger.HIGH_ERROR_RATE, workload=view, sli=RISING)
    assert Cause.MEMORY_LEAK not in causes(seen)
    assert diagnose(seen).best.cause is Cause.UNKNOWN


SURGE = evidence(Trigger.HIGH_ERROR_RATE, sli=curves(requests=step(-5, 50, 180), errors=step(-3, 0.001, 0.1)))


def test_a_surge_must_come_first_and_be_the_only_thing_that_changed() -> None:
    """Errors first mean retries; changes, unhealthy pods and an unhealthy dependency are counter-evidence."""
    base = weighed(Cause.TRAFFIC_SURGE, SURGE)
    assert base.confidence >= 0.7
    assert "the load rose 2 m before the incident started" in base.evidence_for
    weaker: tuple[dict[str, object], ...] = (
        {"sli": curves(requests=step(-3, 50, 180), errors=step(-6, 0.001, 0.1))},
        {"sli": curves(requests=step(-30, 50, 180), errors=step(-3, 0.001, 0.1), since=-60)},
        {"sli": curves(requests=step(-5, 50, 180), errors=flat(0.1))},
        {"changes": (change(ChangeKind.SCALE, -4),)},
        {"other_open_incidents": (DATABASE,)},
        {"workload": workload([OLD], crashing(OLD))},
        {"failed_actions": (ActionName.SCALE,)},
    )
    for changes in weaker:
        seen = replace(SURGE, **changes)  # type: ignore[arg-type]  # a row names real fields
        assert weighed(Cause.TRAFFIC_SURGE, seen).confidence < 0.6, changes


def test_a_surge_within_the_objectives_is_no_cause() -> None:
    """Load is not an illness."""
    assert Cause.TRAFFIC_SURGE not in causes(replace(SURGE, triggers=(Trigger.CRASH_LOOP,)))


def test_a_dependency_that_changed_is_weaker_than_a_failing_one() -> None:
    """And nothing of it explains a failed deploy."""
    changed = evidence(
        Trigger.HIGH_ERROR_RATE, sli=RISING, changes=(change(ChangeKind.DEPLOY, -3, key=DATABASE),)
    )
    down = replace(changed, changes=(), other_open_incidents=(DATABASE,))
    assert weighed(Cause.DEPENDENCY_FAILURE, changed).confidence < 0.5
    assert weighed(Cause.DEPENDENCY_FAILURE, down).confidence >= 0.7
    assert Cause.DEPENDENCY_FAILURE not in causes(replace(down, triggers=(Trigger.DEPLOY_FAILED,)))
    own = replace(down, workload=released(crashing(NEW)), triggers=(Trigger.CRASH_LOOP,), conditions=CRASH)
    assert weighed(Cause.DEPENDENCY_FAILURE, own).confidence < 0.6


def test_an_image_that_cannot_be_had_is_no_dependencys_fault() -> None:
    """Fault at home, whatever else is going on."""
    seen = evidence(
        Trigger.DEPLOY_FAILED,
        Trigger.HIGH_ERROR_RATE,
        workload=released((*pulling(NEW), *pods(OLD))),
        sli=RISING,
        other_open_incidents=(DATABASE,),
    )
    assert diagnose(seen).best.cause is Cause.BAD_RELEASE


def test_unknown_hands_over_what_is_known() -> None:
    """The person who takes over reads the figures, the changes, the neighbours and what was tried."""
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        sli=RISING,
        conditions=(Condition.PROGRESS_DEADLINE_EXCEEDED,),
        changes=(change(ChangeKind.FLAG, -3), change(ChangeKind.DEPLOY, -9, key=CALLER)),
        other_open_incidents=(CALLER,),
        failed_actions=(ActionName.RESTART,),
        workload=workload([OLD], pods(OLD)),
    )
    best = diagnose(seen).best
    assert best.cause is Cause.UNKNOWN
    told = "; ".join(best.evidence_for)
    for part in (
        "error rate is above its objective; now 13.0%",
        "ProgressDeadlineExceeded",
        "flag of checkout",
        "storefront changed 6 m 30 s before the incident started",
        "the agent reverts only flags in a ConfigMap that the workload names",
        "storefront in prod",
        "restart",
    ):
        assert part in told, told


# ---------------------------------------------------------------- symptoms


def series(*values: float | None) -> Evidence:
    """Error rates, one each minute, the last one now."""
    samples = tuple(
        SliSample(at=at(index - len(values)), error_rate=value) for index, value in enumerate(values)
    )
    return evidence(Trigger.HIGH_ERROR_RATE, sli=samples)


def test_a_rise_is_found_where_it_began() -> None:
    """The two levels and the first sample of the higher one; gaps are skipped, not taken for zero."""
    found = rise(series(0.01, 0.012, None, 0.011, 0.2, None, 0.22, 0.21), ERROR_RATE)
    assert found is not None
    assert (found.at, found.base, found.level) == (at(-4), 0.011, 0.21)


@pytest.mark.parametrize(
    "values",
    [
        (),
        (0.2,),
        (None, None, None, None),
        (0.01, 0.2),
        (0.2, 0.2, 0.2, 0.2, 0.2),
        (0.2, 0.2, 0.01, 0.01),
        (0.01, 0.01, 0.5, 0.5, 0.5, 0.01, 0.01),
        (0.001, 0.001, 0.003, 0.003),
        (0.01, 0.01, float("nan"), float("inf")),
    ],
)
def test_no_rise_is_seen_where_there_is_none(values: tuple[float | None, ...]) -> None:
    """Too few samples, no change, a fall, a spike that is over, a trifle, or no numbers at all."""
    assert rise(series(*values), ERROR_RATE) is None


def test_each_indicator_has_its_own_rise() -> None:
    """Latency and traffic are judged by their own factors."""
    seen = evidence(sli=curves(p95=step(-3, 200, 320), requests=step(-3, 50, 70)))
    assert rise(seen, LATENCY) is not None
    assert rise(seen, TRAFFIC) is None


def test_the_onset_is_the_first_symptom_and_not_the_deploy() -> None:
    """Samples, firing alerts and conditions count; resolved ones and changes do not."""

    def firing(value: bool, minute: float) -> object:
        alert = Alert(name="a", firing=value, fingerprint="f", starts_at=OPENED, trigger=None)
        return signal(alert, minute)

    clear = signal(ClusterCondition(condition=Condition.OOM_KILLED, present=False, message=""), -9)
    there = signal(ClusterCondition(condition=Condition.OOM_KILLED, present=True, message=""), -4)
    deploy = signal(Deploy(version="1", status=DeployStatus.FAILED), -8)
    edited = signal(ConfigChange(summary="limits"), -7)
    assert onset(evidence(signals=(firing(False, -6), clear, deploy, edited, there, firing(True, -3)))) == at(
        -4
    )
    assert onset(evidence(signals=(deploy, edited))) == at(-8)
    assert onset(evidence(signals=(edited,))) == OPENED


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({}, None),
        ({"ready": False}, PodFault.NOT_READY),
        ({"ready": False, "created_at": at(0)}, None),
        ({"ready": False, "phase": "Pending"}, PodFault.UNSCHEDULED),
        ({"ready": False, "phase": "Pending", "waiting_reason": "ContainerCreating"}, None),
        ({"ready": False, "phase": "Pending", "waiting_reason": "ErrImagePull"}, PodFault.IMAGE),
        ({"ready": False, "waiting_reason": "CreateContainerConfigError"}, PodFault.CONFIGURATION),
        ({"ready": False, "waiting_reason": "CrashLoopBackOff"}, PodFault.CRASH),
        ({"ready": False, "restarts": 2}, PodFault.CRASH),
        (
            {"ready": False, "restarts": 1, "last_termination_reason": "OOMKilled"},
            PodFault.OUT_OF_MEMORY,
        ),
        ({"ready": False, "phase": "Failed"}, None),
        ({"ready": False, "phase": "Unknown"}, PodFault.LOST),
    ],
)
def test_the_fault_of_a_pod(changes: dict[str, object], wanted: PodFault | None) -> None:
    """Waiting, termination, phase and age together say what is wrong, or that nothing is."""
    (plain,) = pods(OLD, 1)
    pod = replace(plain, **changes)  # type: ignore[arg-type]  # a row names real fields
    assert pod_fault(pod, at(0.3)) is wanted


# ---------------------------------------------------------------- words


def test_figures_are_spoken_with_their_units() -> None:
    """Small shares keep a digit, spans grow their unit, and signs become words."""
    assert [share(v) for v in (0, 0.004, 0.013, 0.13, 1)] == ["0.0%", "0.4%", "1.3%", "13.0%", "100.0%"]
    lengths = (45, 119, 130, 180, 200, 7199, 7200, 9000, 11_110, 86400 * 4, -130)
    assert [span(timedelta(seconds=s)) for s in lengths] == [
        "45 s",
        "1 m 59 s",
        "2 m 10 s",
        "3 m",
        "3 m 20 s",
        "1 h 59 m",
        "2 h",
        "2 h 30 m",
        "3 h 5 m",
        "4 days",
        "2 m 10 s",
    ]
    assert (milliseconds(1449.6), rate(12.54)) == ("1450 ms", "12.5 requests/s")
    assert relative(at(-3), OPENED) == "3 m before it"
    assert relative(at(3), OPENED, "the incident started") == "3 m after the incident started"
