"""One worker of `bench.engines`: the same trivial incidents, processed by the product's driver or by DBOS.

    python -m bench.engine_worker driver|dbos|enqueue DATABASE_URL OWNER

Both kinds call the same loop, which takes three durable steps in the store under a
claim and closes the incident. An incident of a service named `rest-*` rests for hours
after its first step instead; the first worker to take one named `hang-*` hangs.
`enqueue` hands incidents over to DBOS, one line each, and prints the time of each. The
wiring over DBOS is the one that the product had (one workflow for each incident, which
calls the loop until it ends), with a queue so that several processes share the work,
and the monitor that recovers the dead.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from app.agent.ids import IncidentId
from app.agent.loop import Rest
from app.agent.models import IncidentState, Note, Stage
from app.agent.ports.store import Store
from app.clock import SystemClock
from app.errors import ClaimLost, TransientError
from app.store import open_shared
from app.workers.driver import Driver

QUEUE = "incidents"
RESTING = "rest-"
HANGING = "hang-"
HOURS = timedelta(hours=4)
STEPS = 3
POLL_SECONDS = 0.1
"""DBOS's, as in the comparison that chose it; the driver polls once a second, and is rung."""


@dataclass(kw_only=True)
class TrivialLoop:
    """Three steps, each a commit; stands where the product's loop stands."""

    store: Store
    owner: str
    lease: timedelta = timedelta(seconds=30)
    clock: SystemClock

    async def advance(self, incident_id: IncidentId) -> Rest:
        claim = await self.store.claims.take(incident_id, self.owner, self.lease, self.clock.now())
        if claim is None:
            return Rest(closed=False, wake_at=self.clock.now() + self.lease, held_elsewhere=True)
        rest = await self._run(incident_id, claim)
        await self.store.claims.release(claim, rest.wake_at)
        return rest

    async def _run(self, incident_id: IncidentId, claim: Any) -> Rest:
        record = await self.store.incidents.get(incident_id)
        if record is None or record.incident.state.closed:
            return Rest(closed=True, wake_at=None)
        incident = record.incident
        for number in range(len(record.timeline) - 1, STEPS):
            now = self.clock.now()
            note = Note(at=now, stage=Stage.OBSERVE, message=f"step {number}")
            if number == STEPS - 1:
                incident = replace(incident, state=IncidentState.ESCALATED, closed_at=now)
            incident = await self.store.incidents.save(claim, incident, [note])
            if incident.key.service.startswith(RESTING):
                return Rest(closed=False, wake_at=now + HOURS)
            if incident.key.service.startswith(HANGING) and number == 0:
                await self.clock.sleep(HOURS.total_seconds())
        return Rest(closed=True, wake_at=None)

    async def handle_defect(self, _: IncidentId, error: Exception) -> Rest:
        raise error


async def drive(url: str, owner: str) -> None:
    """The product's driver and fleet."""
    store, fleet = await open_shared(url)
    clock = SystemClock()
    loop: Any = TrivialLoop(store=store, owner=owner, clock=clock)
    driver = Driver(claims=store.claims, loop=loop, clock=clock, fleet=fleet)
    await fleet.enter(owner)

    async def reap() -> None:
        while True:
            try:
                await fleet.reap()
            except TransientError as error:
                sys.stderr.write(f"{error}\n")
            await asyncio.sleep(1)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(reap())
        tasks.create_task(driver.run())


async def workflows(url: str, owner: str) -> None:
    """One DBOS workflow for each incident; the dead are found by a lock, as our fleet finds them."""
    from dbos import DBOS  # type: ignore[import-not-found]  # installed for this bench alone

    store, _ = await open_shared(url)
    clock = SystemClock()
    loop = TrivialLoop(store=store, owner=owner, clock=clock)

    async def incident(identifier: str) -> None:
        while True:
            try:
                rest = await loop.advance(IncidentId(identifier))
            except ClaimLost:
                rest = Rest(closed=False, wake_at=None)
            if rest.closed:
                return
            await asyncio.sleep(_seconds(rest.wake_at, clock.now()))

    alive = await psycopg.AsyncConnection.connect(url, autocommit=True)
    await alive.execute("SELECT pg_advisory_lock(4711, hashtext(%s))", [owner])
    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "application_version": "1",
            "executor_id": owner,
            "log_level": "WARNING",
            "enable_otlp": False,
        }
    )
    DBOS.workflow(name="incident", max_recovery_attempts=None)(incident)
    DBOS.launch()
    await asyncio.to_thread(DBOS.register_queue, QUEUE, polling_interval_sec=POLL_SECONDS)
    await alive.execute("INSERT INTO bench_executors VALUES (%s)", [owner])
    await _recover_the_dead(alive, owner, DBOS._recover_pending_workflows)


async def enqueue(url: str, _: str) -> None:
    """For each identifier on standard input one workflow; the time on standard output."""
    from dbos import DBOSClient

    client = DBOSClient(system_database_url=url)
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        options: Any = {"queue_name": QUEUE, "workflow_name": "incident", "workflow_id": line}
        await asyncio.to_thread(client.enqueue, options, line)
        sys.stdout.write(f"{datetime.now(UTC).timestamp()}\n")
        sys.stdout.flush()


async def _recover_the_dead(
    alive: Any, owner: str, recover: Callable[[list[str]], object | Coroutine[Any, Any, object]]
) -> None:
    while True:
        rows = await (
            await alive.execute(
                "SELECT name FROM bench_executors"
                " WHERE name <> %s AND pg_try_advisory_lock(4711, hashtext(name))",
                [owner],
            )
        ).fetchall()
        for (name,) in rows:
            await alive.execute("UPDATE claims SET owner = NULL WHERE owner = %s", [name])
            await asyncio.to_thread(recover, [name])
            await alive.execute("DELETE FROM bench_executors WHERE name = %s", [name])
            await alive.execute("SELECT pg_advisory_unlock(4711, hashtext(%s))", [name])
        await asyncio.sleep(1)


def _seconds(wake_at: datetime | None, now: datetime) -> float:
    return 1.0 if wake_at is None else max(0.05, (wake_at - now).total_seconds())


def main() -> None:
    engine, url, owner = sys.argv[1:]
    asyncio.run({"driver": drive, "dbos": workflows, "enqueue": enqueue}[engine](url, owner))


if __name__ == "__main__":
    main()
