"""The contract of durable intake, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta, timezone
from itertools import pairwise
from typing import TypeVar

import pytest
from msgspec import structs
from sqlalchemy import Connection, func, select

from app.agent.ids import ServiceKey
from app.agent.models import (
    Alert,
    Change,
    ChangeKind,
    ClusterCondition,
    Condition,
    ConfigChange,
    Deploy,
    DeployStatus,
    DispositionKind,
    IncidentState,
    MetricSample,
    Payload,
    Signal,
    SignalKind,
    SliSample,
    Stage,
    Trigger,
)
from app.agent.ports.store import Store
from app.agent.ports.store.signals import ServiceLevels
from app.errors import Invalid
from app.store import store_over
from app.store.database.port import Work
from app.store.database.tables import signals as signal_rows
from app.store.signals.deliveries import PART
from tests.contract.store_values import (
    NOW,
    PAYMENTS,
    Deciding,
    claimed,
    closed,
    disposition,
    loaded,
    opened,
    pending,
    signal,
)
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

SECOND = timedelta(seconds=1)

T = TypeVar("T")


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (SignalKind.DEPLOY, Deploy(version="1", status=DeployStatus.STARTED, irreversible=True)),
        (SignalKind.METRIC, MetricSample(error_rate=0.25)),
        (
            SignalKind.ALERT,
            Alert(name="HighErrorRate", firing=True, fingerprint="f", starts_at=NOW, trigger=None),
        ),
        (
            SignalKind.CONDITION,
            ClusterCondition(condition=Condition.OOM_KILLED, present=True, message="killed", revision=3),
        ),
        (SignalKind.CHANGE, ConfigChange(summary="limits", kind=ChangeKind.FLAG)),
    ],
)
async def test_a_signal_of_each_kind_is_read_back_as_it_was(
    store: Store, kind: SignalKind, payload: Payload
) -> None:
    """Kind, times, payload and staleness survive the database."""
    one = replace(signal(payload, stale=True), kind=kind, observed_at=NOW - timedelta(microseconds=1))
    await store.signals.accept([one], Deciding(kind=DispositionKind.IGNORED, triggers=()), dry_run=True)
    record = await store.signals.get(one.id)
    assert record is not None
    assert record.signal == one
    assert record.disposition.kind is DispositionKind.IGNORED
    assert record.disposition.reason == "the test says so"


async def test_an_unknown_signal_is_none(store: Store) -> None:
    """Asking for what was never accepted is no error."""
    assert await store.signals.get(signal().id) is None


async def test_opening_makes_an_open_incident_with_a_first_entry(store: Store) -> None:
    """State, dry run, triggers, summary and first timeline entry come with the opening."""
    one = signal()
    answer = await store.signals.accept(
        [one], Deciding(triggers=(Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP)), dry_run=True
    )
    incident_id = answer[0].disposition.incident_id
    assert incident_id is not None
    record = await store.incidents.get(incident_id)
    assert record is not None
    assert record.incident.state is IncidentState.OPEN
    assert record.incident.dry_run
    assert record.incident.opened_at == one.received_at
    assert record.incident.version == 0
    assert record.incident.summary == "payments-api in prod: deploy failed, crash loop"
    assert [entry.stage for entry in record.timeline] == [Stage.OBSERVE]
    assert record.timeline[0].message == (
        "Opened by http: deploy of 1.15.0 failed (deploy failed, crash loop)."
    )
    assert record.timeline[0].data["signal_id"] == one.id
    assert record.timeline[0].data["version"] == "1.15.0"
    assert await disposition(store, one) == answer[0].disposition


async def test_the_same_observation_is_recorded_as_a_duplicate_without_a_decision(store: Store) -> None:
    """A dedup key seen before names the first signal without another decision."""
    decide = Deciding()
    first, second = signal(dedup_key="one"), signal(dedup_key="one")
    await store.signals.accept([first], decide, dry_run=True)
    answer = await store.signals.accept([second], decide, dry_run=True)
    assert answer[0].disposition.kind is DispositionKind.DEDUPLICATED
    assert answer[0].disposition.duplicate_of == first.id
    assert len(decide.asked) == 1
    assert await disposition(store, second) == answer[0].disposition


async def test_duplicates_inside_one_delivery_are_found(store: Store) -> None:
    """One list may tell the same observation twice."""
    answer = await store.signals.accept(
        [signal(dedup_key="x"), signal(dedup_key="x")], Deciding(), dry_run=True
    )
    assert [each.disposition.kind for each in answer] == [
        DispositionKind.OPENED,
        DispositionKind.DEDUPLICATED,
    ]


async def test_concurrent_tellings_of_one_observation_are_decided_once(store: Store) -> None:
    """Of twenty copies, sent for two services at once, one is first."""
    others = ServiceKey(environment="prod", service="other")
    copies = [signal(dedup_key="same", key=(PAYMENTS, others)[n % 2]) for n in range(20)]
    answers = await asyncio.gather(
        *(
            store.signals.accept([copy], Deciding(kind=DispositionKind.IGNORED), dry_run=True)
            for copy in copies
        )
    )
    kinds = [answer[0].disposition.kind for answer in answers]
    assert kinds.count(DispositionKind.IGNORED) == 1
    assert kinds.count(DispositionKind.DEDUPLICATED) == 19


async def test_the_very_same_signal_again_gets_its_first_answer(store: Store) -> None:
    """A caller that lost the answer may repeat the call, and nothing is recorded twice."""
    one = signal()
    first = await store.signals.accept([one], Deciding(), dry_run=True)
    again = await store.signals.accept([one], Deciding(), dry_run=True)
    assert again == first
    incident_id = first[0].disposition.incident_id
    assert incident_id is not None
    assert len(await store.incidents.timeline(incident_id)) == 1


async def test_an_empty_delivery_has_an_empty_answer(store: Store) -> None:
    """Nothing in, nothing out, nothing recorded."""
    assert (
        await store.signals.accept([], Deciding(), dry_run=True, idempotency_key="k", request_hash="h") == ()
    )


# ------------------------------------------------------------ idempotency


async def test_an_idempotency_key_repeats_the_first_answer_and_records_nothing(store: Store) -> None:
    """The same key and body give the same answer, even with new signal ids."""
    decide = Deciding()
    first = await store.signals.accept(
        [signal()], decide, dry_run=True, idempotency_key="k", request_hash="h"
    )
    repeated = signal()
    again = await store.signals.accept(
        [repeated], decide, dry_run=True, idempotency_key="k", request_hash="h"
    )
    assert again == first
    assert len(decide.asked) == 1
    assert await store.signals.get(repeated.id) is None


async def test_an_idempotency_key_for_another_body_is_invalid(store: Store) -> None:
    """A key belongs to one request; nothing of the other one is recorded."""
    await store.signals.accept([signal()], Deciding(), dry_run=True, idempotency_key="k", request_hash="h")
    other = signal()
    with pytest.raises(Invalid, match="Idempotency-Key"):
        await store.signals.accept(
            [other], Deciding(), dry_run=True, idempotency_key="k", request_hash="other"
        )
    assert await store.signals.get(other.id) is None


async def test_an_idempotency_key_is_forgotten_after_a_day(store: Store) -> None:
    """Until 24 hours it holds; after that the key is new again, with any body."""
    await store.signals.accept([signal()], Deciding(), dry_run=True, idempotency_key="k", request_hash="h")
    late = signal(at=NOW + timedelta(hours=24))
    with pytest.raises(Invalid):
        await store.signals.accept([late], Deciding(), dry_run=True, idempotency_key="k", request_hash="new")
    later = signal(at=NOW + timedelta(hours=24, seconds=1))
    await store.signals.accept([later], Deciding(), dry_run=True, idempotency_key="k", request_hash="new")
    assert await store.signals.get(later.id) is not None


async def test_concurrent_requests_with_one_key_are_recorded_once(store: Store) -> None:
    """Sixteen copies of one request in flight have one effect and one answer."""
    copies = [signal() for _ in range(16)]
    answers = await asyncio.gather(
        *(
            store.signals.accept([copy], Deciding(), dry_run=True, idempotency_key="k", request_hash="h")
            for copy in copies
        )
    )
    assert len(set(answers)) == 1
    recorded = [copy for copy in copies if await store.signals.get(copy.id) is not None]
    assert len(recorded) == 1


async def test_a_key_too_long_for_an_index_is_invalid(store: Store) -> None:
    """Both databases refuse what one of them could not index."""
    with pytest.raises(Invalid, match="longer than"):
        await store.signals.accept([signal(dedup_key="é" * 600)], Deciding(), dry_run=True)
    with pytest.raises(Invalid, match="idempotency key is longer"):
        await store.signals.accept([signal()], Deciding(), dry_run=True, idempotency_key="k" * 1025)


async def test_hostile_text_is_stored_and_not_fatal(store: Store) -> None:
    """NUL characters and half surrogates become replacement characters on both databases."""
    one = signal(Deploy(version="1\x00\ud800\\u0000", status=DeployStatus.FAILED), dedup_key="a\x00\udfff")
    answer = await store.signals.accept([one], Deciding(), dry_run=True)
    record = await store.signals.get(one.id)
    assert record is not None
    assert record.signal.payload == Deploy(version="1��\\u0000", status=DeployStatus.FAILED)
    duplicate = await store.signals.accept([signal(dedup_key="a\x00\udfff")], Deciding(), dry_run=True)
    assert duplicate[0].disposition.duplicate_of == answer[0].signal_id


async def test_a_time_without_zone_is_invalid(store: Store) -> None:
    """It names no instant."""
    one = signal(at=NOW.replace(tzinfo=None))
    with pytest.raises(Invalid, match="no zone"):
        await store.signals.accept([one], Deciding(), dry_run=True)
    assert await store.signals.get(one.id) is None


async def test_times_of_any_zone_are_stored_as_the_same_instant_in_utc(store: Store) -> None:
    """The zone of sender, server or database does not matter."""
    one = signal(at=NOW.astimezone(timezone(timedelta(hours=5, minutes=45))))
    await store.signals.accept([one], Deciding(), dry_run=True)
    record = await store.signals.get(one.id)
    assert record is not None
    assert record.signal.observed_at == NOW
    assert record.signal.observed_at.utcoffset() == timedelta(0)


# ------------------------------------------------------------ atomicity


async def test_a_decision_that_fails_undoes_its_whole_delivery(store: Store) -> None:
    """One transaction: the signal before the failing one is not recorded either."""
    first, second = signal(), signal()

    def decide(one: object, *rest: object) -> object:
        if one is second:
            raise ZeroDivisionError
        return Deciding()(first, None, None, None)

    with pytest.raises(ZeroDivisionError):
        await store.signals.accept([first, second], decide, dry_run=True)  # type: ignore[arg-type]  # a broken decider on purpose
    assert await store.signals.get(first.id) is None
    assert await store.incidents.all_open() == ()


async def test_a_failing_delivery_does_not_take_its_neighbours_with_it(store: Store) -> None:
    """Deliveries that share a commit fail alone."""

    def broken(*_: object) -> object:
        raise ZeroDivisionError

    deliveries = [
        store.signals.accept([signal()], broken if n % 5 == 2 else Deciding(), dry_run=True)  # type: ignore[arg-type]  # as above
        for n in range(50)
    ]
    answers = await asyncio.gather(*deliveries, return_exceptions=True)
    assert [n for n, answer in enumerate(answers) if isinstance(answer, ZeroDivisionError)] == list(
        range(2, 50, 5)
    )
    for answer in answers:
        if isinstance(answer, tuple):
            assert await store.signals.get(answer[0].signal_id) is not None


# ------------------------------------------------------------ open and join


async def test_fifty_concurrent_signals_of_one_service_open_one_incident(store: Store) -> None:
    """Promise 3: whatever runs beside it, one incident is open for a service."""
    answers = await asyncio.gather(
        *(store.signals.accept([signal()], Deciding(), dry_run=True) for _ in range(50))
    )
    kinds = [answer[0].disposition.kind for answer in answers]
    assert kinds.count(DispositionKind.OPENED) == 1
    assert kinds.count(DispositionKind.JOINED) == 49
    assert len({answer[0].disposition.incident_id for answer in answers}) == 1
    incidents = await store.incidents.all_open()
    assert len(incidents) == 1
    assert len(await store.incidents.timeline(incidents[0].id)) == 50


async def test_deliveries_over_many_services_in_any_order_do_not_block_each_other(store: Store) -> None:
    """Lists that touch the same services in opposite order all end, with one incident each."""
    keys = [ServiceKey(environment="prod", service=f"service-{n}") for n in range(8)]
    await asyncio.gather(
        *(
            store.signals.accept(
                [signal(key=key) for key in (keys if n % 2 else reversed(keys))], Deciding(), dry_run=True
            )
            for n in range(12)
        )
    )
    assert sorted(incident.key for incident in await store.incidents.all_open()) == keys


async def test_services_and_environments_have_incidents_of_their_own(store: Store) -> None:
    """The same name in another environment is another service."""
    prod = await opened(store)
    staging = await opened(store, ServiceKey(environment="staging", service="payments-api"))
    assert prod.id != staging.id


async def test_joining_adds_triggers_in_order_and_keeps_the_version(store: Store) -> None:
    """A new trigger extends the incident, a known one does not, and a running pass keeps its version."""
    incident = await opened(store)
    join = Deciding(kind=DispositionKind.JOINED, triggers=(Trigger.CRASH_LOOP, Trigger.DEPLOY_FAILED))
    answer = await store.signals.accept([signal()], join, dry_run=True)
    assert answer[0].disposition.kind is DispositionKind.JOINED
    assert answer[0].disposition.incident_id == incident.id
    joined = await loaded(store, incident.id)
    assert joined.triggers == (Trigger.DEPLOY_FAILED, Trigger.CRASH_LOOP)
    assert joined.version == incident.version
    assert joined.summary == "payments-api in prod: deploy failed, crash loop"
    assert [entry.message.split()[0] for entry in await store.incidents.timeline(incident.id)] == [
        "Opened",
        "Joined",
    ]


async def test_staleness_ends_only_with_a_fresh_trigger(store: Store) -> None:
    """A fresh signal that says nothing bad, or another stale one, leaves a stale incident stale."""
    incident = await opened(store, stale=True)
    assert incident.stale
    quiet = Deciding(kind=DispositionKind.JOINED, triggers=())
    await store.signals.accept([signal(), signal(stale=True)], quiet, dry_run=True)
    await store.signals.accept([signal(stale=True)], Deciding(), dry_run=True)
    assert (await loaded(store, incident.id)).stale
    await store.signals.accept([signal()], Deciding(), dry_run=True)
    assert not (await loaded(store, incident.id)).stale
    await store.signals.accept([signal(stale=True)], Deciding(), dry_run=True)
    assert not (await loaded(store, incident.id)).stale


async def test_the_decision_sees_levels_and_both_incidents(store: Store) -> None:
    """What one signal stored and opened is there for the next, within a delivery too."""
    levels = ServiceLevels(
        key=PAYMENTS,
        error_rate_breach_since=NOW,
        conditions=(Condition.CRASH_LOOP_BACK_OFF,),
        last_sample_at=NOW,
        last_sample=SliSample(at=NOW, error_rate=0.5),
    )
    decide = Deciding(levels=levels)
    await store.signals.accept([signal(), signal()], decide, dry_run=True)
    await store.signals.accept([signal()], decide, dry_run=True)
    assert [seen for _, seen, _, _ in decide.asked] == [None, levels, levels]
    assert [before is not None for _, _, before, _ in decide.asked] == [False, True, True]
    assert await store.signals.levels(PAYMENTS) == levels
    assert await store.signals.levels(ServiceKey(environment="dev", service="payments-api")) is None


async def test_the_decision_sees_the_incident_that_closed_last(store: Store) -> None:
    """Of several closed incidents of this service the newest end counts."""
    ends = []
    for minutes in (5, 9, 7):
        incident = await opened(store)
        claim = await claimed(store, incident)
        ended = replace(incident, state=IncidentState.ESCALATED, closed_at=NOW + timedelta(minutes=minutes))
        ends.append(await store.incidents.save(claim, ended, []))
    await opened(store, ServiceKey(environment="prod", service="other"))
    decide = Deciding()
    await store.signals.accept([signal()], decide, dry_run=True)
    assert decide.asked[0][2:] == (None, ends[1])


async def test_a_closed_incident_is_not_joined(store: Store) -> None:
    """After the end, the next signal opens another incident."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.incidents.save(claim, replace(incident, state=IncidentState.RECOVERED, closed_at=NOW), [])
    assert (await opened(store)).id != incident.id


