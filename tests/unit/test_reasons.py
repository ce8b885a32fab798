"""What stands as a reason for an action: what was reported, withdrawn, seen and measured (promise 13)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.freshness.all_clear import (
    NAMES_SAID,
    all_withdrawn,
    firing_alerts,
    firing_clauses,
    firing_words,
    unknown_alerts,
    unknown_words,
)
from app.agent.freshness.memory import (
    ALERTS_KEPT,
    CLUSTERS_KEPT,
    MERGED_KEPT,
    REASONS_KEPT,
    newly_merged,
)
from app.agent.freshness.own_look import examined
from app.agent.freshness.reasons import (
    MergedAlerts,
    Reason,
    ReasonKind,
    Reasons,
    Withdrawal,
    of_cluster,
)
from app.agent.freshness.reports import from_signals, remember_condition, remember_signal, repeated
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import (
    BURN_ALERT,
    POLLED,
    WATCHED,
    Alert,
    ClusterCondition,
    Condition,
    Deploy,
    DeployStatus,
    Incident,
    IncidentState,
    MetricSample,
    Observation,
    Payload,
    Signal,
    SliSample,
    TelemetryHealth,
    Trigger,
)
from app.agent.observer import NO_CLUSTER
from app.agent.slo import SloThresholds
from app.agent.verification.assessment import Assessment, Health, with_reports
from app.store.database.codec import dumps
from tests.unit.scenes import NEW, OLD, at, crashing, pods, workload

SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(minutes=1),
    reopen_after=timedelta(hours=1),
)
KEY = ServiceKey(environment="prod", service="shop")
NOW = at(0)
AGE = timedelta(minutes=5)
ALL = tuple(Trigger)
RUNNING = workload([OLD], pods(OLD))
UNSEEN = Observation(at=NOW, sli=None, workload=None)
FIRING = Alert(
    name="HighErrorRate", firing=True, fingerprint="f1", starts_at=NOW, trigger=Trigger.HIGH_ERROR_RATE
)


def told(payload: Payload, minutes: float = 0, source: str = "http") -> Signal:
    """A signal that arrives so many minutes after now."""
    when = NOW + timedelta(minutes=minutes)
    return new_signal(
        key=KEY,
        source=source,
        observed_at=when,
        received_at=when,
        payload=payload,
        stale_after=timedelta.max,
    )


def standing(
    *signals: Signal, seen: Observation = UNSEEN, minutes: float = 0, triggers: tuple[Trigger, ...] = ALL
) -> list[str]:
    """What stands so many minutes after now, in words."""
    now = NOW + timedelta(minutes=minutes)
    found = examined(from_signals(signals, SLO), triggers, replace(seen, at=now), SLO)
    return [one.said for one in Reasons(found=found, max_age=AGE, clock=lambda: now).standing()]


def refusal(*signals: Signal, seen: Observation = UNSEEN, minutes: float = 0) -> str | None:
    now = NOW + timedelta(minutes=minutes)
    found = examined(from_signals(signals, SLO), ALL, replace(seen, at=now), SLO)
    return Reasons(found=found, max_age=AGE, clock=lambda: now).refusal()


REPORTS: list[tuple[Payload, Payload | None]] = [
    (FIRING, replace(FIRING, firing=False)),
    (MetricSample(error_rate=0.4), MetricSample(error_rate=0.01)),
    (MetricSample(p95_latency_ms=4000), MetricSample(p95_latency_ms=100)),
    (MetricSample(crash_looping=True), MetricSample(crash_looping=False)),
    (
        Deploy(version="2", status=DeployStatus.FAILED),
        Deploy(version="2", status=DeployStatus.SUCCEEDED),
    ),
    (
        ClusterCondition(condition=Condition.OOM_KILLED, present=True, message=""),
        ClusterCondition(condition=Condition.OOM_KILLED, present=False, message=""),
    ),
]


@pytest.mark.parametrize(("report", "end"), REPORTS)
def test_a_report_stands_until_it_is_old_or_withdrawn(report: Payload, end: Payload) -> None:
    """For five minutes, and not after its end, in whatever order a late report comes."""
    assert len(standing(told(report), minutes=5)) == 1
    assert standing(told(report), minutes=5.1) == []
    assert standing(told(report), told(end, 1), minutes=1) == []
    assert len(standing(told(report), told(end, 1), told(_anew(report), 2), minutes=2)) == 1


def _anew(report: Payload) -> Payload:
    return replace(report, starts_at=NOW + timedelta(minutes=2)) if isinstance(report, Alert) else report


@pytest.mark.parametrize(("report", "end"), REPORTS[1:])
def test_a_late_report_from_before_its_end_says_nothing(report: Payload, end: Payload) -> None:
    """It was over by then."""
    assert standing(told(report), told(end, 2), told(report, 1), minutes=2) == []


def test_a_clock_that_is_set_back_makes_nothing_fresh() -> None:
    """What seems to come from far in the future is as unusable as what is old."""
    assert standing(told(FIRING), minutes=-60) == []


# ------------------------------------------------------------ the agent's own look


@pytest.mark.parametrize("measured", [0.001, 0.05])
def test_an_own_measurement_within_the_objective_speaks_against_every_report(measured: float) -> None:
    """Alert and samples alike; what rests on something else stands."""
    seen = replace(UNSEEN, sli=SliSample(at=NOW, error_rate=measured, measured=True))
    crash = told(MetricSample(crash_looping=True))
    found = standing(told(FIRING), told(MetricSample(error_rate=0.4)), crash, seen=seen)
    assert found == ["CrashLoopBackOff, reported by http"]
    assert f"the measured error rate of {measured:.1%} contradicts the alert HighErrorRate" in str(
        refusal(told(FIRING), seen=seen)
    )


@pytest.mark.parametrize(
    ("measured", "rate", "found"),
    [
        (0.01, 50.0, []),
        (None, None, []),
        (0.4, 1.0, []),  # too few requests
        (0.4, 50.0, ["the measured error rate of 40.0%"]),
    ],
)
def test_an_alert_of_the_agents_own_is_never_a_reason(
    measured: float | None, rate: float | None, found: list[str]
) -> None:
    """It is made of the same measurements, within the objective: a gap in them confirms nothing."""
    own = told(replace(FIRING, name=BURN_ALERT), source=POLLED)
    sli = SliSample(at=NOW, error_rate=measured, request_rate=rate, measured=True)
    known = examined(
        from_signals([own], SLO), ALL, replace(UNSEEN, sli=sli), replace(SLO, min_request_rate=10.0)
    )
    assert [one.said for one in Reasons(found=known, max_age=AGE, clock=lambda: NOW).standing()] == found


def test_an_own_measurement_above_the_objective_is_a_reason_of_its_own() -> None:
    """With the age of the series' newest sample; a posted sample is none of the agent's."""
    seen = replace(UNSEEN, sli=SliSample(at=NOW, error_rate=0.4, measured=True))
    assert standing(seen=seen) == ["the measured error rate of 40.0%"]
    assert standing(seen=replace(seen, sli=SliSample(at=NOW, error_rate=0.4))) == []
    old = SliSample(at=NOW - timedelta(hours=5), error_rate=0.4, measured=True)
    assert standing(seen=replace(seen, sli=old)) == []


@pytest.mark.parametrize(
    "seen",
    [
        replace(UNSEEN, unmeasured="service levels: 403"),
        replace(
            UNSEEN,
            telemetry=TelemetryHealth(known_services=0, silent_services=0, source_reachable=False),
        ),
        replace(
            UNSEEN, telemetry=TelemetryHealth(known_services=4, silent_services=3, source_reachable=True)
        ),
    ],
    ids=["refused", "unreachable", "silent"],
)
def test_failing_to_measure_leaves_no_reason_of_a_level(seen: Observation) -> None:
    """Neither the alert nor samples, the poller's earlier ones included; a condition seen now stands."""
    polled = told(MetricSample(error_rate=0.4), source=POLLED)
    assert standing(told(FIRING), polled, seen=seen) == []
    sick = workload([OLD], crashing(OLD))
    assert standing(told(FIRING), seen=replace(seen, workload=sick)) != []


