"""Levels in memory equal those in the file, including what another process wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.agent.models import DispositionKind
from app.agent.ports.store import Store
from app.agent.ports.store.signals import ServiceLevels
from app.store import open_store
from app.store.signals import levels as level_rows
from tests.contract.store_values import NOW, PAYMENTS, Deciding, key, signal
from tests.repositories import database_of
from tests.sqlite_template import migrated

FIRST = ServiceLevels(key=PAYMENTS, last_sample_at=NOW)
SECOND = ServiceLevels(key=PAYMENTS, last_sample_at=NOW + timedelta(minutes=1))


@pytest.fixture
async def stores(tmp_path: Path) -> AsyncIterator[tuple[Store, Store]]:
    """Two processes over one file, as far as the database can see."""
    url = migrated(tmp_path / "heal.db")
    ours, theirs = await open_store(url), await open_store(url)
    yield ours, theirs
    await ours.close()
    await theirs.close()


async def _judged(store: Store, new: ServiceLevels | None = None) -> ServiceLevels | None:
    """The levels that the next signal of the service is judged on; it leaves `new`."""
    decide = Deciding(kind=DispositionKind.IGNORED, triggers=(), levels=new)
    await store.signals.accept([signal()], decide, dry_run=True)
    return decide.asked[0][1]


async def test_what_another_process_stored_is_judged_on(stores: tuple[Store, Store]) -> None:
    """Each change of the file by another connection ends what is in memory."""
    ours, theirs = stores
    assert await _judged(ours, FIRST) is None
    assert await _judged(ours) == FIRST
    assert await _judged(theirs, SECOND) == FIRST
    assert await _judged(ours, FIRST) == SECOND
    assert await _judged(theirs) == FIRST


async def test_what_was_undone_is_not_judged_on(stores: tuple[Store, Store]) -> None:
    """Levels of a delivery that failed, and of a transaction that failed after it, are forgotten."""
    ours, _ = stores
    await _judged(ours, FIRST)

    def failing(*given: object) -> object:
        raise ZeroDivisionError

    decides = [Deciding(kind=DispositionKind.IGNORED, triggers=(), levels=SECOND), failing]
    one, two = signal(), signal()

    def decide(each: object, *rest: object) -> object:
        return decides[each is two](each, *rest)  # type: ignore[operator]  # a decider

    with pytest.raises(ZeroDivisionError):
        await ours.signals.accept([one, two], decide, dry_run=True)  # type: ignore[arg-type]  # as above
    assert await _judged(ours) == FIRST

    def stored_and_undone(connection: object) -> None:
        level_rows.store_levels(connection, {PAYMENTS: SECOND})  # type: ignore[arg-type]  # as it is handed over
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await database_of(ours).write(stored_and_undone)
    assert await _judged(ours) == FIRST


async def test_the_memory_is_bounded(stores: tuple[Store, Store], monkeypatch: pytest.MonkeyPatch) -> None:
    """The services that were used longest ago go first, and are read from the file again."""
    monkeypatch.setattr(level_rows, "MOST_CACHED", 3)
    ours, _ = stores
    for number in range(6):
        mine = key(number)
        decide = Deciding(kind=DispositionKind.IGNORED, triggers=(), levels=ServiceLevels(key=mine))
        await ours.signals.accept([signal(key=mine)], decide, dry_run=True)
    kept = await database_of(ours).write(lambda connection: [*(level_rows._cached(connection) or ())])
    assert kept == [key(3), key(4), key(5)]
    decide = Deciding(kind=DispositionKind.IGNORED, triggers=())
    await ours.signals.accept([signal(key=key(0))], decide, dry_run=True)
    assert decide.asked[0][1] == ServiceLevels(key=key(0))