async def test_levels_are_left_alone_when_the_decision_gives_none(store: Store) -> None:
    """None means: leave what is on record."""
    levels = ServiceLevels(key=PAYMENTS, latency_breach_since=NOW)
    await store.signals.accept([signal()], Deciding(levels=levels), dry_run=True)
    await store.signals.accept([signal()], Deciding(), dry_run=True)
    assert await store.signals.levels(PAYMENTS) == levels


# ------------------------------------------------------------ pending


async def test_pending_signals_join_when_released(store: Store) -> None:
    """An opening that releases them takes the service's pending signals along, and only those."""
    first, second, third = signal(), signal(), signal()
    elsewhere = signal(key=ServiceKey(environment="staging", service="payments-api"))
    await store.signals.accept([first, second, elsewhere], pending(), dry_run=True)
    assert (await disposition(store, first)).kind is DispositionKind.PENDING
    answer = await store.signals.accept([third], Deciding(release_pending=True), dry_run=True)
    incident_id = answer[0].disposition.incident_id
    assert incident_id is not None
    assert answer[0].disposition.kind is DispositionKind.OPENED
    for one in (first, second):
        found = await disposition(store, one)
        assert (found.kind, found.incident_id) == (DispositionKind.JOINED, incident_id)
    assert (await disposition(store, elsewhere)).kind is DispositionKind.PENDING
    entries = await store.incidents.timeline(incident_id)
    assert [entry.data["kind"] for entry in entries] == ["deploy", "deploy"]
    assert entries[1].data["signal_ids"] == [first.id, second.id]
    assert await store.signals.of_incident(incident_id, 10) == (first, second, third)


