"""What a channel receives next, as a pure function of the record and of what it has received."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.ids import IncidentId
from app.agent.models import IncidentRecord, Stage, TimelineEntry
from app.agent.notifications import delivery
from app.agent.notifications.channel import Announcement, Posting
from app.agent.notifications.delivery import DeliveryPace, NotificationKind, NotificationTask
from tests.contract.channel_suite import AT, record

ID = IncidentId("inc_1")
PACE = DeliveryPace()
NEW = Posting(channel="memory", incident_id=ID, due_at=AT)
TOLD = replace(NEW, reference="message-1", shown=3, refreshed=3, announced=7)


def lasting(length: int) -> IncidentRecord:
    """An incident with so many entries."""
    entries = [
        TimelineEntry(sequence=n, at=AT, stage=Stage.OBSERVE, message=f"note {n}", data={}, hash="h")
        for n in range(length)
    ]
    return replace(record(), timeline=tuple(entries))


def announced(*numbers: int) -> list[Announcement]:
    return [Announcement(number=number, incident_id=ID, text="look", at=AT) for number in numbers]


@pytest.mark.parametrize(
    ("posting", "length", "numbers", "expected"),
    [
        pytest.param(
            NEW, 5, (8, 9), NotificationTask(kind=NotificationKind.BEGIN, until=5), id="nothing was told"
        ),
        pytest.param(
            TOLD,
            5,
            (9, 8),
            NotificationTask(kind=NotificationKind.ANNOUNCE, until=8),
            id="announcements first",
        ),
        pytest.param(
            TOLD,
            5,
            (7,),
            NotificationTask(kind=NotificationKind.ENTRIES, after=3, until=5),
            id="then the timeline",
        ),
        pytest.param(
            TOLD,
            99,
            (),
            NotificationTask(kind=NotificationKind.ENTRIES, after=3, until=23),
            id="not all of it at once",
        ),
        pytest.param(
            replace(TOLD, shown=5),
            5,
            (),
            NotificationTask(kind=NotificationKind.REFRESH, until=5),
            id="then as it stands",
        ),
        pytest.param(TOLD, 3, (6, 7), None, id="everything is posted"),
    ],
)
def test_what_comes_next(
    posting: Posting, length: int, numbers: tuple[int, ...], expected: NotificationTask | None
) -> None:
    """The first message, announcements by number, the timeline, and the first message again."""
    assert delivery.next_notification(lasting(length), posting, announced(*numbers)) == expected


@pytest.mark.parametrize(
    "errand",
    [
        NotificationTask(kind=NotificationKind.ANNOUNCE, until=8),
        NotificationTask(kind=NotificationKind.ENTRIES, after=3, until=9),
    ],
)
def test_a_message_in_doubt_is_read_back_from_its_key(errand: NotificationTask) -> None:
    """So that the very same is looked for, and sent."""
    sent = delivery.setting_out(TOLD, errand, AT, PACE)
    assert delivery.in_doubt(sent) == errand


def test_the_key_of_the_first_message_is_the_incidents_id() -> None:
    """It is in doubt only while no first message is on record."""
    sent = delivery.setting_out(NEW, NotificationTask(kind=NotificationKind.BEGIN, until=5), AT, PACE)
    assert sent.sending == ID
    assert delivery.in_doubt(sent) == NotificationTask(kind=NotificationKind.BEGIN)
    assert delivery.in_doubt(replace(sent, reference="message-1")) is None


@pytest.mark.parametrize(
    "key",
    [
        None,
        "inc_1-r4",
        "inc_1-a7",
        "inc_1-t2-9",
        "inc_1-t3-3",
        "inc_1-a",
        "inc_1-a-8",
        "inc_1-a٨",
        "inc_2-a8",
        "inc_1-x8",
        "",
        "a8" * 500,
    ],
)
def test_what_may_be_repeated_or_is_not_understood_is_no_doubt(key: str | None) -> None:
    """A refresh, a recorded notification, and keys that another version of the program made."""
    assert delivery.in_doubt(replace(TOLD, sending=key, sending_since=AT)) is None


@pytest.mark.parametrize(
    ("age_seconds", "busy"),
    [(0, True), (89, True), (-89, True), (90, False), (3_600, False), (-3_600, False)],
)
def test_hands_off_while_it_may_be_on_its_way(age_seconds: float, busy: bool) -> None:
    """By any clock that is not too far off."""
    sent = delivery.setting_out(TOLD, NotificationTask(kind=NotificationKind.REFRESH, until=5), AT, PACE)
    assert delivery.under_way(sent, AT + timedelta(seconds=age_seconds), PACE) is busy
    assert not delivery.under_way(TOLD, AT, PACE)


def test_no_one_looks_at_it_before_it_must_have_arrived() -> None:
    """And once it was delivered, not before the next refresh is due."""
    errand = NotificationTask(kind=NotificationKind.ENTRIES, after=3, until=5)
    sent = delivery.setting_out(replace(TOLD, failures=4), errand, AT, PACE)
    assert sent.due_at == AT + PACE.patience
    told = delivery.delivered(sent, errand, "message-1", AT, PACE)
    assert (told.shown, told.sending, told.failures) == (5, None, 0)
    assert told.due_at == AT + PACE.refresh_every


def test_a_failure_is_distinguished_from_a_doubt() -> None:
    """What certainly did not arrive is sent again; what may have is looked for first."""
    sent = delivery.setting_out(TOLD, NotificationTask(kind=NotificationKind.ANNOUNCE, until=8), AT, PACE)
    later = AT + timedelta(minutes=1)
    assert delivery.not_sent(sent, later) == replace(TOLD, failures=1, due_at=later)
    assert delivery.unheard(sent, later) == replace(sent, failures=1, due_at=later)


def test_waiting_grows_and_has_an_end() -> None:
    """Nothing is ever given up."""
    waits = [delivery.wait_after(failures, PACE) for failures in (0, 1, 2, 10, 10_000)]
    assert waits == [PACE.retry_first, 2 * PACE.retry_first, 4 * PACE.retry_first, *[PACE.retry_longest] * 2]
    assert PACE.patience > 2 * PACE.answer_within