def test_a_whole_workload_speaks_against_a_reported_crash_loop_and_failed_deploy() -> None:
    """Rolled out, available, no condition; an unfinished rollout does not."""
    reports = (
        told(MetricSample(crash_looping=True)),
        told(Deploy(version="2", status=DeployStatus.FAILED)),
        told(ClusterCondition(condition=Condition.OOM_KILLED, present=True, message=""), source=WATCHED),
    )
    assert standing(*reports, seen=replace(UNSEEN, workload=RUNNING)) == []
    assert (
        len(standing(*reports, seen=replace(UNSEEN, workload=replace(RUNNING, rollout_complete=False)))) == 3
    )
    assert standing(told(FIRING), seen=replace(UNSEEN, workload=RUNNING)) != []


def test_an_unfinished_rollout_keeps_its_failed_deploy_fresh_and_no_other() -> None:
    """The rollout that began after the report is another one."""
    failed = told(Deploy(version="2", status=DeployStatus.FAILED))
    stuck = replace(workload([NEW, OLD], pods(OLD)), rollout_complete=False)
    same = replace(stuck, revisions=(replace(stuck.revisions[0], created_at=NOW), *stuck.revisions[1:]))
    later = replace(
        stuck,
        revisions=(replace(stuck.revisions[0], created_at=NOW + timedelta(minutes=5)), *stuck.revisions[1:]),
    )
    assert standing(failed, seen=replace(UNSEEN, workload=same), minutes=60) != []
    assert standing(failed, seen=replace(UNSEEN, workload=later), minutes=60) == []
    assert standing(seen=replace(UNSEEN, workload=same)) == []