async def test_pending_signals_stay_when_not_released(store: Store) -> None:
    """Opening alone does not touch them."""
    waiting = signal()
    await store.signals.accept([waiting], pending(), dry_run=True)
    await store.signals.accept([signal()], Deciding(), dry_run=True)
    assert (await disposition(store, waiting)).kind is DispositionKind.PENDING


async def test_run_once_opens_an_incident_from_pending_signals(store: Store) -> None:
    """The pending signals become the incident's own: the oldest opens it, the others join."""
    first, second = signal(MetricSample(error_rate=0.2)), signal(MetricSample(error_rate=0.3))
    await store.signals.accept([first, second], pending(), dry_run=True)
    at = NOW + SECOND
    incident_id = await store.signals.open_from_pending(
        PAYMENTS, [Trigger.HIGH_ERROR_RATE], dry_run=True, at=at
    )
    assert incident_id is not None
    incident = await loaded(store, incident_id)
    assert incident.opened_at == at
    assert incident.dry_run
    assert not incident.stale
    assert incident.triggers == (Trigger.HIGH_ERROR_RATE,)
    assert (await disposition(store, first)).kind is DispositionKind.OPENED
    assert (await disposition(store, second)).kind is DispositionKind.JOINED
    entries = await store.incidents.timeline(incident_id)
    assert [entry.data["error_rate"] for entry in entries] == [0.2, 0.3]
    assert (
        await store.signals.open_from_pending(PAYMENTS, [Trigger.HIGH_ERROR_RATE], dry_run=True, at=at)
        is None
    )


