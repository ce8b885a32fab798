"""Why an incident was escalated or proposed, and figures and counts, in the sentences that people read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from app.agent.evidence.format import (
    confidence,
    counted,
    in_words,
    share,
)
from app.agent.ids import ServiceKey
from app.agent.models import Cause, RejectedRunbook
from app.agent.notes import why_no_runbook
from app.agent.rules.unknown import unexplained
from tests.unit.scenes import evidence


def _rejected(runbook: str, reason: str, *, addresses_cause: bool = True) -> RejectedRunbook:
    return RejectedRunbook(runbook=runbook, reason=reason, addresses_cause=addresses_cause)


def test_a_summary_names_each_runbook_for_the_cause_with_its_reason() -> None:
    """Those for other causes are left out: they would be the same sentence for every incident."""
    said = why_no_runbook(
        Cause.BAD_RELEASE,
        (
            _rejected("roll-back@1", "the confidence of 59% is below the 60% that roll-back needs"),
            _rejected("restart@2", "the release is irreversible"),
            _rejected("scale@1", "addresses traffic surge, not bad release", addresses_cause=False),
        ),
    )
    assert said == (
        "No action taken: the cause is bad release, but the confidence of 59% is below the 60% that "
        "roll-back needs; restart@2: the release is irreversible."
    )


def test_no_runbook_for_the_cause_is_said_only_where_that_is_so() -> None:
    """A catalogue without one, and a cause that is unknown, are different things."""
    other = _rejected("scale@1", "addresses traffic surge, not bad release", addresses_cause=False)
    assert "no approved runbook addresses the cause, bad release" in why_no_runbook(
        Cause.BAD_RELEASE, (other,)
    )
    assert "no cause reached the required" in why_no_runbook(Cause.UNKNOWN, (other,))


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 signals"), (1, "1 signal"), (2, "2 signals"), (11, "11 signals")]
)
def test_a_count_and_its_noun_agree(number: int, words: str) -> None:
    """One is singular."""
    assert counted(number, "signal") == words


def test_an_irregular_plural_is_given() -> None:
    """`2 entries`."""
    assert [counted(n, "entry", "entries") for n in (1, 2)] == ["1 entry", "2 entries"]


def test_figures_have_one_form() -> None:
    """Shares with one digit; a confidence below a limit is never rounded up to it."""
    assert (share(0.001), share(0.13)) == ("0.1%", "13.0%")
    assert [confidence(value) for value in (0.75, 0.5999, 0.6, 0.29, 1)] == [
        "75%",
        "59.9%",
        "60%",
        "29%",
        "100%",
    ]
    assert in_words(Cause.BAD_RELEASE) == "bad release"


def test_no_open_incident_is_left_out_in_silence() -> None:
    """Five are named, and the number of the others is said."""
    others = tuple(ServiceKey(environment="prod", service=f"svc-{n}") for n in range(7))
    seen = replace(evidence(), other_open_incidents=others)
    facts = unexplained(seen, 0.1).evidence_for
    assert any(one.startswith("other open incidents: ") and one.endswith(" and 2 more") for one in facts)
    few = replace(evidence(), other_open_incidents=others[:1])
    assert not any("more" in one for one in unexplained(few, 0.1).evidence_for)
