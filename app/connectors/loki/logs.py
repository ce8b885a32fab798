"""Reads the last lines of a container from Loki, over its HTTP API (`query_range`).

Loki keeps lines by labels and knows no restarts: the lines of a container that ended and
of the one that was started in its place are one log, and no answer is of the former alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from app.agent.workload import LOG_BYTES, LOG_LINES, LOG_SECONDS, LogTail, ObjectRef
from app.bounds.deadline import deadline
from app.clock import Clock
from app.config import Settings
from app.connectors.http import HttpPeer, HttpReply
from app.connectors.text import shorten
from app.errors import ConfigurationError, NotFound, PermanentError, TransientError

LOOKBACK = timedelta(hours=1)
"""Older lines are not asked for: a failing container wrote its last ones recently."""
FEWER_LINES = 20
"""Asked for where the answer is too long."""
MOST_BYTES = 8 * LOG_BYTES
"""Of an answer: every line has a time and quotes, and a control character takes six bytes."""
_QUERY = "/loki/api/v1/query_range"


class _Stream(msgspec.Struct):
    values: list[tuple[Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}$")], str]]


class _Streams(msgspec.Struct, rename="camel"):
    result_type: str
    result: list[_Stream]


class _Answer(msgspec.Struct):
    status: str
    data: _Streams


class LokiLogs:
    """`ContainerLogs` over one Loki, or what speaks its API."""

    def __init__(self, peer: HttpPeer, labels: Mapping[str, str], clock: Clock) -> None:
        self._peer = peer
        self._labels = labels
        self._clock = clock

    @staticmethod
    def from_settings(settings: Settings, clock: Clock) -> LokiLogs:
        """Raises `ConfigurationError` for settings that cannot work."""
        if settings.loki_url is None:
            raise ConfigurationError("LOKI_URL is not set")
        peer = HttpPeer(
            name="Loki",
            setting="LOKI_URL",
            url=settings.loki_url,
            timeout_seconds=LOG_SECONDS,
            bearer_token=settings.loki_token,
            headers={} if settings.loki_tenant is None else {"X-Scope-OrgID": settings.loki_tenant},
            max_bytes=MOST_BYTES,
        )
        return LokiLogs(peer, settings.loki_labels, clock)

    async def tail(
        self,
        pod: ObjectRef,
        container: str,
        *,
        previous: bool,  # noqa: ARG002 - of the port; both are one log here
    ) -> LogTail:
        """As the port says; never of the container that ended alone."""
        async with deadline(LOG_SECONDS, _too_late):
            try:
                reply = await self._ask(pod, container, LOG_LINES)
            except PermanentError:  # too long: nothing else is, before its status is looked at
                reply = await self._ask(pod, container, FEWER_LINES)
        if not reply.ok:
            raise self._peer.refusal(reply, "")  # its own words may be lines
        lines = _lines(reply.body)
        if not lines:
            raise NotFound(f"Loki has no line of container {container} in {pod} of the last hour")
        return LogTail.within_bounds(lines, previous=False)

    async def ping(self) -> None:
        """Raises like every port when queries are not answered."""
        reply = await self._peer.send("GET", "/loki/api/v1/labels")
        if not reply.ok:
            raise self._peer.refusal(reply)

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

    async def _ask(self, pod: ObjectRef, container: str, lines: int) -> HttpReply:
        now = self._clock.now()
        params = {
            "query": selector(self._labels, pod, container),
            "limit": str(lines),
            "direction": "backward",
            "start": _nanoseconds(now - LOOKBACK),
            "end": _nanoseconds(now + timedelta(minutes=1)),  # its clock may be ahead
        }
        return await self._peer.send("GET", _QUERY, params=params)


def selector(labels: Mapping[str, str], pod: ObjectRef, container: str) -> str:
    """The stream selector of a container: each label with its value, quoted. Pure."""
    values = {
        "{{namespace}}": pod.namespace,
        "{{pod}}": pod.name,
        "{{container}}": container,
        "{{cluster}}": pod.cluster,
    }
    given = ((label, values.get(value, value)) for label, value in labels.items())
    return "{" + ", ".join(f"{label}={json.dumps(value)}" for label, value in given) + "}"


def _lines(body: bytes) -> list[str]:
    """The lines of every stream, oldest first; raises `PermanentError` for what is no answer of Loki."""
    try:
        answer = msgspec.json.decode(body, type=_Answer)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _no_answer(shorten(str(error))) from None
    if answer.status != "success" or answer.data.result_type != "streams":
        raise _no_answer("no streams")
    found = [value for stream in answer.data.result for value in stream.values]
    found.sort(key=lambda value: int(value[0]))
    return [line for _, text in found for line in text.splitlines()]


def _no_answer(why: str) -> PermanentError:
    return PermanentError(
        f"unexpected response from Loki to a query ({why}); is LOKI_URL the address of Loki?"
    )


def _too_late() -> TransientError:
    return TransientError(f"Loki (LOKI_URL) gave no complete answer within {LOG_SECONDS:g} s")


def _nanoseconds(at: datetime) -> str:
    return f"{int(at.timestamp())}000000000"