def test_only_what_the_incident_is_about_counts() -> None:
    """Another symptom of the same service is another reason, and has to be reported."""
    assert standing(told(FIRING), triggers=(Trigger.CRASH_LOOP,)) == []


# ------------------------------------------------------------ what was reported meanwhile


@pytest.mark.parametrize(("report", "end"), REPORTS)
def test_what_was_withdrawn_since_the_look_refuses(report: Payload, end: Payload) -> None:
    """As in the transaction that begins an action."""
    known = from_signals([told(report)], SLO)
    reasons = Reasons(found=known, max_age=AGE, clock=lambda: NOW + timedelta(minutes=1))
    assert reasons.refusal(known) is None
    assert reasons.refusal(from_signals([told(report), told(end, 1)], SLO)) is not None


def test_the_pollers_newer_measurement_refuses_a_reported_alert() -> None:
    """It spoke of the same symptom after the agent had looked."""
    known = from_signals([told(FIRING)], SLO)
    reasons = Reasons(found=known, max_age=AGE, clock=lambda: NOW + timedelta(minutes=1))
    polled = [
        told(MetricSample(error_rate=0.4), 0.2, source=POLLED),
        told(MetricSample(error_rate=0.001), 0.5, source=POLLED),
    ]
    assert "prometheus measured the error rate of 0.1%" in str(reasons.refusal(from_signals(polled, SLO)))


@dataclass(frozen=True)
class Meanwhile:
    """What is reported between the look and the transaction, about one alert or about another one."""

    number: int
    event: str


