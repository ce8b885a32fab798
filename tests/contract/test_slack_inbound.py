"""Answers and commands from Slack: signed, of a known person, recorded once, never claimed otherwise.

Promise 1. Over HTTP and over Socket Mode, with the whole application, over SQLite and PostgreSQL.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from pydantic import SecretStr
from slack_bolt.listener import asyncio_runner

from app.agent.identity.audit_log import HumanDecisionKind, first_broken
from app.agent.identity.people import ApprovalTerms, Door
from app.agent.models import ApprovalState
from app.agent.ports.store import Store
from app.connectors.chat.slack import commands
from app.connectors.chat.slack.channel import inbound_from_settings
from app.errors import ConfigurationError
from app.settings.entries import Role
from app.store import open_store
from app.testing import VirtualClock
from tests.api import stories
from tests.api.harness import assert_problem
from tests.contract.eventually import eventually
from tests.contract.slack_stage import (
    ANN,
    BEN,
    CROWD,
    READER,
    STRANGER,
    Stage,
    slack_settings,
    slack_stage,
)
from tests.contract.slack_standin import (
    Slack,
    answering,
    command,
    faults_of,
    interaction,
    signed,
    slack_standin,
)

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

SHIPPED_RECORD_SECONDS = commands.RECORD_SECONDS
SLACK_GIVES_UP_AFTER_SECONDS = 3.0
PATIENT_SECONDS = 120.0


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no database that is down."""
    monkeypatch.setattr(commands, "RECORD_SECONDS", PATIENT_SECONDS)


@pytest.fixture
async def stage(store: Store, tmp_path: Path) -> AsyncIterator[Stage]:
    async with slack_stage(tmp_path, store) as one:
        yield one


# ------------------------------------------------------------ one answer


@pytest.mark.parametrize("approve", [True, False])
async def test_a_button_answers_in_the_name_of_who_pressed_it(stage: Stage, approve: bool) -> None:
    """Recorded with name, role, channel and proof, in the audit trail too; only the person is answered."""
    approval_id = await stories.awaiting(stage.container)
    response = await stage.press(ANN, await stage.button(approval_id), approve=approve)
    assert response.status_code == 200
    approval = await stage.approval(approval_id)
    assert approval.state is (ApprovalState.APPROVED if approve else ApprovalState.DENIED)
    (said,) = approval.answers
    assert (said.by, said.roles, said.door, said.verified) == ("ann", ("responder",), Door.SLACK, True)
    (human_decision,) = await stage.store.audit_log.entries(after=-1, limit=10)
    assert (human_decision.kind, human_decision.by) == (
        HumanDecisionKind.APPROVED if approve else HumanDecisionKind.DENIED,
        "ann",
    )
    (told,) = await stage.slack.until_told()
    assert ("Your yes to rollback is recorded" if approve else "Your no to rollback") in told
    assert stage.slack.calls == []


async def test_over_the_socket_it_is_the_same(stage: Stage) -> None:
    """An envelope is answered, acknowledged and recorded as a request is."""
    approval_id = await stories.awaiting(stage.container)
    async with stage.connected():
        value = await stage.button(approval_id)
        envelope = await stage.slack.push(stage.slack.click(ANN, value))
        await stage.slack.until_acknowledged(envelope)
    assert (await stage.approval(approval_id)).answered_by == "ann"
    assert "is recorded" in (await stage.slack.until_told())[0]


async def test_two_people_need_two_buttons(stage: Stage) -> None:
    """The first yes uses its nonce up; the second person presses the button of the newer message."""
    approval_id = await stories.awaiting(stage.container, terms=ApprovalTerms(people=2))
    old = await stage.button(approval_id)
    await stage.press(ANN, old)
    assert "1 of 2 approvals" in (await stage.slack.until_told(1))[0]
    await stage.press(BEN, old)
    assert "use the newest message" in (await stage.slack.until_told(2))[1]
    await stage.press(BEN, await stage.button(approval_id))
    assert (await stage.approval(approval_id)).answered_by == "ann and ben"