async def test_run_once_without_pending_signals_opens_nothing(store: Store) -> None:
    """None, and no incident."""
    assert await store.signals.open_from_pending(PAYMENTS, [Trigger.CRASH_LOOP], dry_run=True, at=NOW) is None
    assert await store.incidents.all_open() == ()


async def test_run_once_lets_pending_signals_join_the_open_incident(store: Store) -> None:
    """With one open already, its triggers grow, and fresh signals end its staleness."""
    incident = await opened(store, stale=True)
    waiting = signal()
    await store.signals.accept([waiting], pending(), dry_run=True)
    joined = await store.signals.open_from_pending(PAYMENTS, [Trigger.HIGH_LATENCY], dry_run=True, at=NOW)
    assert joined == incident.id
    after = await loaded(store, incident.id)
    assert after.triggers == (Trigger.DEPLOY_FAILED, Trigger.HIGH_LATENCY)
    assert not after.stale
    assert (await disposition(store, waiting)).incident_id == incident.id


async def test_an_incident_from_stale_pending_signals_is_stale(store: Store) -> None:
    """Nothing fresh was reported, so no real action may follow."""
    await store.signals.accept([signal(stale=True), signal(stale=True)], pending(), dry_run=False)
    incident_id = await store.signals.open_from_pending(PAYMENTS, [Trigger.CRASH_LOOP], dry_run=False, at=NOW)
    assert incident_id is not None
    assert (await loaded(store, incident_id)).stale