@given(
    count=st.integers(1, ALERTS_KEPT + 8),
    meanwhile=st.lists(
        st.builds(
            Meanwhile,
            st.integers(0, 2 * ALERTS_KEPT),
            st.sampled_from(["resolves", "suppressed", "fires", "storm", "all resolve"]),
        ),
        max_size=12,
    ),
    report=st.sampled_from([None, *REPORTS[1:]]),
)
def test_an_action_begins_only_on_what_the_store_still_has_as_standing(
    count: int, meanwhile: list[Meanwhile], report: tuple[Payload, Payload] | None
) -> None:
    """However many alerts were reported and ended meanwhile, and whatever they pushed off the record."""
    known = from_signals([told(report[0])] if report else [], SLO)
    alerts = [replace(FIRING, name=f"A{n}", fingerprint=f"f{n}") for n in range(3 * ALERTS_KEPT)]
    for one in alerts[:count]:
        known = remember_signal(known, told(one))
    looked = Reasons(found=known, max_age=AGE, clock=lambda: NOW + timedelta(minutes=1))
    minutes = 0.1
    for step in meanwhile:
        storm = alerts[step.number : step.number + 40]
        concerned = {"storm": storm, "all resolve": alerts[:count]}.get(step.event, storm[:1])
        for one in concerned:
            minutes += 0.0001
            firing, suppressed = "resolve" not in step.event, step.event == "suppressed"
            known = remember_signal(known, told(replace(one, firing=firing, suppressed=suppressed), minutes))
        if step.event == "all resolve" and report is not None:
            for ended in from_signals([told(report[0]), told(report[1], minutes)], SLO):
                known = (*(one for one in known if one.subject != ended.subject), ended)
    still = {one.subject for one in known if one.withdrawn is None}
    stand = [one for one in looked.found if one.subject in still and one.withdrawn is None]
    assert (looked.refusal(known) is None) is bool(stand)


@pytest.mark.parametrize("count", [1, 32, 33, 40, ALERTS_KEPT])
@pytest.mark.parametrize("end", ["firing", "suppressed"])
def test_no_action_begins_once_every_alert_ended(count: int, end: str) -> None:
    """The record keeps 32 reasons: of more alerts that ended it keeps less than all that is known."""
    alerts = [replace(FIRING, fingerprint=f"f{number}") for number in range(count)]
    known: tuple[Reason, ...] = ()
    for one in alerts:
        known = remember_signal(known, told(one))
    looked = Reasons(found=known, max_age=AGE, clock=lambda: NOW + timedelta(minutes=1))
    assert looked.refusal(known) is None
    for one in alerts:
        over = replace(one, firing=end != "firing", suppressed=end == "suppressed")
        known = remember_signal(known, told(over, 0.1))
    for number in range(100, 180 if end == "suppressed" else 100):
        other = replace(FIRING, fingerprint=f"f{number}")
        known = remember_signal(known, told(other, 0.2))
        known = remember_signal(known, told(replace(other, firing=False), 0.3))
    assert looked.refusal(known) is not None


@pytest.mark.parametrize(("report", "end"), REPORTS)
def test_a_reason_of_any_kind_that_left_the_record_does_not_stand(report: Payload, end: Payload) -> None:
    """It was on record at the look; why it is not any more, the transaction cannot know."""
    known = from_signals([told(report)], SLO)
    clock = NOW + timedelta(minutes=1)
    assert "no longer on record" in str(Reasons(found=known, max_age=AGE, clock=lambda: clock).refusal(()))
    own = Reasons(
        found=known, max_age=AGE, clock=lambda: clock, unrecorded=frozenset(one.subject for one in known)
    )
    assert own.refusal(()) is None, "what the agent saw itself was never on record"


# ------------------------------------------------------------ alerts reported again


def test_an_alert_fires_again_with_the_second_repeat_that_is_no_copy() -> None:
    """The first firing delivery after the resolution may be late; a retry follows at once, a repeat later."""
    known = from_signals([told(FIRING), told(replace(FIRING, firing=False), 1)], SLO)
    again = []
    for minutes in (2.0, 2.1, 2.2, 3.0):
        known, fires = repeated(known, told(FIRING, minutes))
        again.append(fires)
    assert again == [False, False, False, True]
    known, _ = repeated(known, told(replace(FIRING, firing=False), 4))
    assert all(one.withdrawn is not None for one in known)


