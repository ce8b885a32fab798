"""An alert is open while an incident needs a person, and only then."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.models import ByPerson, IncidentState
from app.agent.notifications.channel import Bulletin
from app.connectors.paging.alert import PagedIncident, PageStep, next_step
from app.errors import Invalid
from app.settings.entries import PageWhen
from tests.contract.channel_suite import AT, asked, record

DEFAULT = PageWhen.PERSON_NEEDED


def steps(*bulletins: Bulletin, when: PageWhen = DEFAULT) -> list[PageStep | None]:
    """What each of these states of one incident leads to, the reference stored in between."""
    found: list[PageStep | None] = []
    before: PagedIncident | None = None
    for bulletin in bulletins:
        step, now = next_step(before, bulletin, when)
        found.append(step)
        before = PagedIncident.read(now.written())
        assert before == now
    return found


def at(state: IncidentState) -> Bulletin:
    return Bulletin(record=record(state=state))


def acknowledged(bulletin: Bulletin) -> Bulletin:
    incident = replace(bulletin.record.incident, acknowledged=ByPerson(by="ann", at=AT))
    return Bulletin(record=replace(bulletin.record, incident=incident))


def taken_over(bulletin: Bulletin) -> Bulletin:
    incident = replace(bulletin.record.incident, taken_over=ByPerson(by="ann", at=AT))
    return Bulletin(record=replace(bulletin.record, incident=incident))


def test_an_incident_that_the_agent_heals_pages_no_person() -> None:
    """From its start to its recovery."""
    healed = (IncidentState.OPEN, IncidentState.EXECUTING, IncidentState.VERIFYING, IncidentState.RECOVERED)
    assert steps(*map(at, healed)) == [None, None, None, None]


def test_a_request_pages_until_it_is_answered() -> None:
    """A second request opens the alert again."""
    assert steps(
        at(IncidentState.OPEN),
        Bulletin(record=asked()),
        at(IncidentState.EXECUTING),
        Bulletin(record=asked()),
        at(IncidentState.RECOVERED),
    ) == [None, PageStep.OPEN, PageStep.END, PageStep.OPEN, PageStep.END]


def test_a_request_that_ends_in_an_escalation_is_one_alert() -> None:
    """It is updated, so that the person who has it sees the new state."""
    pages = steps(Bulletin(record=asked()), at(IncidentState.ESCALATED), at(IncidentState.RESOLVED_BY_HAND))
    assert pages == [PageStep.OPEN, PageStep.UPDATE, PageStep.END]


@pytest.mark.parametrize("by_a_person", [acknowledged, taken_over])
def test_an_incident_that_a_person_has_is_acknowledged_once(by_a_person: object) -> None:
    """An acknowledgement on the console reaches the pager; nothing follows it."""
    assert callable(by_a_person)
    escalated = by_a_person(at(IncidentState.ESCALATED))
    assert steps(at(IncidentState.ESCALATED), escalated, escalated) == [
        PageStep.OPEN,
        PageStep.ACKNOWLEDGE,
        None,
    ]


def test_an_escalation_after_an_acknowledgement_pages_again() -> None:
    """The person acknowledged the request, not its end."""
    asking, waiting = Bulletin(record=asked()), acknowledged(Bulletin(record=asked()))
    executing, escalated = (
        acknowledged(at(IncidentState.EXECUTING)),
        acknowledged(at(IncidentState.ESCALATED)),
    )
    assert steps(asking, waiting, executing, escalated, escalated) == [
        PageStep.OPEN,
        PageStep.ACKNOWLEDGE,
        PageStep.END,
        PageStep.OPEN,
        None,
    ]


def test_an_acknowledgement_from_before_the_alert_silences_nothing() -> None:
    """The person acknowledged the incident while the agent was healing it."""
    escalated = acknowledged(at(IncidentState.ESCALATED))
    assert steps(acknowledged(at(IncidentState.OPEN)), escalated, escalated) == [None, PageStep.OPEN, None]
    taken = taken_over(escalated)
    assert steps(escalated, taken, taken) == [PageStep.OPEN, PageStep.ACKNOWLEDGE, None]


def test_an_acknowledgement_beside_a_change_of_state_is_sent() -> None:
    """As after an outage of the pager; it carries the new state."""
    both = acknowledged(at(IncidentState.ESCALATED))
    assert steps(Bulletin(record=asked()), both, both) == [PageStep.OPEN, PageStep.ACKNOWLEDGE, None]


def test_every_incident_has_an_alert_where_that_is_set() -> None:
    """From its start to its end."""
    pages = steps(
        *map(at, (IncidentState.OPEN, IncidentState.EXECUTING, IncidentState.RECOVERED)), when=PageWhen.OPENED
    )
    assert pages == [PageStep.OPEN, PageStep.UPDATE, PageStep.END]


@pytest.mark.parametrize("when", PageWhen)
@pytest.mark.parametrize(
    "state", [IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION, IncidentState.PROPOSED]
)
def test_an_incident_that_is_over_opens_no_alert(when: PageWhen, state: IncidentState) -> None:
    """As for one that ended while the pager was down."""
    assert steps(at(state), when=when) == [None]


@pytest.mark.parametrize("reference", ["", "{}", "[1]", '{"posted": {}, "alerting": true, "taken": ""}'])
def test_a_reference_that_cannot_be_read_is_refused(reference: str) -> None:
    """No alert is guessed from it."""
    with pytest.raises(Invalid, match="cannot be parsed"):
        PagedIncident.read(reference)
