"""What a release did to the containers that fail, and what else keeps its pods from serving."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.onset.patience import patience
from app.agent.ids import ServiceKey
from app.agent.models import ActionName, Cause, Evidence, FailingBeside, Trigger
from app.agent.planner import make_plan
from app.agent.workload import FailingContainer, PodView, Revision
from tests.unit.scenes import (
    CATALOGUE,
    DATABASE,
    LIMITS,
    OLD,
    at,
    crashing,
    evidence,
    pods,
    record,
    revision,
    workload,
)

FIELDS = (("image of app", "1"), ("resources of app", "1"), ("image of proxy", "1"), ("volumes", "1"))
BEFORE = replace(OLD, fields=FIELDS, memory_limits=(("app", 256),))
CRASH = (Trigger.CRASH_LOOP,)
OTHER = ServiceKey(environment="prod", service="search")


def released(*names: str, limit: int = 256, code: bool = True) -> Revision:
    """A release three minutes ago that changed these fields."""
    fields = tuple((name, "2" if name in names else value) for name, value in FIELDS)
    changed = revision(7, -3, fields=fields, memory_limits=(("app", limit),))
    return changed if code else replace(changed, code_hash=BEFORE.code_hash, images=BEFORE.images)


def failing(of: Revision, container: str, *, reason: str = "Error", count: int = 3) -> tuple[PodView, ...]:
    """Crashing pods in which this container is the one that fails."""
    stopped = FailingContainer(name=container, exit_code=1)
    return tuple(replace(pod, failing=stopped) for pod in crashing(of, count, reason=reason))


def confidence(seen: Evidence, cause: Cause = Cause.BAD_RELEASE) -> float:
    return max((one.confidence for one in diagnose(seen).hypotheses if one.cause is cause), default=0.0)


def actions(seen: Evidence) -> list[ActionName]:
    return [action.name for action in make_plan(diagnose(seen), seen, CATALOGUE, LIMITS).actions]


@pytest.mark.parametrize(
    ("changed", "container", "acts"),
    [
        ("image of app", "app", True),
        ("image of app", "proxy", False),
        ("image of proxy", "proxy", True),
        ("volumes", "proxy", True),
    ],
)
def test_a_container_that_the_release_left_alone_speaks_against_it(
    changed: str, container: str, *, acts: bool
) -> None:
    """A sidecar whose certificate expired is no reason to take back a release of the main container.

    What belongs to the pod, such as a volume, may stop any of its containers.
    """
    new = released(*{changed, "image of app" if changed == "volumes" else changed})
    seen = evidence(*CRASH, workload=workload([new, BEFORE], failing(new, container)))
    assert (actions(seen) == [ActionName.ROLLBACK]) is acts


def test_healthy_pods_without_the_release_outweigh_the_container() -> None:
    """The same container works beside the older code: the release is what differs."""
    new = released("image of app")
    view = workload([new, BEFORE], (*failing(new, "proxy", count=1), *pods(BEFORE, 3)))
    assert actions(evidence(*CRASH, workload=view)) == [ActionName.ROLLBACK]


@pytest.mark.parametrize(("limit", "acts"), [(128, True), (256, False), (512, False)])
def test_a_release_that_lowered_the_limit_may_serve_well_first(limit: int, *, acts: bool) -> None:
    """Memory grows into the limit: that the pods served for a while does not clear the release."""
    new = released("image of app", "resources of app", limit=limit)
    running = (*failing(new, "app", reason="OOMKilled", count=1), *pods(new, 2))
    seen = evidence(
        *CRASH,
        Trigger.PODS_UNAVAILABLE,
        workload=workload([new, BEFORE], running),
        revision_history=(record(new, seen=-1), record(BEFORE)),
    )
    assert (actions(seen) == [ActionName.ROLLBACK]) is acts


@pytest.mark.parametrize(
    ("since", "unrelated", "calls", "weighs"),
    [(0, True, True, True), (0, False, False, True), (0, False, True, False), (-20, True, True, False)],
)
def test_services_that_crash_together_have_a_cause_in_common(
    since: float, *, unrelated: bool, calls: bool, weighs: bool
) -> None:
    """A version that had served well crashes as another service fails, which is not known to call it."""
    new = released("image of app")
    seen = evidence(
        *CRASH,
        workload=workload([new, BEFORE], crashing(new)),
        revision_history=(record(new, seen=-1), record(BEFORE)),
        dependencies=(DATABASE,) if calls else (),
    )
    beside = FailingBeside(key=OTHER, since=at(since), unrelated=unrelated)
    together = confidence(replace(seen, failing_beside=(beside,)))
    assert (together < confidence(seen)) is weighs


def test_a_release_that_crashes_at_once_is_not_cleared_by_others() -> None:
    """It never served well: others may fail by it."""
    new = released("image of app")
    seen = evidence(*CRASH, workload=workload([new, BEFORE], crashing(new)))
    beside = FailingBeside(key=OTHER, since=at(0), unrelated=True)
    assert confidence(replace(seen, failing_beside=(beside,))) == confidence(seen)


def test_a_webhook_that_does_not_answer_is_not_the_fault_of_a_release() -> None:
    """It refuses the pods of every template, those of a rollback too."""
    said = (
        'FailedCreate: Internal error occurred: failed calling webhook "sign.example.com": failed to call '
        'webhook: Post "https://signer.security.svc:443/pods": connection refused'
    )
    view = workload(
        [released("image of app"), BEFORE], pods(BEFORE), replica_failure=said, replica_failure_since=at(-2)
    )
    seen = evidence(Trigger.PODS_UNAVAILABLE, workload=view)
    best = diagnose(seen).best
    assert best.cause is Cause.ADMISSION_REFUSAL
    assert best.evidence_for[0].startswith("an admission webhook does not answer: FailedCreate")
    assert actions(seen) == []


def starting(created: float, of: Revision) -> tuple[PodView, ...]:
    return pods(
        of,
        1,
        created=created,
        ready=False,
        phase="Pending",
        node="node-9",
        waiting_reason="ContainerCreating",
    )


def test_pods_that_replace_those_reported_are_given_time_to_start() -> None:
    """A second release followed at once: its pods say within half a minute whether they serve."""
    new = released("image of app")
    view = workload([new, BEFORE], (*starting(0.2, new), *pods(BEFORE)))
    seen = evidence(*CRASH, workload=view, at=at(0.3))
    wait = patience(seen, diagnose(seen))
    assert wait is not None
    assert wait.waits_for == "new pods"
    assert wait.until == at(0.7)
    assert wait.look_at is not None
    assert wait.look_at < wait.until


@pytest.mark.parametrize("case", ["old", "ready", "another fails"])
def test_only_young_pods_are_waited_for(case: str) -> None:
    """Not overdue ones, nor beside a pod that fails; with every pod ready nothing is left to see."""
    new = released("image of app")
    running = {
        "old": (*starting(-2, new), *pods(BEFORE)),
        "ready": (*pods(new, 1), *pods(BEFORE)),
        "another fails": (*starting(0.2, new), *crashing(BEFORE)),
    }[case]
    seen = evidence(*CRASH, workload=workload([new, BEFORE], running), at=at(0.3))
    assert patience(seen, diagnose(seen)) is None
