"""A message over HTTP: only a refused connection and an answer say for certain that it was not taken."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from app.config import Settings
from app.connectors.http import HttpPeer
from app.connectors.kinds import constructed_channels
from app.connectors.registry import CHANNELS
from app.errors import AgentError, Invalid, PermanentError, TransientError, UnknownOutcome
from tests.unit.loopback import Behaviour, drip, flood, hang, loopback, raw, reply

HOOK = "http://127.0.0.1:9/hook"


def peer(url: str, *, timeout_seconds: float = 30) -> HttpPeer:
    return HttpPeer(name="the hook", setting="HOOK_URL", url=url, timeout_seconds=timeout_seconds)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        pytest.param(hang, UnknownOutcome, id="hangs"),
        pytest.param(raw(b""), UnknownOutcome, id="hangs up"),
        pytest.param(raw(b"nonsense\r\n\r\n"), UnknownOutcome, id="speaks no HTTP"),
        pytest.param(raw(b"HTTP/1.1 20"), UnknownOutcome, id="breaks off in the status"),
        pytest.param(reply(502), UnknownOutcome, id="502"),
        pytest.param(reply(504), UnknownOutcome, id="504"),
        pytest.param(reply(503, Retry_After="3"), TransientError, id="503"),
        pytest.param(reply(413), Invalid, id="413"),
        pytest.param(reply(302, Location="http://elsewhere/"), PermanentError, id="redirect"),
    ],
)
async def test_what_is_no_delivery(behaviour: Behaviour, kind: type[AgentError]) -> None:
    """Each with the error that names what to do next, and never the other side's words."""
    async with loopback(behaviour) as server:
        hook = peer(server.url, timeout_seconds=2.0 if behaviour is hang else 30)
        with pytest.raises(kind, match="HOOK_URL"):
            await hook.deliver(b"{}")
        await hook.aclose()
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "behaviour", [reply(200), reply(204), drip, flood], ids=["200", "204", "drip", "flood"]
)
async def test_what_was_taken_is_delivered_whatever_is_said_about_it(behaviour: Behaviour) -> None:
    """The status says it; an answer without end is not waited for, nor kept."""
    async with loopback(behaviour) as server:
        hook = peer(server.url)
        await hook.deliver(b'{"a": 1}', headers={"webhook-id": "1"})
        await hook.aclose()
        (request,) = server.requests
    assert (request.method, request.body) == ("POST", b'{"a": 1}')
    assert request.headers["webhook-id"] == "1"
    assert request.headers["content-type"] == "application/json"


async def test_a_refused_connection_took_nothing() -> None:
    """The message may be sent again without a second look."""
    async with loopback(hang) as server:
        url = server.url
    with pytest.raises(TransientError, match="cannot be reached"):
        await peer(url).deliver(b"{}")


def test_the_channels_are_those_that_are_set() -> None:
    """Each by its own setting."""
    hook = SecretStr(HOOK)

    def names(**values: object) -> list[str]:
        settings = Settings.model_validate({"dry_run": False, **values})
        return [channel.name for channel in constructed_channels(CHANNELS, settings)]

    assert names() == []
    assert names(notify_webhook_url=hook) == ["webhook"]
    assert names(notify_webhook_url=hook, teams_webhook_url=hook) == ["webhook", "teams"]
    slack = {"slack_bot_token": SecretStr("xoxb-1-made-up"), "slack_channel": "C0123456789"}
    assert names(**slack, teams_webhook_url=hook) == ["slack", "teams"]


def test_in_a_dry_run_there_is_no_channel() -> None:
    """Promise 5: what could write outside is not even made."""
    hook = SecretStr(HOOK)
    settings = Settings.model_validate(
        {
            "dry_run": True,
            "notify_webhook_url": hook,
            "teams_webhook_url": hook,
            "slack_bot_token": SecretStr("xoxb-1-made-up"),
            "slack_channel": "C0123456789",
        }
    )
    assert constructed_channels(CHANNELS, settings) == ()