# ------------------------------------------------------------ forgeries


async def test_what_slack_did_not_sign_is_not_looked_at(stage: Stage) -> None:
    """Another secret, another body, no signature, nonsense for a time: 401, and nothing happens."""
    approval_id = await stories.awaiting(stage.container)
    payload = stage.slack.click(ANN, await stage.button(approval_id))
    good = interaction(payload)
    unsigned = {name: value for name, value in good.headers.items() if not name.startswith("X-Slack")}
    forged = [
        interaction(payload, secret="another"),
        replace(good, content=good.content.replace(b"heal_approve", b"heal_deny")),
        replace(good, headers=unsigned),
        replace(good, headers={**good.headers, "X-Slack-Request-Timestamp": "soon"}),
        replace(good, headers={**good.headers, "X-Slack-Signature": ""}),
        replace(good, headers=unsigned, content=b"ssl_check=1&" + good.content),
        replace(good, headers=unsigned, content=b"payload=" + b"[" * 50_000),
        replace(good, content=b"\xff\xfe"),
    ]
    for request in forged:
        assert_problem(await stage.send(request), 401)
    assert (await stage.approval(approval_id)).state is ApprovalState.PENDING


@pytest.mark.parametrize("age", [301, -302])
async def test_five_minutes_old_is_too_old(stage: Stage, age: int) -> None:
    """A captured request is worth nothing later, and none from the future is heard."""
    approval_id = await stories.awaiting(stage.container)
    payload = stage.slack.click(ANN, await stage.button(approval_id))
    assert_problem(await stage.send(interaction(payload, age=age)), 401)
    assert (await stage.approval(approval_id)).state is ApprovalState.PENDING
    assert (await stage.send(interaction(payload, age=280))).status_code == 200
    assert (await stage.approval(approval_id)).state is ApprovalState.APPROVED


async def test_the_same_request_again_changes_nothing(stage: Stage) -> None:
    """A replay within five minutes, byte for byte: one answer, one entry in the trail."""
    approval_id = await stories.awaiting(stage.container)
    request = interaction(stage.slack.click(ANN, await stage.button(approval_id)))
    for _ in range(3):
        assert (await stage.send(request)).status_code == 200
    await stage.slack.until_told(3)
    assert len((await stage.approval(approval_id)).answers) == 1
    assert len(await stage.store.audit_log.entries(after=-1, limit=10)) == 1


async def test_a_replay_after_its_yes_was_used_gets_that_answer(stage: Stage) -> None:
    """What it was worth stays as it is: used once."""
    approval_id = await stories.awaiting(stage.container)
    request = interaction(stage.slack.click(ANN, await stage.button(approval_id)))
    await stage.send(request)
    await stories.used(stage.container, approval_id)
    await stage.send(request)
    assert "recorded and used" in (await stage.slack.until_told(2))[1]
    assert (await stage.approval(approval_id)).state is ApprovalState.USED


async def test_the_same_envelope_again_changes_nothing(stage: Stage) -> None:
    """Socket Mode delivers twice when an acknowledgement is lost."""
    approval_id = await stories.awaiting(stage.container)
    async with stage.connected():
        payload = stage.slack.click(ANN, await stage.button(approval_id))
        envelope = await stage.slack.push(payload)
        await stage.slack.push(payload, envelope=envelope)
        await stage.slack.until_told(2)
    assert len((await stage.approval(approval_id)).answers) == 1
    assert len(await stage.store.audit_log.entries(after=-1, limit=10)) == 1


