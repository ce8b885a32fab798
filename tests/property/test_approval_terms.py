"""Who may approve: over generated crowds no approval is given that its terms do not allow (promise 1)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.approvals.state import with_answer
from app.agent.identity.people import (
    Answer,
    ApprovalTerms,
    EscalationStep,
    combined,
    same_person,
)
from app.agent.ids import ApprovalId, IncidentId
from app.agent.models import ActionName, Approval, ApprovalState
from app.errors import Conflict, NotEntitled
from tests.contract.store_values import NOW

EXPIRES_IN = timedelta(hours=1)
NAMES = ("ann", "Ann ", "bob", "carol", "dave")
ROLES = ("sre", "lead", "boss")
LEVELS = {"sre": 0, "lead": 20, "boss": 40}
"""After how many minutes each role may answer, where roles are wanted at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """One person speaking up, after so many minutes."""

    name: str
    roles: frozenset[str]
    minute: int
    approve: bool


SAYINGS = st.lists(
    st.builds(
        Said,
        name=st.sampled_from(NAMES),
        roles=st.frozensets(st.sampled_from((*ROLES, "intern")), max_size=2),
        minute=st.integers(0, 70),
        approve=st.integers(0, 5).map(bool),
    ),
    max_size=12,
)


def asked(*, with_roles: bool, people: int, not_by: tuple[str, ...]) -> Approval:
    steps = tuple(
        EscalationStep(after=timedelta(minutes=LEVELS[role]), roles=(role,)) for role in ("lead", "boss")
    )
    return Approval(
        id=ApprovalId("apr_1"),
        incident_id=IncidentId("inc_1"),
        action_index=0,
        action=ActionName.ROLLBACK,
        plan_hash="abc",
        target_token="uid/7",
        reasons=("high risk",),
        requested_at=NOW,
        expires_at=NOW + EXPIRES_IN,
        terms=ApprovalTerms(
            roles=("sre",) if with_roles else (), people=people, not_by=not_by, escalation=steps
        ),
    )


@given(SAYINGS, st.booleans(), st.integers(1, 3), st.sampled_from([(), ("ann",), ("bob", "CAROL")]))
def test_a_yes_counts_once_for_each_entitled_person_and_one_no_ends_it(
    sayings: list[Said], with_roles: bool, people: int, not_by: tuple[str, ...]
) -> None:
    """Computed again by separate rules: sets of names, evaluated from the beginning each time."""
    approval = asked(with_roles=with_roles, people=people, not_by=not_by)
    yes: set[str] = set()
    over = False
    for said in sorted(sayings, key=lambda one: one.minute):
        name = said.name.strip().lower()
        level = any(said.minute >= LEVELS[role] for role in said.roles & LEVELS.keys())
        barred = said.approve and name in {each.lower() for each in not_by}
        counts = not over and said.minute < 60 and not barred and (level or not with_roles)
        counts = counts and not (said.approve and name in yes)
        try:
            approval = with_answer(approval, answer(said))
        except (Conflict, NotEntitled):
            assert not counts, f"{said} was turned away"
            continue
        assert counts, f"{said} was let through"
        if said.approve:
            yes.add(name)
        over = not said.approve or len(yes) == people
    if approval.state is ApprovalState.APPROVED:
        assert len(yes) == people
    assert (approval.state is ApprovalState.PENDING) is not over


def answer(said: Said) -> Answer:
    return Answer(
        by=said.name,
        approve=said.approve,
        at=NOW + timedelta(minutes=said.minute),
        roles=tuple(sorted(said.roles)),
    )


@pytest.mark.parametrize("state", [s for s in ApprovalState if s is not ApprovalState.PENDING])
def test_what_has_ended_takes_no_answer(state: ApprovalState) -> None:
    """A late answer gets the request's end, before any check of roles."""
    ended = replace(asked(with_roles=True, people=1, not_by=()), state=state, answered_by="bob")
    with pytest.raises(Conflict):
        with_answer(ended, Answer(by="ann", approve=True, at=NOW))


def test_who_asked_for_it_may_still_say_no() -> None:
    """A person may stop what they set off without any other role."""
    approval = asked(with_roles=False, people=1, not_by=("ann",))
    assert with_answer(approval, Answer(by="ANN", approve=False, at=NOW)).state is ApprovalState.DENIED


@given(
    st.builds(
        ApprovalTerms,
        roles=st.frozensets(st.sampled_from(ROLES)).map(lambda roles: tuple(sorted(roles))),
        people=st.integers(1, 4),
        not_by=st.frozensets(st.sampled_from(NAMES)).map(lambda names: tuple(sorted(names))),
    ),
    st.builds(
        ApprovalTerms,
        roles=st.frozensets(st.sampled_from(ROLES)).map(lambda roles: tuple(sorted(roles))),
        people=st.integers(1, 4),
        not_by=st.frozensets(st.sampled_from(NAMES)).map(lambda names: tuple(sorted(names))),
    ),
)
def test_settings_and_policy_together_ask_for_no_less_than_either(
    own: ApprovalTerms, policy: ApprovalTerms
) -> None:
    """The policy says who; the number of people, and who is barred, only grow."""
    both = combined(own, policy)
    assert both.people >= max(own.people, policy.people)
    assert {*own.not_by, *policy.not_by} <= set(both.not_by)
    assert both.roles == (policy.roles or own.roles)
    assert policy.met_by(both)


@given(
    st.lists(st.sampled_from(NAMES), min_size=1, unique=True),
    st.frozensets(st.sampled_from(NAMES)),
    st.frozensets(st.sampled_from(NAMES)),
)
def test_a_yes_does_while_none_of_those_who_gave_it_is_barred(
    said_yes: list[str], barred: frozenset[str], barred_then: frozenset[str]
) -> None:
    """Other people who were barred since then take nothing from it."""
    terms = ApprovalTerms(not_by=tuple(sorted(barred)))
    asked_on = ApprovalTerms(not_by=tuple(sorted(barred_then)))
    assert terms.met_by(asked_on, said_yes) is not bool(
        {name.strip().lower() for name in said_yes} & {name.strip().lower() for name in barred}
    )


@pytest.mark.parametrize(
    "other", ["ANN", " ann ", "\uff41\uff4e\uff4e", "ann\u3164", "a\u200bnn", "an\ufe0fn"], ids=ascii
)
def test_one_person_under_two_spellings_is_one(other: str) -> None:
    """Case, width, spaces and invisible characters make no other person."""
    assert same_person("ann", other)
    assert not same_person("anna", other)


def test_composed_or_not_and_however_many_spaces() -> None:
    """The same letters are the same name."""
    assert same_person("jos\u00e9", "jose\u0301")
    assert same_person("ann lee", "Ann  Lee")


def test_a_yes_of_whom_it_was_escalated_to_does_not_do_once_policy_stops_escalating() -> None:
    """Terms are weaker also where more roles might have answered later."""
    later = EscalationStep(after=timedelta(minutes=20), roles=("intern",))
    asked_on = ApprovalTerms(roles=("sre",), escalation=(later,))
    assert not ApprovalTerms(roles=("sre",)).met_by(asked_on)
    assert asked_on.met_by(ApprovalTerms(roles=("sre",)))
    assert ApprovalTerms(roles=("intern", "sre")).met_by(asked_on)
