"""The connections that only probes and operators use: they answer while every other one is busy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr
from sqlalchemy import Connection, text

from app.agent.ids import IncidentId
from app.agent.models import KillSwitch
from app.agent.ports.store import Store
from app.store import open_store
from app.store.database.postgresql import OVERFLOW, POOL_SIZE
from tests.api.harness import Harness, harness, make_settings
from tests.contract.eventually import eventually
from tests.contract.store_values import NOW
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres"]

PATIENCE_SECONDS = 60.0
_LOCK = 815


@asynccontextmanager
async def all_busy(store: Store, url: str) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Every ordinary connection is in a transaction that waits for a lock, until the block ends."""
    database = database_of(store)
    count = POOL_SIZE + OVERFLOW

    def wait(connection: Connection) -> None:
        for limit in ("lock_timeout", "statement_timeout"):
            connection.execute(text(f"SET LOCAL {limit} = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})

    blocker = await open_store(url)
    blocking = database_of(blocker)
    held, over = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def hold(connection: Connection) -> None:
        wait(connection)
        loop.call_soon(held.set)
        for _ in range(int(PATIENCE_SECONDS / 0.05)):
            connection.execute(text("SELECT pg_sleep(0.05)"))
            if over.is_set():
                return

    holding = asyncio.create_task(blocking.write(hold))
    await asyncio.wait_for(held.wait(), PATIENCE_SECONDS)
    busy = [asyncio.create_task(database.write(wait)) for _ in range(count)]

    async def waiting() -> bool:
        def read(connection: Connection) -> bool:
            found = connection.execute(
                text("SELECT count(*) FROM pg_locks WHERE objid = :lock AND NOT granted"), {"lock": _LOCK}
            ).scalar_one()
            return bool(found == count)

        return await blocking.read(read)

    try:
        await eventually(waiting, "every ordinary connection waits for the lock")
        yield busy
    finally:
        over.set()
        await holding
        await asyncio.gather(*busy)
        await blocker.close()


async def test_operators_and_probes_reach_a_database_whose_other_connections_are_busy(
    postgres_url: str,
) -> None:
    """The kill switch is set and read, and a probe writes, while every ordinary transaction waits."""
    store = await open_store(postgres_url)
    try:
        async with all_busy(store, postgres_url) as busy:
            brake = KillSwitch(engaged=True, by="alice", reason="storm", at=NOW)
            await store.guardrails.set_kill_switch(brake)
            assert await store.guardrails.kill_switch() == brake
            await store.budgets.attempts(NOW)
            await store.ping()
            await store.approvals.find(None, limit=1, cursor=None)
            await store.incidents.get_part(IncidentId("inc_none"), limit=1, urgent=True)
            await store.incidents.get_newest_parts([IncidentId("inc_none")], limit=1)
            assert not any(task.done() for task in busy)
    finally:
        await store.close()


def test_over_http_the_kill_switch_and_the_probes_answer_while_every_connection_is_busy(
    postgres_url: str, tmp_path: Path
) -> None:
    """What an operator asks in a storm uses the reserved connections from end to end."""

    async def story(one: Harness) -> None:
        async with all_busy(one.container.store, postgres_url) as busy:
            said = {"engaged": True, "by": "alice", "reason": "storm"}
            for method, path, body in (
                ("GET", "/healthz", None),
                ("GET", "/readyz", None),
                ("PUT", "/brakes/kill-switch", said),
                ("GET", "/brakes/kill-switch", None),
                ("GET", "/brakes", None),
                ("GET", "/approvals", None),
            ):
                answer = await one._request(method, path, json=body)
                assert answer.status_code == 200, f"{method} {path}: {answer.text}"
            assert not any(task.done() for task in busy)

    with harness(make_settings(tmp_path, database_url=SecretStr(postgres_url))) as one:
        one.run(story(one))