def test_an_alert_that_was_resolved_or_forgotten_keeps_nothing_open() -> None:
    """An end that was lost does not hold every later incident for ever."""
    known = from_signals([told(FIRING)], SLO)
    assert [one.said for one in firing_alerts(known, ALL, NOW)] == ["the alert HighErrorRate"]
    assert firing_alerts(known, ALL, NOW + timedelta(days=2)) == ()
    assert firing_alerts(known, (Trigger.CRASH_LOOP,), NOW) == ()
    over = remember_signal(known, told(replace(FIRING, firing=False), 1))
    assert firing_alerts(over, ALL, NOW) == ()
    assert all_withdrawn(over, (Trigger.HIGH_ERROR_RATE,))
    assert not all_withdrawn(over, (Trigger.HIGH_ERROR_RATE, Trigger.CRASH_LOOP))


def test_the_oldest_alert_that_fires_is_remembered_beside_many_others() -> None:
    """The others resolve: the first one still stands, and the service has not recovered."""
    fired = [
        replace(FIRING, name=f"A{number}", fingerprint=f"f{number}") for number in range(2 * REASONS_KEPT)
    ]
    known = from_signals([told(one, number / 100) for number, one in enumerate(fired)], SLO)
    for one in fired[1:]:
        known = remember_signal(known, told(replace(one, firing=False), 2))
    assert [one.said for one in firing_alerts(known, ALL, NOW)] == ["the alert A0"]
    assert those_standing(known) == ["the alert A0"]


def test_alerts_beyond_the_bound_are_no_reason_until_they_are_resolved() -> None:
    """Remembered in short: neither acted on nor forgotten, and over as soon as each of them is resolved."""
    fired = [replace(FIRING, fingerprint=f"f{number}") for number in range(ALERTS_KEPT + 6)]
    known = from_signals([told(one, number / 100) for number, one in enumerate(fired)], SLO)
    assert newly_merged((), known, NOW) == {Trigger.HIGH_ERROR_RATE}
    assert len(those_standing(known)) == ALERTS_KEPT
    for one in fired[6:]:
        known = remember_signal(known, told(replace(one, firing=False), 2))
    assert those_standing(known) == []
    assert said(known) == [
        "6 further alerts were reported firing and not as resolved, last reported at 12:00:03 UTC"
    ]
    assert not all_withdrawn(known, (Trigger.HIGH_ERROR_RATE,))
    assert firing_alerts(known, ALL, NOW + timedelta(days=2)) == ()
    for one in fired[:6]:
        known = remember_signal(known, told(replace(one, firing=False), 2))
    assert said(known) == []
    assert all_withdrawn(known, (Trigger.HIGH_ERROR_RATE,))


def test_a_merged_alert_that_is_repeated_is_a_reason_again() -> None:
    """It is among the newest then; a late copy of a resolved one is none, however many were resolved."""
    fired = [replace(FIRING, fingerprint=f"f{number}") for number in range(ALERTS_KEPT + 6)]
    known = from_signals([told(one, number / 100) for number, one in enumerate(fired)], SLO)
    for one in fired[1:]:
        known = remember_signal(known, told(replace(one, firing=False), 2))
    known, again = repeated(known, told(fired[0], 3))
    assert not again
    assert [one.last_true_at for one in firing_alerts(known, ALL, NOW)] == [NOW + timedelta(minutes=3)]
    for one in fired[1:]:
        known, again = repeated(known, told(one, 3))
        assert not again
    assert [one.said for one in firing_alerts(known, ALL, NOW)] == ["the alert HighErrorRate"]
    known, again = repeated(known, told(fired[1], 4))
    assert again
    assert len(those_standing(known)) == 2


