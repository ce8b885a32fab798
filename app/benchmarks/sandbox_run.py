"""Plays scenarios of the sandbox on virtual time, with a person who answers as their files say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from app.agent.approvals.answer import answer
from app.agent.identity.people import Person
from app.agent.models import ApprovalState, IncidentRecord
from app.agent.ports.store.incidents import IncidentFilter
from app.benchmarks.healing_agent import OWNER, seen
from app.bootstrap import Container
from app.clock import SteppedClock
from app.config import Settings
from app.sandbox.runner import InlineRunner
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.judge import Judgement, judge
from app.sandbox.scenarios.naive import fared
from app.sandbox.scenarios.playground import Playground, ScenarioRun
from app.simulation.sandbox import assemble_sandbox
from app.simulation.wiring import observing, report
from app.store import open_in_memory

PERSON = Person(name="simulated person")
_STEP_SECONDS = 5.0
_MOST_INCIDENTS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How one run of a scenario ended."""

    variant: Variant
    records: tuple[IncidentRecord, ...]
    """Oldest first."""
    judgement: Judgement
    """Its harm is not measured: there is no twin."""


async def play(
    settings: Settings, variants: Sequence[Variant], new_clock: Callable[[datetime], SteppedClock]
) -> list[Ended]:
    """Play these variants one after the other, each to its horizon, on one store.

    `settings` are those of `sandbox_settings`. Raises `ConfigurationError` for a catalogue
    or for policies that cannot be used.
    """
    clock = new_clock(datetime.now(UTC))
    playground = Playground(clock=clock, scenarios=tuple(variants), environment=settings.sandbox_environment)
    runner = InlineRunner(clock)
    container = assemble_sandbox(settings, playground, store=open_in_memory(), runner=runner)
    runner.attach(replace(container.loop, owner=OWNER))
    try:
        async with observing(container):
            return [await _to_its_end(container, playground, runner, clock, one) for one in variants]
    finally:
        await runner.close()
        await container.close()


async def _to_its_end(
    container: Container, playground: Playground, runner: InlineRunner, clock: SteppedClock, variant: Variant
) -> Ended:
    run = playground.start(variant.scenario.id)
    while clock.now() < run.ends_at:
        await playground.step(lambda reported: report(container, reported, "pipeline"))
        await clock.advance(_STEP_SECONDS)
        runner.check()
        await _answer(container, runner, run)
    run.stage.world.catch_up()
    records = await _records(container, run)
    outcome = fared(run.stage, run.started_at, seen(records, variant, run.started_at))
    judgement = judge(variant.scenario, variant.fault_at, outcome, outcome)
    return Ended(variant=variant, records=tuple(records), judgement=judgement)


async def _records(container: Container, run: ScenarioRun) -> list[IncidentRecord]:
    incidents = container.store.incidents
    where = IncidentFilter(environment=run.environment)
    page = await incidents.find(where, limit=_MOST_INCIDENTS, cursor=None)
    found = [await incidents.get(one.incident.id) for one in reversed(page.items)]
    return [record for record in found if record is not None]


async def _answer(container: Container, runner: InlineRunner, run: ScenarioRun) -> None:
    """Answer every pending approval."""
    approvals = container.store.approvals
    for one in (await approvals.find(ApprovalState.PENDING, limit=_MOST_INCIDENTS, cursor=None)).items:
        await answer(
            approvals,
            one.approval.id,
            approve=run.variant.scenario.answer == "approve",
            by=PERSON,
            comment="",
            at=container.clock.now(),
        )
        await runner.wake(one.incident.id)
