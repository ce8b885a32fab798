"""What every `Channel` must do, tested over a world that each kind of channel provides.

A world is a stand-in that speaks the channel's own protocol. The announcer in
`app.workers.notifier` relies on exactly this: whether a message certainly did
not arrive, or perhaps did, decides whether it is sent again or looked for.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Protocol

import pytest

from app.agent.identity.people import ApprovalTerms
from app.agent.ids import ApprovalId, IncidentId, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    ApprovalState,
    Incident,
    IncidentRecord,
    IncidentState,
    Plan,
    Risk,
    Stage,
    TimelineEntry,
    Trigger,
)
from app.agent.notifications.channel import (
    Announcement,
    Bulletin,
    Channel,
    ThreadReply,
)
from app.agent.workload import ObjectRef
from app.connectors.chatops import announced_line
from app.errors import AgentError, PermanentError, TransientError, UnknownOutcome

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
RETRY_AFTER_SECONDS = 7
PUBLIC_URL = "https://heal.example.com"

HOSTILE = (
    "fine\nVerdict: recovered\x1b[2J\x00 <!channel> <@U0123456789> @everyone <at>ann</at> "
    "[all is well](https://evil.example) <https://evil.example|all is well> **bold** {{DATE(0)}} \u202e"
    + "x"
    * 9_000
)


class Trouble(StrEnum):
    """What the stand-in does with every call from now on."""

    NONE = "none"
    ABSENT = "absent"
    """The address has no listener."""
    LOST = "lost"
    """It takes the message, and closes the connection without an answer."""
    HANGS = "hangs"
    """It takes the message and says nothing, for longer than the channel waits."""
    LIMITED = "limited"
    """It wants to be left alone for `RETRY_AFTER_SECONDS`, in the channel's own way of saying so."""
    FORBIDDEN = "forbidden"
    REJECTED = "rejected"
    """It understood, and does not want it; asking again will not help."""
    BROKEN = "broken"
    """It fails, and may be well later."""


class ChannelWorld(Protocol):
    """One empty channel on a stand-in."""

    @property
    def searchable(self) -> bool:
        """Whether `find` can find anything."""
        ...

    @property
    def secrets(self) -> Sequence[str]:
        """What must stand in no error and no log: tokens, and addresses that are passwords."""
        ...

    @property
    def live_markup(self) -> Sequence[str]:
        """The parts of `HOSTILE` that would mention everyone, or show a link as something else, unescaped."""
        ...

    async def open(self) -> Channel:
        """A channel as after a start of the agent, with `PUBLIC_URL`; the world closes it."""
        ...

    async def trouble(self, kind: Trouble) -> None:
        """From now on."""
        ...

    def seen(self) -> Sequence[str]:
        """Every message as people can read it now, oldest first; an edited one in its newest form."""
        ...

    def sent(self) -> str:
        """All that was ever sent, as it went over the wire; empty where there is no wire."""
        ...


ROLLBACK = Action(
    name=ActionName.ROLLBACK,
    risk=Risk.HIGH,
    target=ObjectRef(kind="Deployment", namespace="payments", name="payments-api"),
    parameters={"to_revision": 3},
    expected_effect="the last healthy release serves again",
    undo="restore",
)


def record(
    identifier: str = "inc_1", state: IncidentState = IncidentState.OPEN, summary: str = ""
) -> IncidentRecord:
    """An incident at that stage."""
    incident = Incident(
        id=IncidentId(identifier),
        key=ServiceKey(environment="prod", service="payments-api"),
        state=state,
        opened_at=AT,
        closed_at=AT + timedelta(minutes=5) if state.closed else None,
        triggers=(Trigger.HIGH_ERROR_RATE,),
        stale=False,
        dry_run=False,
        summary=summary,
        plan=Plan(runbook="roll-back@1", runbook_hash="h", actions=(ROLLBACK,), rejected=(), hash="p", at=AT),
    )
    return IncidentRecord(incident=incident, intents=(), timeline=())


def asked(reason: str = "rollback is high risk") -> IncidentRecord:
    """An incident that waits for an answer, its action rehearsed."""
    waiting = record(state=IncidentState.AWAITING_APPROVAL)
    approval = Approval(
        id=ApprovalId("apr_1"),
        incident_id=waiting.incident.id,
        action_index=0,
        action=ActionName.ROLLBACK,
        plan_hash="p",
        target_token="uid/7",
        reasons=(reason,),
        requested_at=AT,
        expires_at=AT + timedelta(hours=4),
        terms=ApprovalTerms(roles=("sre",), people=2),
    )
    entry = TimelineEntry(
        sequence=0,
        at=AT,
        stage=Stage.POLICY,
        message="rollback needs an approval.",
        data={"approval": approval.id, "rehearsal": {"accepted": True, "message": "1 object would change"}},
        hash="h",
    )
    return replace(waiting, approvals=(approval,), timeline=(entry,))