def test_alerts_beyond_both_bounds_are_a_number_that_ends() -> None:
    """With their resolutions, with the incident, and after an hour; they are never called firing."""
    most = ALERTS_KEPT + MERGED_KEPT
    fired = [replace(FIRING, fingerprint=f"f{number}") for number in range(5_000)]
    known: tuple[Reason, ...] = ()
    for number, one in enumerate(fired):
        known = remember_signal(known, told(one, number / 1000))
    assert len(known) == ALERTS_KEPT + 1
    assert len(dumps(known)) < 100_000
    (unknown,) = unknown_alerts(known, ALL, NOW, at(5))
    assert unknown_words(unknown, at(5)) == (
        f"{5_000 - most} further alerts, state unknown, last reported at 12:04:25 UTC"
    )
    assert unknown_alerts(known, ALL, at(6), at(6)) == ()
    assert unknown_alerts(known, ALL, NOW, at(65)) == ()
    assert unknown_alerts(known, (Trigger.CRASH_LOOP,), NOW, at(5)) == ()
    for one in reversed(fired):
        known = remember_signal(known, told(replace(one, firing=False), 6))
        assert len(known) <= ALERTS_KEPT + REASONS_KEPT
    assert unknown_alerts(known, ALL, NOW, at(6)) == ()
    assert firing_alerts(known, ALL, at(6)) == ()
    assert all_withdrawn(known, (Trigger.HIGH_ERROR_RATE,))
    assert len(dumps(known)) < 100_000


@pytest.mark.parametrize("triggers", [(Trigger.HIGH_ERROR_RATE,), (Trigger.CRASH_LOOP,)])
def test_alerts_of_unknown_state_count_until_the_agent_looked_for_itself(
    triggers: tuple[Trigger, ...],
) -> None:
    """A posted sample is no look of its own; where there is none, a person is asked, with their number."""
    entry = Reason(
        trigger=triggers[0],
        kind=ReasonKind.ALERT,
        subject=f"alerts merged {triggers[0]}",
        source="alertmanager",
        said="",
        last_true_at=NOW,
        withdrawn=Withdrawal(at=NOW, by="the agent", said="resolved"),
        merged=MergedAlerts(beyond=20, beyond_at=NOW),
    )
    incident = Incident(
        id=IncidentId("inc_1"),
        key=KEY,
        state=IncidentState.OPEN,
        opened_at=NOW,
        triggers=triggers,
        stale=False,
        dry_run=False,
    )
    posted = SliSample(at=at(1), error_rate=0.001, p95_latency_ms=80)
    well = Assessment(health=Health.HEALTHY, reasons=("error rate 0.1%",))

    def judged(health: Assessment, seen: Observation, *, measures: bool) -> tuple[Health, str]:
        found = with_reports(health, incident, seen, (entry,), measures=measures)
        return found.health, found.reasons[0]

    words = "20 further alerts, state unknown, last reported at 12:00:00 UTC"
    seen = Observation(at=at(1), sli=posted, workload=None, missing=(NO_CLUSTER,))
    assert judged(well, seen, measures=False) == (Health.UNKNOWN, words)
    own = replace(seen, sli=replace(posted, measured=True), workload=RUNNING)
    assert judged(well, own, measures=True) == (Health.HEALTHY, "error rate 0.1%")
    resolved = replace(entry, subject="alert f1", merged=None)
    unknown = Assessment(health=Health.UNKNOWN, reasons=("no fresh error rate",))
    found = with_reports(unknown, incident, seen, (entry, resolved), measures=False)
    assert (found.health, found.reasons[0]) == (Health.UNKNOWN, words)
    later = replace(seen, at=at(61))
    assert with_reports(unknown, incident, later, (entry, resolved), measures=False).health is Health.HEALTHY


@pytest.mark.parametrize("clusters", [1, CLUSTERS_KEPT + 5])
def test_merged_alerts_stay_those_of_their_cluster(clusters: int) -> None:
    """However many alerts of others fire; beyond the bound of clusters they count for every cluster."""
    known = remember_signal((), told(replace(FIRING, fingerprint="here", cluster="east")))
    count = ALERTS_KEPT + MERGED_KEPT + 24
    others = [replace(FIRING, fingerprint=f"w{n}", cluster=f"west{n % clusters}") for n in range(count)]
    for one in others:
        known = remember_signal(known, told(one, 0.1))
    assert len(known) <= ALERTS_KEPT + CLUSTERS_KEPT + 2
    known = remember_signal(known, told(replace(FIRING, fingerprint="here", cluster="east", firing=False), 1))
    east = of_cluster(known, "east")
    if clusters == 1:
        assert firing_alerts(east, ALL, at(1)) == unknown_alerts(east, ALL, NOW, at(1)) == ()
        assert all_withdrawn(east, (Trigger.HIGH_ERROR_RATE,))
        (beyond,) = unknown_alerts(of_cluster(known, "west0"), ALL, NOW, at(1))
        assert beyond.cluster == "west0"
    else:
        assert firing_alerts(east, ALL, at(1))
    for one in others:
        known = remember_signal(known, told(replace(one, firing=False), 2))
    assert firing_alerts(known, ALL, at(2)) == ()
    assert unknown_alerts(known, ALL, NOW, at(2)) == ()


