"""The notifier: nothing is lost, nothing is posted twice without need, and no channel delays another."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.agent.identity.people import Person
from app.agent.ids import IncidentId
from app.agent.models import (
    Approval,
    ApprovalState,
    IncidentRecord,
    IncidentState,
    OutcomeKind,
)
from app.agent.notifications.channel import Bulletin
from app.bootstrap import Adapters
from app.errors import Conflict, Forbidden, TransientError, UnknownOutcome
from app.store.incidents.repository import SqlIncidents
from app.store.notifications import SqlNotifications
from app.workers.notifier import ChannelSender
from tests.announcing import Fuse, Killed, Theatre, theatre
from tests.contract.channel_suite import record
from tests.contract.memory_channel import WELL, Chat, Fate, Fault, MemoryChannel, scripted
from tests.repositories import exchanged
from tests.stories import messages, story

DOWN = Fault(fate=Fate.FAILED, error=TransientError("no listener"))
HANGS = Fault(fate=Fate.LOST)
LOST = Fault(fate=Fate.LOST, error=UnknownOutcome("no answer"))
PATIENCE = 95.0


@pytest.fixture
def play() -> Iterator[Theatre]:
    with theatre() as made:
        yield made


async def a_whole_incident(play: Theatre, channel_sender: ChannelSender) -> None:
    """Opened, explained, announced, asked about, ended; the announcer looks in between.

    The channel is known from before: what ends before the first look is not announced.
    """
    await play.store.notifications.due("memory", play.clock.now(), 1)
    incident = await play.open()
    await play.note(incident, 3)
    await channel_sender.round()
    await play.clock.advance(3)
    await play.announce(incident)
    await play.announce(incident)
    await play.ask(incident)
    await channel_sender.round()
    await play.clock.advance(3)
    await play.note(incident, 25)
    await play.close(incident)
    await channel_sender.round()


# ------------------------------------------------------------ what is announced


async def test_an_incident_is_reported_from_its_beginning_to_its_end(play: Theatre) -> None:
    """One first message that is kept up to date; announcements loud, the timeline in few quiet replies."""
    await a_whole_incident(play, play.channel_sender())
    assert await play.complaints() == []
    first, *replies = play.chat.messages
    assert "recovered" in first.lines[0]
    assert [one.loud for one in replies].count(True) == 2
    assert len(replies) - 2 <= 4


async def test_a_round_without_news_says_nothing(play: Theatre) -> None:
    """No call to the channel, however often it is looked."""
    channel_sender = play.channel_sender()
    await a_whole_incident(play, channel_sender)
    calls = len(play.chat.calls)
    await play.run(channel_sender, 600)
    assert len(play.chat.calls) == calls


async def test_an_incident_that_changes_all_the_time_is_reported_every_two_seconds(play: Theatre) -> None:
    """A chat is no log."""
    incident = await play.open()
    working = asyncio.ensure_future(play.channel_sender().run())
    for _ in range(300):
        await play.note(incident)
        await play.clock.advance(0.1)
    working.cancel()
    await asyncio.wait({working})
    assert len(play.chat.messages[0].edits) <= 15
    assert len(play.chat.messages) <= 17


async def test_what_waits_for_an_answer_carries_a_nonce_that_counts_once(play: Theatre) -> None:
    """Issued before the message goes out, another for each message; only where there are buttons."""
    incident = await play.open()
    await play.ask(incident)
    await play.channel_sender().round()
    first = play.chat.messages[0].nonce
    await play.clock.advance(3)
    await play.note(incident)
    await play.channel_sender().round()
    second = play.chat.messages[0].nonce
    assert first is not None
    assert second is not None
    assert first != second
    request = (await play.record(incident)).approvals[-1]

    async def answer(nonce: str) -> Approval:
        ann, now = Person(name="ann"), play.clock.now()
        return await play.store.approvals.answer(
            request.id, approve=True, by=ann, comment="", at=now, nonce=nonce
        )

    assert (await answer(second)).state is ApprovalState.APPROVED
    for again in (first, second):
        with pytest.raises(Conflict):
            await answer(again)
    await play.clock.advance(3)
    await play.channel_sender().round()
    assert play.chat.messages[0].nonce is None
    dumb = Chat(clock=play.clock)
    await play.channel_sender(MemoryChannel(chat=dumb, name="dumb", has_buttons=False)).round()
    assert {one.nonce for one in dumb.messages} == {None}


def test_a_nonce_is_not_shown_by_accident() -> None:
    """It would be the right to answer."""
    assert "n0nce" not in repr(Bulletin(record=record(), nonce="n0nce"))


# ------------------------------------------------------------ crashes


async def test_a_crash_at_any_point_loses_nothing_and_repeats_nothing() -> None:
    """Before and after every write and every message: the next worker looks before it posts."""
    with theatre() as play:
        fuse = Fuse()
        await a_whole_incident(play, play.channel_sender(fuse=fuse))
    points = fuse.passed
    assert {"before channel.begin", "after channel.begin", "after channel.reply"} <= set(points)
    assert points.count("after store.notifications.save") >= 10
    for die_at, point in enumerate(points):
        with theatre() as play:
            channel_sender = play.channel_sender(fuse=Fuse(die_at=die_at))
            with pytest.raises(Killed):
                await a_whole_incident(play, channel_sender)
            await _finish(play)
            assert await play.complaints() == [], f"killed {point} (number {die_at})"


async def test_where_nothing_can_be_looked_for_it_is_said_again_rather_than_lost() -> None:
    """At least once, in order, and never more than once more."""
    with theatre() as play:
        fuse = Fuse()
        await a_whole_incident(play, play.channel_sender(fuse=fuse))
    for die_at, point in enumerate(fuse.passed):
        with theatre() as play:
            blind = play.channel(searchable=False)
            with pytest.raises(Killed):
                await a_whole_incident(play, play.channel_sender(blind, Fuse(die_at=die_at)))
            await _finish(play, blind)
            assert await play.complaints(once=False) == [], f"killed {point} (number {die_at})"
            keys = [one.key for one in play.chat.messages]
            assert all(keys.count(key) <= 2 for key in keys)


async def _finish(play: Theatre, channel: MemoryChannel | None = None) -> None:
    """The rest of the incident's life, whatever of it was missed, under a new announcer."""
    if not play.opened:
        await play.open()
    incident = play.opened[0]
    await play.close(incident)
    for _ in range(3):
        await play.clock.advance(PATIENCE)
        await play.channel_sender(channel).round()


