"""Whatever an incident holds, its message is within Slack's limits and means nothing but itself."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from app.agent.identity.people import Answer, ApprovalTerms
from app.agent.ids import (
    ApprovalId,
    IncidentId,
    IntentId,
    ServiceKey,
)
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    Cause,
    Decision,
    DecisionKind,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Outcome,
    OutcomeKind,
    Plan,
    Rehearsal,
    Risk,
    Trigger,
    Verdict,
    VerdictKind,
)
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.agent.workload import ObjectRef
from app.connectors.chat.links import Links
from app.connectors.chat.slack.blocks import (
    Look,
    button_value,
    escaped,
    incident_blocks,
    incident_text,
    private_blocks,
    read_value,
    reply_blocks,
    reply_text,
)
from tests.contract.slack_standin import faults_of

NOW = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)

nasty = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="<>&\n\u202e\ud800!@ a", max_size=60),
    st.sampled_from(
        ["<!channel>", "<@U0ANN>", "&amp;lt;", "<https://evil.example|x>", "&" * 4000, "x" * 9000]
    ),
)
several = st.lists(nasty, max_size=12).map(tuple)


@st.composite
def bulletins(draw: st.DrawFn) -> Bulletin:
    def text() -> str:
        return draw(nasty)

    actions = tuple(
        Action(
            name=draw(st.sampled_from(ActionName)),
            risk=draw(st.sampled_from(Risk)),
            target=ObjectRef(kind="Deployment", namespace=text(), name=text()),
            parameters={},
            expected_effect=text(),
            undo=draw(st.none() | nasty),
        )
        for _ in range(draw(st.integers(0, 12)))
    )
    incident = Incident(
        id=IncidentId("inc_1"),
        key=ServiceKey(environment=text() or "e", service=text() or "s"),
        state=draw(st.sampled_from(IncidentState)),
        opened_at=NOW,
        triggers=tuple(draw(st.lists(st.sampled_from(Trigger), max_size=4))),
        stale=draw(st.booleans()),
        dry_run=draw(st.booleans()),
        diagnosis=Diagnosis(
            hypotheses=(
                Hypothesis(
                    cause=Cause.UNKNOWN,
                    confidence=0.5,
                    rule="r",
                    evidence_for=draw(several),
                    evidence_against=draw(several),
                ),
            ),
            at=NOW,
        ),
        plan=Plan(runbook=text(), runbook_hash=None, actions=actions, rejected=(), hash="h", at=NOW),
        verdict=draw(
            st.none()
            | st.builds(Verdict, kind=st.sampled_from(VerdictKind), reasons=several, at=st.just(NOW))
        ),
        summary=text(),
    )
    intents = tuple(_intent(number, action, draw) for number, action in enumerate(actions))
    approvals = (_approval(draw),) if draw(st.booleans()) else ()
    record = IncidentRecord(incident=incident, intents=intents, timeline=(), approvals=approvals)
    return Bulletin(record=record, nonce=draw(st.none() | st.sampled_from(["n" * 32, "n" * 3000])))


def _intent(number: int, action: Action, draw: st.DrawFn) -> Intent:
    return Intent(
        id=IntentId(f"int_{number}"),
        incident_id=IncidentId("inc_1"),
        sequence=number,
        action=action,
        dry_run=False,
        decision=Decision(
            kind=DecisionKind.ALLOW, reasons=draw(several), plan_hash="h", target_token=None, at=NOW
        ),
        rehearsal=draw(st.none() | st.builds(Rehearsal, accepted=st.booleans(), message=nasty)),
        state=IntentState.FINISHED,
        outcome=Outcome(kind=OutcomeKind.DONE, message=draw(nasty), at=NOW),
    )


def _approval(draw: st.DrawFn) -> Approval:
    return Approval(
        id=ApprovalId("apr_1"),
        incident_id=IncidentId("inc_1"),
        action_index=draw(st.integers(0, 3)),
        action=ActionName.ROLLBACK,
        plan_hash="h",
        target_token=None,
        reasons=draw(several),
        requested_at=NOW,
        expires_at=NOW + timedelta(hours=1),
        terms=ApprovalTerms(roles=draw(several), people=2, not_by=draw(several)),
        answers=tuple(Answer(by=name, approve=True, at=NOW) for name in draw(several)),
    )


addresses = st.sampled_from([None, "https://heal.example.com/", "https://heal.example.com/" + "x" * 3000])


@given(bulletin=bulletins(), public_url=addresses, buttons=st.booleans())
def test_every_message_is_one_that_slack_takes(
    bulletin: Bulletin, public_url: str | None, buttons: bool
) -> None:
    """Text, blocks and values within the limits, nothing unescaped, no button without an ear for it."""
    blocks = incident_blocks(bulletin, Look(links=Links(base=public_url), buttons=buttons))
    assert faults_of({"text": incident_text(bulletin), "blocks": blocks}) == []
    said = "".join(text for text in _texts(blocks))
    assert "<" not in said
    assert ">" not in said
    assert len(said) < 20_000
    answers = [one for one in _elements(blocks) if one.get("value")]
    assert len(answers) in (0, 2)
    assert not answers or (buttons and bulletin.nonce is not None and bulletin.asked is not None)


@given(lines=st.lists(nasty, min_size=1, max_size=60).map(tuple), loud=st.booleans())
def test_every_reply_is_one_that_slack_takes(lines: tuple[str, ...], loud: bool) -> None:
    """However long and odd; one with nothing printable in it is still a message."""
    reply = ThreadReply(key="k", lines=lines, loud=loud)
    assert faults_of({"text": reply_text(reply), "blocks": reply_blocks(reply)}) == []
    links = [(line, "https://heal.example.com") for line in lines]
    assert faults_of({"text": "x", "blocks": private_blocks("\n".join(lines), links)}) == []


@given(text=nasty, limit=st.integers(0, 200))
def test_escaping_bounds_and_never_cuts_an_entity(text: str, limit: int) -> None:
    """What is left of it reads as the beginning of what was written."""
    said = escaped(text, limit)
    assert len(said) <= limit
    assert not re.search(r"[<>]|&(?!(amp|lt|gt);)", said)
    read = said.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    assert text == read or (read.endswith("…") and text.startswith(read[:-1])) or limit == 0


@given(nonce=st.text(alphabet=st.characters(categories=["Ll", "Nd"]) | st.just("."), min_size=1, max_size=80))
def test_a_button_says_what_was_put_into_it(nonce: str) -> None:
    assert read_value(button_value(ApprovalId("apr_1"), nonce)) == (ApprovalId("apr_1"), nonce)


@given(value=st.text(max_size=100) | st.just("a." + "x" * 3000))
def test_any_value_is_read_or_refused(value: str) -> None:
    """It comes from outside."""
    found = read_value(value)
    assert found is None or button_value(*found) == value


def _texts(found: object) -> list[str]:
    if isinstance(found, dict):
        own = [found["text"]] if isinstance(found.get("text"), str) else []
        return own + [text for value in found.values() for text in _texts(value)]
    return [text for one in found for text in _texts(one)] if isinstance(found, list) else []


def _elements(blocks: object) -> list[dict[str, object]]:
    assert isinstance(blocks, list)
    return [one for block in blocks for one in block.get("elements", ())]
