"""The contract of signal accounting, on both databases: what adds up, and what is found when it does not."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import date, timedelta

import pytest
from sqlalchemy import text

from app.agent.audit.accounting import AuditQuestion, DiscrepancyKind, SignalAudit
from app.agent.guardrails.limits import Budget
from app.agent.ids import ServiceKey
from app.agent.models import DispositionKind, IncidentState
from app.agent.ports.store import Store
from app.agent.ports.store.intents import Begun
from app.errors import AgentError
from app.store import open_store
from tests.contract.store_values import (
    NOW,
    Deciding,
    approval,
    claimed,
    decided,
    disposition,
    intent,
    note,
    opened,
    pending,
    signal,
)
from tests.contract.test_store_database import engine_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)
IGNORING = Deciding(kind=DispositionKind.IGNORED, triggers=())


async def audited(
    store: Store, *, since: date | None = None, deep: bool = False, later: timedelta = SECOND
) -> SignalAudit:
    question = AuditQuestion(now=NOW + later, pending_for=timedelta(minutes=4), since=since, deep=deep)
    return await store.accounting.audit(question)


def kinds(found: SignalAudit) -> list[DiscrepancyKind]:
    return [discrepancy.kind for discrepancy in found.strays.found]


def tamper(database_url: str, *statements: str) -> None:
    """As a person with rights to the database can, past every trigger and foreign key."""
    engine = engine_of(database_url)
    on_sqlite = engine.dialect.name == "sqlite"
    with engine.begin() as connection:
        if on_sqlite:
            for name in ("signals_kept", "timeline_no_delete", "timeline_no_update"):
                connection.execute(text(f"DROP TRIGGER {name}"))
        else:
            connection.execute(text("SET session_replication_role = replica"))
        for statement in statements:
            connection.execute(text(statement))


# ------------------------------------------------------------ the sum


async def test_an_empty_store_adds_up(store: Store) -> None:
    """Nothing accepted, nothing missing."""
    found = await audited(store)
    assert (found.accepted, found.accounted, found.adds_up) == (0, 0, True)


async def test_every_accepted_signal_is_counted_once_by_its_disposition(store: Store) -> None:
    """Opened, joined, deduplicated, pending, ignored; a repetition of the very same signal counts nothing."""
    one = signal(dedup_key="one")
    await store.signals.accept([one], Deciding(), dry_run=True)
    await store.signals.accept([one], Deciding(), dry_run=True)
    await store.signals.accept([signal(dedup_key="one")], Deciding(), dry_run=True)
    joining = Deciding(kind=DispositionKind.JOINED, triggers=())
    await store.signals.accept([signal(), signal()], joining, dry_run=True)
    other = ServiceKey(environment="prod", service="other")
    await store.signals.accept(
        [signal(key=other)], pending(), dry_run=True, idempotency_key="k", request_hash="h"
    )
    await store.signals.accept(
        [signal(key=other)], pending(), dry_run=True, idempotency_key="k", request_hash="h"
    )
    await store.signals.accept([signal(key=other)], IGNORING, dry_run=True)
    found = await audited(store, deep=True)
    assert found.adds_up, found
    assert found.accepted == 6
    assert found.present == {
        DispositionKind.DEDUPLICATED: 1,
        DispositionKind.IGNORED: 1,
        DispositionKind.JOINED: 2,
        DispositionKind.OPENED: 1,
        DispositionKind.PENDING: 1,
    }


async def test_a_delivery_that_fails_enters_nothing(store: Store) -> None:
    """The ledger is written in the transaction that stores the signals."""

    def failing(*_: object) -> None:
        raise AgentError("no")

    with pytest.raises(AgentError):
        await store.signals.accept([signal()], failing, dry_run=True)  # type: ignore[arg-type]  # fails before it answers
    found = await audited(store)
    assert (found.accepted, found.accounted) == (0, 0)


async def test_concurrent_deliveries_of_many_services_add_up(store: Store) -> None:
    """They meet on rows of the ledger, and on each other's observations."""
    services = [ServiceKey(environment="prod", service=f"service-{number}") for number in range(40)]
    await asyncio.gather(
        *(
            store.signals.accept(
                [signal(key=key, dedup_key=f"{number % 30}"), signal(key=services[-1 - number])],
                IGNORING,
                dry_run=True,
            )
            for number, key in enumerate(services)
        )
    )
    found = await audited(store, deep=True)
    assert found.adds_up, found
    assert found.accepted == 80
    assert found.present[DispositionKind.DEDUPLICATED] == 10


