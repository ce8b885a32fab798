"""The contract of the outbox and of each channel's progress, over SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta

import psycopg
import pytest

from app.agent.identity.people import Person
from app.agent.ids import IncidentId
from app.agent.models import Incident, IncidentState
from app.agent.notifications.channel import Posting
from app.agent.ports.store import Store
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.errors import Conflict, NotFound
from app.store import open_store
from tests.contract.eventually import eventually
from tests.contract.store_values import MINUTE, NOW, claimed, closed, key, note, opened

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

DAY = timedelta(days=1)


async def unshown(
    store: Store, at: datetime = NOW, channel: str = "chat", limit: int = 100
) -> list[IncidentId]:
    return list(await store.notifications.due(channel, at, limit))


async def end(store: Store, incident: Incident, at: datetime = NOW) -> Incident:
    claim = await claimed(store, incident, at=at)
    return await store.incidents.save(claim, replace(closed(incident), closed_at=at), [note("over", at)])


async def grow(store: Store, incident: Incident, at: datetime = NOW) -> Incident:
    """One more entry of the timeline."""
    claim = await claimed(store, incident, at=at)
    saved = await store.incidents.save(claim, incident, [note("more", at)])
    await store.claims.release(claim)
    return saved


async def told(store: Store, incident_id: IncidentId, channel: str = "chat", at: datetime = NOW) -> Posting:
    """Everything on record was posted."""
    record = await store.incidents.get(incident_id)
    assert record is not None
    before = await store.notifications.get(channel, incident_id)
    posting = before or Posting(channel=channel, incident_id=incident_id, due_at=at)
    announcements = await store.notifications.announcements(incident_id, 0)
    length = len(record.timeline)
    return await store.notifications.save(
        replace(
            posting,
            reference="message-1",
            shown=length,
            refreshed=length,
            announced=announcements[-1].number if announcements else 0,
            due_at=at,
        )
    )


# ------------------------------------------------------------ announcements


async def test_announcements_keep_their_order_and_their_words(store: Store) -> None:
    """Numbers grow over all incidents; those after a number are still to be posted."""
    one, other = await opened(store), await opened(store, key(1))
    await store.notifications.announce(one.id, "first", NOW)
    await store.notifications.announce(other.id, "elsewhere", NOW)
    await store.notifications.announce(one.id, "second \x00 \ud800", NOW + MINUTE)
    first, second = await store.notifications.announcements(one.id, 0)
    assert (first.text, first.at, first.incident_id) == ("first", NOW, one.id)
    assert second.text.startswith("second ")
    assert first.number < second.number
    assert await store.notifications.announcements(one.id, first.number) == (second,)
    assert await store.notifications.announcements(one.id, second.number) == ()


async def test_an_announcement_about_nothing_is_refused(store: Store) -> None:
    """There is no channel to send it to."""
    with pytest.raises(NotFound):
        await store.notifications.announce(IncidentId("inc_nowhere"), "hello", NOW)


async def test_announcements_at_the_same_time_become_visible_in_their_order(store: Store) -> None:
    """A reader that has seen a number has seen all before it: no channel skips one."""
    incident = await opened(store)
    seen: list[list[int]] = []

    async def look() -> None:
        for _ in range(40):
            numbers = [one.number for one in await store.notifications.announcements(incident.id, 0)]
            seen.append(numbers)

    await asyncio.gather(
        look(),
        *(store.notifications.announce(incident.id, f"announcement {n}", NOW) for n in range(30)),
        look(),
    )
    final = [one.number for one in await store.notifications.announcements(incident.id, 0)]
    assert len(final) == 30
    assert all(numbers == final[: len(numbers)] for numbers in seen)


async def test_an_announcement_waits_for_one_that_is_being_put_on_record(postgres_url: str) -> None:
    """On PostgreSQL: numbers of one incident are committed in their order, or a channel could skip one."""
    store = await open_store(postgres_url)
    try:
        incident = await opened(store)
        with psycopg.connect(postgres_url) as other:
            other.execute("SELECT 1 FROM incidents WHERE id = %s FOR UPDATE", (incident.id,))
            announcing = asyncio.ensure_future(store.notifications.announce(incident.id, "second", NOW))

            async def waits() -> bool:
                assert not announcing.done()
                found = await asyncio.to_thread(_waiting, postgres_url)
                return found > 0

            await eventually(waits, "the announcement waits")
            other.execute(
                "INSERT INTO announcements (incident_id, text, at) VALUES (%s, 'first', now())",
                (incident.id,),
            )
        await announcing
        assert [one.text for one in await store.notifications.announcements(incident.id, 0)] == [
            "first",
            "second",
        ]
    finally:
        await store.close()


def _waiting(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        row = connection.execute(statement.encode()).fetchone()
        assert row is not None
        return int(row[0])


# ------------------------------------------------------------ what is to be told


async def test_a_new_channel_receives_open_incidents_and_new_ones(store: Store) -> None:
    """What has ended is the past, and does not flood it."""
    over = await end(store, await opened(store, at=NOW - DAY), NOW - MINUTE)
    going_on = await opened(store, key(1), at=NOW - 2 * DAY)
    assert await unshown(store) == [going_on.id]
    later = await opened(store, key(2), at=NOW + MINUTE)
    await end(store, going_on, NOW + MINUTE)
    await end(store, later, NOW + 2 * MINUTE)
    found = await unshown(store, NOW + 3 * MINUTE)
    assert found == [going_on.id, later.id]
    assert over.id not in found


async def test_dry_runs_are_not_posted(store: Store) -> None:
    """They are watched on the dashboard."""
    await opened(store, dry_run=True)
    assert await unshown(store) == []


async def test_only_what_is_new_is_to_be_reported(store: Store) -> None:
    """A new entry, or an announcement; for each channel by itself."""
    incident = await opened(store)
    assert await unshown(store) == [incident.id]
    await told(store, incident.id)
    assert await unshown(store) == []
    assert await unshown(store, channel="other") == [incident.id]
    incident = await grow(store, incident)
    assert await unshown(store) == [incident.id]
    await told(store, incident.id)
    await store.notifications.announce(incident.id, "look", NOW)
    assert await unshown(store) == [incident.id]
    posting = await told(store, incident.id)
    assert await unshown(store) == []
    await store.notifications.save(replace(posting, refreshed=posting.refreshed - 1))
    assert await unshown(store) == [incident.id]


async def test_nothing_is_looked_at_before_it_is_due(store: Store) -> None:
    """A failed attempt is given time."""
    incident = await opened(store)
    posting = Posting(channel="chat", incident_id=incident.id, due_at=NOW + MINUTE)
    await store.notifications.save(posting)
    assert await unshown(store) == []
    assert await unshown(store, NOW + MINUTE) == [incident.id]


async def test_open_ones_come_first_and_each_kind_in_its_order(store: Store) -> None:
    """After an outage, what is going on now does not wait for what is over; at most as many as asked for."""
    await unshown(store)
    first, second, third, fourth = [await opened(store, key(n), at=NOW + n * MINUTE) for n in range(4)]
    await end(store, first, NOW + 5 * MINUTE)
    await end(store, second, NOW + 6 * MINUTE)
    at = NOW + 7 * MINUTE
    assert await unshown(store, at) == [third.id, fourth.id, first.id, second.id]
    assert await unshown(store, at, limit=3) == [third.id, fourth.id, first.id]


async def test_what_was_missed_for_days_is_reported(store: Store) -> None:
    """The mark waits for what is untold, however often it is looked, and moves on after that."""
    await unshown(store)
    missed = await end(store, await opened(store, at=NOW + MINUTE), NOW + 2 * MINUTE)
    for hours in range(0, 72, 2):
        assert await unshown(store, NOW + timedelta(hours=hours, minutes=5)) == [missed.id]
    now = NOW + 3 * DAY
    await told(store, missed.id, at=now)
    assert await unshown(store, now) == []
    for _ in range(2):
        now += timedelta(hours=2)
        assert await unshown(store, now) == []
    # Far behind the mark nothing is looked at any more: as if it had ended before the channel was there.
    posting = await store.notifications.get("chat", missed.id)
    assert posting is not None
    await store.notifications.save(replace(posting, shown=0))
    assert await unshown(store, now) == []


async def test_the_end_of_a_long_incident_is_reported(store: Store) -> None:
    """It opened long before the mark, and was posted all along."""
    await unshown(store)
    incident = await opened(store, at=NOW + MINUTE)
    await told(store, incident.id)
    for hours in range(0, 48, 2):
        assert await unshown(store, NOW + timedelta(hours=hours, minutes=5)) == []
    at = NOW + 2 * DAY
    await end(store, incident, at)
    assert await unshown(store, at) == [incident.id]


@pytest.mark.parametrize("how", ["recovered", "resolved", "noted"])
async def test_what_is_recorded_long_after_the_end_is_reported(store: Store, how: str) -> None:
    """To the channels that were notified of the incident; the others hear of nothing old."""
    await unshown(store)
    older = await end(store, await opened(store, key(2), at=NOW), NOW + 2 * MINUTE)
    await told(store, older.id)
    incident = await opened(store, at=NOW + MINUTE)
    claim = await claimed(store, incident, at=NOW + 2 * MINUTE)
    ended = replace(closed(incident, IncidentState.ESCALATED), closed_at=NOW + 3 * MINUTE)
    ended = await store.incidents.save(claim, ended, [note("over")])
    await told(store, incident.id)
    at = NOW + 2 * DAY
    for hours in range(0, 48, 2):
        assert await unshown(store, NOW + timedelta(hours=hours, minutes=5)) == []
    assert await unshown(store, at, "new") == []
    if how == "recovered":
        assert await store.incidents.recover(
            replace(ended, state=IncidentState.RECOVERED, recovered_at=at), note("recovered", at)
        )
    else:
        act = ResponderAct.RESOLVE if how == "resolved" else ResponderAct.NOTE
        request = ResponderRequest(act=act, by=Person(name="ann"), at=at, text="the cable")
        await store.responders.respond(incident.id, request)
    for _ in range(3):
        assert await unshown(store, at) == [incident.id]
        assert await unshown(store, at, "new") == []
        at += timedelta(hours=2)
    await told(store, incident.id, at=at)
    assert await unshown(store, at) == []


async def test_an_end_that_is_dated_a_little_back_is_reported(store: Store) -> None:
    """Clocks differ, and a commit takes its time."""
    await unshown(store)
    incident = await opened(store, at=NOW)
    await told(store, incident.id)
    at = NOW + 2 * DAY
    await unshown(store, at)
    await end(store, incident, at - 20 * MINUTE)
    assert await unshown(store, at) == [incident.id]


# ------------------------------------------------------------ postings


async def test_a_posting_is_kept_as_it_was_stored(store: Store) -> None:
    """Every field, and the next version."""
    incident = await opened(store)
    assert await store.notifications.get("chat", incident.id) is None
    posting = Posting(
        channel="chat",
        incident_id=incident.id,
        reference='{"told":1}',
        shown=3,
        announced=2**40,
        refreshed=2,
        sending="inc-a8",
        sending_since=NOW,
        due_at=NOW + MINUTE,
        failures=4,
    )
    stored = await store.notifications.save(posting)
    assert stored == replace(posting, version=1)
    assert await store.notifications.get("chat", incident.id) == stored
    again = await store.notifications.save(replace(stored, sending=None, sending_since=None))
    assert again == replace(posting, version=2, sending=None, sending_since=None)


async def test_of_two_announcers_one_stores(store: Store) -> None:
    """The other one has a conflict, at the first message and at every later one."""
    incident = await opened(store)
    first = Posting(channel="chat", incident_id=incident.id, due_at=NOW)
    for version in range(3):
        found = await store.notifications.get("chat", incident.id)
        mine = replace(found or first, shown=version)
        ended = await asyncio.gather(
            *(store.notifications.save(mine) for _ in range(5)), return_exceptions=True
        )
        assert sum(isinstance(one, Posting) for one in ended) == 1
        assert sum(isinstance(one, Conflict) for one in ended) == 4
    stale = replace(first, version=1)
    with pytest.raises(Conflict):
        await store.notifications.save(stale)


async def test_several_announcers_may_ask_about_a_new_channel_at_once(store: Store) -> None:
    """The first writer sets its mark; no call fails."""
    incident = await opened(store)
    for found in await asyncio.gather(*(unshown(store) for _ in range(5))):
        assert found == [incident.id]
