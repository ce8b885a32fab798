"""What people read about an incident, before any channel gives it a form."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from app.agent.identity.people import Answer, ApprovalTerms
from app.agent.ids import (
    ApprovalId,
    IncidentId,
    IntentId,
    JsonObject,
    ServiceKey,
)
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    ApprovalState,
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
    Risk,
    Stage,
    TimelineEntry,
    Trigger,
    Verdict,
    VerdictKind,
)
from app.agent.notifications.channel import Announcement, Bulletin
from app.agent.workload import ObjectRef
from app.connectors.chatops import Severity, announced_line, describe, question, render, timeline_line

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)

ROLLBACK = Action(
    name=ActionName.ROLLBACK,
    risk=Risk.HIGH,
    target=ObjectRef(kind="Deployment", namespace="payments", name="payments-api"),
    parameters={"to_revision": 3},
    expected_effect="the last healthy release serves again",
    undo="restore",
)
INCIDENT = Incident(
    id=IncidentId("inc_1"),
    key=ServiceKey(environment="prod", service="payments-api"),
    state=IncidentState.ESCALATED,
    opened_at=AT,
    triggers=(Trigger.DEPLOY_FAILED, Trigger.HIGH_ERROR_RATE),
    stale=False,
    dry_run=False,
    summary="rollback is high risk and not allowed",
    diagnosis=Diagnosis(
        at=AT,
        hypotheses=(
            Hypothesis(
                cause=Cause.BAD_RELEASE,
                confidence=0.87,
                rule="bad_release",
                evidence_for=("1.15.0 went out 40 s before the errors",),
                evidence_against=("one old pod fails too",),
            ),
        ),
    ),
    plan=Plan(
        runbook="rollback-bad-release@1", runbook_hash="h", actions=(ROLLBACK,), rejected=(), hash="p", at=AT
    ),
    verdict=Verdict(kind=VerdictKind.NOT_RECOVERED, reasons=("error rate 0.13 is above 0.05",), at=AT),
)
DENIED = Intent(
    id=IntentId("int_1"),
    incident_id=INCIDENT.id,
    sequence=0,
    action=ROLLBACK,
    dry_run=False,
    decision=Decision(
        kind=DecisionKind.DENY, reasons=("high risk",), plan_hash="p", target_token=None, at=AT
    ),
    rehearsal=None,
    state=IntentState.FINISHED,
    outcome=Outcome(kind=OutcomeKind.REFUSED, message="denied by policy", at=AT),
)


def test_a_message_holds_the_whole_story() -> None:
    """What set it off, the cause with its evidence, the plan, each decision with its reason, the verdict."""
    message = render(INCIDENT, [DENIED])
    assert message.title == "payments-api in prod: escalated to on-call"
    assert message.lines == (
        "Triggered by: deploy failed, high error rate",
        "rollback is high risk and not allowed",
        "Cause: bad release (confidence 87%)",
        "+ 1.15.0 went out 40 s before the errors",
        "- one old pod fails too",
        "Plan: rollback-bad-release@1 (1 action, 1 decided so far)",
        "1. rollback Deployment payments/payments-api (high risk)",
        "rollback Deployment payments/payments-api: denied (high risk); refused: denied by policy",
        "Verdict: not recovered; error rate 0.13 is above 0.05",
    )
    assert message.severity is Severity.CRITICAL


def test_a_bare_incident_can_be_described() -> None:
    """Right after it opened there is little to say, and it is said."""
    bare = replace(INCIDENT, state=IncidentState.OPEN, summary="", diagnosis=None, plan=None, verdict=None)
    message = render(bare, [])
    assert message.lines == ("Triggered by: deploy failed, high error rate",)
    assert message.severity is Severity.WARNING


def test_a_dry_run_says_so_first() -> None:
    """The message must not suggest that something was changed."""
    message = render(replace(INCIDENT, dry_run=True, state=IncidentState.PROPOSED), [])
    assert message.title == "[dry run] payments-api in prod: fix proposed, nothing changed"


def test_stale_signals_and_empty_plans_are_explained() -> None:
    """Why nothing happens is part of the message."""
    assert INCIDENT.plan is not None
    quiet = replace(INCIDENT, stale=True, plan=replace(INCIDENT.plan, runbook=None, actions=()))
    lines = render(quiet, []).lines
    assert "The signals were stale on arrival; the agent takes no action." in lines
    assert "Plan: no action; no runbook matched" in lines


def test_an_undo_and_a_running_action_are_distinguished() -> None:
    """In the order of their sequence, whatever order they are given in."""
    running = replace(DENIED, sequence=1, state=IntentState.EXECUTING, outcome=None)
    undo = replace(DENIED, sequence=2, undoes=DENIED.id)
    lines = [line for line in render(INCIDENT, [undo, running, DENIED]).lines if ": denied" in line]
    assert [line.split(" ")[0] for line in lines] == ["rollback", "rollback", "undo:"]
    assert lines[1].endswith("executing")


@pytest.mark.parametrize("state", list(IncidentState))
def test_every_state_has_its_words_and_its_severity(state: IncidentState) -> None:
    """Only a good end is quiet, only a call for a person is loud."""
    expected = {
        IncidentState.RECOVERED: Severity.INFO,
        IncidentState.RECOVERED_WITHOUT_ACTION: Severity.INFO,
        IncidentState.RESOLVED_BY_HAND: Severity.INFO,
        IncidentState.ESCALATED: Severity.CRITICAL,
    }
    message = render(replace(INCIDENT, state=state), [])
    assert message.severity is expected.get(state, Severity.WARNING)
    assert not message.title.endswith(": ")


def test_an_unknown_outcome_is_critical_before_the_end() -> None:
    """A person must look, whatever state the incident is in."""
    lost = replace(DENIED, outcome=Outcome(kind=OutcomeKind.UNKNOWN, message="no answer", at=AT))
    assert render(replace(INCIDENT, state=IncidentState.VERIFYING), [lost]).severity is Severity.CRITICAL


def test_foreign_text_cannot_forge_lines_or_flood() -> None:
    """A summary with line breaks stays one line, and a hundred intents become a bounded message."""
    forged = replace(INCIDENT, summary="fine\nVerdict: recovered\x1b[2J" + "x" * 5_000)
    message = render(forged, [replace(DENIED, sequence=n) for n in range(100)])
    assert not any(line.startswith("Verdict: recovered") for line in message.lines)
    assert all(line.isprintable() and len(line) <= 500 for line in message.lines)
    assert len(message.lines) == 40
    assert message.lines[-1] == "... and 69 more lines"


APPROVAL = Approval(
    id=ApprovalId("apr_1"),
    incident_id=INCIDENT.id,
    action_index=0,
    action=ActionName.ROLLBACK,
    plan_hash="p",
    target_token="uid/7",
    reasons=("rollback is high risk",),
    requested_at=AT,
    expires_at=AT + timedelta(hours=4),
    terms=ApprovalTerms(roles=("sre", "lead"), people=2, not_by=("ann",)),
)
REHEARSED: JsonObject = {
    "approval": "apr_1",
    "rehearsal": {"accepted": True, "message": "1 object would change"},
}


def waiting(approval: Approval = APPROVAL, data: JsonObject | None = None) -> Bulletin:
    """An incident that waits for people, and the entry that was made when they were asked."""
    entry = TimelineEntry(
        sequence=0, at=AT, stage=Stage.POLICY, message="asked", data=data or {"approval": "apr_1"}, hash="h"
    )
    incident = replace(INCIDENT, state=IncidentState.AWAITING_APPROVAL)
    return Bulletin(
        record=IncidentRecord(incident=incident, intents=(), timeline=(entry,), approvals=(approval,))
    )


def test_a_request_says_what_is_asked_of_whom_until_when_and_what_a_rehearsal_said() -> None:
    """Before everything else, so that it is not what gets cut off."""
    bulletin = waiting(data=REHEARSED)
    message = describe(bulletin)
    assert message.lines[:5] == (
        "Awaiting approval: rollback Deployment payments/payments-api (to_revision 3), high risk",
        "Answer by 2026-02-20 21:00:00 UTC, by 2 different people with one of the roles sre, lead, not ann; "
        "no answer counts as a denial",
        "reason: rollback is high risk",
        "Dry run (dryRun=All): API server accepted it: 1 object would change",
        "Triggered by: deploy failed, high error rate",
    )
    assert question(bulletin) == message.lines[:4]
    assert message.title == "payments-api in prod: awaiting approval"


def test_a_rehearsal_that_failed_or_was_not_made_is_said() -> None:
    """Silence must not read as a yes."""
    refused: JsonObject = {"approval": "apr_1", "rehearsal": {"accepted": False, "message": "quota exceeded"}}
    assert question(waiting(data=refused))[-1].endswith("API server rejected it: quota exceeded")
    of_another: JsonObject = {**REHEARSED, "approval": "apr_0"}
    of_no_use: JsonObject = {"approval": "apr_1", "rehearsal": "nonsense"}
    for data in (None, of_another, of_no_use):
        assert question(waiting(data=data))[-1] == "No dry run"


def test_a_half_given_approval_says_who_agreed_so_far() -> None:
    """The second person wants to know whether they are the second."""
    said = Answer(by="ben", approve=True, at=AT, roles=("sre",))
    assert (
        question(waiting(replace(APPROVAL, answers=(said,))))[-1] == "Approved so far by ben (1 of 2 people)"
    )


def test_a_request_about_another_plan_names_the_action_alone() -> None:
    """The plan of now is not the one that was asked about."""
    assert question(waiting(replace(APPROVAL, plan_hash="older")))[0] == "Awaiting approval: rollback"


@pytest.mark.parametrize("state", [one for one in ApprovalState if one is not ApprovalState.PENDING])
def test_what_was_answered_or_ended_is_no_question(state: ApprovalState) -> None:
    """Only what waits is asked."""
    bulletin = waiting(replace(APPROVAL, state=state))
    assert question(bulletin) == ()
    assert describe(bulletin).lines == render(bulletin.record.incident, ()).lines


def test_a_long_request_stays_bounded() -> None:
    """Hostile reasons neither flood nor forge."""
    bulletin = waiting(replace(APPROVAL, reasons=("fine\nVerdict: recovered" + "x" * 9_000,) * 50))
    lines = describe(bulletin).lines
    assert len(lines) <= 40
    assert all(line.isprintable() and len(line) <= 500 for line in lines)


def test_an_entry_is_one_line() -> None:
    """When, in which stage, and what."""
    entry = TimelineEntry(sequence=0, at=AT, stage=Stage.VERIFY, message="Looks\nhealthy.", data={}, hash="h")
    assert timeline_line(entry) == "17:00:00 verify: Looks healthy."


def test_an_announcement_is_one_line_in_its_own_words() -> None:
    """One that has no words points to the incident, and one without end is cut."""

    def told(text: str) -> str:
        return announced_line(Announcement(number=1, incident_id=INCIDENT.id, text=text, at=AT))

    assert told("look\n\nhere\x1b[2J") == "look here [2J"
    assert told(" ") == "This incident needs manual review."
    assert len(told("x" * 9_000)) == 3_000
