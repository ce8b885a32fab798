"""The judge of the healing benchmark: what counts as a right end, and what as harm."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.models import ActionName
from app.sandbox.scenarios.document import ActSpec, EndSpec, ScenarioFile, ServiceSpec, Topology
from app.sandbox.scenarios.judge import Act, Run, Scored, judge, score, violations
from app.sandbox.traffic import Level

START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
HORIZON = 1200.0
FAULT = 200.0

ROLLBACK = ActSpec(action=ActionName.ROLLBACK, service="shop")
TWIN = Run(violated={"shop": 1000.0, "web": 0.0}, unhealthy_until=HORIZON, horizon=HORIZON)
HEALED = replace(TWIN, violated={"shop": 100.0, "web": 0.0}, unhealthy_until=300.0, incidents=1)


def scenario(*ends: EndSpec, control: bool = False) -> ScenarioFile:
    return ScenarioFile(
        schema=1,
        id="judged",
        title="judged by a test",
        family="test",
        topology=Topology(services=(ServiceSpec(name="shop"),)),
        timeline=(),
        right_ends=ends,
        control=control,
        forbidden=(ActSpec(action=ActionName.RESTART, service="shop"),),
    )


def act(action: ActionName, service: str = "shop", *, undo: bool = False) -> Act:
    return Act(action=action, service=service, at=250.0, undo=undo)


RECOVERED = EndSpec(end="recovered", by=(ROLLBACK,))
ESCALATED = EndSpec(end="escalated")
DRAINED = EndSpec(end="escalated", by=(ActSpec(action=ActionName.DRAIN_NODE),))
"""Whichever service the node was drained for."""
UNDONE = EndSpec(end="escalated", by=(ROLLBACK,), undone=True)
NO_ACTION = EndSpec(end="no_action")
DONE = (act(ActionName.ROLLBACK),)
PUT_BACK = (*DONE, act(ActionName.RESTORE, undo=True))


@pytest.mark.parametrize(
    ("end", "run", "right"),
    [
        (RECOVERED, replace(HEALED, acts=DONE), True),
        (RECOVERED, HEALED, False),
        (RECOVERED, replace(TWIN, acts=DONE), False),
        (RECOVERED, replace(HEALED, acts=(*DONE, act(ActionName.RESTART))), False),
        (RECOVERED, replace(HEALED, acts=(act(ActionName.ROLLBACK, "web"),)), False),
        (RECOVERED, replace(HEALED, acts=PUT_BACK), True),
        (ESCALATED, replace(TWIN, pages=("shop",)), True),
        (DRAINED, replace(TWIN, pages=("shop",), acts=(act(ActionName.DRAIN_NODE, "web"),)), True),
        (DRAINED, replace(TWIN, pages=("shop",), acts=DONE), False),
        (ESCALATED, replace(TWIN, pages=("shop",), acts=DONE), False),
        (ESCALATED, TWIN, False),
        (UNDONE, replace(TWIN, pages=("shop",), acts=PUT_BACK), True),
        (UNDONE, replace(TWIN, pages=("shop",), acts=DONE), False),
        (NO_ACTION, TWIN, True),
        (NO_ACTION, replace(TWIN, pages=("shop",)), False),
        (NO_ACTION, replace(TWIN, acts=DONE), False),
    ],
)
def test_a_right_end_is_reached_without_any_other_action(end: EndSpec, run: Run, right: bool) -> None:
    """An action that no right end names makes every end wrong; an undo of the own action is none."""
    assert judge(scenario(end), FAULT, run, TWIN).right is right


def test_two_faults_need_both_actions() -> None:
    """Stopping after the first is no recovery."""
    both = EndSpec(
        end="recovered", all_of=True, by=(ROLLBACK, ActSpec(action=ActionName.REVERT_CONFIG, service="shop"))
    )
    first = replace(HEALED, acts=DONE)
    assert not judge(scenario(both), FAULT, first, TWIN).right
    second = replace(first, acts=(*DONE, act(ActionName.REVERT_CONFIG)))
    assert judge(scenario(both), FAULT, second, TWIN).right


def test_harm_is_counted_by_service_beyond_the_twin() -> None:
    """Healing one service does not make up for breaking another."""
    run = replace(TWIN, violated={"shop": 10.0, "web": 60.0})
    found = judge(scenario(RECOVERED), FAULT, run, TWIN)
    assert (found.harm_seconds, found.saved_seconds) == (60.0, 990.0)


def test_a_trap_is_counted_as_wrong_and_as_forbidden() -> None:
    """The first says that it should not have been, the second that it was foreseen."""
    run = replace(TWIN, acts=(act(ActionName.RESTART), act(ActionName.SCALE)))
    found = judge(scenario(RECOVERED), FAULT, run, TWIN)
    assert (found.wrong_actions, found.forbidden) == (2, 1)
    assert found.why.startswith("wrong action: restart shop, scale shop")


def test_what_is_not_recovered_counts_to_the_horizon() -> None:
    """Otherwise an agent that gives up would look fast."""
    assert judge(scenario(RECOVERED), FAULT, TWIN, TWIN).recover_seconds == HORIZON - FAULT
    assert judge(scenario(RECOVERED), FAULT, HEALED, TWIN).recover_seconds == 100.0
    assert judge(scenario(ESCALATED), FAULT, HEALED, TWIN).recover_seconds is None


def test_seconds_outside_the_objectives_are_counted_between_two_moments() -> None:
    """What happened before the start and after the horizon does not count, nor what no one asked for."""

    def level(at: float, failed: float, rate: float = 50.0, p95: float = 100.0) -> Level:
        since = START + timedelta(seconds=at)
        return Level(since=since, requests_per_second=rate, shares=(), failed=failed, p95_latency_ms=p95)

    levels = [level(-50, 0.5), level(10, 0.0), level(100, 0.06), level(130, 0.0, p95=1500.0), level(150, 0.0)]
    levels += [level(200, 1.0, rate=0.0), level(300, 0.0), level(1190, 0.5)]
    end = START + timedelta(seconds=HORIZON)
    assert violations(levels, START, end) == (10 + 30 + 20 + 10, HORIZON)
    assert violations(levels[:-1], START, end) == (60, 150.0)


def test_the_score_sums_and_averages_the_runs() -> None:
    """Actions on controls are shown by themselves."""

    def scored(run: Run, *, control: bool) -> Scored:
        ends = (NO_ACTION,) if control else (RECOVERED,)
        judgement = judge(scenario(*ends, control=control), FAULT, run, TWIN)
        return Scored(
            scenario="judged", variant=0, family="test", control=control, run=run, judgement=judgement
        )

    healed = scored(replace(HEALED, acts=DONE, detected_at=260.0), control=False)
    acted = scored(replace(HEALED, acts=DONE, pages=("shop",)), control=True)
    found = score([healed, acted])
    assert (found.scenarios, found.right_ends, found.wrong_actions, found.control_actions) == (2, 1, 1, 1)
    assert (found.mttd_seconds, found.mttr_seconds, found.actions_per_incident) == (60.0, 100.0, 1.0)
    assert found.pages == 1


def test_the_time_to_recover_is_shown_for_the_healed_runs_too() -> None:
    """What was handed over counts to the horizon in the mean over all, and is left out of this one."""

    def scored(run: Run) -> Scored:
        judgement = judge(scenario(RECOVERED, ESCALATED), FAULT, run, TWIN)
        return Scored(
            scenario="judged", variant=0, family="test", control=False, run=run, judgement=judgement
        )

    healed, handed_over = scored(replace(HEALED, acts=DONE)), scored(replace(TWIN, pages=("shop",)))
    found = score([healed, handed_over])
    assert (found.right_ends, found.healed, found.mttr_healed_seconds) == (2, 1, 100.0)
    assert found.mttr_seconds == (100.0 + HORIZON - FAULT) / 2
    assert (score([handed_over]).healed, score([handed_over]).mttr_healed_seconds) == (0, None)