async def test_concurrent_run_once_and_intake_open_one_incident(store: Store) -> None:
    """Both doors together never open two."""
    await store.signals.accept([signal() for _ in range(5)], pending(), dry_run=True)
    await asyncio.gather(
        *(
            store.signals.open_from_pending(PAYMENTS, [Trigger.CRASH_LOOP], dry_run=True, at=NOW)
            for _ in range(5)
        ),
        *(store.signals.accept([signal()], Deciding(release_pending=True), dry_run=True) for _ in range(10)),
    )
    assert len(await store.incidents.all_open()) == 1


async def test_old_pending_signals_expire_and_say_so(store: Store) -> None:
    """Only those received before the limit, and only pending ones."""
    old, new, ignored = signal(at=NOW - SECOND), signal(at=NOW), signal(at=NOW - SECOND)
    await store.signals.accept([old, new], pending(), dry_run=True)
    await store.signals.accept([ignored], Deciding(kind=DispositionKind.IGNORED), dry_run=True)
    assert await store.signals.expire_pending(NOW) == 1
    assert await store.signals.expire_pending(NOW) == 0
    assert (await disposition(store, old)).kind is DispositionKind.EXPIRED
    assert (await disposition(store, new)).kind is DispositionKind.PENDING
    assert (await disposition(store, ignored)).kind is DispositionKind.IGNORED


