"""What holds for any evidence: ranked, bounded, repeatable, and no plan that breaks a promise."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.actions import ACTIONS, Resolved
from app.agent.diagnosis import diagnose
from app.agent.evidence.scoring import CauseScore
from app.agent.ids import JsonScalar
from app.agent.models import (
    Action,
    ActionName,
    Alert,
    Cause,
    Change,
    ChangeKind,
    Condition,
    Deploy,
    DeployStatus,
    Evidence,
    Hypothesis,
    MetricSample,
    SliSample,
    TelemetryHealth,
    Trigger,
)
from app.agent.planner import make_plan, plan_hash
from app.agent.workload import (
    ConfigMapView,
    ConfigRecord,
    PodView,
    Revision,
    RevisionHealth,
    RevisionRecord,
    WorkloadView,
)
from tests.sizes import examples
from tests.unit.scenes import (
    CALLER,
    CATALOGUE,
    DATABASE,
    KEY,
    LIMITS,
    OPENED,
    at,
    config_map,
    config_record,
    evidence,
    revision,
    signal,
    workload,
)

GENTLE = settings(deadline=None, max_examples=examples(200), suppress_health_check=[HealthCheck.too_slow])

minutes = st.one_of(
    st.sampled_from([-3.0, -2.0, -10.0, 0.0, 0.2, -30.0]), st.floats(-5000, 5, allow_nan=False)
)
numbers = st.one_of(st.none(), st.floats(0, 1e12), st.sampled_from([float("inf"), float("nan")]))
hashes = st.sampled_from(["a", "b", "c", "d"])


def rarely(draw: st.DrawFn) -> bool:
    """True one time in twelve: what forbids a plan must not hide what a plan must not do."""
    return draw(st.integers(0, 11)) == 11


@st.composite
def revisions(draw: st.DrawFn) -> tuple[Revision, ...]:
    count = draw(st.integers(2, 5))
    return tuple(
        revision(
            number,
            draw(minutes),
            template_hash=draw(hashes),
            code_hash=draw(hashes),
            config_hash=draw(hashes),
            ready_replicas=draw(st.integers(0, 3)),
            irreversible=rarely(draw),
        )
        for number in range(count, 0, -1)
    )


@st.composite
def some_pods(draw: st.DrawFn) -> tuple[PodView, ...]:
    return tuple(
        PodView(
            name=f"pod-{index}",
            node=draw(st.sampled_from([None, "node-1", "node-2"])),
            phase=draw(st.sampled_from(["Running", "Pending", "Unknown", "Failed"])),
            ready=draw(st.booleans()),
            restarts=draw(st.integers(0, 5)),
            waiting_reason=draw(
                st.sampled_from(
                    [None, "CrashLoopBackOff", "ImagePullBackOff", "CreateContainerConfigError", "odd"]
                )
            ),
            last_termination_reason=draw(st.sampled_from([None, "OOMKilled", "Error"])),
            template_hash=draw(st.one_of(st.none(), hashes)),
            created_at=at(draw(minutes)),
        )
        for index in range(draw(st.integers(0, 5)))
    )


@st.composite
def workloads(draw: st.DrawFn) -> WorkloadView | None:
    kept = draw(revisions())
    if rarely(draw):
        return None
    maps: tuple[ConfigMapView, ...] = tuple(
        config_map(draw(hashes), draw(st.one_of(st.none(), minutes))) for _ in range(draw(st.integers(0, 2)))
    )
    plain = workload(kept, draw(some_pods()), config_maps=maps)
    return replace(
        plain,
        revisions=kept,
        current_revision=99 if rarely(draw) else kept[0].number,
        desired_replicas=draw(st.integers(0, 30)),
        paused=rarely(draw),
        progress_deadline_exceeded=draw(st.booleans()),
        opted_out=rarely(draw),
        managed_by="argocd" if rarely(draw) else None,
    )


@st.composite
def changes(draw: st.DrawFn) -> Change:
    return Change(
        kind=draw(st.sampled_from(ChangeKind)),
        key=draw(st.sampled_from([KEY, DATABASE, CALLER])),
        at=at(draw(minutes)),
        summary="something changed",
        version=draw(st.sampled_from([None, "1.1.0", "1.2.0"])),
        irreversible=rarely(draw),
    )


payloads = st.one_of(
    st.builds(
        Deploy, version=st.just("1.2.0"), status=st.sampled_from(DeployStatus), irreversible=st.booleans()
    ),
    st.builds(MetricSample, error_rate=numbers, p95_latency_ms=numbers, crash_looping=st.booleans()),
    st.builds(
        Alert,
        name=st.just("HighErrorRate"),
        firing=st.booleans(),
        fingerprint=st.just("f"),
        starts_at=st.just(OPENED),
        trigger=st.none(),
    ),
)

records = st.builds(
    RevisionRecord,
    key=st.sampled_from([KEY, CALLER]),
    template_hash=hashes,
    number=st.integers(1, 9),
    health=st.sampled_from([*RevisionHealth, RevisionHealth.SERVED_WELL]),
    seen_at=minutes.map(at),
    reason=st.just("test"),
)


@st.composite
def configs(draw: st.DrawFn) -> ConfigRecord:
    return config_record(draw(hashes), draw(st.sampled_from(RevisionHealth)), draw(minutes))


@st.composite
def some_evidence(draw: st.DrawFn) -> Evidence:
    samples = st.builds(
        SliSample, at=minutes.map(at), error_rate=numbers, p95_latency_ms=numbers, request_rate=numbers
    )
    sli = sorted(draw(st.lists(samples, max_size=20)), key=lambda s: s.at)
    return evidence(
        *draw(st.lists(st.sampled_from(Trigger), unique=True)),
        at=OPENED + timedelta(seconds=draw(st.integers(0, 600))),
        conditions=tuple(draw(st.lists(st.sampled_from(Condition), unique=True))),
        signals=tuple(
            signal(draw(payloads), draw(minutes), stale=draw(st.booleans()))
            for _ in range(draw(st.integers(0, 4)))
        ),
        changes=tuple(draw(st.lists(changes(), max_size=4))),
        workload=draw(workloads()),
        revision_history=tuple(draw(st.lists(records, max_size=5))),
        config_history=tuple(draw(st.lists(configs(), max_size=4))),
        sli=tuple(sli),
        telemetry=TelemetryHealth(known_services=9, silent_services=7, source_reachable=True)
        if rarely(draw)
        else TelemetryHealth(known_services=9, silent_services=1, source_reachable=True),
        other_open_incidents=tuple(draw(st.lists(st.sampled_from([DATABASE, CALLER]), unique=True))),
        failed_actions=(draw(st.sampled_from(ActionName)),) if rarely(draw) else (),
    )


@GENTLE
@given(seen=some_evidence())
def test_a_diagnosis_is_never_empty_and_always_ranked(seen: Evidence) -> None:
    """Confidences stay within 0..1, best first; every hypothesis names its evidence; no cause twice."""
    found = diagnose(seen).hypotheses
    assert found
    confidences = [h.confidence for h in found]
    assert all(0.0 <= c <= 1.0 for c in confidences)
    assert confidences == sorted(confidences, reverse=True)
    assert all(h.evidence_for for h in found)
    assert len({h.cause for h in found}) == len(found)
    if max(c for c in confidences) < 0.5 or not seen.triggers:
        assert found[0].cause is Cause.UNKNOWN


@GENTLE
@given(seen=some_evidence())
def test_the_same_evidence_gives_the_same_diagnosis_and_plan(seen: Evidence) -> None:
    """Nothing but the evidence counts, not even the order in which the cluster listed its pods."""
    diagnosis = diagnose(seen)
    assert diagnose(seen) == diagnosis
    plan = make_plan(diagnosis, seen, CATALOGUE, LIMITS)
    assert make_plan(diagnosis, seen, CATALOGUE, LIMITS) == plan
    if seen.workload is not None:
        mirrored = replace(seen, workload=replace(seen.workload, pods=seen.workload.pods[::-1]))
        assert make_plan(diagnose(mirrored), mirrored, CATALOGUE, LIMITS).hash == plan.hash


EVERY_ACTION = replace(LIMITS, optional=frozenset(ActionName))
"""Those that are off by default too."""
causes = st.sampled_from(sorted(c for r in CATALOGUE.runbooks for c in r.causes))


@GENTLE
@given(seen=some_evidence(), cause=causes, own=st.booleans())
def test_no_plan_leaves_the_approved_actions_or_goes_where_it_must_not(
    seen: Evidence, cause: Cause, own: bool
) -> None:
    """Whatever is diagnosed, rightly or wrongly."""
    sure = Hypothesis(cause=cause, confidence=1.0, rule="test", evidence_for=("certain",))
    diagnosis = diagnose(seen)
    if not own:
        diagnosis = replace(diagnosis, hypotheses=(sure,))
    plan = make_plan(diagnosis, seen, CATALOGUE, EVERY_ACTION)
    if not plan.actions:
        handed_over = plan.runbook is not None
        assert handed_over is bool(plan.handover)
        assert len(plan.rejected) == len(CATALOGUE.runbooks) - handed_over
        return
    assert plan.handover == ()
    assert plan.runbook in {r.reference for r in CATALOGUE.runbooks}
    assert seen.telemetry is None or not seen.telemetry.outage
    for action in plan.actions:
        assert ACTIONS[action.name].in_runbooks
        assert action.risk is ACTIONS[action.name].risk
        assert action.name not in seen.failed_actions
        if seen.workload is not None:
            assert not seen.workload.opted_out
            _check_target(action, seen, seen.workload)


def _check_target(action: Action, seen: Evidence, view: WorkloadView) -> None:
    if action.name is ActionName.SCALE:
        replicas = action.parameters["replicas"]
        assert isinstance(replicas, int)
        assert LIMITS.scale_min <= replicas <= LIMITS.scale_max
    if action.name is ActionName.RAISE_AUTOSCALER_BOUNDS:
        maximum = action.parameters["maximum"]
        assert isinstance(maximum, int)
        assert maximum <= LIMITS.scale_max
    if action.name in (ActionName.ROLLBACK, ActionName.REVERT_CONFIG, ActionName.RAISE_MEMORY_LIMIT):
        assert view.managed_by is None
    if "revision" not in action.parameters:
        return
    assert not view.paused
    (current,) = [r for r in view.revisions if r.number == view.current_revision]
    (wanted,) = [r for r in view.revisions if r.number == action.parameters["revision"]]
    own = [r for r in seen.revision_history if r.key == KEY and r.template_hash == wanted.template_hash]
    assert all(r.health is not RevisionHealth.FAILED for r in own)
    assert wanted.number < current.number
    assert (wanted.code_hash, wanted.config_hash) != (current.code_hash, current.config_hash)
    assert any(r.health is RevisionHealth.SERVED_WELL for r in seen.revision_history) or wanted.ready_replicas
    if action.name is ActionName.ROLLBACK:
        assert not current.irreversible
    else:
        assert wanted.code_hash == current.code_hash


remembered = st.lists(
    st.tuples(hashes, st.sampled_from([RevisionHealth.SERVED_WELL, RevisionHealth.FAILED])), max_size=6
)


@GENTLE
@given(kept=revisions(), history=remembered, barrier=st.sampled_from([None, None, 0, 1, 2]))
def test_a_rollback_never_goes_to_a_failed_revision_nor_across_an_irreversible_one(
    kept: tuple[Revision, ...], history: list[tuple[str, RevisionHealth]], barrier: int | None
) -> None:
    """However often a template is remembered, and under whatever number, one failure is enough."""
    marked = tuple(replace(r, irreversible=index == barrier) for index, r in enumerate(kept))
    known = tuple(
        RevisionRecord(key=KEY, template_hash=t, number=1, health=h, seen_at=at(-60), reason="test")
        for t, h in history
    )
    view = replace(workload(marked, ()), revisions=marked)
    found = ACTIONS[ActionName.ROLLBACK].resolve(
        {"to": "previous_healthy"}, evidence(workload=view, revision_history=known), LIMITS
    )
    if not isinstance(found, Resolved):
        return
    (wanted,) = [r for r in marked if r.number == found.parameters["revision"]]
    assert (wanted.template_hash, RevisionHealth.FAILED) not in history
    assert wanted.template_hash != marked[0].template_hash
    crossed = [r for r in marked if r.number > wanted.number and r.template_hash != wanted.template_hash]
    assert not any(r.irreversible for r in crossed)


scalars: st.SearchStrategy[JsonScalar] = st.one_of(
    st.text(), st.integers(), st.booleans(), st.none(), st.floats(allow_nan=False, allow_infinity=False)
)


@given(pairs=st.dictionaries(st.text(), scalars), order=st.randoms(use_true_random=False))
def test_the_hash_of_a_plan_does_not_depend_on_the_order_of_parameters(
    pairs: dict[str, JsonScalar], order: object
) -> None:
    """Shuffled parameters, same hash."""
    shuffled = list(pairs.items())
    order.shuffle(shuffled)  # type: ignore[attr-defined]  # a random.Random that hypothesis controls
    spec = ACTIONS[ActionName.SCALE]

    def of(parameters: dict[str, JsonScalar]) -> str:
        action = Action(
            name=spec.name, risk=spec.risk, target=None, parameters=parameters, expected_effect="", undo=None
        )
        return plan_hash("r", (action,))

    assert of(pairs) == of(dict(shuffled))


weights = st.floats(0, 1)


@given(findings=st.lists(st.tuples(st.booleans(), weights)), more=weights)
def test_more_evidence_never_points_the_wrong_way(findings: list[tuple[bool, float]], more: float) -> None:
    """A finding for a cause never lowers its confidence, one against never raises it."""

    def weighed(*extra: tuple[bool, float]) -> float:
        cause_score = CauseScore()
        for add_for, weight in (*findings, *extra):
            (cause_score.add_for if add_for else cause_score.add_against)(weight, "finding")
        return cause_score.confidence

    assert 0.0 <= weighed() <= 1.0
    assert weighed((True, more)) >= weighed()
    assert weighed((False, more)) <= weighed()