async def test_forgotten_signals_stay_in_the_sum(store: Store) -> None:
    """Pruning moves them to the tally, by what had become of them."""
    await store.signals.accept([signal(at=NOW - 9 * DAY), signal(at=NOW - 8 * DAY)], IGNORING, dry_run=True)
    await store.signals.accept([signal(at=NOW - 8 * DAY)], pending(), dry_run=True)
    await opened(store, at=NOW - 8 * DAY)
    assert await store.signals.expire_pending(NOW - 7 * DAY) == 1
    assert await store.signals.prune(NOW - 7 * DAY) == 3
    found = await audited(store, later=timedelta(0))
    assert found.forgotten == {DispositionKind.EXPIRED: 1, DispositionKind.IGNORED: 2}
    assert found.present == {DispositionKind.OPENED: 1}
    assert (found.accepted, found.uneven_days) == (4, ())


async def test_since_counts_from_a_day_of_arrival_on(store: Store) -> None:
    """Days are those of UTC, wherever the database believes to be."""
    midnight = NOW.replace(hour=0)
    await store.signals.accept([signal(at=midnight - SECOND)], IGNORING, dry_run=True)
    await store.signals.accept([signal(at=midnight), signal(at=NOW)], IGNORING, dry_run=True)
    found = await audited(store, since=NOW.date())
    assert (found.accepted, found.accounted, found.adds_up) == (2, 2, True)


async def test_a_first_signal_outlives_its_duplicates(store: Store) -> None:
    """A duplicate never names a signal that was forgotten before it; in the end both are."""
    first, again = signal(at=NOW - 9 * DAY, dedup_key="x"), signal(at=NOW - DAY, dedup_key="x")
    await store.signals.accept([first], IGNORING, dry_run=True)
    await store.signals.accept([again], IGNORING, dry_run=True)
    assert await store.signals.prune(NOW - 7 * DAY) == 0
    assert (await disposition(store, again)).duplicate_of == first.id
    assert (await audited(store, deep=True)).adds_up
    assert await store.signals.prune(NOW) == 1
    assert await store.signals.prune(NOW) == 1
    found = await audited(store, deep=True)
    assert (found.adds_up, found.present) == (True, {})
    assert found.forgotten == {DispositionKind.DEDUPLICATED: 1, DispositionKind.IGNORED: 1}


async def test_duplicates_that_come_while_firsts_are_forgotten_never_name_nothing(store: Store) -> None:
    """The second sees the first: repeated, or decided again."""
    firsts = [signal(at=NOW - 9 * DAY, dedup_key=f"race {number}") for number in range(60)]
    await store.signals.accept(firsts, IGNORING, dry_run=True)
    repeats = [signal(dedup_key=one.dedup_key) for one in firsts]
    await asyncio.gather(
        *(store.signals.accept([one], IGNORING, dry_run=True) for one in repeats[:30]),
        *(store.signals.prune(NOW - 7 * DAY) for _ in range(4)),
        *(store.signals.accept([one], IGNORING, dry_run=True) for one in repeats[30:]),
    )
    found = await audited(store, deep=True)
    assert found.adds_up, found
    assert found.accepted == 120


# ------------------------------------------------------------ losses


async def test_a_row_that_vanished_is_missed_on_its_day(store: Store, database_url: str) -> None:
    """The sum does not add up, and says which day to look at."""
    await store.signals.accept([signal(at=NOW - DAY), signal(at=NOW)], IGNORING, dry_run=True)
    tamper(database_url, "DELETE FROM signals WHERE number = (SELECT min(number) FROM signals)")
    found = await audited(store)
    assert not found.adds_up
    [uneven] = found.uneven_days
    assert (uneven.day, uneven.accepted, uneven.accounted) == ((NOW - DAY).date(), 1, 0)
    assert (found.accepted, found.accounted) == (2, 1)


async def test_a_loss_on_one_day_is_not_made_up_for_on_another(store: Store, database_url: str) -> None:
    """Each day has to add up by itself."""
    await store.signals.accept([signal(at=NOW - DAY), signal(at=NOW)], IGNORING, dry_run=True)
    moved = (NOW - 3 * DAY).strftime("%Y-%m-%d %H:%M:%S.000000")
    zone = "" if database_url.startswith("sqlite") else "+00"
    tamper(
        database_url,
        f"UPDATE signals SET received_at = '{moved}{zone}'"  # noqa: S608 - constants of the test
        " WHERE number = (SELECT min(number) FROM signals)",
    )
    found = await audited(store)
    assert found.accepted == found.accounted
    assert len(found.uneven_days) == 2
    assert not found.adds_up