async def test_a_message_that_may_be_on_its_way_is_left_alone(play: Theatre) -> None:
    """Neither looked for nor sent again before it must have arrived."""
    await play.open()
    dead = play.channel_sender(play.channel(fates=lambda call: Fault(fate=Fate.FAILED, error=Killed())))
    with pytest.raises(Killed):
        await dead.round()
    calls = len(play.chat.calls)
    await play.run(play.channel_sender(), 85)
    assert len(play.chat.calls) == calls
    await play.run(play.channel_sender(), 10)
    assert await play.complaints() == []


async def test_two_announcers_that_overlap_do_not_speak_twice(play: Theatre) -> None:
    """Whichever is faster; the other one finds its turn taken."""
    incident = await play.open()
    one, other = play.channel_sender(fuse=Fuse()), play.channel_sender(fuse=Fuse())
    for step in range(12):
        await (play.announce(incident) if step % 3 else play.note(incident, 2))
        await asyncio.gather(one.round(), other.round())
        await play.clock.advance(3)
    await play.run(one, PATIENCE)
    assert await play.complaints() == []


# ------------------------------------------------------------ channels that fail


async def test_a_channel_that_was_down_for_a_day_receives_everything(
    play: Theatre, caplog: pytest.LogCaptureFixture
) -> None:
    """Incidents that came and went meanwhile included; and it was not hammered, nor the log."""
    caplog.set_level(logging.INFO)
    down = True
    channel_sender = play.channel_sender(play.channel(fates=lambda call: DOWN if down else WELL))
    for _ in range(6):
        incident = await play.open()
        await play.note(incident, 30)
        await play.announce(incident)
        await play.live(channel_sender, 7_200, every=120)
        await play.close(incident)
        await play.live(channel_sender, 7_200, every=120)
    assert len(play.chat.calls) < 6 * 24 * 60 / 4
    assert play.chat.messages == []
    assert caplog.text.count("notifications delayed") == 1
    down = False
    await play.live(channel_sender, 400)
    assert await play.complaints() == []
    assert caplog.text.count("notifications resumed") == 1


