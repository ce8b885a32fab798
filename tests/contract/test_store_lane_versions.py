"""When narrow rows are written: while no process of an older program works beside; all read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import text

from app.agent.ports.store import Store
from app.agent.ports.store.signals import Accepted
from app.store import open_in_memory, open_shared, open_store
from app.store.database.migrate import newest_schema
from app.store.signals.narrow.samples import PREFIX
from app.store.signals.narrow.shared import READ_SINCE
from tests.contract.store_values import NOW
from tests.contract.test_store_lane import SECOND, _key, _one, _post, _rows
from tests.contract.test_store_lane_faults import WHOLE
from tests.repositories import database_of, open_narrow

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]


def _narrow(answers: Sequence[Accepted]) -> list[bool]:
    return [one.signal_id.startswith(PREFIX) for one in answers]


async def test_an_opened_store_writes_narrow_rows(database_url: str) -> None:
    """On both databases, where no process of an older program is at work."""
    store = await open_store(database_url)
    answers = [await _post(store, _one(at)) for at in range(3)]
    again = await _post(store, _one(9, observed=1))
    assert again.disposition.duplicate_of == answers[1].signal_id
    assert (_narrow(answers), await _rows(store)) == ([False, True, True], 2)
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == 4
    await store.close()


@pytest.mark.parametrize("schema", [None, "0009"])
async def test_while_an_older_program_is_at_work_no_narrow_row_is_written(
    postgres_url: str, schema: str | None
) -> None:
    """From the set on that follows its start, until it has left; it records ordinary rows in between."""
    store, fleet = await open_shared(postgres_url)
    await fleet.enter("of this version")
    older = await open_narrow(postgres_url, narrow=False)
    answers = [await _post(store, _one(at)) for at in range(2)]
    for turn in (10, 20):
        await _enters(store, schema)
        answers += [await _post(store, _one(turn + at)) for at in range(2)]
        answers.append(await _post(older, _one(turn + 5)))
        again = await _post(store, _one(turn + 6, observed=turn + 5))
        assert again.disposition.duplicate_of == answers[-1].signal_id
        await _leaves(store)
        answers.append(await _post(store, _one(turn + 7)))
    assert _narrow(answers) == [False, True, *[False, False, False, True] * 2]
    shown = await store.signals.samples(_key("s", 0), NOW - timedelta(days=1))
    times = [round((one.at - NOW) / SECOND) for one in shown]
    assert sorted(set(times)) == [0, 1, 10, 11, 15, 17, 20, 21, 25, 27]
    again = await _post(store, _one(40, observed=17))
    assert again.disposition.duplicate_of == answers[5].signal_id
    audit = await store.accounting.audit(WHOLE)
    assert audit.accepted == audit.accounted == len(answers) + 3
    await older.close()
    await fleet.leave()
    await store.close()


async def _enters(store: Store, schema: str | None) -> None:
    """As a program before 0011 does, which knows no column `schema`, or one that knows an older schema."""
    statement = "INSERT INTO workers (owner, entered_at) VALUES ('old', now())"
    if schema is not None:
        statement = "INSERT INTO workers (owner, entered_at, schema) VALUES ('old', now(), :schema)"
    given = {} if schema is None else {"schema": schema}
    await database_of(store).write(lambda connection: connection.execute(text(statement), given).close())


async def _leaves(store: Store) -> None:
    statement = text("DELETE FROM workers WHERE owner = 'old'")
    await database_of(store).write(lambda connection: connection.execute(statement).close())


async def test_a_process_announces_the_schema_that_its_program_knows(postgres_url: str) -> None:
    """Again after its connection broke; every schema from 0010 on reads narrow rows."""
    store, fleet = await open_shared(postgres_url)
    await fleet.enter("of this version")
    for _ in range(2):
        announced = await database_of(store).read(
            lambda connection: connection.execute(text("SELECT owner, schema FROM workers")).all()
        )
        assert [tuple(one) for one in announced] == [("of this version", newest_schema())]
        await database_of(store).write(
            lambda connection: connection.execute(text("DELETE FROM workers")).close()
        )
        await fleet.reap()
    assert newest_schema() >= READ_SINCE
    await fleet.leave()
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