def test_what_an_older_version_merged_is_not_known() -> None:
    """It kept no more than that there were some: no reason, and no alert that is called firing."""
    old = Reason(
        trigger=Trigger.HIGH_ERROR_RATE,
        kind=ReasonKind.ALERT,
        subject="alerts merged high_error_rate",
        source="alertmanager",
        said="one of the alerts",
        last_true_at=NOW,
        withdrawn=Withdrawal(at=NOW, by="the agent", said="more than 64", muted=True),
    )
    assert firing_alerts((old,), ALL, NOW) == ()
    assert [one.said for one in unknown_alerts((old,), ALL, NOW, NOW)] == ["1 further alert"]
    assert unknown_alerts((old,), ALL, at(1), at(1)) == ()
    assert said(remember_signal((old,), told(FIRING))) == [
        "the alert HighErrorRate is still firing, last reported at 12:00:00 UTC"
    ]


def said(known: tuple[Reason, ...]) -> list[str]:
    """What is known of the alerts that may fire, in words."""
    return [firing_words(one, NOW) for one in firing_alerts(known, ALL, NOW)]


def those_standing(known: tuple[Reason, ...]) -> list[str]:
    """What the reasons that stand say."""
    return [one.said for one in known if one.stands(NOW, AGE)]


@dataclass
class Remembered:
    """One alert as a memory without bounds has it."""

    over: float | None = None
    repeat: float | None = None

    def report(self, minutes: float, *, firing: bool) -> None:
        """One delivery: after the end the first firing one may be a copy, and fires again 15 s after that."""
        if not firing:
            self.over, self.repeat = minutes, None
        elif self.over is not None and self.repeat is None:
            self.repeat = minutes
        elif self.over is not None and self.repeat is not None and minutes - self.repeat >= 0.25:
            self.over = self.repeat = None


@given(
    st.lists(
        st.tuples(
            st.integers(0, 5 * ALERTS_KEPT),
            st.sampled_from(["fires", "fires", "resolves", "sample", "storm"]),
        ),
        max_size=40,
    ),
    st.booleans(),
)
def test_what_is_remembered_stays_bounded_and_knows_every_alert(
    events: list[tuple[int, str]], delivered_before: bool
) -> None:
    """However many alerts open and resolve in any order, with repeats and late copies in between."""
    known: tuple[Reason, ...] = ()
    alerts: dict[int, Remembered] = {}
    minutes = 0.0

    def report(number: int, *, firing: bool) -> None:
        nonlocal known, minutes
        minutes += 0.1
        alert = replace(FIRING, name=f"A{number}", fingerprint=f"f{number}", firing=firing)
        if number in alerts and delivered_before:
            known, _ = repeated(known, told(alert, minutes))
        else:
            known = remember_signal(known, told(alert, minutes))
        before = Remembered(over=None if firing else minutes)
        alerts[number].report(minutes, firing=firing) if number in alerts else alerts.update({number: before})
        assert len(known) <= ALERTS_KEPT + REASONS_KEPT + len(Trigger)

    for number, event in events:
        if event == "sample":
            end = told(MetricSample(crash_looping=False), minutes)
            known = remember_condition(known, end, Condition.OOM_KILLED, present=number % 2 == 0)
        elif event == "storm":
            for other in range(number, number + 60):
                report(other, firing=number % 2 == 0)
        else:
            report(number, firing=event == "fires")
    assert len({one.subject for one in known}) == len(known)
    expected = {f"the alert A{number}" for number, one in alerts.items() if one.over is None}
    now = NOW + timedelta(minutes=minutes)
    found = firing_alerts(known, ALL, now)
    names = {one.said for one in found if one.merged is None}
    merged = sum(int(one.said.split()[0]) for one in found if one.merged is not None)
    assert names <= expected
    assert len(names) + merged == len(expected)
    assert unknown_alerts(known, ALL, NOW, now) == ()
    assert len(names) == min(ALERTS_KEPT, len(expected)) or merged


