"""The schema registry's connector: one question for each schema, and never the wrong blame."""

from __future__ import annotations

import json

import pytest

from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import ConfigurationError, Forbidden, Invalid, NotFound, TransientError
from tests.unit.loopback import Behaviour, hang, loopback, raw, reply

FLAT = json.dumps({"type": "record", "name": "Deploy", "fields": [{"name": "service", "type": "string"}]})
UNKNOWN = {"error_code": 40403, "message": "Schema 9 not found"}


def registry(url: str, timeout_seconds: float = 5.0) -> SchemaRegistry:
    return SchemaRegistry(url=url, timeout_seconds=timeout_seconds)


async def test_a_schema_is_asked_for_once() -> None:
    """What stands under an id never changes, so the registry is asked once, at its own path."""
    async with loopback(reply(200, {"schema": FLAT, "id": 7})) as server:
        asked = registry(server.url + "/registry/")
        first, second = await asked.schema(7), await asked.schema(7)
        await asked.aclose()

    assert first is second
    assert first.name == "Deploy"
    assert [request.path for request in server.requests] == ["/registry/schemas/ids/7"]


async def test_an_unknown_schema_is_the_registrys_word() -> None:
    """Only the registry's own error code says that an id is unknown, and it is asked again the next time."""
    async with loopback(reply(404, UNKNOWN)) as server:
        asked = registry(server.url)
        with pytest.raises(NotFound, match="knows no schema 9"):
            await asked.schema(9)
        server.behaviour = reply(200, {"schema": FLAT})
        assert (await asked.schema(9)).name == "Deploy"
        await asked.aclose()


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"schema": "syntax = proto3", "schemaType": "PROTOBUF"}, "schema 9 is of type PROTOBUF"),
        ({"schema": FLAT, "references": [{"name": "x"}]}, "refers to other schemas"),
        ({"schema": '"string"'}, "schema 9 describes no event: it is not a record"),
        ({"schema": None}, "describes no event"),
    ],
)
async def test_a_schema_of_no_event_is_invalid(answer: dict[str, object], words: str) -> None:
    """A schema that exists and can describe no event makes its messages unreadable for good."""
    async with loopback(reply(200, answer)) as server:
        asked = registry(server.url)
        with pytest.raises(Invalid, match=words):
            await asked.schema(9)
        await asked.aclose()


OUTAGES: dict[str, Behaviour] = {
    "error": reply(500, {"error_code": 50001}),
    "busy": reply(429, {}),
    "a proxy's 404": reply(404, "<html>no such page</html>"),
    "another 404": reply(404, {"error_code": 40401}),
    "another 4xx": reply(400, {}),
    "no JSON": reply(200, "<html>login</html>"),
    "no schema": reply(200, {"subjects": []}),
    "deep": reply(200, "[" * 100_000),
    "cut off": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"),
    "silence": hang,
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_no_answer_is_no_verdict(outage: str) -> None:
    """A registry that is down, hidden behind something else or confused makes messages wait, not die."""
    async with loopback(OUTAGES[outage]) as server:
        asked = registry(server.url, timeout_seconds=0.2)
        with pytest.raises(TransientError):
            await asked.schema(9)
        await asked.aclose()


async def test_a_refused_account_is_no_verdict_either() -> None:
    """401 is about the agent's identity, not about the message."""
    async with loopback(reply(401, {"error_code": 401})) as server:
        asked = registry(server.url)
        with pytest.raises(Forbidden):
            await asked.schema(9)
        await asked.aclose()


async def test_the_cache_is_bounded() -> None:
    """A sender that invents ids cannot fill the memory: the oldest schema is fetched again."""
    async with loopback(reply(200, {"schema": FLAT})) as server:
        asked = registry(server.url)
        for number in range(300):
            await asked.schema(number)
        await asked.schema(299)
        assert len(server.requests) == 300
        await asked.schema(0)
        assert len(server.requests) == 301
        await asked.aclose()


def test_a_wrong_address_stops_the_start() -> None:
    """An address that is none is a configuration error that names its setting."""
    with pytest.raises(ConfigurationError, match="SCHEMA_REGISTRY_URL"):
        registry("registry:8081")
