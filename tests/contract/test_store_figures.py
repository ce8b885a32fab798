"""The contract of the figures behind `/metrics`: counts and ages of work in every state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, event

from app.agent.models import DecisionKind, IncidentState, KillSwitch, OutcomeKind
from app.agent.ports.store import Store
from app.store import store_over
from app.store.database.port import Work
from tests.contract.store_values import (
    MINUTE,
    NOW,
    approval,
    claimed,
    closed,
    key,
    loaded,
    note,
    opened,
    pending,
    signal,
)
from tests.contract.test_store_budgets import begin, ended, ready
from tests.contract.test_store_circuits import SERVICE
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

T = TypeVar("T")


async def test_an_empty_database_has_zeros_and_no_ages(store: Store) -> None:
    """Every state and outcome is named, so that a first event shows as an increase."""
    found = await store.figures.figures(NOW)
    assert (found.accepted_signals, found.pending_signals, found.due_incidents) == (0, 0, 0)
    assert set(found.open_incidents) == set(IncidentState)
    assert set(found.finished_actions) == set(OutcomeKind)
    assert found.oldest_due_incident_at is None
    assert found.oldest_pending_signal_at is None
    assert not found.kill_switch_engaged


async def test_incidents_count_by_state_and_wait_from_their_opening(store: Store) -> None:
    """A claimed incident does not wait; an ended one counts for a day."""
    waiting, held, over = [await opened(store, key(number)) for number in (1, 2, 3)]
    await claimed(store, held)
    claim = await claimed(store, over)
    await store.incidents.save(claim, closed(over), [note()])
    found = await store.figures.figures(NOW + 5 * MINUTE)
    assert found.open_incidents[IncidentState.OPEN] == 2
    assert found.ended_incidents[IncidentState.RECOVERED] == 1
    assert (found.due_incidents, found.oldest_due_incident_at) == (1, waiting.opened_at)
    assert found.accepted_signals == 3
    later = await store.figures.figures(NOW + timedelta(days=2))
    assert later.ended_incidents[IncidentState.RECOVERED] == 0


async def test_actions_count_by_outcome(store: Store) -> None:
    """One that is under way has no outcome yet."""
    claim, act = await ready(store, key(1))
    await begin(store, claim, act, SERVICE, NOW)
    assert (await store.figures.figures(NOW)).executing_actions == 1
    await ended(store, claim, act, IncidentState.ESCALATED)
    found = await store.figures.figures(NOW + MINUTE)
    assert found.executing_actions == 0
    assert found.finished_actions[OutcomeKind.DONE] == 1
    assert (found.decisions[DecisionKind.ALLOW], found.decisions[DecisionKind.DENY]) == (1, 0)
    assert found.budgeted_actions == 1
    later = await store.figures.figures(NOW + 5 * MINUTE, MINUTE)
    assert later.budgeted_actions == 0


async def test_an_approval_waits_from_its_request(store: Store) -> None:
    """And the kill switch shows at once."""
    incident = await opened(store, key(1))
    claim = await claimed(store, incident)
    asked = approval(incident)
    await store.approvals.request(
        claim,
        replace(await loaded(store, incident.id), state=IncidentState.AWAITING_APPROVAL),
        asked,
        [note()],
    )
    await store.guardrails.set_kill_switch(KillSwitch(engaged=True, by="ops", reason="test", at=NOW))
    found = await store.figures.figures(NOW + MINUTE)
    assert (found.pending_approvals, found.oldest_pending_approval_at) == (1, asked.requested_at)
    assert found.kill_switch_engaged


async def test_a_signal_without_a_disposition_waits_from_its_arrival(store: Store) -> None:
    """Its age is what an alert rule watches."""
    one = signal()
    await store.signals.accept([one], pending(), dry_run=True)
    found = await store.figures.figures(NOW + MINUTE)
    assert (found.pending_signals, found.oldest_pending_signal_at) == (1, one.received_at)


class _Watching:
    """A `Database` that keeps the statements of what it reads, and SQLite's plan for each."""

    def __init__(self, store: Store) -> None:
        self._database = database_of(store)
        self.statements: list[str] = []
        self.plan: list[str] = []

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        def watched(connection: Connection) -> T:
            event.listen(connection, "before_cursor_execute", self._note)
            try:
                return work(connection)
            finally:
                event.remove(connection, "before_cursor_execute", self._note)

        return await self._database.read(watched, urgent=urgent)

    def _note(self, connection: Connection, cursor: Any, statement: str, given: Any, *_: object) -> None:
        if connection.dialect.name == "sqlite":
            cursor.execute(f"EXPLAIN QUERY PLAN {statement}", given)
            self.plan += [row[-1] for row in cursor.fetchall()]
        self.statements.append(statement)

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        return await self._database.write(work, urgent=urgent)

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        await self._database.close()


async def test_one_statement_reads_every_figure_over_indexes(store: Store) -> None:
    """Each further one is a wait for a thread beside busy intake; a scan grows with the history."""
    watching = _Watching(store)
    await store_over(watching).figures.figures(NOW)
    assert len(watching.statements) == 1
    scans = {words.split()[1] for words in watching.plan if words.startswith("SCAN") and "INDEX" not in words}
    # One row for each day and shard, process and guardrail; one for each incident and channel, without JSON.
    assert scans <= {"intake_ledger", "sample_ledger", "workers", "brakes", "postings"}
