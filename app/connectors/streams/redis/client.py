"""One Redis server: its client, and what its errors mean to the agent.

Used by `app.connectors.streams.redis.stream`. The one place that knows redis-py's errors
and Redis's error codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from app.connectors.streams.redis.address import RedisAddress
from app.connectors.text import shorten
from app.errors import AgentError, ConfigurationError, Forbidden, NotFound, PermanentError, TransientError

if TYPE_CHECKING:
    from redis.asyncio import Redis

_BUSY_CODES = frozenset({"MISCONF", "NOREPLICAS", "BUSY", "UNBLOCKED"})
"""First words of errors that pass: no disk, too few replicas, a script runs, the stream was replaced."""

T = TypeVar("T")


class GroupExists(PermanentError):
    """Another consumer created the group in the meantime."""


class RedisServer:
    """Connects on first use; every error leaves it as one of `app.errors`."""

    def __init__(self, address: RedisAddress, *, connect_seconds: float, answer_seconds: float) -> None:
        """Raises `ConfigurationError` when the extra is not installed."""
        self._redis, self._errors = _client(address, connect_seconds, answer_seconds)

    async def ask(self, command: Callable[[Redis], Awaitable[T] | Any]) -> T:
        """The answer, or what its error means to the caller: the one place that knows Redis's errors.

        A cancellation always comes through, though redis-py, busy with a broken
        connection, may answer it with an error of its own: a shutdown must not
        have to ask twice.
        """
        before = _cancellations()
        try:
            return await self._ask(command)
        finally:
            if _cancellations() > before:
                raise asyncio.CancelledError

    async def _ask(self, command: Callable[[Redis], Awaitable[T] | Any]) -> T:
        try:
            answer: T = await command(self._redis)
        except self._errors.RedisError as error:
            said = self._translated(error)
            if isinstance(said, TransientError):
                # After a failover the old connections lead to a server that takes no writes.
                await self._redis.connection_pool.disconnect(inuse_connections=False)
            raise said from None
        except OSError as error:
            raise TransientError(f"Redis cannot be reached: {shorten(str(error))}") from None
        return answer

    def _translated(self, error: Exception) -> AgentError:
        errors, words = self._errors, shorten(str(error) or type(error).__name__)
        match error:
            case errors.AuthenticationError() | errors.AuthorizationError() | errors.NoPermissionError():
                return Forbidden(f"Redis refused the agent's account: {words}")
            case errors.ConnectionError() | errors.TimeoutError():
                return TransientError(f"Redis does not answer: {words}")
            case errors.ReadOnlyError() | errors.OutOfMemoryError() | errors.ClusterDownError():
                return TransientError(f"Redis takes no writes now: {words}")
            case errors.TryAgainError():
                return TransientError(f"Redis cannot serve this now: {words}")
            case errors.MovedError() | errors.AskError() | errors.ClusterCrossSlotError():
                return PermanentError(
                    "the stream is on a Redis Cluster: name the node that holds it, and put the "
                    f"stream's name into braces so that its dead letters stay on the same node: {words}"
                )
        code = words.partition(" ")[0]
        if code == "NOGROUP":
            return NotFound(f"Redis has no such group: {words}")
        if code == "BUSYGROUP":
            return GroupExists(words)
        if code in _BUSY_CODES:
            return TransientError(f"Redis cannot serve this now: {words}")
        return PermanentError(f"Redis refused a command: {words}")

    async def aclose(self) -> None:
        await self._redis.aclose()


def _cancellations() -> int:
    """How often the running task was asked to stop."""
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _client(address: RedisAddress, connect_seconds: float, answer_seconds: float) -> tuple[Redis, ModuleType]:
    try:
        import redis.asyncio as redis
        from redis import exceptions
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff
    except ImportError:
        raise ConfigurationError(
            "reading from Redis needs the extra 'redis': pip install '.[redis]'"
        ) from None
    client = redis.Redis(
        host=address.host,
        port=address.port,
        db=address.database,
        username=address.username,
        password=None if address.password is None else address.password.get_secret_value(),
        ssl=address.tls,
        protocol=2,
        decode_responses=False,
        client_name="self-healing-devops-agent",
        socket_connect_timeout=connect_seconds,
        socket_timeout=answer_seconds,
        # A command sent again behind our back would hand out entries whose first answer was lost.
        retry=Retry(NoBackoff(), 0),
    )
    return client, exceptions
