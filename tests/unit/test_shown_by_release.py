"""Errors that are clearly those of a release are decided without waiting whether they last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from app.agent.diagnosis import diagnose
from app.agent.evidence.onset.patience import patience
from app.agent.models import Evidence, FailingBeside, Objectives, SliSample, Trigger
from tests.unit.scenes import CALLER, DATABASE, NEW, OLD, at, curves, evidence, pods, released, step

GOALS = Objectives(max_error_rate=0.05, max_p95_latency_ms=1000.0, min_request_rate=0.0)


def measured(samples: Sequence[SliSample]) -> tuple[SliSample, ...]:
    return tuple(replace(one, measured=True) for one in samples)


def begun(**changes: object) -> Evidence:
    """A release whose pods serve since 30 s, and half of the requests fail since then."""
    seen = evidence(
        Trigger.HIGH_ERROR_RATE,
        workload=released(pods(NEW, ready_changed_at=at(-0.6)), created=-1),
        sli=measured(curves(errors=step(-0.5, 0.001, 0.5))),
        objectives=GOALS,
    )
    return replace(seen, **changes)  # type: ignore[arg-type]  # a test names real fields


def test_errors_of_new_pods_alone_are_not_waited_for() -> None:
    """Half of the requests fail since the last new pod is ready, under the same load."""
    seen = begun()
    assert patience(seen, diagnose(seen)) is None
    effect = FailingBeside(key=CALLER, since=at(-0.4), unrelated=False)
    seen = begun(failing_beside=(effect,), callers=(CALLER,))
    assert patience(seen, diagnose(seen)) is None


BOTH = (*pods(NEW, 2, ready_changed_at=at(-0.6)), *pods(OLD, 2))
FLAT = measured(curves(errors=step(-0.75, 0.001, 0.5)))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sli": measured(curves(errors=step(-0.5, 0.001, 0.12)))}, id="not far above"),
        pytest.param(
            {"sli": measured(curves(errors=step(-0.5, 0.001, 0.5), requests=step(-0.5, 50.0, 75.0)))},
            id="more load",
        ),
        pytest.param(
            {"sli": measured(curves(errors=step(-0.5, 0.001, 0.5), p95=step(-0.5, 90.0, 2400.0)))},
            id="slow answers, perhaps of cold caches",
        ),
        pytest.param(
            {"sli": FLAT, "workload": released(pods(NEW, ready_changed_at=at(-0.5)), created=-1)},
            id="no more errors since the rollout ended",
        ),
        pytest.param(
            {"workload": released(pods(NEW, ready_changed_at=at(-1.6)), created=-3)}, id="served well before"
        ),
        pytest.param({"workload": released(BOTH, created=-1)}, id="older pods serve too"),
        pytest.param({"sli": measured(curves(errors=step(-0.1, 0.001, 0.5)))}, id="one sample"),
        pytest.param(
            {"workload": released(pods(NEW, ready_changed_at=at(-0.4)), created=-1)},
            id="others may end",
        ),
        pytest.param(
            {"failing_beside": (FailingBeside(key=DATABASE, since=at(-0.5), unrelated=False),)},
            id="a dependency fails",
        ),
        pytest.param(
            {
                "sli": tuple(
                    replace(one, request_rate=None) for one in measured(curves(errors=step(-0.5, 0.001, 0.5)))
                )
            },
            id="unknown load",
        ),
    ],
)
def test_what_else_may_explain_them_is_waited_for(changes: dict[str, object]) -> None:
    """A short breach of another cause looks the same at first."""
    seen = begun(**changes)
    wait = patience(seen, diagnose(seen))
    assert wait is not None
    assert wait.waits_for == "duration"