async def test_what_led_to_nothing_is_forgotten_in_time(store: Store) -> None:
    """Old ignored signals and changes go; what opened an incident, waits, or is young stays."""
    long_ago = NOW - timedelta(days=30)
    other = structs.replace(PAYMENTS, service="other")
    change = Change(kind=ChangeKind.DEPLOY, key=PAYMENTS, at=long_ago, summary="deploy of 1 succeeded")
    old = signal(at=long_ago)
    waiting = signal(key=other, at=long_ago)
    opening = signal(at=long_ago)
    young = signal()
    await store.signals.accept(
        [old], Deciding(kind=DispositionKind.IGNORED, triggers=(), change=change), dry_run=True
    )
    await store.signals.accept([young], Deciding(kind=DispositionKind.IGNORED, triggers=()), dry_run=True)
    await store.signals.accept([waiting], pending(), dry_run=True)
    await store.signals.accept([opening], Deciding(), dry_run=True)
    assert await store.signals.prune(NOW - timedelta(days=7)) == 2
    assert await store.signals.prune(NOW - timedelta(days=7)) == 0
    assert await store.signals.get(old.id) is None
    assert await store.signals.changes(long_ago) == ()
    for kept in (waiting, opening, young):
        assert await store.signals.get(kept.id) is not None


async def test_services_with_pending_signals_or_levels_are_found_by_name(store: Store) -> None:
    """Each once, in order, narrowed by environment when one is given."""
    dev, prod, qa = (ServiceKey(environment=name, service="payments-api") for name in ("dev", "prod", "qa"))
    other = ServiceKey(environment="dev", service="other")
    await store.signals.accept(
        [signal(key=prod), signal(key=prod), signal(key=other)], pending(), dry_run=True
    )
    await store.signals.accept([signal(key=dev)], Deciding(levels=ServiceLevels(key=dev)), dry_run=True)
    await store.signals.accept([signal(key=prod)], Deciding(levels=ServiceLevels(key=prod)), dry_run=True)
    await store.signals.accept([signal(key=qa)], Deciding(), dry_run=True)
    assert await store.signals.pending_services("payments-api", None) == (dev, prod)
    assert await store.signals.pending_services("payments-api", "prod") == (prod,)
    assert await store.signals.pending_services("payments-api", "qa") == ()


