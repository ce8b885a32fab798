"""The scenarios of the sandbox: each ends as its file says, with a person who answers as it says."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from app.agent.approvals.answer import answer
from app.agent.identity.people import Person
from app.agent.models import ApprovalState, IncidentRecord
from app.agent.ports.store.incidents import IncidentFilter
from app.benchmarks.healing_agent import seen
from app.bootstrap import Container
from app.config import Settings
from app.sandbox.runner import InlineRunner
from app.sandbox.scenarios.judge import Judgement, judge
from app.sandbox.scenarios.naive import fared
from app.sandbox.scenarios.playground import Playground, ScenarioRun, offered
from app.simulation.sandbox import assemble_sandbox, sandbox_settings
from app.simulation.wiring import observing, report
from app.store import open_in_memory
from app.testing import VirtualClock

NAMES = tuple(one.scenario.id for one in offered(None))
RUNBOOKS = Path(__file__).parents[2] / "runbooks"
STEP_SECONDS = 5.0


async def played(*names: str) -> list[Judgement]:
    """Start scenarios one after the other on one store, each to its horizon."""
    clock = VirtualClock()
    playground = Playground(clock=clock, scenarios=offered(None), environment="sandbox")
    runner = InlineRunner(clock)
    settings = sandbox_settings(Settings(_env_file=None, runbooks_dir=RUNBOOKS, sandbox=True))
    container = assemble_sandbox(settings, playground, store=open_in_memory(), runner=runner)
    runner.attach(replace(container.loop, owner="sandbox"))
    try:
        async with observing(container):
            return [await to_its_end(container, playground, runner, clock, name) for name in names]
    finally:
        await runner.close()
        await container.close()


async def to_its_end(
    container: Container, playground: Playground, runner: InlineRunner, clock: VirtualClock, name: str
) -> Judgement:
    run = playground.start(name)
    while clock.now() < run.ends_at:
        await playground.step(lambda reported: report(container, reported, "pipeline"))
        await clock.advance(STEP_SECONDS)
        runner.check()
        await answered(container, runner, run)
    run.stage.world.catch_up()
    records = await records_of(container, run)
    outcome = fared(run.stage, run.started_at, seen(records, run.variant, run.started_at))
    scenario = run.variant.scenario
    return judge(scenario, run.variant.fault_at, outcome, outcome)


async def records_of(container: Container, run: ScenarioRun) -> list[IncidentRecord]:
    where = IncidentFilter(environment=run.environment)
    found = (await container.store.incidents.find(where, limit=50, cursor=None)).items
    return [one for each in found if (one := await container.store.incidents.get(each.incident.id))]


async def answered(container: Container, runner: InlineRunner, run: ScenarioRun) -> None:
    """The person of the file answers every approval that is asked for."""
    pending = await container.store.approvals.find(ApprovalState.PENDING, limit=10, cursor=None)
    for one in pending.items:
        await answer(
            container.store.approvals,
            one.approval.id,
            approve=run.variant.scenario.answer == "approve",
            by=Person(name="visitor"),
            comment="",
            at=container.clock.now(),
        )
        await runner.wake(one.incident.id)


@pytest.mark.parametrize("name", NAMES)
async def test_a_scenario_ends_as_its_file_says(name: str) -> None:
    """With the shipped runbooks and policies and the times of the sandbox."""
    (judgement,) = await played(name)
    assert judgement.right, judgement.why


async def test_an_earlier_run_does_not_change_the_next() -> None:
    """What the agent remembers of a failed release is of another environment."""
    judgements = await played(NAMES[0], NAMES[0])
    assert [one.right for one in judgements] == [True, True], [one.why for one in judgements]


def test_runs_are_counted_across_processes(tmp_path: Path) -> None:
    """A kept folder never gives an environment twice."""
    environments = []
    for _ in range(2):
        playground = Playground(
            clock=VirtualClock(),
            scenarios=offered(None),
            environment="sandbox",
            counted_in=tmp_path / "runs",
        )
        environments += [playground.start(NAMES[0]).environment for _ in range(2)]
    assert environments == ["sandbox", "sandbox-2", "sandbox-3", "sandbox-4"]


async def test_an_event_happens_at_its_moment() -> None:
    """Not before, once, and what the pipeline reports names the environment of the run."""
    clock = VirtualClock()
    playground = Playground(clock=clock, scenarios=offered(None), environment="sandbox")
    playground.start(NAMES[0])
    run = playground.start(NAMES[0])
    told: list[str] = []

    async def listen(reported: object) -> None:
        told.append(str(reported))

    due = run.variant.events[0].at
    for seconds in (due - 1, 1, 1):
        await clock.advance(seconds)
        await playground.step(listen)
    assert len(told) == 1
    assert "environment='sandbox-2'" in told[0]
    assert clock.now() - run.started_at == timedelta(seconds=due + 1)
