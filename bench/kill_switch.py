"""Latency of the kill switch: from the call until no worker writes any more.

`python -m bench.kill_switch`: a PostgreSQL with fsync on and four processes that
act as fast as they can through the real executor and store, on a stand-in for the
cluster that takes five milliseconds for a write and notes when it began. The bench
engages the switch repeatedly. It prints the times from the call until its answer and
until the last write of any worker began, and counts writes that begin after the
answer, because then the switch failed. Bounded in counts and time. With
`--deliveries` the switch is set over HTTP under storms of deliveries (`bench.storm`).
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.agent.approvals.request import ApprovalRequester
from app.agent.executor import Executor
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut
from app.agent.guardrails.question import Guardrails
from app.agent.ids import (
    IncidentId,
    IntentId,
    ServiceKey,
    SignalId,
)
from app.agent.intake import IntakeRules
from app.agent.models import (
    Action,
    ActionName,
    Decision,
    DecisionKind,
    Deploy,
    DeployStatus,
    IncidentState,
    Intent,
    IntentState,
    KillSwitch,
    Plan,
    Risk,
    Signal,
    SignalKind,
    Snapshot,
)
from app.agent.observer import Observer
from app.agent.planner import plan_hash
from app.agent.policy import Policy
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.signals import IntakeDecider
from app.agent.reason_check import ReasonCheck
from app.agent.slo import SloThresholds
from app.agent.workload import (
    ConfigRecord,
    ObjectRef,
    TargetState,
    WorkloadView,
)
from app.clock import SystemClock
from app.errors import ClaimLost
from app.store import open_store
from bench.processes import ROOT, percentile
from bench.storm import measure_deliveries
from testbed.postgres import postgres_server
from testbed.supervisor import Process, Supervisor

WORKERS = 4
WRITE_SECONDS = 0.005
QUIET_SECONDS = 0.25
START_WITHIN_SECONDS = 600.0
"""For a worker to come up: a bound for a loaded machine, not a figure."""
LEASE = timedelta(minutes=5)
_BEFORE, _AFTER = "uid/1", "uid/2"
"""Versions of the object, as its tokens tell them."""


class StandIn:
    """`ClusterReader` and `ClusterWriter`: one object for every action, whose writes are noted."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes.open("a", buffering=1)

    async def services(self) -> tuple[ServiceKey, ...]:
        return ()

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        raise NotImplementedError(f"{key} is not diagnosed here")

    async def target(self, action: Action) -> TargetState:
        assert action.target is not None  # noqa: S101 - every action of the bench has one
        return TargetState(ref=action.target, uid="uid", resource_version="1", token=_BEFORE)

    async def snapshot(self, action: Action) -> Snapshot:
        assert action.target is not None  # noqa: S101 - as above
        return Snapshot(ref=action.target, token=_BEFORE, body={})

    async def disruption(self, action: Action) -> Disruption | None:  # noqa: ARG002 - the port's signature
        return None

    async def cordons(self, node: ObjectRef) -> NodeCordons:  # noqa: ARG002 - the port's signature
        return NodeCordons(nodes=0)

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:  # noqa: ARG002 - the port's signature
        return NodeLoad(node=node.name)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:  # noqa: ARG002 - as above
        return OptOut()

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:  # noqa: ARG002 - as above
        return ()

    async def apply(
        self,
        action: Action,
        intent_id: IntentId,
        target: TargetState,
        snapshot: Snapshot | None,  # noqa: ARG002 - as above
    ) -> TargetState:
        self._notes.write(f"{time.monotonic()}\n")
        await asyncio.sleep(WRITE_SECONDS)
        assert action.target is not None  # noqa: S101 - as above
        return replace(target, token=_AFTER, marker=intent_id)


_SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=timedelta(minutes=1),
    reopen_after=timedelta(hours=1),
)


def _executor(store: Store, cluster: StandIn) -> Executor:
    clock = SystemClock()
    limits = Guardrails(
        enabled_actions=frozenset(ActionName), allow_high_risk=True, max_actions_per_incident=5
    )
    return Executor(
        store=store,
        policy=Policy(limits=limits),
        clock=clock,
        reader=cluster,
        rehearsal=None,
        writer=cluster,
        notifier=None,
        asking=ApprovalRequester(store=store, clock=clock, notifier=None, timeout=LEASE),
        check=ReasonCheck(
            observer=Observer(
                store=store, reader=None, metrics=None, lookback=timedelta(hours=1), dependencies={}
            ),
            slo=_SLO,
            max_age=timedelta(minutes=5),
            clock=clock,
        ),
    )


async def act_for_ever(url: str, notes: Path) -> None:
    """One worker: incident after incident, each brought to its action and carried out."""
    store = await open_store(url)
    executor = _executor(store, StandIn(notes))
    decide = IntakeRules(slo=_SLO)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        await _one(store, executor, decide)


async def _one(store: Store, executor: Executor, decide: IntakeDecider) -> None:
    now = datetime.now(UTC)
    key = ServiceKey(environment="prod", service=f"s-{uuid.uuid4().hex[:16]}")
    [accepted] = await store.signals.accept([_signal(key, now)], decide, dry_run=False)
    incident_id = accepted.disposition.incident_id
    assert incident_id is not None  # noqa: S101 - a failed deploy opens an incident
    claim = await store.claims.take(incident_id, f"bench-{uuid.uuid4().hex}", LEASE, now)
    assert claim is not None  # noqa: S101 - no other process has it
    intent = await _decided(store, claim, incident_id, key, now)
    record = await store.incidents.get(incident_id)
    assert record is not None  # noqa: S101 - it was opened above
    try:
        await executor.execute(record, intent, claim)
    except ClaimLost:
        return


