"""The real agent in a scenario of the healing benchmark, on virtual time.

Store, intake, observer, diagnosis, planner, policy, executor, verifier, watcher and
poller are those of the product, wired by the same composition root and with its
default settings, except that writing and reading logs are allowed: cluster and metrics
are simulated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from app.agent.ids import IncidentId
from app.agent.models import (
    ActionName,
    IncidentRecord,
    IncidentState,
    OutcomeKind,
)
from app.agent.ports.policy import PolicyEngine
from app.bootstrap import Container, assemble
from app.clock import SteppedClock
from app.config import Settings
from app.connectors.kinds import MetricPace
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.runner import InlineRunner
from app.sandbox.scenarios.files import Variant
from app.sandbox.scenarios.judge import Act, NamedCause, Run
from app.sandbox.scenarios.naive import WINDOW, fared
from app.sandbox.scenarios.stage import PAST_SECONDS, ScenarioWorld
from app.simulation.wiring import observing, report, simulated
from app.store import open_in_memory

OWNER = "benchmark"
_WATCH_SECONDS = 5.0
RECHECK = timedelta(seconds=60)
PACE = MetricPace(window=WINDOW, every=timedelta(seconds=15), at_once=1)


def benchmark_settings(runbooks: Path) -> Settings:
    """The defaults of the product, whatever this machine's environment says; writing and logs are allowed."""
    return Settings.model_construct(
        runbooks_dir=runbooks,
        dry_run=False,
        allow_high_risk_actions=True,
        log_evidence=True,
        claim_lease_seconds=3600.0,
        watch_concurrency=1,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class HealingStage:
    """What the runs of one process share."""

    policy: PolicyEngine
    settings: Settings
    new_clock: Callable[[datetime], SteppedClock]

    def run(self, variant: Variant, start: datetime) -> Run:
        """Play a variant with the real agent, to its horizon."""
        return asyncio.run(self._run(variant, start))

    async def _run(self, variant: Variant, start: datetime) -> Run:
        clock = self.new_clock(start - timedelta(seconds=PAST_SECONDS))
        played = ScenarioWorld(variant, clock)
        await _pass_to(clock, start)
        played.world.catch_up()
        known = played.dependencies if variant.scenario.topology.dependencies_known else {}
        enabled = self.settings.enabled_actions | {*variant.scenario.enables}
        settings = self.settings.model_copy(
            update={"service_dependencies": known, "enabled_actions": enabled}
        )
        cluster = SandboxCluster.over(played.world, watch_seconds=_WATCH_SECONDS)
        metrics = SandboxMetrics(played.world, window=WINDOW)
        outside = simulated(cluster, metrics, settings, policy=self.policy, pace=PACE)
        store = open_in_memory()
        runner = InlineRunner(clock)
        container = assemble(settings, clock=clock, store=store, world=outside, runner=runner)
        runner.attach(replace(container.loop, owner=OWNER))
        try:
            async with observing(container, recheck_every=RECHECK):
                for event in variant.events:
                    await _pass_to(clock, start + timedelta(seconds=event.at))
                    await report(container, played.happen(event), "benchmark")
                    runner.check()
                await _pass_to(clock, start + timedelta(seconds=variant.scenario.horizon))
                runner.check()
                played.world.catch_up()
                records = await _records(container, runner.woken)
        finally:
            await runner.close()
            await store.close()
        return fared(played, start, seen(records, variant, start))


@contextmanager
def healing_stage(runbooks: Path, new_clock: Callable[[datetime], SteppedClock]) -> Iterator[HealingStage]:
    """A stage of this process."""
    policy = EmbeddedPolicy(shipped_policies())
    try:
        yield HealingStage(policy=policy, settings=benchmark_settings(runbooks), new_clock=new_clock)
    finally:
        asyncio.run(policy.aclose())


async def _pass_to(clock: SteppedClock, moment: datetime) -> None:
    await clock.advance(max(0.0, (moment - clock.now()).total_seconds()))


async def _records(container: Container, woken: tuple[IncidentId, ...]) -> list[IncidentRecord]:
    found = [await container.store.incidents.get(one) for one in woken]
    return [record for record in found if record is not None]


def seen(records: list[IncidentRecord], variant: Variant, start: datetime) -> Run:
    """What the records say that the agent did."""
    opened = sorted((r.incident.opened_at - start).total_seconds() for r in records)
    begun = variant.fault_at
    return Run(
        acts=tuple(act for record in records for act in _acts(record, start)),
        pages=tuple(
            record.incident.key.service
            for record in records
            if record.incident.state is IncidentState.ESCALATED
        ),
        incidents=len(records),
        detected_at=next((at for at in opened if begun is not None and at >= begun), None),
        violated={},
        unhealthy_until=0.0,
        horizon=variant.scenario.horizon,
        diagnoses=tuple(
            NamedCause(
                service=r.incident.key.service, cause=found.best.cause, confidence=found.best.confidence
            )
            for r in records
            if (found := r.incident.diagnosis) is not None
        ),
    )


def _acts(record: IncidentRecord, start: datetime) -> Iterator[Act]:
    for intent in record.intents:
        outcome = intent.outcome
        took_place = outcome is not None and outcome.kind in (OutcomeKind.DONE, OutcomeKind.UNKNOWN)
        if outcome is None or not took_place or intent.dry_run or intent.action.name is ActionName.NOTIFY:
            continue
        yield Act(
            action=intent.action.name,
            service=record.incident.key.service,
            at=(outcome.at - start).total_seconds(),
            undo=intent.undoes is not None,
        )
