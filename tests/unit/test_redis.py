"""Redis without a server: addresses, entries, and what its errors mean to the agent."""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from redis import exceptions

from app.connectors.streams.redis.address import parse_redis_url
from app.connectors.streams.redis.client import RedisServer
from app.connectors.streams.redis.entries import (
    Pending,
    alone_or_together,
    entry_of,
    numbers,
    to_message,
)
from app.connectors.streams.redis.stream import RedisStream, RedisTimes
from app.errors import AgentError, ConfigurationError, Forbidden, PermanentError, TransientError

QUICK = RedisTimes(wait=timedelta(seconds=0.05), answer=timedelta(seconds=2))


# ------------------------------------------------------------------ addresses


def test_an_address_with_everything() -> None:
    """All parts are read, their escapes undone, and the account stays hidden."""
    address = parse_redis_url("rediss://me:p%40ss@redis.example:6380/3?stream=a%3Ab&group=g&trim=no")

    assert (address.host, address.port, address.database, address.tls) == ("redis.example", 6380, 3, True)
    assert address.username == "me"
    assert address.password is not None
    assert address.password.get_secret_value() == "p@ss"
    assert (address.stream, address.group, address.trim) == ("a:b", "g", False)
    assert "p@ss" not in f"{address} {address!r}"
    assert str(address) == "stream a:b (group g) of Redis at redis.example:6380/3"


def test_an_address_with_nothing_but_a_host() -> None:
    """What is left out has the defaults that the documentation gives."""
    address = parse_redis_url("redis://[::1]")

    assert (address.host, address.port, address.database, address.tls) == ("::1", 6379, 0, False)
    assert (address.username, address.password) == (None, None)
    assert (address.stream, address.group, address.trim) == ("signals", "heal", True)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "redis://",
        "redis:///0",
        "http://:secret@host",
        "redis://:secret@host:port",
        "redis://:secret@host:0",
        "redis://:secret@host:99999",
        "redis://:secret@[::1",
        "redis://:secret@host/zero",
        "redis://:secret@host/-1",
        "redis://:secret@host/0/1",
        "redis://:secret@host/0?streams=x",
        "redis://:secret@host/0?stream=",
        "redis://:secret@host/0?stream=a&stream=b",
        "redis://:secret@host/0?group=%00",
        "redis://:secret@host/0?trim=maybe",
        "redis://:secret@host/0?stream=" + "x" * 201,
        "redis://:secret@host/0#stream",
    ],
)
def test_a_wrong_address_stops_the_start(wrong: str) -> None:
    """The error says what is wrong and never shows the password."""
    with pytest.raises(ConfigurationError) as caught:
        parse_redis_url(wrong)
    assert "secret" not in str(caught.value)


# ------------------------------------------------------------------ entries


def test_positions_distinguish_contents() -> None:
    """The same entry has the same position; another content under the same name has another."""
    at = "1771606800000-7"
    first = to_message("s/#", at, {b"body": b"1", b"x": b"23"}, 1)

    assert to_message("s/#", at, {b"body": b"1", b"x": b"23"}, 5).position == first.position
    assert to_message("s/#", at, {b"body": b"12", b"x": b"3"}, 1).position != first.position
    assert entry_of(first) == at
    assert first.appended_at == datetime.fromtimestamp(1771606800, UTC)


def test_names_of_entries_are_ordered_as_numbers() -> None:
    """Trimming compares what Redis compares."""
    assert numbers("9-10") > numbers("9-9") > numbers("8-100")


@pytest.mark.parametrize(
    ("deliveries", "handed_out"),
    [([1, 1, 1], 3), ([1, 1, 2, 1], 2), ([2, 1, 1], 1), ([5, 5], 1), ([], 0)],
)
def test_candidate_changes_come_alone(deliveries: list[int], handed_out: int) -> None:
    """Entries come together until one was handed out twice without success; that one comes by itself."""
    pending = [Pending(entry=f"{n}-0", deliveries=count) for n, count in enumerate(deliveries)]

    assert list(alone_or_together(pending)) == pending[:handed_out]


# ------------------------------------------------------------------ errors


def server() -> RedisServer:
    return RedisServer(parse_redis_url("redis://127.0.0.1:1"), connect_seconds=1, answer_seconds=1)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (exceptions.BusyLoadingError("Redis is loading the dataset in memory"), TransientError),
        (exceptions.ReadOnlyError("You can't write against a read only replica."), TransientError),
        (exceptions.MasterDownError("Link with MASTER is down"), TransientError),
        (exceptions.OutOfMemoryError("command not allowed when used memory > 'maxmemory'"), TransientError),
        (exceptions.TimeoutError("Timeout reading from socket"), TransientError),
        (exceptions.ConnectionError("max number of clients reached"), TransientError),
        (exceptions.ResponseError("MISCONF Errors writing to the AOF file"), TransientError),
        (exceptions.ResponseError("NOREPLICAS Not enough good replicas to write."), TransientError),
        (exceptions.ResponseError("BUSY Redis is busy running a script."), TransientError),
        (exceptions.ResponseError("UNBLOCKED the stream key no longer exists"), TransientError),
        (OSError("Name or service not known"), TransientError),
        (exceptions.AuthenticationError("invalid username-password pair"), Forbidden),
        (exceptions.NoPermissionError("this user has no permissions to run 'eval'"), Forbidden),
        (exceptions.MovedError("3999 127.0.0.1:6381"), PermanentError),
        (exceptions.ResponseError("WRONGTYPE Operation against a key"), PermanentError),
        (exceptions.ResponseError("ERR unknown command 'XAUTOCLAIM'"), PermanentError),
    ],
)
async def test_what_errors_mean(error: Exception, meaning: type[AgentError]) -> None:
    """The reader waits for transient errors; errors of the account or the set-up are reported as such."""

    async def failing(_: Any) -> None:
        raise error

    with pytest.raises(meaning) as caught:
        await server().ask(failing)
    assert type(caught.value) is meaning


async def test_a_cancellation_always_comes_through() -> None:
    """A client that answers a cancellation with an error or a result of its own stops no shutdown."""

    async def answers_with_an_error(_: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise exceptions.ConnectionError("broken in the meantime") from None

    async def answers_with_a_result(_: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return

    for swallowing in (answers_with_an_error, answers_with_a_result):
        task: asyncio.Task[None] = asyncio.create_task(server().ask(swallowing))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_a_time_limit_of_the_callers_is_a_time_out() -> None:
    """A limit around a question ends it as one, also in a task that was cancelled before."""

    async def hanging(_: Any) -> None:
        await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await server().ask(hanging)


async def test_a_server_that_is_still_loading_is_waited_for() -> None:
    """Redis answers every command that way, the greetings of a new connection included, until it is ready."""

    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(b"-LOADING Redis is loading the dataset in memory\r\n" * 4)
        writer.close()

    listening = await asyncio.start_server(loading, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    stream = RedisStream(parse_redis_url(f"redis://127.0.0.1:{port}"), times=QUICK)
    with pytest.raises(TransientError, match="loading"):
        await stream.take(1)
    await stream.close()
    listening.close()


def test_without_the_extra_the_start_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is required only to read from Redis, and its absence is reported with the fix."""
    monkeypatch.setitem(sys.modules, "redis.asyncio", None)

    with pytest.raises(ConfigurationError, match=r"pip install '\.\[redis\]'"):
        RedisStream(parse_redis_url("redis://127.0.0.1:6379"))
