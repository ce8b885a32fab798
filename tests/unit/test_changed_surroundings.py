"""Faults that meet a release and were not brought by it, and changes beside the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.cluster.blockers import Obstacle, obstacles
from app.agent.evidence.cluster.scaling import scale_change
from app.agent.evidence.conditions import workload_conditions
from app.agent.evidence.facts import PodFault, pod_fault
from app.agent.guardrails.document import AGENT_NAME
from app.agent.ids import JsonScalar, ServiceKey
from app.agent.models import ActionName, Cause, ChangeKind, Condition, Evidence, Trigger
from app.agent.planner import make_plan
from app.agent.workload import (
    AutoscalerView,
    ConfigMapView,
    FailingContainer,
    PodView,
    Revision,
    ScaleChange,
    WarningView,
    WorkloadView,
)
from tests.unit.scenes import (
    CATALOGUE,
    CRASH,
    DATABASE,
    LIMITS,
    OLD,
    at,
    change,
    crashing,
    curves,
    evidence,
    pods,
    record,
    revision,
    step,
    workload,
)

FIELDS = (("annotation git-sha", "1"), ("envFrom of app", "1"), ("image of app", "1"))
UNREADY = "Readiness probe failed: HTTP probe failed with statuscode: 503"
ERRORS = curves(errors=step(-2.5, 0.001, 0.6))


def planned(seen: Evidence) -> list[tuple[ActionName, dict[str, JsonScalar]]]:
    found = make_plan(diagnose(seen), seen, CATALOGUE, LIMITS).actions
    return [(action.name, dict(action.parameters)) for action in found]


# ---------------------------------------------------------------- names with a hash of the content


def hashed_names(written: float) -> Evidence:
    """A change of the template to a new ConfigMap, written before the rollout, and errors since."""
    before = replace(OLD, fields=FIELDS, references=frozenset({"ConfigMap settings-7g2h5"}))
    after = revision(
        7,
        -3,
        code_hash=OLD.code_hash,
        config_hash="other",
        images=OLD.images,
        fields=(*FIELDS[:1], ("envFrom of app", "2"), *FIELDS[2:]),
        references=frozenset({"ConfigMap settings-k8m9t"}),
    )
    new = ConfigMapView(
        name="settings-k8m9t",
        content_hash="new",
        resource_version="9",
        keys=("A",),
        changed_at=at(written),
        read_at_start=True,
    )
    running = workload([after, before], pods(after, ready_changed_at=at(-2.6)), config_maps=(new,))
    return evidence(Trigger.HIGH_ERROR_RATE, workload=running, sli=ERRORS)


@pytest.mark.parametrize("written", [-3.1, -2.95], ids=["before the rollout", "within its first seconds"])
def test_a_config_map_that_came_with_the_template_is_reverted_with_it(written: float) -> None:
    """Its name is new, so no earlier content exists: the template goes back to the name before."""
    assert planned(hashed_names(written)) == [(ActionName.REVERT_CONFIG, {"revision": OLD.number})]


# ---------------------------------------------------------------- tags that move


def annotated(images: tuple[str, ...], annotation: str = "vault.hashicorp.com/role") -> Evidence:
    """Errors since a rollout that changed an annotation and nothing else."""
    before = replace(OLD, fields=((f"annotation {annotation}", "1"), *FIELDS[1:]), images=images)
    after = revision(
        7,
        -3,
        code_hash=OLD.code_hash,
        config_hash="other",
        images=images,
        fields=((f"annotation {annotation}", "2"), *FIELDS[1:]),
    )
    running = workload([after, before], pods(after, ready_changed_at=at(-2.6)))
    return evidence(Trigger.HIGH_ERROR_RATE, workload=running, sli=ERRORS)


@pytest.mark.parametrize(
    ("image", "reverted"),
    [
        ("registry.example/checkout:latest", False),
        ("registry.example:5000/checkout", False),
        ("checkout", False),
        ("registry.example:5000/checkout:1.4.2", True),
        ("registry.example/checkout@sha256:" + "a" * 64, True),
        ("registry.example/checkout:latest@sha256:" + "a" * 64, True),
    ],
)
def test_an_annotation_is_not_reverted_under_an_image_that_may_have_moved(image: str, reverted: bool) -> None:
    """New pods would pull the same image again, whatever the annotation says."""
    assert bool(planned(annotated((image,)))) is reverted


@pytest.mark.parametrize("annotation", ["git-sha", "checksum/config"])
def test_an_annotation_that_nothing_reads_is_not_reverted(annotation: str) -> None:
    """The same image would run with the same configuration again."""
    assert planned(annotated(("registry.example/checkout:1.4.2",), annotation)) == []


# ---------------------------------------------------------------- started later from the same template


def proved_release(failing: Sequence[PodView], new: Revision) -> Evidence:
    """A release of five minutes ago that was recorded as serving well soon after it."""
    return evidence(
        Trigger.CRASH_LOOP,
        conditions=CRASH,
        workload=workload([new, OLD], failing),
        revision_history=(record(OLD), record(new, seen=-3)),
    )


def test_pods_that_started_after_their_template_was_proved_clear_the_release() -> None:
    """What they need at their start has changed, such as a Secret; the release is not blamed."""
    new = revision(7, -4.5)
    later = tuple(replace(pod, created_at=at(-2)) for pod in crashing(new))
    found = diagnose(proved_release(later, new))
    assert found.best.cause is Cause.UNKNOWN
    release = next(h for h in found.hypotheses if h.cause is Cause.BAD_RELEASE)
    assert any("started after that, from the same template" in why for why in release.evidence_against)
    between = tuple(replace(pod, ready=True, waiting_reason=None) for pod in later)
    assert diagnose(proved_release(between, new)).best.cause is not Cause.BAD_RELEASE, "ready for a moment"
    first = diagnose(proved_release(crashing(new), new))
    assert first.best.cause is Cause.BAD_RELEASE, "pods of the rollout itself say nothing of the kind"


def test_readiness_that_is_lost_after_a_proved_release_is_a_failure_of_the_probes() -> None:
    """The pods served, and neither crashed nor were replaced: their probes say what fails."""
    new = revision(7, -20)
    said = WarningView(reason="Unhealthy", message=UNREADY, count=8, at=at(-0.5))
    unready = pods(new, ready=False, ready_changed_at=at(-2.2), warnings=(said,))
    seen = replace(
        proved_release(unready, new), triggers=(Trigger.PODS_UNAVAILABLE,), conditions=(Condition.NOT_READY,)
    )
    best = diagnose(seen).best
    assert best.cause is Cause.PROBE_FAILURE
    assert any("readiness probe failed 8 times" in why for why in best.evidence_for)
    recent = revision(7, -4.5)
    lost = pods(recent, ready=False, ready_changed_at=at(-2.2), warnings=(said,))
    proved = replace(proved_release(lost, recent), triggers=seen.triggers, conditions=seen.conditions)
    release = next(h for h in diagnose(proved).hypotheses if h.cause is Cause.BAD_RELEASE)
    assert any("stopped being ready after that, without a crash" in why for why in release.evidence_against)


def test_a_release_that_served_at_the_usual_level_does_not_hide_a_surge() -> None:
    """Four times the requests at once, two minutes after an innocent release: more replicas are planned."""
    new = revision(7, -4)
    running = workload([new, OLD], pods(new, ready_changed_at=at(-3.8)))
    sli = curves(errors=step(-1, 0.001, 0.2), p95=step(-1, 200, 2400), requests=step(-1, 20, 80))
    seen = evidence(Trigger.HIGH_ERROR_RATE, Trigger.HIGH_LATENCY, workload=running, sli=sli)
    assert [name for name, _ in planned(seen)] == [ActionName.SCALE]


# ---------------------------------------------------------------- deadlines


@pytest.mark.parametrize(
    ("granted", "starting", "counts"),
    [(90, 1, False), (30, 1, True), (90, 0, True)],
    ids=["the probes grant more", "the probes grant less", "no pod starts"],
)
def test_a_short_progress_deadline_waits_for_what_the_probes_grant(
    granted: int, starting: int, counts: bool
) -> None:
    """A rollout whose pods need 60 s to start is not stuck after 20."""
    new = revision(7, -1)
    view = workload(
        [new, OLD],
        (*pods(new, starting, ready=False), *pods(OLD)),
        progress_deadline_exceeded=True,
        start_seconds=granted,
    )
    assert (Condition.PROGRESS_DEADLINE_EXCEEDED in workload_conditions(view)) is counts


# ---------------------------------------------------------------- what an unexplained incident names


NEVER = "no change to the service itself is known"


def test_an_unexplained_incident_names_the_release_before_it() -> None:
    """Also where the release is an unlikely cause, because it served well first."""
    new = revision(7, -4)
    running = workload([new, OLD], pods(new, ready_changed_at=at(-3.8)))
    seen = evidence(Trigger.HIGH_ERROR_RATE, workload=running, sli=curves(errors=step(-1, 0.001, 0.6)))
    told = "; ".join(diagnose(seen).best.evidence_for)
    assert "the release of revision 7" in told
    assert NEVER not in told


def test_an_unexplained_incident_names_a_restart_of_the_pods() -> None:
    """A restart changes no template, and yet what a tag or a Secret means to the new pods."""
    again = replace(OLD, number=7, template_hash="restarted", created_at=at(-3))
    running = workload([again, OLD], pods(again, ready_changed_at=at(-2.8)))
    seen = evidence(Trigger.HIGH_ERROR_RATE, workload=running, sli=ERRORS)
    told = "; ".join(diagnose(seen).best.evidence_for)
    assert "a restart replaced its pods" in told
    assert "release of revision 7" not in told, "a restart is no release"
    assert NEVER not in told
    quiet = evidence(Trigger.HIGH_ERROR_RATE, sli=ERRORS)
    assert NEVER in "; ".join(diagnose(quiet).best.evidence_for)


# ---------------------------------------------------------------- between two crashes


@pytest.mark.parametrize(
    ("restarts", "ended", "fault"),
    [
        (1, -0.5, PodFault.CRASH),
        (5, -4, PodFault.CRASH),
        (3, -60 * 24, PodFault.NOT_READY),
        (3, None, PodFault.CRASH),
        (1, None, PodFault.NOT_READY),
    ],
)
def test_a_container_that_runs_for_a_moment_still_crashes(
    restarts: int, ended: float | None, fault: PodFault
) -> None:
    """Its last end is recent; restarts of yesterday say nothing about a pod that is not ready now."""
    (pod,) = pods(
        OLD,
        1,
        ready=False,
        restarts=restarts,
        last_termination_reason="Error",
        failing=FailingContainer(name="app", last_ended_at=None if ended is None else at(ended)),
    )
    assert pod_fault(pod, at(0)) is fault


# ---------------------------------------------------------------- cordons


@pytest.mark.parametrize(
    "said",
    [
        "0/3 nodes are available: 3 node(s) were unschedulable.",
        "0/3 nodes are available: 3 node(s) had untolerated taint {node.kubernetes.io/unschedulable: }.",
    ],
)
def test_a_cordon_is_named(said: str) -> None:
    """A person who reads that nodes have taints does not think of a cordon."""
    assert obstacles(said) == (Obstacle.CORDON,)


# ---------------------------------------------------------------- replicas


def scaled(by: str | None, **changes: object) -> WorkloadView:
    view = workload([OLD], pods(OLD), scaled=ScaleChange(by=by, at=at(-1)))
    return replace(view, **changes)  # type: ignore[arg-type]  # a test names real fields


HPA = AutoscalerView(kind="HorizontalPodAutoscaler", name="checkout", minimum=1, maximum=9)


@pytest.mark.parametrize(
    ("view", "told"),
    [
        (scaled("kubectl"), "kubectl scaled it from 6 to 3 replicas"),
        (scaled(None), "an author that the cluster does not record scaled it from 6 to 3 replicas"),
        (scaled("kubectl", autoscalers=(HPA,)), None),
        (scaled("kube-controller-manager"), None),
        (scaled(AGENT_NAME), None),
    ],
)
def test_replicas_that_a_person_set_are_a_change(view: WorkloadView, told: str | None) -> None:
    """Those of an autoscaler follow the load, and the agent knows its own."""
    change = scale_change(6, view, AGENT_NAME)
    assert (None if change is None else change.summary) == told
    assert scale_change(view.desired_replicas, view, AGENT_NAME) is None


# ---------------------------------------------------------------- a version that served well, and fails now


def failing_since(of: Revision, *older: Revision, **changes: object) -> Evidence:
    """All pods of a version crash, which served well for two minutes."""
    view = workload([of, *older], crashing(of))
    known = (record(of, seen=-1), *(record(one) for one in older))
    return evidence(Trigger.CRASH_LOOP, workload=view, revision_history=known, **changes)


def best_release(seen: Evidence) -> float:
    return max((h.confidence for h in diagnose(seen).hypotheses if h.cause is Cause.BAD_RELEASE), default=0)


def test_the_first_version_of_a_service_that_served_well_is_no_bad_release() -> None:
    """It replaced nothing: a person who reads of a release looks in the wrong place."""
    first = failing_since(revision(1, -3))
    assert diagnose(first).best.cause is Cause.UNKNOWN
    assert diagnose(failing_since(revision(2, -3))).best.cause is Cause.BAD_RELEASE
    new = revision(1, -3)
    never_served = evidence(Trigger.CRASH_LOOP, workload=workload([new], crashing(new)))
    assert diagnose(never_served).best.cause is Cause.BAD_RELEASE


@pytest.mark.parametrize(("minutes", "counts"), [(-0.1, True), (-0.6, True), (-2.0, False), (-20.0, False)])
def test_what_changes_elsewhere_as_a_proven_version_begins_to_fail_speaks_for_the_release(
    minutes: float, counts: bool
) -> None:
    """The database is scaled to zero, and the service crashes: its last release had served before that."""
    new = revision(7, -3)
    elsewhere = (change(ChangeKind.SCALE, minutes, key=DATABASE),)
    alone, beside = failing_since(new, OLD), failing_since(new, OLD, changes=elsewhere)
    assert (best_release(beside) < best_release(alone)) is counts
    said = [line for h in diagnose(beside).hypotheses for line in h.evidence_against]
    assert any(line.endswith("scale of ledger") for line in said) is counts


OTHERS = tuple(ServiceKey(environment="prod", service=f"shop-{number}") for number in range(4))


@pytest.mark.parametrize(
    ("dependencies", "number", "counts"),
    [((DATABASE,), 1, False), ((DATABASE, OTHERS[0]), 1, True), ((), 3, True), ((), 4, False)],
)
def test_a_release_elsewhere_counts_only_where_it_can_be_no_coincidence(
    dependencies: tuple[ServiceKey, ...], number: int, counts: bool
) -> None:
    """Of a service that is called; where calls are not known, only while few services change."""
    new = revision(7, -3)
    elsewhere = tuple(change(ChangeKind.DEPLOY, -0.1, key=one) for one in OTHERS[:number])
    alone = failing_since(new, OLD, dependencies=dependencies)
    beside = failing_since(new, OLD, dependencies=dependencies, changes=elsewhere)
    assert (best_release(beside) < best_release(alone)) is counts
    calling = replace(beside, callers=OTHERS[:1])
    assert best_release(calling) < best_release(alone)