async def test_the_database_keeps_what_led_to_something(store: Store, database_url: str) -> None:
    """A statement that would delete it fails, from any sender."""
    await opened(store)
    with pytest.raises(Exception, match="is kept"), engine_of(database_url).begin() as connection:
        connection.execute(text("DELETE FROM signals"))
    assert (await audited(store)).adds_up


# ------------------------------------------------------------ strays


async def test_a_signal_that_waits_too_long_is_a_discrepancy(store: Store) -> None:
    """The sweep should have ended it; within its time it is none."""
    one = signal()
    await store.signals.accept([one], pending(), dry_run=True)
    assert (await audited(store)).adds_up
    found = await audited(store, later=timedelta(minutes=5))
    assert [(discrepancy.kind, discrepancy.id) for discrepancy in found.strays.found] == [
        (DiscrepancyKind.PENDING_TOO_LONG, one.id)
    ]
    assert not found.adds_up


async def test_signals_that_name_nothing_are_discrepancies(store: Store, database_url: str) -> None:
    """Joined to no incident, repeating no signal, or one that is gone."""
    await opened(store)
    await store.signals.accept([signal(dedup_key="a"), signal(dedup_key="b")], IGNORING, dry_run=True)
    await store.signals.accept([signal(dedup_key="a"), signal(dedup_key="b")], IGNORING, dry_run=True)
    tamper(
        database_url,
        "UPDATE signals SET incident_id = NULL WHERE disposition = 'opened'",
        "UPDATE signals SET duplicate_of = NULL, dedup_key = 'c'"
        " WHERE disposition = 'deduplicated' AND dedup_key = 'a'",
        "UPDATE signals SET id = 'moved' WHERE disposition = 'ignored' AND dedup_key = 'b'",
    )
    found = await audited(store)
    assert sorted(kinds(found)) == [
        DiscrepancyKind.NAMES_NOTHING,
        DiscrepancyKind.NAMES_NOTHING,
        DiscrepancyKind.REPEATS_NOTHING,
        DiscrepancyKind.WITHOUT_ORIGIN,
    ]


async def test_an_incident_without_a_driver_is_a_discrepancy(store: Store) -> None:
    """Long due without a claim; one that is held, or due later, is none."""
    incident = await opened(store)
    assert (await audited(store, later=timedelta(minutes=4))).adds_up
    found = await audited(store, later=timedelta(minutes=6))
    assert kinds(found) == [DiscrepancyKind.WITHOUT_DRIVER]
    later = NOW + timedelta(minutes=6)
    claim = await claimed(store, incident, at=later)
    assert (await audited(store, later=timedelta(minutes=6))).adds_up
    await store.claims.release(claim, later + timedelta(minutes=1))
    assert (await audited(store, later=timedelta(minutes=6))).adds_up


async def test_an_intent_under_way_in_an_ended_incident_is_a_discrepancy(store: Store) -> None:
    """No worker would ever check whether it had its effect."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    one = intent(incident)
    incident = await decided(store, claim, [one])
    assert (await store.intents.begin(claim, one.id, None, Budget(per_incident=1), NOW)).begun is Begun.YES
    ended = replace(incident, state=IncidentState.ESCALATED, closed_at=NOW)
    await store.incidents.save(claim, ended, [note("ended")])
    found = await audited(store)
    assert [(discrepancy.kind, discrepancy.id) for discrepancy in found.strays.found] == [
        (DiscrepancyKind.EXECUTING_AFTER_END, one.id)
    ]


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("DELETE FROM timeline WHERE sequence = 2", DiscrepancyKind.TIMELINE_CUT),
        ("DELETE FROM timeline", DiscrepancyKind.TIMELINE_CUT),
        ("UPDATE timeline SET hash = 'x' WHERE sequence = 2", DiscrepancyKind.TIMELINE_CUT),
        (
            "INSERT INTO timeline (incident_id, sequence, at, stage, message, data, hash)"
            " SELECT incident_id, 3, at, stage, message, data, hash FROM timeline WHERE sequence = 2",
            DiscrepancyKind.TIMELINE_CUT,
        ),
        ("UPDATE timeline SET message = 'x' WHERE sequence = 1", DiscrepancyKind.TIMELINE_ALTERED),
        ("DELETE FROM timeline WHERE sequence = 0", DiscrepancyKind.TIMELINE_ALTERED),
    ],
)
async def test_a_timeline_that_is_not_what_was_written_is_a_discrepancy(
    store: Store, database_url: str, statement: str, kind: DiscrepancyKind
) -> None:
    """A tail cut off leaves a valid chain: only length and head beside the incident show it (promise 12)."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.incidents.save(claim, incident, [note("one"), note("two")])
    assert (await audited(store, deep=True)).adds_up
    tamper(database_url, statement)
    shallow, deep = await audited(store), await audited(store, deep=True)
    assert kind in kinds(deep)
    assert (kind in kinds(shallow)) == (kind is DiscrepancyKind.TIMELINE_CUT)


