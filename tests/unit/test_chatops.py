"""What people are told about an incident, and how it reaches a webhook."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.agent.models import (
    Action,
    ActionName,
    Cause,
    Decision,
    DecisionKind,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentId,
    IncidentState,
    Intent,
    IntentId,
    IntentState,
    ObjectRef,
    Outcome,
    OutcomeKind,
    Plan,
    Risk,
    ServiceKey,
    Trigger,
    Verdict,
    VerdictKind,
)
from app.config import Settings
from app.connectors.chatops import Severity, render
from app.connectors.webhook import WebhookNotifier
from app.errors import (
    AgentError,
    ConfigurationError,
    Forbidden,
    Invalid,
    NotFound,
    PermanentError,
    TransientError,
)
from tests.unit.loopback import Behaviour, Loopback, drip, flood, hang, loopback, raw, reply

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
TOKEN = "T0KEN-very-secret"

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


def test_a_message_tells_the_whole_story() -> None:
    """What set it off, the cause with its evidence, the plan, each decision with its reason, the verdict."""
    message = render(INCIDENT, [DENIED])
    assert message.title == "payments-api in prod: needs a person"
    assert message.lines == (
        "Triggered by: deploy failed, high error rate",
        "rollback is high risk and not allowed",
        "Cause: bad release (confidence 0.87)",
        "+ 1.15.0 went out 40 s before the errors",
        "- one old pod fails too",
        "Plan: rollback-bad-release@1 (1 actions, 1 decided so far)",
        "1. rollback Deployment payments/payments-api (high risk)",
        "rollback Deployment payments/payments-api: denied (high risk); refused: denied by policy",
        "Verdict: not recovered; error rate 0.13 is above 0.05",
    )
    assert message.severity is Severity.CRITICAL


def test_a_bare_incident_can_be_told() -> None:
    """Right after it opened there is little to say, and it is said."""
    bare = replace(INCIDENT, state=IncidentState.OPEN, summary="", diagnosis=None, plan=None, verdict=None)
    message = render(bare, [])
    assert message.lines == ("Triggered by: deploy failed, high error rate",)
    assert message.severity is Severity.WARNING


def test_a_dry_run_says_so_first() -> None:
    """Nobody should believe that something was changed."""
    message = render(replace(INCIDENT, dry_run=True, state=IncidentState.PROPOSED), [])
    assert message.title == "[dry run] payments-api in prod: a remedy is proposed, nothing was changed"


def test_stale_signals_and_empty_plans_are_explained() -> None:
    """Why nothing happens is part of the message."""
    assert INCIDENT.plan is not None
    quiet = replace(INCIDENT, stale=True, plan=replace(INCIDENT.plan, runbook=None, actions=()))
    lines = render(quiet, []).lines
    assert "The signals were old on arrival, so the agent takes no real action." in lines
    assert "Plan: touch nothing; no approved runbook fits" in lines


def test_an_undo_and_a_running_action_are_told_apart() -> None:
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


@asynccontextmanager
async def notifier(behaviour: Behaviour) -> AsyncIterator[tuple[WebhookNotifier, Loopback]]:
    async with loopback(behaviour) as server:
        notifier = WebhookNotifier(f"{server.url}/hook/{TOKEN}?key={TOKEN}", timeout_seconds=0.5)
        try:
            yield notifier, server
        finally:
            await notifier.aclose()


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_a_message_arrives_as_one_json_document(status: int) -> None:
    """At exactly the configured address, with the text, the severity and the incident."""
    async with notifier(reply(status)) as (hook, server):
        await hook.send("Rollback is denied: high risk.", INCIDENT)
    (request,) = server.requests
    assert (request.method, request.target) == ("POST", f"/hook/{TOKEN}?key={TOKEN}")
    assert request.headers["content-type"] == "application/json"
    document = json.loads(request.body)
    assert document["text"] == "payments-api in prod: needs a person\nRollback is denied: high risk."
    assert document["severity"] == "critical"
    assert document["lines"][2] == "Cause: bad release (confidence 0.87)"
    assert document["incident"] == {
        "id": "inc_1",
        "service": "payments-api",
        "environment": "prod",
        "state": "escalated",
        "opened_at": "2026-02-20T17:00:00+00:00",
        "dry_run": False,
    }


async def test_a_message_without_words_of_its_own_tells_the_incident() -> None:
    """A notify action may carry no message."""
    async with notifier(reply(200)) as (hook, server):
        await hook.send("", INCIDENT)
    text = json.loads(server.requests[0].body)["text"]
    assert text == render(INCIDENT, ()).text


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        pytest.param(reply(400, f"bad {TOKEN}"), Invalid, id="400"),
        pytest.param(reply(403, f"no {TOKEN}"), Forbidden, id="403"),
        pytest.param(reply(404, f"/hook/{TOKEN}"), NotFound, id="404"),
        pytest.param(reply(429, TOKEN), TransientError, id="429"),
        pytest.param(reply(500, TOKEN), TransientError, id="500"),
        pytest.param(reply(302, Location=f"http://elsewhere/{TOKEN}"), PermanentError, id="redirect"),
        pytest.param(hang, TransientError, id="hangs"),
        pytest.param(drip, TransientError, id="drips"),
        pytest.param(flood, PermanentError, id="floods"),
        pytest.param(raw(b""), TransientError, id="hangs up"),
    ],
)
async def test_a_failed_delivery_is_an_error_without_the_address(
    behaviour: Behaviour, kind: type[AgentError], caplog: pytest.LogCaptureFixture
) -> None:
    """The address is the password: it is in no error and no log, even where the receiver repeats it."""
    caplog.set_level(logging.DEBUG)
    async with notifier(behaviour) as (hook, _):
        with pytest.raises(kind, match="NOTIFY_WEBHOOK_URL") as caught:
            await hook.send("hello", INCIDENT)
    chain = [caught.value, caught.value.__cause__, caught.value.__context__]
    shown = [str(error) for error in chain if error is not None]
    assert TOKEN not in "".join(shown) + caplog.text


async def test_a_delivery_leaves_no_address_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The HTTP library would log it at INFO."""
    caplog.set_level(logging.INFO)
    async with notifier(reply(200)) as (hook, _):
        await hook.send("hello", INCIDENT)
    assert TOKEN not in caplog.text


@pytest.mark.parametrize(
    ("url", "words"),
    [(None, "NOTIFY_WEBHOOK_URL is not set"), (f"hooks/{TOKEN}", "NOTIFY_WEBHOOK_URL must be an address")],
)
def test_an_address_that_cannot_work_stops_the_start(url: str | None, words: str) -> None:
    """Without being shown."""
    with pytest.raises(ConfigurationError, match=words) as caught:
        WebhookNotifier.from_settings(Settings.model_validate({"notify_webhook_url": url}))
    assert TOKEN not in str(caught.value)