@pytest.mark.parametrize("by_socket", [False, True], ids=["http", "socket"])
async def test_of_fifty_people_at_once_one_answers(stage: Stage, by_socket: bool) -> None:
    """All press the same button at the same moment, and all of it arrives twice: one answer, one use."""
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    payloads = [stage.slack.click(user, value, approve=n % 3 != 0) for n, user in enumerate(CROWD)]
    if by_socket:
        async with stage.connected():
            await asyncio.gather(*(stage.slack.push(one) for one in payloads * 2))
            told = await stage.slack.until_told(100)
    else:
        requests = [interaction(one) for one in payloads] * 2
        responses = await asyncio.gather(*(stage.send(one) for one in requests))
        assert {one.status_code for one in responses} <= {200, 503}
        told = await stage.slack.until_told(1)  # telling people is tried, and holds nothing up
    approval = await stage.approval(approval_id)
    (said,) = approval.answers
    assert approval.answered_by == said.by
    deeds = await stage.store.audit_log.entries(after=-1, limit=200)
    assert [human_decision.subject for human_decision in deeds] == [approval_id]
    assert first_broken(deeds) is None
    claimed = [one for one in told if "is recorded" in one]
    assert len(claimed) <= 2
    if said.approve:
        await stories.used(stage.container, approval_id)
        await stage.send(interaction(payloads[1]))
        assert (await stage.approval(approval_id)).state is ApprovalState.USED