async def test_a_new_channel_posts_open_incidents_and_new_ones(play: Theatre) -> None:
    """What had ended before it was there stays the past."""
    over, going_on = await play.open(), await play.open()
    await play.note(going_on, 2)
    await play.close(over)
    await play.clock.advance(60)
    channel_sender = play.channel_sender()
    await channel_sender.round()
    await play.close(going_on)
    later = await play.open()
    await play.clock.advance(3)
    await channel_sender.round()
    assert play.chat.of(over) == []
    play.opened = [going_on, later]
    assert await play.complaints() == []


async def test_too_many_messages_pause_one_channel_as_a_whole(play: Theatre) -> None:
    """For as long as it says, for every incident; the other channels go on."""
    busy = Fault(fate=Fate.FAILED, error=TransientError("too many", retry_after=timedelta(seconds=60)))
    slow, quick = Chat(clock=play.clock), Chat(clock=play.clock)
    couriers = [
        play.channel_sender(MemoryChannel(chat=slow, name="slow", fates=scripted(iter([busy])))),
        play.channel_sender(MemoryChannel(chat=quick, name="quick")),
    ]
    for _ in range(5):
        await play.open()
    await play.run(couriers, 58)
    assert slow.calls == ["begin"]
    assert len(quick.messages) >= 5
    await play.run(couriers, 10)
    for chat in (slow, quick):
        play.chat = chat
        assert await play.complaints() == []


async def test_a_channel_that_hangs_delays_no_other(play: Theatre) -> None:
    """And its end is announced once it answers again."""
    stuck, quick = Chat(clock=play.clock), Chat(clock=play.clock)
    hanging = True
    couriers = [
        play.channel_sender(
            MemoryChannel(chat=stuck, name="stuck", fates=lambda call: HANGS if hanging else WELL)
        ),
        play.channel_sender(MemoryChannel(chat=quick, name="quick")),
    ]
    working = [asyncio.ensure_future(channel_sender.run()) for channel_sender in couriers]
    for _ in range(5):
        await play.open()
        await play.clock.advance(1)
    await play.clock.advance(1)
    assert len({one.key for one in quick.messages} & set(play.opened)) == 5
    for task in working:
        task.cancel()
    await asyncio.wait(working)
    await play.live(couriers[0], 3_600)
    hanging = False
    await play.live(couriers[0], 700)
    for chat in (stuck, quick):
        play.chat = chat
        assert await play.complaints() == []


async def test_a_lost_answer_is_looked_for_before_anything_is_said_again(play: Theatre) -> None:
    """Found: taken over, with its reference."""
    incident = await play.open()
    channel = play.channel(fates=scripted(iter([LOST, WELL, LOST])))
    await play.announce(incident)
    await play.run(play.channel_sender(channel), 300)
    assert await play.complaints() == []
    assert play.chat.calls.count("begin") == 1
    assert play.chat.calls.count("find") == 2