def test_the_newest_sample_withdraws_what_an_older_version_took_in() -> None:
    """A sample within the objective joins no incident, so it is not among the incident's signals."""
    bad = told(MetricSample(error_rate=0.4, p95_latency_ms=5000))
    better = SliSample(at=at(1), error_rate=0.01, p95_latency_ms=5000)
    latency = "the p95 latency of 5000 ms reported by http"
    assert those_standing(from_signals([bad], SLO, better)) == [latency]
    assert len(those_standing(from_signals([bad], SLO, replace(better, at=at(-1))))) == 2


def test_the_clauses_of_alerts_add_up_to_their_number() -> None:
    """Merged ones of two triggers are two clauses, and those beyond the listed names are all counted."""
    kinds = (Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY)
    known: tuple[Reason, ...] = ()
    for number in range(10):
        one = replace(FIRING, fingerprint=f"a{number}", trigger=kinds[number % 2])
        known = remember_signal(known, told(one))
    for number in range(ALERTS_KEPT):
        one = replace(FIRING, fingerprint=f"b{number}", name=f"N{number % 16}")
        known = remember_signal(known, told(one, 1))
    few = [one for one in firing_alerts(known, ALL, at(1)) if "N" not in one.said]
    assert firing_clauses(tuple(few), at(1), lambda _: "") == (
        "5 further alerts were reported firing and not as resolved, last reported at 12:00:00 UTC",
    ) * len(kinds)
    clauses = firing_clauses(firing_alerts(known, ALL, at(1)), at(1), lambda _: "")
    assert len(clauses) == NAMES_SAID + 1
    assert clauses[-1] == "42 further alerts reported firing and not as resolved"
    assert sum("(4 alerts)" in one for one in clauses) == NAMES_SAID
    for name in (*range(8), 15):  # the newest reports come last
        quiet = replace(FIRING, fingerprint=f"b{name}", name=f"N{name}", firing=False, suppressed=True)
        known = remember_signal(known, told(quiet, 1))
    clauses = firing_clauses(firing_alerts(known, ALL, at(1)), at(1), lambda _: "")
    said = " ".join(clauses[NAMES_SAID:])
    assert re.fullmatch(
        r"\d+ further alerts reported firing and not as resolved \d+ further alerts? suppressed or silenced",
        said,
    ), clauses


def test_clusters_whose_alerts_are_over_hold_no_place() -> None:
    """Alerts of a later cluster are merged by it, and what was resolved before stays known."""
    clusters = [f"c{number}" for number in range(CLUSTERS_KEPT)]
    known: tuple[Reason, ...] = ()

    def reported(
        cluster: str, known: tuple[Reason, ...], minutes: float, *, firing: bool
    ) -> tuple[Reason, ...]:
        for number in range(ALERTS_KEPT + 6):
            one = replace(FIRING, fingerprint=f"{cluster}{number}", cluster=cluster, firing=firing)
            known = remember_signal(known, told(one, minutes))
        return known

    for cluster in clusters:
        known = reported(cluster, reported(cluster, known, 0, firing=True), 1, firing=False)
    known = reported("west", known, 2, firing=True)
    assert firing_alerts(of_cluster(known, "east"), ALL, at(2)) == ()
    assert sum(one.merged is not None for one in known) <= CLUSTERS_KEPT + 1
    late = replace(FIRING, fingerprint=f"{clusters[0]}0", cluster=clusters[0])
    known, again = repeated(known, told(late, 3))
    assert not again
    assert firing_alerts(of_cluster(known, clusters[0]), ALL, at(3)) == ()