# ------------------------------------------------------------ what intake remembers


async def test_incident_signals_are_the_first_and_the_newest(store: Store) -> None:
    """Oldest first; when there are more than asked for, the first stays and the middle goes."""
    told = [signal() for _ in range(6)]
    for one in told:
        await store.signals.accept([one], Deciding(), dry_run=True)
    await store.signals.accept([signal(dedup_key=told[0].dedup_key)], Deciding(), dry_run=True)
    [incident] = await store.incidents.all_open()
    assert await store.signals.of_incident(incident.id, 100) == tuple(told)
    assert await store.signals.of_incident(incident.id, 6) == tuple(told)
    assert await store.signals.of_incident(incident.id, 3) == (told[0], told[4], told[5])
    assert await store.signals.of_incident(incident.id, 1) == (told[0],)
    assert await store.signals.of_incident(incident.id, 0) == ()


async def test_samples_are_those_observed_since_oldest_first(store: Store) -> None:
    """Healthy samples count, duplicates and other signals do not, and event time orders them."""
    late = signal(MetricSample(error_rate=0.3), at=NOW + 2 * SECOND)
    early = signal(MetricSample(error_rate=0.1, p95_latency_ms=12.5), at=NOW)
    before = signal(MetricSample(error_rate=0.9), at=NOW - SECOND)
    again = signal(MetricSample(error_rate=0.3), at=NOW + 2 * SECOND, dedup_key=late.dedup_key)
    ignore = Deciding(kind=DispositionKind.IGNORED, triggers=())
    await store.signals.accept([late, early, before, again, signal(at=NOW)], ignore, dry_run=True)
    assert await store.signals.samples(PAYMENTS, NOW) == (
        SliSample(at=NOW, error_rate=0.1, p95_latency_ms=12.5),
        SliSample(at=NOW + 2 * SECOND, error_rate=0.3),
    )


async def test_of_very_many_samples_the_newest_thousand_are_given(store: Store) -> None:
    """Verification wants what is new; the oldest are left out."""
    many = [signal(MetricSample(error_rate=0.0), at=NOW + n * SECOND) for n in range(1_003)]
    await store.signals.accept(many, Deciding(kind=DispositionKind.IGNORED, triggers=()), dry_run=True)
    found = await store.signals.samples(PAYMENTS, NOW)
    assert len(found) == 1_000
    assert found[0].at == NOW + 3 * SECOND
    assert found[-1].at == NOW + 1_002 * SECOND


async def test_changes_of_any_service_are_given_newest_first(store: Store) -> None:
    """A change that a signal carried is remembered for every service's diagnosis."""
    other = ServiceKey(environment="prod", service="other")
    told = [
        Change(
            kind=ChangeKind.DEPLOY,
            key=key,
            at=NOW + offset * SECOND,
            summary="x",
            version="1",
            irreversible=True,
        )
        for key, offset in ((PAYMENTS, 0), (other, 2), (PAYMENTS, 1), (PAYMENTS, -1))
    ]
    for change in told:
        await store.signals.accept([signal(key=change.key)], Deciding(change=change), dry_run=True)
    assert await store.signals.changes(NOW) == (told[1], told[2], told[0])


async def test_at_most_five_hundred_changes_are_given(store: Store) -> None:
    """A storm of changes cannot flood diagnosis."""
    change = Change(kind=ChangeKind.SCALE, key=PAYMENTS, at=NOW, summary="more")
    decide = Deciding(kind=DispositionKind.IGNORED, change=change)
    await store.signals.accept([signal() for _ in range(501)], decide, dry_run=True)
    assert len(await store.signals.changes(NOW)) == 500


@pytest.mark.parametrize("waiting", [False, True], ids=["at once", "after waiting"])
async def test_what_arrived_while_the_last_incident_closed_opens_one_after_it(
    store: Store, waiting: bool
) -> None:
    """A signal that waited for its turn does not date its incident into the one before."""
    incident = await opened(store)
    claim = await claimed(store, incident)
    await store.incidents.save(claim, closed(incident), [])
    arrived = NOW + SECOND
    if waiting:
        await store.signals.accept([signal(at=arrived)], pending(), dry_run=False)
        found = await store.signals.open_from_pending(
            PAYMENTS, [Trigger.HIGH_ERROR_RATE], dry_run=False, at=arrived
        )
        assert found is not None
        after = await loaded(store, found)
    else:
        after = await opened(store, at=arrived)
    assert after.opened_at == closed(incident).closed_at
    claim = await claimed(store, after)
    await store.incidents.save(claim, closed(after), [])
    assert (await opened(store, at=NOW + timedelta(hours=1))).opened_at == NOW + timedelta(hours=1)