@pytest.mark.parametrize("error", [Forbidden("not you"), RuntimeError("a defect")])
async def test_what_is_refused_is_tried_again_seldom_and_said_once(
    play: Theatre, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """A person may fix it, so it is never given up; other incidents are announced all the while."""
    refused = await play.open()
    mended = play.clock.now() + timedelta(hours=3)

    @dataclass
    class Choosy(MemoryChannel):
        async def begin(self, bulletin: Bulletin) -> str:
            if bulletin.record.incident.id == refused and play.clock.now() < mended:
                self.chat.calls.append("refused")
                raise error
            return await super().begin(bulletin)

    channel_sender = play.channel_sender(Choosy(chat=play.chat))
    await play.live(channel_sender, 60)
    other = await play.open()
    await play.live(channel_sender, 30)
    assert len(play.chat.of(other)) == 1
    await play.live(channel_sender, 3 * 3_600)
    assert play.chat.calls.count("refused") <= 45
    said = [one for one in caplog.records if refused in one.getMessage()]
    assert len(said) == 1
    await play.live(channel_sender, 1_200)
    assert await play.complaints() == []


async def test_a_store_out_of_reach_is_tried_again(play: Theatre, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and nothing is lost."""
    await play.open()
    failures = itertools.count()

    class Flaky(SqlNotifications):
        async def due(self, channel: str, at: datetime, limit: int) -> tuple[IncidentId, ...]:
            if next(failures) < 3:
                raise TransientError("the database does not answer")
            return await super().due(channel, at, limit)

    play.store = exchanged(play.store, notifications=Flaky(play.database))
    await play.run(play.channel_sender(), 10)
    assert await play.complaints() == []
    assert caplog.text.count("the database does not answer") == 3


async def test_an_incident_that_cannot_be_read_holds_up_no_other(
    play: Theatre, caplog: pytest.LogCaptureFixture
) -> None:
    """It is set aside, said once, and looked at again later."""
    broken, well = await play.open(), await play.open()
    until = play.clock.now() + timedelta(hours=1)
    tries: list[datetime] = []

    class Damaged(SqlIncidents):
        async def get(self, incident_id: IncidentId) -> IncidentRecord | None:
            if incident_id == broken and play.clock.now() < until:
                tries.append(play.clock.now())
                raise ValueError("nonsense on record")
            return await super().get(incident_id)

    play.store = exchanged(play.store, incidents=Damaged(play.database))
    channel_sender = play.channel_sender()
    await play.live(channel_sender, 600)
    assert play.chat.of(broken) == []
    assert len(play.chat.of(well)) == 1
    assert len(tries) == 1
    assert sum(broken in one.getMessage() for one in caplog.records) == 1
    await play.live(channel_sender, 4_600)
    assert await play.complaints() == []


# ------------------------------------------------------------ with the whole agent


async def test_an_escalation_waits_for_no_channel(tmp_path: Path) -> None:
    """The loop ends the incident while the chat hangs; people hear of it once the chat is back."""
    chat = Chat()
    hanging = True
    channel = MemoryChannel(chat=chat, fates=lambda call: HANGS if hanging else WELL)
    async with story(tmp_path, connected=lambda world: _with(world, channel), dry_run=False) as stage:
        chat.clock = stage.clock
        channel_sender = ChannelSender(store=stage.agent.store, clock=stage.clock, channel=channel)
        working = asyncio.ensure_future(channel_sender.run())
        stage.deploy()
        await stage.live(180)
        stage.world.release("prod", "shop", "shop:2-crash")
        record = await stage.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "Notification queued." in messages(record.timeline)
        (announcement,) = await stage.agent.store.notifications.announcements(record.incident.id, 0)
        assert announcement.text == record.incident.summary
        assert chat.of(f"{record.incident.id}-a{announcement.number}") == []
        hanging = False
        await stage.live(600)
        working.cancel()
        await asyncio.wait({working})
        assert "escalated to on-call" in chat.of(record.incident.id)[0].lines[0]
        assert len(chat.of(f"{record.incident.id}-a{announcement.number}")) == 1


async def test_a_runbook_that_notifies_people_is_done_when_it_is_on_record(tmp_path: Path) -> None:
    """The outcome says what is true: every channel delivers it."""
    runbooks = tmp_path / "runbooks"
    runbooks.mkdir()
    (runbooks / "tell.yaml").write_text(
        "schema: 1\nid: tell\nversion: 1\ntitle: Tell people\ncauses: [bad_release]\n"
        "min_confidence: 0.6\nsteps:\n  - action: notify\n    parameters:\n      message: look\n"
    )
    async with story(
        tmp_path,
        connected=lambda world: _with(world, MemoryChannel()),
        dry_run=False,
        runbooks_dir=runbooks,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release("prod", "shop", "shop:2-crash")
        record = await stage.live_until_ended()
        (outcome,) = [one.outcome for one in record.intents if one.outcome]
        assert (outcome.kind, outcome.message) == (OutcomeKind.DONE, "queued for every channel")
        told = await stage.agent.store.notifications.announcements(record.incident.id, 0)
        assert told[0].text == "look"


def _with(world: Adapters, channel: MemoryChannel) -> Adapters:
    return replace(world, channels=(channel,))
