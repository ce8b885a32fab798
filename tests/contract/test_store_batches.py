"""Clearing a large backlog takes several transactions, and other writers get in between two of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from typing import TypeVar

import pytest
from sqlalchemy import Connection, func, insert, select

from app.agent.audit.accounting import AuditQuestion
from app.agent.identity.people import (
    CredentialKind,
    digest,
)
from app.agent.models import Change, ChangeKind, DispositionKind, KillSwitch, Signal
from app.agent.ports.store import Store
from app.store import credentials, store_over
from app.store.database import nonces
from app.store.database.port import Work
from app.store.database.tables import changes as change_rows
from app.store.database.tables import credentials as credential_rows
from app.store.database.tables import nonces as nonce_rows
from app.store.database.tables import signals as signal_rows
from app.store.signals import records as signals
from tests.contract.store_values import NOW, PAYMENTS, Deciding, pending, signal
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

T = TypeVar("T")
DAY = timedelta(days=1)
BACKLOG = 2 * signals.BATCH + 1
IGNORING = Deciding(kind=DispositionKind.IGNORED, triggers=())


class Watched:
    """A `Database` that notes what is left after each unit, and lets an operator write after the first."""

    def __init__(self, store: Store, count: Callable[[Connection], int]) -> None:
        self._store = store
        self._database = database_of(store)
        self._count = count
        self.left: list[int] = []

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        result = await self._database.write(work, urgent=urgent)
        self.left.append(await self.read(self._count))
        if len(self.left) == 1:
            await self._store.guardrails.set_kill_switch(
                KillSwitch(engaged=True, by="alice", reason="storm", at=NOW)
            )
        return result

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        return await self._database.read(work, urgent=urgent)

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        await self._database.close()


def _old(count: int) -> list[Signal]:
    return [signal(at=NOW - 9 * DAY, dedup_key=f"observation {number}") for number in range(count)]


async def _ignored(store: Store) -> None:
    await store.signals.accept(_old(BACKLOG), IGNORING, dry_run=True)


async def _waiting(store: Store) -> None:
    await store.signals.accept(_old(BACKLOG), pending(), dry_run=True)


async def _changed(store: Store) -> None:
    change = Change(kind=ChangeKind.SCALE, key=PAYMENTS, at=NOW - 9 * DAY, summary="more")
    decide = Deciding(kind=DispositionKind.IGNORED, triggers=(), change=change)
    recent = [replace(one, observed_at=NOW, received_at=NOW) for one in _old(BACKLOG)]
    await store.signals.accept(recent, decide, dry_run=True)


def _signals(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(signal_rows)).scalar_one()


def _pending(connection: Connection) -> int:
    return connection.execute(
        select(func.count()).select_from(signal_rows).where(signals.WAITING)
    ).scalar_one()


def _changes(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(change_rows)).scalar_one()


@pytest.mark.parametrize(
    ("prepare", "count", "clear"),
    [
        (_ignored, _signals, lambda store: store.signals.prune(NOW - 7 * DAY)),
        (_changed, _changes, lambda store: store.signals.prune(NOW - 7 * DAY)),
        (_waiting, _pending, lambda store: store.signals.expire_pending(NOW - 7 * DAY)),
    ],
    ids=["prune signals", "prune changes", "expire"],
)
async def test_a_large_backlog_is_cleared_in_batches_and_an_operator_writes_between_two(
    store: Store,
    prepare: Callable[[Store], Awaitable[None]],
    count: Callable[[Connection], int],
    clear: Callable[[Store], Awaitable[int]],
) -> None:
    """No transaction takes more than a batch, all of the backlog goes, and the kill switch does not wait."""
    await prepare(store)
    watched = Watched(store, count)
    assert await clear(store_over(watched)) == BACKLOG
    steps = [before - after for before, after in zip([BACKLOG, *watched.left], watched.left, strict=False)]
    assert max(steps) <= signals.BATCH
    assert watched.left[-1] == 0
    brake = await store.guardrails.kill_switch()
    assert brake is not None
    assert brake.engaged


async def test_what_was_cleared_in_batches_adds_up(store: Store) -> None:
    """Each batch tallies what it deleted, in its own transaction."""
    await _ignored(store)
    await store.signals.prune(NOW - 7 * DAY)
    found = await store.accounting.audit(AuditQuestion(now=NOW, pending_for=DAY, deep=True))
    assert found.adds_up
    assert found.forgotten == {DispositionKind.IGNORED: BACKLOG}


async def test_sessions_and_nonces_are_removed_in_batches(store: Store) -> None:
    """Nor does any transaction remove more of them than a batch."""
    database = database_of(store)
    ended = NOW - 40 * DAY

    def fill(connection: Connection) -> None:
        sessions = [
            {
                "id": f"ses_{number}",
                "kind": CredentialKind.SESSION.value,
                "name": "alice",
                "digest": digest(f"secret {number}"),
                "roles": [],
                "scopes": [],
                "created_at": ended,
                "created_by": "alice",
                "expires_at": ended,
            }
            for number in range(credentials.BATCH + 1)
        ]
        connection.execute(insert(credential_rows), sessions)
        for number in range(nonces.BATCH + 1):
            nonces.once(connection, "brake", f"nonce {number}", ended)

    def count(connection: Connection) -> int:
        kept = [
            connection.execute(select(func.count()).select_from(table)).scalar_one()
            for table in (credential_rows, nonce_rows)
        ]
        return sum(kept)

    await database.write(fill)
    watched = Watched(store, count)
    assert await store_over(watched).credentials.forget(NOW - 30 * DAY) == credentials.BATCH + 1
    total = credentials.BATCH + nonces.BATCH + 2
    steps = [before - after for before, after in zip([total, *watched.left], watched.left, strict=False)]
    assert max(steps) <= credentials.BATCH
    assert watched.left[-1] == 0
