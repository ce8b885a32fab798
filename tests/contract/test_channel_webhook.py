"""The signed webhook keeps the channel's contract; its document, its ids and its signature."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.models import IncidentState
from app.agent.notifications.channel import Bulletin, ThreadReply
from app.config import Settings
from app.connectors.chat.last_posted import PostedIncident
from app.connectors.chat.links import Links
from app.connectors.chat.webhook import Signer, WebhookChannel
from app.errors import ConfigurationError, Invalid, UnknownOutcome
from app.testing import VirtualClock
from scripts.settings import ROOT
from tests.contract.channel_suite import PUBLIC_URL, ChannelContract, Trouble, asked, loud, record
from tests.contract.webhook_worlds import TIMEOUT_SECONDS, TOKEN, WebhookWorld, webhook_world

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def channel(url: str, **changes: Any) -> WebhookChannel:
    values: dict[str, Any] = {
        "secret": SecretStr(SECRET),
        "links": Links(base=PUBLIC_URL),
        "timeout_seconds": TIMEOUT_SECONDS,
        **changes,
    }
    return WebhookChannel(SecretStr(url), **values)


def readable(document: dict[str, Any]) -> str:
    """What a chat shows of it."""
    return str(document["text"])


@pytest.fixture
async def world() -> AsyncIterator[WebhookWorld]:
    calls = ("<!channel>", "<@U", "@everyone", "<https://")
    async with webhook_world(channel, readable, live_markup=calls) as made:
        made.secrets = (TOKEN, SECRET)
        yield made


class TestWebhookChannel(ChannelContract):
    """Over a real receiver."""


def documents(world: WebhookWorld) -> list[dict[str, Any]]:
    return [json.loads(request.body) for request in world.taken]


async def test_the_document_says_what_a_program_needs(world: WebhookWorld) -> None:
    """Versioned, as JSON, at exactly the configured address."""
    await (await world.open()).begin(Bulletin(record=asked()))
    (request,), (document,) = world.taken, documents(world)
    assert request.target == f"/hook/{TOKEN}?sig={TOKEN}"
    assert request.headers["content-type"] == "application/json"
    lines = document.pop("lines")
    text = document.pop("text")
    assert document == {
        "version": 1,
        "type": "incident",
        "id": "inc_1-1-awaiting_approval-apr_1",
        "title": "payments-api in prod: awaiting approval",
        "severity": "warning",
        "incident": {
            "id": "inc_1",
            "service": "payments-api",
            "environment": "prod",
            "state": "awaiting_approval",
            "opened_at": "2026-02-20T17:00:00+00:00",
            "closed_at": None,
            "dry_run": False,
            "url": f"{PUBLIC_URL}/dashboard/incidents/inc_1",
        },
        "approval": {
            "id": "apr_1",
            "action": "rollback",
            "reasons": ["rollback is high risk"],
            "roles": ["sre"],
            "people": 2,
            "requested_at": "2026-02-20T17:00:00+00:00",
            "expires_at": "2026-02-20T21:00:00+00:00",
            "url": f"{PUBLIC_URL}/approvals/apr_1/page",
        },
    }
    assert "Triggered by: high error rate" in lines
    assert text.startswith("payments-api in prod: awaiting approval\nAnswer with: heal approve apr_1")
    assert f"{PUBLIC_URL}/approvals/apr_1/page" in text


async def test_an_announcement_says_which_incident_it_is_about(world: WebhookWorld) -> None:
    """As it was sent last; the id is the reply's own, whenever it is sent."""
    hook = await world.open()
    reference = await hook.begin(Bulletin(record=record()))
    await hook.reply(reference, loud("Rollback is denied.", "inc_1-a7"))
    document = documents(world)[-1]
    assert (document["type"], document["id"]) == ("announcement", "inc_1-a7")
    assert (
        document["text"]
        == f"payments-api in prod\n{PUBLIC_URL}/dashboard/incidents/inc_1\nRollback is denied."
    )
    assert document["incident"]["state"] == "open"
    assert document["approval"] is None


async def test_the_timeline_is_not_posted(world: WebhookWorld) -> None:
    """A document for each change of state and each announcement, and no more."""
    hook = await world.open()
    reference = await hook.begin(Bulletin(record=record()))
    await hook.reply(reference, ThreadReply(key="inc_1-t0-1", lines=("a detail",), loud=False))
    assert len(world.taken) == 1


async def test_what_is_sent_again_keeps_its_id_and_what_changed_gets_another(world: WebhookWorld) -> None:
    """So that a receiver that drops repeats drops nothing else."""
    hook = await world.open()
    reference = await hook.begin(Bulletin(record=record()))
    waiting = asked()
    await world.trouble(Trouble.LOST)
    for again in (waiting, waiting, replace(waiting, approvals=()), record(state=IncidentState.ESCALATED)):
        with pytest.raises(UnknownOutcome):
            await hook.refresh(reference, Bulletin(record=again))
    first, *refreshed = [document["id"] for document in documents(world)]
    assert refreshed[0] == refreshed[1]
    assert len({first, *refreshed}) == 4
    assert [request.headers["webhook-id"] for request in world.taken] == [first, *refreshed]


