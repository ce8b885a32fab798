"""The stream in memory keeps the contract of real ones, so that tests of its reader mean something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.contract.memory_stream import MemoryStream, MemoryTopic
from tests.contract.stream_suite import DeadLetter, SignalStreamContract


class MemoryWorld:
    """One topic, and one that is out of reach."""

    def __init__(self) -> None:
        self._topic = MemoryTopic()

    async def open(self) -> MemoryStream:
        return MemoryStream(self._topic)

    async def append(
        self, body: bytes, *, key: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._topic.append(body, key=key, headers=headers)

    async def dead_letters(self) -> Sequence[DeadLetter]:
        return [
            DeadLetter(body=one.body, key=one.key, headers=one.headers, reason=reason, entry=one.position)
            for one, reason in self._topic.letters
        ]

    async def unreachable(self) -> MemoryStream:
        return MemoryStream(MemoryTopic(outage="no listener"))


class TestMemoryStream(SignalStreamContract):
    """The fake keeps the contract."""

    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()