async def test_many_strays_are_named_up_to_a_hundred(store: Store) -> None:
    """The answer stays bounded, and says that there are more."""
    keys = [ServiceKey(environment="prod", service=f"s{number}") for number in range(101)]
    for key in keys:
        await store.signals.accept([signal(key=key)], pending(), dry_run=True)
    found = await audited(store, later=timedelta(hours=1))
    assert len(found.strays.found) == 100
    assert found.strays.more == (DiscrepancyKind.PENDING_TOO_LONG,)


# ------------------------------------------------------------ mending


async def test_an_incident_that_would_oversleep_is_woken(store: Store) -> None:
    """Due next year for no reason: found, due now, counted; once is enough."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.claims.release(claim, NOW + 365 * DAY)
    assert kinds(await audited(store)) == [DiscrepancyKind.OVERDUE]
    mended = await store.accounting.repair(NOW)
    assert mended.woken == (incident.id,)
    assert (await store.accounting.repair(NOW)).woken == ()
    found = await audited(store)
    assert (found.adds_up, found.mended) == (True, {"woken": 1})
    assert [one.incident_id for one in await store.claims.take_due("worker-2", SECOND, NOW, 5)] == [
        incident.id
    ]


async def test_an_incident_in_hand_is_not_woken(store: Store) -> None:
    """Its holder will say when it is due."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.claims.release(claim, NOW + 365 * DAY)
    await claimed(store, incident, owner="worker-2", at=NOW + 366 * DAY)
    assert (await store.accounting.repair(NOW)).woken == ()


async def test_waiting_for_people_is_no_oversleeping(store: Store) -> None:
    """As long as their answer may come; past that it is."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    expires_at = NOW + 30 * DAY
    asked = approval(incident, expires_at=expires_at)
    waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL)
    await store.approvals.request(claim, waiting, asked, [note("asked")])
    await store.claims.release(claim, expires_at)
    assert (await store.accounting.repair(NOW)).woken == ()
    assert (await audited(store)).adds_up
    claim = await claimed(store, incident, at=expires_at)
    await store.claims.release(claim, expires_at + DAY)
    assert (await store.accounting.repair(NOW)).woken == (incident.id,)


async def test_what_an_older_program_accepted_is_entered_later(store: Store, database_url: str) -> None:
    """It counts as accepted at once, and is in the ledger after a sweep."""
    if database_url.startswith("sqlite"):
        await store.signals.accept([signal()], IGNORING, dry_run=True)
        tamper(database_url, "UPDATE signals SET ledgered = false", "DELETE FROM intake_ledger")
    else:
        with engine_of(database_url).begin() as connection:
            connection.execute(
                text(
                    "INSERT INTO signals (id, kind, environment, service, source, observed_at, received_at,"
                    " dedup_key, stale, payload, disposition, reason) VALUES ('sig_old', 'deploy', 'prod',"
                    " 'shop', 'http', :at, :at, 'old', false, '{}', 'ignored', '')"
                ),
                {"at": NOW},
            )
    found = await audited(store)
    assert (found.accepted, found.unledgered, found.adds_up) == (1, 1, True)
    assert await store.signals.prune(NOW + DAY) == 0
    assert (await store.accounting.repair(NOW)).entered == 1
    assert (await store.accounting.repair(NOW)).entered == 0
    found = await audited(store)
    assert (found.accepted, found.unledgered, found.adds_up, found.mended) == (1, 0, True, {"entered": 1})


async def test_what_an_older_program_would_forget_unaccounted_is_kept(
    postgres_url: str,
) -> None:
    """Its statement deletes nothing, and does not fail: it goes on beside newer ones."""
    store = await open_store(postgres_url)
    await store.signals.accept([signal(at=NOW - 9 * DAY)], IGNORING, dry_run=True)
    with engine_of(postgres_url).begin() as connection:
        assert connection.execute(text("DELETE FROM signals")).rowcount == 0
    assert (await audited(store)).adds_up
    assert await store.signals.prune(NOW) == 1
    assert (await audited(store)).adds_up
    await store.close()