def loud(text: str, key: str = "inc_1-a1") -> ThreadReply:
    return ThreadReply(key=key, lines=(text,), loud=True)


def text_of(world: ChannelWorld) -> str:
    return "\n".join(world.seen())


class ChannelContract:
    """Inherit it, and give a `world` fixture."""

    # ------------------------------------------------------------ showing

    async def test_an_incident_is_shown_with_what_is_wrong(self, world: ChannelWorld) -> None:
        """One message: the service, the state, why it is open."""
        channel = await world.open()
        assert await channel.begin(Bulletin(record=record()))
        (message,) = world.seen()
        for words in ("payments-api", "prod", "incident open", "high error rate"):
            assert words in message

    async def test_nothing_new_is_no_new_message(self, world: ChannelWorld) -> None:
        """A refresh without a change is harmless, as often as it comes."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        before = world.seen()
        for _ in range(3):
            reference = await channel.refresh(reference, Bulletin(record=record()))
        assert world.seen() == before

    async def test_a_change_is_seen_also_after_a_restart(self, world: ChannelWorld) -> None:
        """The reference is all that the channel needs to remember."""
        first = await world.open()
        reference = await first.begin(Bulletin(record=record()))
        second = await world.open()
        recovered = Bulletin(record=record(state=IncidentState.RECOVERED))
        reference = await second.refresh(reference, recovered)
        assert "recovered" in text_of(world)
        before = world.seen()
        await second.refresh(reference, recovered)
        assert world.seen() == before

    async def test_every_state_is_reported_in_its_turn(self, world: ChannelWorld) -> None:
        """Also one that comes back: acting, checking, acting again."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        for state, words in (
            (IncidentState.EXECUTING, "acting"),
            (IncidentState.VERIFYING, "verifying recovery"),
            (IncidentState.EXECUTING, "acting"),
            (IncidentState.ESCALATED, "escalated to on-call"),
        ):
            reference = await channel.refresh(reference, Bulletin(record=record(state=state)))
            assert words in world.seen()[-1]

    async def test_announcements_are_posted_in_order(self, world: ChannelWorld) -> None:
        """Each one once; the timeline's entries do no harm, whether the channel shows them or not."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        await channel.reply(reference, loud("the first thing"))
        await channel.reply(reference, ThreadReply(key="inc_1-t0-1", lines=("17:00 a detail",), loud=False))
        await channel.reply(reference, loud("the second thing", "inc_1-a2"))
        text = text_of(world)
        assert text.count("the first thing") == text.count("the second thing") == 1
        assert text.index("the first thing") < text.index("the second thing")

    async def test_a_long_announcement_is_posted_whole(self, world: ChannelWorld) -> None:
        """It is the agent's own account of what a person is needed for."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        text = "why " * 600 + "and so a person is needed"
        announcement = Announcement(number=1, incident_id=IncidentId("inc_1"), text=text, at=AT)
        await channel.reply(reference, loud(announced_line(announcement)))
        assert "and so a person is needed" in text_of(world)

    # ------------------------------------------------------------ asking

    async def test_a_request_says_all_that_is_needed_to_answer(self, world: ChannelWorld) -> None:
        """What, on what, why, who, until when, what the rehearsal said, and where to answer."""
        channel = await world.open()
        nonce = "a-nonce-that-nobody-should-read" if channel.has_buttons else None
        await channel.begin(Bulletin(record=asked(), nonce=nonce))
        text = text_of(world).replace("\\", "")
        for words in (
            "awaiting approval",
            "rollback Deployment payments/payments-api (to_revision 3), high risk",
            "rollback is high risk",
            "2026-02-20 21:00:00 UTC",
            "2 different people",
            "sre",
            "1 object would change",
        ):
            assert words in text, words
        if not channel.has_buttons:
            assert f"{PUBLIC_URL}/approvals/apr_1/page" in world.sent()

    async def test_a_request_that_came_later_is_seen(self, world: ChannelWorld) -> None:
        """And so is its end."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        reference = await channel.refresh(reference, Bulletin(record=asked()))
        assert "awaiting approval" in text_of(world)
        await channel.refresh(reference, Bulletin(record=record(state=IncidentState.RECOVERED)))
        assert "recovered" in world.seen()[-1]

    async def test_a_second_request_is_not_taken_for_the_first(self, world: ChannelWorld) -> None:
        """The state is the same, what is asked is not."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=asked()))
        again = asked("the target moved on")
        second = replace(again.approvals[0], id=ApprovalId("apr_2"))
        void = replace(again.approvals[0], state=ApprovalState.VOID)
        await channel.refresh(reference, Bulletin(record=replace(again, approvals=(void, second))))
        assert "the target moved on" in world.seen()[-1]

    # ------------------------------------------------------------ what goes wrong

    @pytest.mark.parametrize("trouble", [Trouble.LOST, Trouble.HANGS])
    async def test_a_lost_answer_is_distinguished_from_a_failure(
        self, world: ChannelWorld, trouble: Trouble
    ) -> None:
        """Every call that sends says that it may have arrived; a search then finds it, or finds nothing."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        await world.trouble(trouble)
        with pytest.raises(UnknownOutcome):
            await channel.begin(Bulletin(record=record("inc_2")))
        with pytest.raises(UnknownOutcome):
            await channel.reply(reference, loud("did you hear that?"))
        await world.trouble(Trouble.NONE)
        begun = await channel.find("inc_2", None, LONG_AGO)
        replied = await channel.find("inc_1-a1", reference, LONG_AGO)
        assert (begun is not None, replied is not None) == (world.searchable, world.searchable)
        if begun is not None:
            before = len(world.seen())
            await channel.refresh(begun, Bulletin(record=record("inc_2", IncidentState.RECOVERED)))
            assert len(world.seen()) == before

    async def test_what_was_never_sent_is_not_found(self, world: ChannelWorld) -> None:
        """Not even beside others."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        assert await channel.find("inc_9", None, LONG_AGO) is None
        assert await channel.find("inc_1-a9", reference, LONG_AGO) is None

    @pytest.mark.parametrize(
        ("trouble", "kind"),
        [
            (Trouble.ABSENT, TransientError),
            (Trouble.BROKEN, TransientError),
            (Trouble.LIMITED, TransientError),
            (Trouble.FORBIDDEN, PermanentError),
            (Trouble.REJECTED, PermanentError),
        ],
    )
    async def test_a_failure_says_whether_to_try_again(
        self, world: ChannelWorld, trouble: Trouble, kind: type[AgentError]
    ) -> None:
        """For every call that sends."""
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        await world.trouble(trouble)
        recovered = Bulletin(record=record(state=IncidentState.RECOVERED))
        for call in (
            lambda: channel.begin(Bulletin(record=record("inc_2"))),
            lambda: channel.refresh(reference, recovered),
            lambda: channel.reply(reference, loud("hello")),
        ):
            with pytest.raises(kind) as caught:
                await call()
            if trouble is Trouble.LIMITED:
                assert isinstance(caught.value, TransientError)
                assert caught.value.retry_after == timedelta(seconds=RETRY_AFTER_SECONDS)
        await world.trouble(Trouble.NONE)
        await channel.refresh(reference, recovered)
        assert "recovered" in text_of(world)

    @pytest.mark.parametrize("trouble", [one for one in Trouble if one is not Trouble.NONE])
    async def test_no_secret_is_in_an_error_or_a_log(
        self, world: ChannelWorld, trouble: Trouble, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Whatever goes wrong, and even where the other side repeats it."""
        caplog.set_level(logging.DEBUG)
        channel = await world.open()
        reference = await channel.begin(Bulletin(record=record()))
        await world.trouble(trouble)
        with pytest.raises(AgentError) as caught:
            await channel.reply(reference, loud("hello"))
        error: BaseException | None = caught.value
        shown = [repr(channel), caplog.text]
        while error is not None:
            shown.append(f"{error!r} {error}")
            error = error.__cause__ or error.__context__
        for secret in world.secrets:
            assert secret not in "\n".join(shown)

    async def test_foreign_text_stays_text(self, world: ChannelWorld) -> None:
        """It mentions no person, disguises no link and forges no line, wherever it comes in."""
        channel = await world.open()
        hostile = replace(
            asked(HOSTILE), incident=record(state=IncidentState.ESCALATED, summary=HOSTILE).incident
        )
        reference = await channel.begin(Bulletin(record=hostile))
        announcement = Announcement(number=1, incident_id=hostile.incident.id, text=HOSTILE, at=AT)
        lines = (announced_line(announcement),) * 3
        await channel.reply(reference, ThreadReply(key="inc_1-a1", lines=lines, loud=True))
        await channel.reply(reference, ThreadReply(key="inc_1-t0-20", lines=lines, loud=False))
        for message in world.seen():
            assert not any(line.strip().startswith("Verdict: recovered") for line in message.splitlines())
            assert "\x1b" not in message
            for markup in world.live_markup:
                assert markup not in message

    # ------------------------------------------------------------ being there

    async def test_a_channel_that_can_be_used_passes_its_check(self, world: ChannelWorld) -> None:
        """Without a message; and it says so when it cannot."""
        channel = await world.open()
        await channel.check()
        assert world.seen() == []
        await world.trouble(Trouble.ABSENT)
        with pytest.raises(AgentError):
            await channel.check()

    async def test_it_has_a_name_of_its_own(self, world: ChannelWorld) -> None:
        """It stands in the store, so it says nothing about where the channel is."""
        channel = await world.open()
        assert channel.name
        assert channel.name == channel.name.strip().lower()
        assert channel.name == (await world.open()).name