# ------------------------------------------------------------ signatures


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example that its implementations share."""
    at = datetime.fromtimestamp(1614265330, UTC)
    signed = Signer.of(SecretStr(SECRET)).headers("msg_p5jXN8AQM9LWM0D4loKWxJek", at, b'{"test": 2432232314}')
    assert signed == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


async def test_what_leaves_carries_the_signature_of_its_very_bytes(world: WebhookWorld) -> None:
    """With the time at which it leaves."""
    clock = VirtualClock()
    await clock.advance(90)
    world.make = lambda url: channel(url, clock=clock)
    await (await world.open()).begin(Bulletin(record=record()))
    (request,) = world.taken
    expected = Signer.of(SecretStr(SECRET)).headers(request.headers["webhook-id"], clock.now(), request.body)
    assert {name: request.headers[name] for name in expected} == expected
    assert request.headers["webhook-timestamp"] == str(int(clock.now().timestamp()))


async def test_the_documented_check_distinguishes_ours_from_others(world: WebhookWorld) -> None:
    """The receiver's code of docs/channels.md, as it stands there."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/channels.md").read_text(), re.DOTALL)
    (check,) = [block for block in blocks if "def is_ours" in block]
    scope: dict[str, Any] = {}
    exec(check, scope)  # noqa: S102 - it is ours, and run as a reader would
    is_ours: Callable[[str, dict[str, str], bytes], bool] = scope["is_ours"]
    await (await world.open()).begin(Bulletin(record=record()))
    (request,) = world.taken
    assert is_ours(SECRET, request.headers, request.body)
    assert not is_ours(SECRET, request.headers, request.body + b" ")
    assert not is_ours(f"whsec_{'A' * 32}", request.headers, request.body)
    for header, value in (("webhook-id", "another"), ("webhook-timestamp", "1614265330")):
        assert not is_ours(SECRET, {**request.headers, header: value}, request.body)


async def test_without_a_secret_nothing_is_signed(world: WebhookWorld) -> None:
    """The id is there all the same."""
    world.make = lambda url: channel(url, secret=None)
    await (await world.open()).begin(Bulletin(record=record()))
    (request,) = world.taken
    assert request.headers["webhook-id"] == "inc_1-1-open"
    assert "webhook-signature" not in request.headers


# ------------------------------------------------------------ what stops the start


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2-hunter2",
        "whsec_",
        "whsec_short",
        "whsec_" + "A" * 28,
        "whsec_" + "A" * 88,
        "whsec_***not-base64***not-base64***",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSé",
    ],
)
def test_a_secret_that_is_none_stops_the_start(secret: str) -> None:
    """Without being shown."""
    settings = Settings.model_validate(
        {"notify_webhook_url": "http://127.0.0.1/hook", "notify_webhook_secret": secret}
    )
    with pytest.raises(ConfigurationError, match="NOTIFY_WEBHOOK_SECRET must be whsec_") as caught:
        WebhookChannel.from_settings(settings)
    assert secret.removeprefix("whsec_")[:6] not in str(caught.value) or secret == "whsec_"


@pytest.mark.parametrize("bytes_in_base64", ["A" * 32, "A" * 86 + "=="])
def test_the_shortest_and_the_longest_secret_will_do(bytes_in_base64: str) -> None:
    """24 and 64 bytes."""
    assert len(Signer.of(SecretStr(f"whsec_{bytes_in_base64}")).key) in (24, 64)


def test_an_address_that_cannot_work_stops_the_start() -> None:
    """Without being shown."""
    with pytest.raises(ConfigurationError, match="NOTIFY_WEBHOOK_URL is not set"):
        WebhookChannel.from_settings(Settings.model_validate({}))
    with pytest.raises(ConfigurationError, match="NOTIFY_WEBHOOK_URL must be an address") as caught:
        WebhookChannel(SecretStr(f"hooks/{TOKEN}"))
    assert TOKEN not in str(caught.value)


def test_links_stand_whatever_ends_the_public_address() -> None:
    """With or without a slash, and below a path."""
    made = Links.from_settings(Settings.model_validate({"public_url": "https://example.com/heal/"}))
    waiting = asked()
    assert made.incident(waiting.incident.id) == "https://example.com/heal/dashboard/incidents/inc_1"
    assert made.approval(waiting.approvals[0].id) == "https://example.com/heal/approvals/apr_1/page"


@pytest.mark.parametrize("reference", ["", "17", "[]", "null", '{"told": 1}', '{"nonsense": 1}'])
def test_a_reference_of_another_person_is_refused(reference: str) -> None:
    """As an error that says what it is."""
    with pytest.raises(Invalid, match="cannot be parsed"):
        PostedIncident.read(reference)


def test_a_reference_is_read_as_it_was_written() -> None:
    """Whatever stands in it."""
    ended = replace(record().incident, closed_at=record().incident.opened_at + timedelta(hours=1))
    standing = PostedIncident.first(Bulletin(record=replace(record(), incident=ended)))
    assert PostedIncident.read(standing.written()) == standing