@pytest.mark.parametrize("by_socket", [False, True], ids=["http", "socket"])
async def test_an_answer_that_takes_long_is_an_answer(
    stage: Stage, by_socket: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library waits for 3 s; four pass whenever it looks at its clock."""
    monkeypatch.setattr(asyncio_runner, "time", SimpleNamespace(time=count(0, 4).__next__))
    approval_id = await stories.awaiting(stage.container)
    payload = stage.slack.click(ANN, await stage.button(approval_id), approve=True)
    if by_socket:
        async with stage.connected():
            await stage.slack.push(payload)
            await stage.slack.until_told(1)
    else:
        assert (await stage.send(interaction(payload))).status_code == 200
    assert len((await stage.approval(approval_id)).answers) == 1


async def test_a_button_answers_only_what_it_was_made_for(stage: Stage) -> None:
    """The nonce of one request is worth nothing for another, and is not used up by trying."""
    one = await stories.awaiting(stage.container)
    other = await stories.awaiting(stage.container, service="ledger")
    value = await stage.button(one)
    await stage.press(ANN, value.replace(one, other))
    assert "belongs to another request" in (await stage.slack.until_told())[0]
    assert (await stage.approval(other)).state is ApprovalState.PENDING
    await stage.press(ANN, value)
    assert (await stage.approval(one)).state is ApprovalState.APPROVED


@pytest.mark.parametrize("value", ["", "apr_1", ".", "apr_1.", ".nonce", "x" * 5000, "apr_none.nonce"])
async def test_a_button_that_says_nothing_sensible_changes_nothing(stage: Stage, value: str) -> None:
    """Its value comes from outside, signed or not."""
    assert (await stage.press(ANN, value)).status_code == 200
    assert "Nothing changed" in (await stage.slack.until_told())[0]


# ------------------------------------------------------------ who


async def test_a_person_who_is_not_listed_learns_what_to_do(stage: Stage) -> None:
    """SLACK_USERS names who may; a click of another person changes nothing, and keeps their nonce."""
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    for user in (STRANGER, "", ANN.lower()):
        await stage.press(user, value)
    assert all("SLACK_USERS" in told for told in await stage.slack.until_told(3))
    assert (await stage.approval(approval_id)).state is ApprovalState.PENDING
    await stage.press(ANN, value)
    assert (await stage.approval(approval_id)).state is ApprovalState.APPROVED


async def test_a_person_without_the_scope_learns_who_has_it(stage: Stage) -> None:
    """Reading is not answering, and not braking."""
    approval_id = await stories.awaiting(stage.container)
    await stage.press(READER, await stage.button(approval_id))
    (told,) = await stage.slack.until_told()
    assert "carla has viewer" in told
    assert "responder" in told
    assert (await stage.approval(approval_id)).state is ApprovalState.PENDING
    assert "the scope operate" in await stage.type(READER, "brake on because")
    assert await stage.store.guardrails.kill_switch() is None


async def test_a_request_that_wants_a_role_gets_it_or_nothing(stage: Stage) -> None:
    """The terms of the request hold beyond the scope."""
    approval_id = await stories.awaiting(stage.container, terms=ApprovalTerms(roles=("lead",)))
    await stage.press(ANN, await stage.button(approval_id))
    assert "needs one of the roles lead" in (await stage.slack.until_told())[0]
    assert (await stage.approval(approval_id)).state is ApprovalState.PENDING


# ------------------------------------------------------------ too late


async def test_the_second_person_learns_who_was_first(stage: Stage) -> None:
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    await stage.answer(approval_id, approve=False, by="dora")
    await stage.press(ANN, value)
    assert "was already denied by dora" in (await stage.slack.until_told())[0]


async def test_an_expired_request_is_not_answered(stage: Stage) -> None:
    """Late is too late, and is said so."""
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    late = VirtualClock(stage.container.clock.now() + timedelta(hours=5))
    slack = inbound_from_settings(stage.container.settings, stage.store, late)
    assert slack is not None
    request = interaction(stage.slack.click(ANN, value))
    await slack.handle(request.content, {name.lower(): text for name, text in request.headers.items()})
    assert "expired at" in (await stage.slack.until_told())[0]
    assert (await stage.approval(approval_id)).state is ApprovalState.PENDING
    await slack.aclose()


async def test_a_void_request_is_not_answered(stage: Stage) -> None:
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    await stories.given_up(stage.container, approval_id)
    await stage.press(ANN, value)
    assert "is void" in (await stage.slack.until_told())[0]


# ------------------------------------------------------------ the kill switch


async def test_the_kill_switch_by_command(stage: Stage) -> None:
    """On with a reason, shown, off; each in the name of who typed it, and in the trail."""
    assert "never been used" in await stage.type(ANN, "brake")
    assert "a reason is required" in await stage.type(ANN, "brake on")
    assert "engaged" in await stage.type(ANN, "brake  ON  the payload service &amp; more")
    brake = await stage.store.guardrails.kill_switch()
    assert brake is not None
    assert (brake.engaged, brake.by, brake.reason) == (True, "ann", "the payload service & more")
    assert "the payload service &amp; more" in await stage.type(READER, "brake")
    assert "released" in await stage.type(BEN, "brake off")
    deeds = await stage.store.audit_log.entries(after=-1, limit=10)
    assert [(human_decision.kind, human_decision.by, human_decision.door) for human_decision in deeds] == [
        (HumanDecisionKind.BRAKE_ENGAGED, "ann", Door.SLACK),
        (HumanDecisionKind.BRAKE_RELEASED, "ben", Door.SLACK),
    ]


async def test_a_command_sent_again_is_not_carried_out_again(stage: Stage) -> None:
    """A replayed release does not undo a kill switch that was engaged since, over HTTP or the socket."""
    release = stage.slack.typed(ANN, "brake off all is well")
    await stage.send(command(release))
    await stage.type(BEN, "brake on it is not")
    again = await stage.send(command(release))
    assert "was already executed" in again.json()["text"]
    async with stage.connected():
        envelope = await stage.slack.push(dict(release), "slash_commands")
        await stage.slack.until_acknowledged(envelope)
    assert "was already executed" in stage.slack.acknowledged[envelope]["text"]
    brake = await stage.store.guardrails.kill_switch()
    assert brake is not None
    assert brake.engaged


async def test_strangers_neither_brake_nor_see(stage: Stage) -> None:
    for text in ("brake", "brake on now", "brake off", "approvals"):
        assert "SLACK_USERS" in await stage.type(STRANGER, text)
    assert "/heal brake on REASON" in await stage.type(STRANGER, "help")
    assert await stage.store.guardrails.kill_switch() is None


async def test_what_waits_can_be_listed(stage: Stage) -> None:
    """With the page to answer on; whatever a service is called, it mentions no person."""
    assert "No pending approvals" in await stage.type(READER, "approvals")
    approval_id = await stories.awaiting(stage.container, service="a<!channel>b")
    shown = (await stage.send(command(stage.slack.typed(READER, "approvals")))).json()
    assert "a&lt;!channel&gt;b in prod: rollback" in shown["blocks"][0]["text"]["text"]
    (link,) = shown["blocks"][1]["elements"]
    assert link["url"] == f"https://heal.example.com/approvals/{approval_id}/page"
    assert faults_of(shown) == []


@pytest.mark.parametrize("text", ["", "help", "what", "brake sideways", "approvals please", "\x00" * 50])
async def test_anything_else_is_answered_with_help(stage: Stage, text: str) -> None:
    assert "/heal brake on REASON" in await stage.type(ANN, text)
    assert await stage.store.guardrails.kill_switch() is None


async def test_a_command_without_its_trigger_is_refused(stage: Stage) -> None:
    """Nothing would tell it from its replay."""
    fields = stage.slack.typed(ANN, "brake on now", trigger_id="")
    assert "Type it again" in (await stage.send(command(fields))).json()["text"]
    assert await stage.store.guardrails.kill_switch() is None


# ------------------------------------------------------------ the door itself


async def test_slack_may_verify_the_address(stage: Stage) -> None:
    """The challenge comes back, when it was signed."""
    body = json.dumps({"type": "url_verification", "challenge": "c0ffee", "token": "x"})
    response = await stage.send(signed(body, media="application/json"))
    assert (response.status_code, response.json()) == (200, {"challenge": "c0ffee"})
    assert_problem(await stage.send(signed(body, media="application/json", secret="another")), 401)


async def test_a_body_is_bounded_and_readable(stage: Stage) -> None:
    """Signed nonsense is refused, and so is what is too long."""
    assert_problem(await stage.send(signed("payload=" + "x" * 70_000)), 413)
    for body in (
        "payload=[1]",
        "payload={",
        "{",
        "payload=" + "[" * 20_000,
        "&".join("a=1" for _ in range(300)),
    ):
        assert_problem(await stage.send(signed(body)), 400)
    for body in ("", "{}", urlencode({"payload": json.dumps({"type": "view_submission"})})):
        assert_problem(await stage.send(signed(body)), 404)
    half: tuple[dict[str, Any], ...] = ({"actions": []}, {"actions": "x"}, {"actions": [7]}, {"user": None})
    for changes in half:
        assert_problem(await stage.send(interaction({**stage.slack.click(ANN, "a.b"), **changes})), 400)


async def test_buttons_that_only_lead_somewhere_are_acknowledged(stage: Stage) -> None:
    payload = stage.slack.click(STRANGER, "")
    payload["actions"][0]["action_id"] = "heal_open_1"
    assert (await stage.send(interaction(payload))).status_code == 200
    assert stage.slack.told == []


@pytest.mark.parametrize("changes", [{"slack_signing_secret": None}, {"role": Role.WORKER}])
async def test_without_a_secret_nothing_is_served(tmp_path: Path, changes: dict[str, object]) -> None:
    """404 for what looks signed: there is nothing to tell it by."""
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    async with slack_stage(tmp_path, store, **changes) as stage:
        response = await stage.send(interaction(stage.slack.click(ANN, "a.b")))
        assert_problem(response, 404)
    await store.close()


async def test_in_a_dry_run_answers_still_count(tmp_path: Path) -> None:
    """They write to our own database alone; nothing that posts is constructed (promise 5)."""
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    async with slack_stage(tmp_path, store, dry_run=True) as stage:
        approval_id = await stories.awaiting(stage.container)
        await stage.press(ANN, await stage.button(approval_id))
        assert (await stage.approval(approval_id)).state is ApprovalState.APPROVED
        await stage.slack.until_told()
    await store.close()


# ------------------------------------------------------------ when things fail


@contextmanager
def held(database_url: str) -> Iterator[None]:
    """Another session holds the database, so that nothing can be written."""
    if database_url.startswith("sqlite:///"):
        lock = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        yield
        lock.rollback()
        lock.close()
    else:
        with psycopg.connect(database_url) as holder:
            holder.execute("LOCK TABLE incidents, brakes IN ACCESS EXCLUSIVE MODE")
            yield
            holder.rollback()


async def test_no_answer_of_the_database_in_time_is_no_claim(
    stage: Stage, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Slack gives up, the person hears that it is not certain; pressing again settles it."""
    assert SHIPPED_RECORD_SECONDS < SLACK_GIVES_UP_AFTER_SECONDS
    monkeypatch.setattr(commands, "RECORD_SECONDS", 0.5)
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    with held(database_url):
        pressed, typed = await asyncio.gather(stage.press(ANN, value), stage.type(ANN, "brake on now"))
    assert_problem(pressed, 503)
    assert "Unknown whether your answer was recorded" in (await stage.slack.until_told())[0]
    assert "Unknown whether the kill switch was recorded" in typed
    monkeypatch.setattr(commands, "RECORD_SECONDS", PATIENT_SECONDS)
    assert (await stage.press(ANN, value)).status_code == 200
    assert "is recorded" in (await stage.slack.until_told(2))[1]
    assert len((await stage.approval(approval_id)).answers) == 1


async def test_a_database_that_is_down_is_said_so(tmp_path: Path) -> None:
    """Not acknowledged, so that Slack shows that it failed; the person sees what to do."""
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    async with slack_stage(tmp_path, store) as stage:
        approval_id = await stories.awaiting(stage.container)
        value = await stage.button(approval_id)
        await store.close()
        assert_problem(await stage.press(ANN, value), 503)
        assert "the store is closed" in (await stage.slack.until_told())[0]
        assert "Unknown whether" in await stage.type(ANN, "brake on now")
        assert "Read failed" in await stage.type(ANN, "brake")


async def test_a_response_address_that_fails_harms_nothing(stage: Stage) -> None:
    """The answer stands, and the next person sees it again."""
    approval_id = await stories.awaiting(stage.container)
    stage.slack.fail("response_url", answering(500, "no"), answering(302, "elsewhere"))
    value = await stage.button(approval_id)
    for _ in range(3):
        assert (await stage.press(ANN, value)).status_code == 200
    await stage.slack.until_told(1)
    assert (await stage.approval(approval_id)).answered_by == "ann"


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest",
        "https://slack.com.example.org/x",
        "https://hooks.slack.com@example.org/x",
        "http://hooks.slack.com/x",
        "https://hooks.slack.com:8443/x",
        "https://evilslack.com/x",
        "file:///etc/passwd",
        "//hooks.slack.com/x",
        "https://[",
        "https://hooks.slack.com:x/",
        "",
    ],
)
async def test_nothing_is_sent_to_an_address_that_is_not_slacks(
    stage: Stage, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It comes from outside; the answer stands without it."""
    approval_id = await stories.awaiting(stage.container)
    value = await stage.button(approval_id)
    with caplog.at_level(logging.WARNING):
        await stage.send(interaction(stage.slack.click(ANN, value, response_url=address)))

        async def warned() -> bool:
            return "cannot report the result" in caplog.text

        await eventually(warned)
    assert (await stage.approval(approval_id)).answered_by == "ann"
    assert not address or address not in caplog.text


def test_slacks_own_addresses_are_known() -> None:
    """Those of its hooks, of its API, and of SLACK_API_URL."""
    from app.connectors.chat.slack.client import SlackClient

    client = SlackClient(token=None, api_url="http://127.0.0.1:8765/api/")
    for address in (
        "https://hooks.slack.com/actions/T1/2/3",
        "https://hooks.slack.com:443/commands/1",
        "https://hooks.slack-gov.com/x",
        "http://127.0.0.1:8765/respond/1",
    ):
        assert client.is_slacks(address), address
    assert not client.is_slacks("http://127.0.0.1:8766/respond/1")


# ------------------------------------------------------------ the socket


async def test_a_socket_that_breaks_is_opened_again(stage: Stage) -> None:
    """Cut without a word, and asked by Slack to come again: each time the next click is heard."""
    first = await stories.awaiting(stage.container)
    async with stage.connected():
        await stage.slack.cut_sockets()
        await stage.slack.until_linked()
        await stage.slack.push(stage.slack.click(ANN, await stage.button(first)))
        await stage.slack.until_told(1)
        before = stage.slack.count("apps.connections.open")
        await stage.slack.sockets[-1].send_json({"type": "disconnect", "reason": "refresh_requested"})

        async def registered_again() -> bool:
            return stage.slack.count("apps.connections.open") > before and len(stage.slack.sockets) == 1

        await eventually(registered_again)
        second = await stories.awaiting(stage.container, service="ledger")
        await stage.slack.push(stage.slack.click(ANN, await stage.button(second)))
        await stage.slack.until_told(2)
    assert (await stage.approval(first)).answered_by == "ann"
    assert (await stage.approval(second)).answered_by == "ann"


async def test_a_socket_that_cannot_be_opened_is_tried_again_and_shows_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused, limited, broken, nonsense: warned about once; then it works."""
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    async with slack_stage(tmp_path, store) as stage:
        stage.slack.fail("apps.connections.open", answering(500, "{}"), answering(200, '{"ok": true}'))
        async with stage.connected():

            async def back() -> bool:
                return "Slack socket reconnected" in caplog.text

            await eventually(back)
    await store.close()
    assert caplog.text.count("Slack socket disconnected") == 1
    assert "xapp-" not in caplog.text
    assert "ticket" not in caplog.text


# ------------------------------------------------------------ settings


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"slack_api_url": "slack.com"}, "SLACK_API_URL"),
        ({"slack_api_url": "https://me:secret@slack.com/api/"}, "SLACK_API_URL"),
        ({"slack_signing_secret": SecretStr(" ")}, "SLACK_SIGNING_SECRET"),
        ({"slack_app_token": SecretStr("x\u00e4pp")}, "SLACK_APP_TOKEN"),
    ],
)
async def test_settings_that_cannot_work_are_named(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    async with slack_standin() as slack:
        store = await open_store(f"sqlite:///{tmp_path}/heal.db")
        with pytest.raises(ConfigurationError, match=named) as told:
            inbound_from_settings(slack_settings(tmp_path, slack, **changes), store, VirtualClock())
        assert "secret@" not in str(told.value)
        await store.close()


async def test_nothing_is_built_where_slack_is_not_set_up(tmp_path: Path) -> None:
    """A bot token alone only shows messages."""
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    settings = slack_settings(tmp_path, Slack(url="http://127.0.0.1:1"))
    alone = settings.model_copy(update={"slack_signing_secret": None, "slack_app_token": None})
    assert inbound_from_settings(alone, store, VirtualClock()) is None
    await store.close()


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("client", "aiohttp"),
        ("client", "slack_sdk.errors"),
        ("inbound", "slack_bolt.async_app"),
    ],
)
async def test_without_the_extra_the_start_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, library: str
) -> None:
    """The libraries are imported only where Slack is configured."""
    monkeypatch.delitem(sys.modules, f"app.connectors.chat.slack.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    store = await open_store(f"sqlite:///{tmp_path}/heal.db")
    settings = slack_settings(tmp_path, Slack(url="http://127.0.0.1:1"))
    with pytest.raises(ConfigurationError, match=re.escape("pip install '.[slack]'")):
        inbound_from_settings(settings, store, VirtualClock())
    await store.close()


def test_an_agent_without_slack_imports_none_of_it() -> None:
    """An extra costs nothing, and may be missing, where it is not used."""
    program = (
        "import app.main, app.workers, sys; print({'slack_bolt', 'slack_sdk', 'aiohttp'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


async def test_the_environment_sends_nothing_through_a_proxy(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings come from app.config alone: a proxy of the environment would see every token."""
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with slack_stage(tmp_path, store) as stage:
        approval_id = await stories.awaiting(stage.container)
        async with stage.connected():
            await stage.slack.push(stage.slack.click(ANN, await stage.button(approval_id)))
            await stage.slack.until_told()