# ------------------------------------------------------------ deliveries in parts


class Unit(Exception):
    """The process dies here."""


class Counted:
    """A `Database` that counts the signals on record after each unit, and dies before one of them."""

    def __init__(self, store: Store, dies_before: int | None = None) -> None:
        self._database = database_of(store)
        self._dies_before = dies_before
        self.on_record: list[int] = []

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:
        if len(self.on_record) == self._dies_before:
            raise Unit
        result = await self._database.write(work, urgent=urgent)
        self.on_record.append(await self.read(_count_signals))
        return result

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:
        return await self._database.read(work, urgent=urgent)

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        await self._database.close()


def _count_signals(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(signal_rows)).scalar_one()


def _many(count: int) -> list[Signal]:
    return [replace(signal(), dedup_key=f"observation {number}") for number in range(count)]


def _again(signals: Sequence[Signal]) -> list[Signal]:
    """The same observations as a sender repeats them: recognised by their keys, under new ids."""
    return [replace(one, id=signal().id) for one in signals]


async def test_a_large_delivery_is_recorded_in_bounded_transactions(store: Store) -> None:
    """No unit of work records more than a part; the answers come in the order of the signals."""
    counted, signals = Counted(store), _many(3 * PART + 1)
    answers = await store_over(counted).signals.accept(signals, Deciding(), dry_run=True)
    assert [answer.signal_id for answer in answers] == [one.id for one in signals]
    steps = [after - before for before, after in pairwise([0, *counted.on_record])]
    assert max(steps) == PART
    assert sum(steps) == len(signals)
    assert len(await store.incidents.all_open()) == 1


@pytest.mark.parametrize("key", [None, "delivery-1"])
@pytest.mark.parametrize("dies_before", [0, 1, 2, 3, 4])
async def test_a_delivery_that_broke_off_is_completed_by_its_repetition(
    store: Store, key: str | None, dies_before: int
) -> None:
    """Wherever the process died between two parts, the sender's retry loses nothing and adds nothing."""
    signals = _many(2 * PART + 10)
    hashed = None if key is None else "h"
    with contextlib.suppress(Unit):
        await store_over(Counted(store, dies_before)).signals.accept(
            signals, Deciding(), dry_run=True, idempotency_key=key, request_hash=hashed
        )
    sender = _again(signals)
    answers = await store.signals.accept(
        sender, Deciding(), dry_run=True, idempotency_key=key, request_hash=hashed
    )
    assert len(answers) == len(signals)
    kinds = {answer.disposition.kind for answer in answers}
    assert kinds <= {DispositionKind.OPENED, DispositionKind.JOINED, DispositionKind.DEDUPLICATED}
    first = await store.signals.accept(_again(signals), Deciding(), dry_run=True)
    assert {answer.disposition.kind for answer in first} == {DispositionKind.DEDUPLICATED}
    assert len({answer.disposition.duplicate_of for answer in first}) == len(signals)
    if key is not None:
        again = await store.signals.accept(
            _again(signals), Deciding(), dry_run=True, idempotency_key=key, request_hash=hashed
        )
        assert again == answers
        assert kinds <= {DispositionKind.OPENED, DispositionKind.JOINED}


async def test_a_large_delivery_with_a_key_used_for_another_is_invalid(store: Store) -> None:
    """The key is checked before the first part, and while the parts of its delivery are being recorded."""
    signals = _many(2 * PART)
    with contextlib.suppress(Unit):
        await store_over(Counted(store, dies_before=2)).signals.accept(
            signals, Deciding(), dry_run=True, idempotency_key="k", request_hash="h"
        )
    with pytest.raises(Invalid, match="used for another request"):
        await store.signals.accept(
            _many(2 * PART), Deciding(), dry_run=True, idempotency_key="k", request_hash="other"
        )
