"""Which stores write narrow rows, so that no process of an older version works beside them; all read them."""

from __future__ import annotations

from datetime import timedelta

from app.store import open_in_memory, open_store
from tests.contract.store_values import NOW
from tests.contract.test_store_lane import SECOND, _key, _one, _post, _rows
from tests.contract.test_store_lane_faults import WHOLE
from tests.repositories import open_narrow

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


async def test_a_database_that_versions_share_gets_no_narrow_rows(database_url: str) -> None:
    """An SQLite file serves one process; PostgreSQL also those of the version before, during an upgrade."""
    store = await open_store(database_url)
    answers = [await _post(store, _one(at)) for at in range(3)]
    again = await _post(store, _one(9, observed=1))
    assert again.disposition.duplicate_of == answers[1].signal_id
    narrow = [one.signal_id.startswith("sig_ffffffffffffffff") for one in answers]
    if database_url.startswith("sqlite"):
        assert (narrow, await _rows(store)) == ([False, True, True], 2)
    else:
        assert (narrow, await _rows(store)) == ([False, False, False], 0)
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 4
    await store.close()


async def test_a_store_in_memory_has_narrow_rows() -> None:
    """So that the simulation tries them."""
    store = open_in_memory()
    answers = [await _post(store, _one(at)) for at in range(2)]
    assert answers[1].signal_id.startswith("sig_ffffffffffffffff")
    await store.close()


async def test_a_process_that_writes_no_narrow_rows_reads_those_on_record(database_url: str) -> None:
    """It shows, recognises, counts and forgets them, in turns with one that writes them."""
    narrow, ordinary = await open_narrow(database_url), await open_narrow(database_url, narrow=False)
    answers = [await _post(narrow, _one(at)) for at in range(3)]
    answers.append(await _post(ordinary, _one(10)))
    answers += [await _post(narrow, _one(20)), await _post(narrow, _one(21))]
    assert len({one.signal_id for one in answers}) == len(answers)
    for store in (narrow, ordinary):
        shown = await store.signals.samples(_key("s", 0), NOW - timedelta(days=1))
        assert [round((one.at - NOW) / SECOND) for one in shown] == [0, 1, 2, 10, 20, 21]
        assert all([await store.signals.get(one.signal_id) is not None for one in answers])
    for store, observed, first in ((ordinary, 1, answers[1]), (narrow, 10, answers[3])):
        again = await _post(store, _one(30, observed=observed))
        assert again.disposition.duplicate_of == first.signal_id
    levels = await ordinary.signals.levels(_key("s", 0))
    assert levels is not None
    assert levels.last_sample_at == NOW + 21 * SECOND
    audit = await ordinary.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 8
    await ordinary.signals.prune(NOW + 25 * SECOND)
    assert await ordinary.signals.get(answers[2].signal_id) is None
    audit = await ordinary.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 8
    await narrow.close()
    await ordinary.close()
