"""A healthy cluster shows no condition at any instant of a rollout, a restart or a rescheduling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.evidence.conditions import CONDITION_TRIGGERS, workload_conditions
from app.agent.workload import FailingContainer, PodView, WarningView
from tests.sizes import examples
from tests.unit.scenes import NEW, OLD, at, pods, workload

NOW = 0.3
"""The instant of the view, in minutes."""


def _starting(pod: PodView, seconds: float, **changes: object) -> PodView:
    """A pod of this age that is not ready yet; nothing changed since its creation."""
    born = at(NOW) - timedelta(seconds=seconds)
    plain = replace(pod, created_at=born, ready=False, ready_changed_at=born, phase="Pending")
    return replace(plain, **changes)  # type: ignore[arg-type]  # a test names real fields


def _waiting(reason: str, message: str = "") -> Callable[[PodView, float], PodView]:
    return lambda pod, seconds: _starting(
        pod, seconds, waiting_reason=reason, failing=FailingContainer(name="app", message=message)
    )


def _running(pod: PodView, seconds: float) -> PodView:
    return _starting(pod, seconds, phase="Running")


def _unready_again(pod: PodView, seconds: float) -> PodView:
    return replace(pod, ready=False, ready_changed_at=at(NOW) - timedelta(seconds=seconds))


def _silent_node(pod: PodView, seconds: float) -> PodView:
    return replace(_unready_again(pod, seconds), node_lost=True)


def _restarted(pod: PodView, seconds: float) -> PodView:
    ended = at(NOW) - timedelta(seconds=seconds)
    failing = FailingContainer(name="app", exit_code=0, ended_at=ended)
    return replace(_unready_again(pod, seconds), failing=failing)


def _unscheduled(pod: PodView, seconds: float) -> PodView:
    return _starting(pod, seconds, node=None, unschedulable="0/3 nodes are available: 3 Insufficient cpu.")


def _mounting(pod: PodView, seconds: float) -> PodView:
    event = WarningView(reason="FailedAttachVolume", message="still attached", count=3, at=at(NOW))
    return replace(_waiting("ContainerCreating")(pod, seconds), warnings=(event,))


def _leftover(pod: PodView, seconds: float) -> PodView:
    phase = "Failed" if seconds % 2 < 1 else "Succeeded"
    return replace(pod, ready=False, phase=phase, waiting_reason=None)


PASSING: tuple[tuple[Callable[[PodView, float], PodView], float], ...] = (
    (_waiting("ContainerCreating"), 119),
    (_waiting("PodInitializing"), 119),
    (_running, 119),
    (_unready_again, 119),
    (_waiting("CreateContainerConfigError", 'configmap "a" not found'), 29),
    (_waiting("ErrImagePull", "dial tcp: i/o timeout"), 89),
    (_waiting("ImagePullBackOff", "Back-off pulling image"), 89),
    (_unscheduled, 119),
    (_mounting, 119),
    (_silent_node, 29),
    (_restarted, 59),
    (_leftover, 1e6),
)
"""What happens to a pod for a while in every healthy cluster, and how many seconds of it are normal."""


@st.composite
def passing_pods(draw: st.DrawFn, plain: PodView) -> PodView:
    if draw(st.booleans()):
        return plain
    change, longest = draw(st.sampled_from(PASSING))
    return change(plain, draw(st.floats(0, longest)))


@st.composite
def normal_pods(draw: st.DrawFn) -> tuple[PodView, ...]:
    old = pods(OLD, draw(st.integers(1, 4)))
    new = pods(NEW, draw(st.integers(0, 4)))
    return tuple(draw(passing_pods(pod)) for pod in (*new, *old))


@given(running=normal_pods(), refused=st.one_of(st.none(), st.floats(0, 59)), paused=st.booleans())
@settings(deadline=None, max_examples=examples(300))
def test_what_passes_by_itself_opens_nothing(
    running: tuple[PodView, ...], refused: float | None, paused: bool
) -> None:
    """Starts, rollouts, restarts, rescheduling, a registry or a quota that recovers: no condition."""
    view = workload([NEW, OLD], running, paused=paused)
    if refused is not None:
        since = at(NOW) - timedelta(seconds=refused)
        view = replace(view, replica_failure="FailedCreate: exceeded quota", replica_failure_since=since)
    assert workload_conditions(view) == ()


@given(
    running=normal_pods(),
    seconds=st.floats(330, 1e6),
    kind=st.integers(0, len(PASSING) - 2),
    at_=st.integers(0, 8),
)
@settings(deadline=None, max_examples=examples(200))
def test_what_does_not_pass_is_a_condition_with_a_trigger(
    running: tuple[PodView, ...], seconds: float, kind: int, at_: int
) -> None:
    """One stuck pod is enough, whatever the others do, and well before the progress deadline."""
    change, _ = PASSING[kind]
    [plain] = pods(OLD, 1)
    stuck = change(plain, seconds)
    view = workload([NEW, OLD], (*running[:at_], stuck, *running[at_:]))
    found = workload_conditions(view)
    assert found
    assert set(found) <= set(CONDITION_TRIGGERS)
