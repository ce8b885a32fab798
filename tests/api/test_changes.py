"""The stream of changes: clients hear of a change, a slow one is disconnected, all end at a stop."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Message

from app.agent.identity import tokens
from app.agent.identity.people import Door, Person, Scope
from app.agent.ids import IncidentId
from app.api.changes import MOST_CLIENTS, MOST_IDS, ChangeFeed, ChangeStream, Subscription, events
from app.api.routes.changes import changes
from app.main import create_app
from tests.api.harness import Harness, assert_problem, make_settings
from tests.api.people import guarded, token
from tests.api.stories import opened
from tests.followers import follow


def test_a_client_hears_of_what_changed_and_of_nothing_else(api: Harness) -> None:
    """The id of the incident whose timeline grew, and the kill switch; a stop ends the stream."""

    async def heard() -> list[str]:
        feed = ChangeFeed(every=0.01)
        client = feed.join(api.container)
        stream = events(feed, client)
        parts = [(await anext(stream)).decode()]
        await feed.looked.wait()  # the first look is what later ones are compared with
        incident_id = await opened(api.container)
        part = (await anext(stream)).decode()
        parts.append(part.replace(incident_id, "ID"))
        feed.close()
        parts += [one.decode() async for one in stream]
        feed.leave(client)
        assert feed.clients == 0
        return parts

    first, change, *rest = api.run(heard())
    assert "event: ping" in first
    assert change == 'event: change\ndata: {"incidents": ["ID"]}\n\n'
    assert rest == []


def test_what_waits_for_a_slow_client_is_bounded() -> None:
    """Beyond a hundred ids it receives one event that means: anything may have changed."""
    client = Subscription()
    for number in range(MOST_IDS + 1):
        client.notify({IncidentId(f"inc_{number}")}, anything=False)
    assert len(client.pending) <= MOST_IDS
    assert client.take() == b'event: change\ndata: {"incidents": []}\n\n'


async def _admitted() -> bool:
    return True


@pytest.mark.parametrize("revoked", [True, False])
def test_a_stream_ends_once_its_token_is_revoked(tmp_path: Path, revoked: bool) -> None:
    """The right is checked again while the stream is open; a valid token keeps it."""
    with guarded(tmp_path) as api:
        header = token(api, "viewer", Scope.READ)["Authorization"].encode()
        feed = api.app.state.changes = ChangeFeed(recheck=0.01)
        bodies: list[Message] = []

        async def take(message: Message) -> None:
            if message["type"] == "http.response.body":
                bodies.append(message)
                if not revoked and len(bodies) == 20:
                    feed.close()

        async def receive() -> Message:
            await asyncio.Event().wait()
            return {}

        scope = {
            "type": "http",
            "method": "GET",
            "path": "/v1/changes",
            "headers": [(b"authorization", header)],
            "client": ("127.0.0.1", 50000),
            "app": api.app,
        }
        stream = api.run(changes(Request(scope, receive), api.container))
        if revoked:
            held = api.run(tokens.proved(api.container.store.credentials, header.decode().split()[1]))
            assert held is not None
            by = Person(name="root", door=Door.CLI)
            api.run(tokens.revoke(api.container.store.credentials, held.id, by=by, at=api.clock.now()))
        api.run(stream(scope, receive, take))
        assert (len(bodies) < 20) is revoked
        assert bodies[-1]["more_body"] is False
        assert feed.clients == 0


def test_a_client_that_takes_nothing_is_disconnected(api: Harness) -> None:
    """Its place is free for another one."""
    feed = ChangeFeed(slow=0.01)

    async def takes_nothing(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.Event().wait()

    async def receive() -> Message:
        await asyncio.Event().wait()
        return {}

    scope = {"type": "http", "method": "GET", "path": "/v1/changes", "headers": []}
    stream = ChangeStream(feed, api.container, Request(scope, receive), _admitted)
    with pytest.raises(ConnectionAbortedError, match="read nothing"):
        api.run(stream(scope, receive, takes_nothing))
    assert feed.clients == 0


def test_a_client_too_many_is_refused(api: Harness) -> None:
    """With the time after which to try again."""
    api.app.state.changes = ChangeFeed(most=0)
    refused = api.get("/v1/changes")
    assert assert_problem(refused, 503)["type"].endswith("crowded")
    assert refused.headers["retry-after"] == "30"


async def test_silent_clients_are_disconnected_and_the_others_hear_everything(tmp_path: Path) -> None:
    """Forty clients over real sockets, eight of which read nothing; 500 in the real tier."""
    await follow(tmp_path, reading=32, silent=8)


@pytest.mark.real
async def test_500_clients_follow_the_changes(tmp_path: Path) -> None:
    """As many as one process serves, fifty of which read nothing."""
    await follow(tmp_path, reading=MOST_CLIENTS - 50, silent=50)


def test_the_default_settings_let_500_clients_follow(tmp_path: Path) -> None:
    """And leave connections to every other request; fewer connections make room for fewer clients."""
    settings = make_settings(tmp_path)
    assert create_app(settings).state.changes.most == MOST_CLIENTS == 500
    assert settings.max_connections - MOST_CLIENTS >= 256
    fewer = settings.model_copy(update={"max_connections": 96})
    assert create_app(fewer).state.changes.most == 64