async def _decided(
    store: Store, claim: Claim, incident_id: IncidentId, key: ServiceKey, now: datetime
) -> Intent:
    record = await store.incidents.get(incident_id)
    assert record is not None  # noqa: S101 - it was opened above
    action = Action(
        name=ActionName.RESTART,
        risk=Risk.MEDIUM,
        target=ObjectRef(kind="Deployment", namespace="prod", name=key.service),
        parameters={},
        expected_effect="fresh pods",
        undo=None,
    )
    plan = Plan(
        runbook="bench@1",
        runbook_hash="bench",
        actions=(action,),
        rejected=(),
        hash=plan_hash("bench", (action,)),
        at=now,
    )
    intent = Intent(
        id=IntentId(f"int_{uuid.uuid4().hex}"),
        incident_id=incident_id,
        sequence=0,
        action=action,
        dry_run=False,
        decision=Decision(
            kind=DecisionKind.ALLOW,
            reasons=("bench",),
            plan_hash=plan.hash,
            target_token=_BEFORE,
            at=now,
        ),
        rehearsal=None,
        state=IntentState.DECIDED,
    )
    executing = replace(record.incident, state=IncidentState.EXECUTING, plan=plan)
    await store.intents.add(claim, executing, intent, [])
    return intent


def _signal(key: ServiceKey, now: datetime) -> Signal:
    name = uuid.uuid4().hex
    return Signal(
        id=SignalId(f"sig_{name}"),
        kind=SignalKind.DEPLOY,
        key=key,
        source="bench",
        observed_at=now,
        received_at=now,
        dedup_key=name,
        stale=False,
        payload=Deploy(version="2", status=DeployStatus.FAILED),
    )


async def measure(url: str, notes: list[Path], rounds: int) -> list[tuple[float, float, int]]:
    """Seconds to the answer and to the last write, and how many writes began after it, for each round."""
    store = await open_store(url)
    dice = random.Random(1)  # noqa: S311 - chance for a bench, repeatable on purpose
    found = []
    for _ in range(rounds):
        await asyncio.sleep(dice.uniform(0.2, 0.4))
        called = time.monotonic()
        await store.guardrails.set_kill_switch(
            KillSwitch(engaged=True, by="bench", reason="bench", at=datetime.now(UTC))
        )
        answered = time.monotonic()
        await asyncio.sleep(QUIET_SECONDS)
        writes = [float(line) for path in notes for line in path.read_text().split()]
        late = [at for at in writes if at > called]
        found.append(
            (
                answered - called,
                max((at - called for at in late), default=0.0),
                sum(at > answered for at in writes),
            )
        )
        for path in notes:
            path.write_text("")
        await store.guardrails.set_kill_switch(
            KillSwitch(engaged=False, by="bench", reason="", at=datetime.now(UTC))
        )
    await store.close()
    return found


def main() -> None:
    """Start database and workers, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument(
        "--deliveries",
        nargs="*",
        choices=["sqlite", "postgresql"],
        help="measure over HTTP, under storms of deliveries, instead; on both databases, or on one",
    )
    parser.add_argument("--worker", nargs=2, metavar=("URL", "NOTES"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        asyncio.run(act_for_ever(given.worker[0], Path(given.worker[1])))
        return
    if given.deliveries is not None:
        measure_deliveries(given.deliveries or ["sqlite", "postgresql"])
        return
    supervisor = Supervisor()
    try:
        with tempfile.TemporaryDirectory() as folder, postgres_server(supervisor) as server:
            url = server.url(server.create())
            asyncio.run(_opened(url))
            notes = [Path(folder) / f"writes-{number}" for number in range(WORKERS)]
            for number, path in enumerate(notes):
                path.touch()
                _start(supervisor, url, path, Path(folder) / f"worker-{number}.log")
            _report(asyncio.run(measure(url, notes, given.rounds)))
    finally:
        supervisor.close()


async def _opened(url: str) -> None:
    """Migrate once, before four processes want to."""
    store = await open_store(url)
    await store.close()


def _start(supervisor: Supervisor, url: str, notes: Path, log: Path) -> Process:
    program = [sys.executable, "-m", "bench.kill_switch", "--worker", url, str(notes)]
    process = supervisor.start(log.stem, program, log=log, env={"PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + START_WITHIN_SECONDS
    while "ready" not in log.read_text():
        process.check()
        if time.monotonic() > deadline:
            raise TimeoutError("a worker did not come up")
        time.sleep(0.05)
    return process


def _report(found: list[tuple[float, float, int]]) -> None:
    table = Table("milliseconds from the call", "p50", "p99", "most")
    for name, place in (("until its answer", 0), ("until the last write of any worker", 1)):
        values = [1000 * row[place] for row in found]
        table.add_row(
            name, f"{percentile(values, 0.5):.1f}", f"{percentile(values, 0.99):.1f}", f"{max(values):.1f}"
        )
    console = Console()
    console.print(table)
    late = sum(row[2] for row in found)
    console.print(
        f"{len(found)} rounds, {WORKERS} workers; {late} writes after the answer, of actions begun before it"
    )


if __name__ == "__main__":
    main()
