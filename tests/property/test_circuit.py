"""Circuit breakers over generated histories, compared with an oracle that reads the record as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.agent.guardrails.circuit_breaker import Breaker, Tried, open_reason
from app.agent.ids import IncidentId
from tests.contract.store_values import NOW

MINUTE = timedelta(minutes=1)
OPEN_FOR = 10 * MINUTE


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """An incident that asks for an action, and what would come of it."""

    waits: int
    """Minutes after the one before asked."""
    lasts: int
    """Minutes until its end."""
    helps: bool


FATES = st.lists(
    st.builds(Fate, waits=st.integers(0, 8), lasts=st.integers(0, 20), helps=st.booleans()), max_size=40
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    incident: str
    at: datetime
    ended_at: datetime
    helped: bool

    def known(self, at: datetime) -> Tried:
        return Tried(
            intent_id=self.incident,
            incident_id=IncidentId(self.incident),
            began_at=self.at,
            helped=self.helped if self.ended_at <= at else None,
        )


def played(fates: list[Fate], breaker: Breaker) -> tuple[list[Begun], list[tuple[datetime, int]]]:
    """The actions that begin when every service asks the breaker, and the refusals with the record."""
    at = NOW
    begun: list[Begun] = []
    refused: list[tuple[datetime, int]] = []
    for number, fate in enumerate(fates):
        at += fate.waits * MINUTE
        incident = f"inc_{number:03}"
        if open_reason([one.known(at) for one in begun], breaker, IncidentId(incident), at) is None:
            begun.append(
                Begun(incident=incident, at=at, ended_at=at + fate.lasts * MINUTE, helped=fate.helps)
            )
        else:
            refused.append((at, len(begun)))
    return begun, refused


def closed_at(before: list[Begun], failures: int, at: datetime) -> bool:
    """Whether the record, one letter an action in the order they began, does not end in so many failures."""
    ends = "".join("h" if one.helped else "f" for one in before if one.ended_at <= at)
    return re.search(f"f{{{failures}}}$", ends) is None


def last_failure(before: list[Begun], at: datetime) -> datetime:
    return max(one.at for one in before if one.ended_at <= at and not one.helped)


@given(FATES, st.integers(1, 4))
def test_no_action_begins_through_an_open_breaker(fates: list[Fate], failures: int) -> None:
    """Not before its time is over, and then one at a time."""
    begun, _ = played(fates, Breaker(failures=failures, open_for=OPEN_FOR))
    for number, one in enumerate(begun):
        before = begun[:number]
        if closed_at(before, failures, one.at):
            continue
        opened = last_failure(before, one.at)
        assert one.at - opened >= OPEN_FOR
        trials = [each for each in before if each.at >= opened + OPEN_FOR and each.ended_at > one.at]
        assert not trials, f"{one} beside {trials}"


@given(FATES, st.integers(1, 4))
def test_nothing_is_held_back_for_nothing(fates: list[Fate], failures: int) -> None:
    """A refusal means failures in a row, and the time not over or another attempt running."""
    begun, refused = played(fates, Breaker(failures=failures, open_for=OPEN_FOR))
    for at, known in refused:
        before = begun[:known]
        assert not closed_at(before, failures, at)
        opened = last_failure(before, at)
        trying = any(each.at >= opened + OPEN_FOR and each.ended_at > at for each in before)
        assert at < opened + OPEN_FOR or trying


@given(FATES)
def test_the_order_in_which_the_record_is_read_does_not_matter(fates: list[Fate]) -> None:
    """The reason follows from the record, not from the order in which a database returns it."""
    breaker = Breaker(failures=2, open_for=OPEN_FOR)
    begun, _ = played(fates, breaker)
    at = NOW + 60 * MINUTE
    told = {
        open_reason(rows, breaker, IncidentId("inc_new"), at)
        for rows in ([one.known(at) for one in begun], [one.known(at) for one in reversed(begun)])
    }
    assert len(told) == 1


def test_the_incident_that_has_the_trial_goes_on_with_its_plan() -> None:
    """Its second step is let through while another incident waits."""
    failed = Tried(intent_id="a", incident_id=IncidentId("inc_a"), began_at=NOW, helped=False)
    trial = Tried(intent_id="b", incident_id=IncidentId("inc_b"), began_at=NOW + OPEN_FOR, helped=None)
    breaker, at = Breaker(failures=1, open_for=OPEN_FOR), NOW + OPEN_FOR + MINUTE
    assert open_reason([failed, trial], breaker, IncidentId("inc_b"), at) is None
    said = open_reason([failed, trial], breaker, IncidentId("inc_c"), at)
    assert said == "half-open: inc_b has an action in progress since 2026-03-01 12:10:00 UTC"
