"""The channel in memory keeps the contract of real ones, so that tests of the announcer mean something."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from app.agent.notifications.channel import Channel
from app.errors import Forbidden, Invalid, TransientError, UnknownOutcome
from tests.contract.channel_suite import RETRY_AFTER_SECONDS, ChannelContract, Trouble
from tests.contract.memory_channel import WELL, Chat, Fate, Fault, MemoryChannel

FAULTS = {
    Trouble.NONE: WELL,
    Trouble.ABSENT: Fault(fate=Fate.FAILED, error=TransientError("no listener")),
    Trouble.LOST: Fault(fate=Fate.LOST, error=UnknownOutcome("no answer")),
    Trouble.HANGS: Fault(fate=Fate.LOST, error=UnknownOutcome("no answer in time")),
    Trouble.LIMITED: Fault(
        fate=Fate.FAILED,
        error=TransientError("too many", retry_after=timedelta(seconds=RETRY_AFTER_SECONDS)),
    ),
    Trouble.FORBIDDEN: Fault(fate=Fate.FAILED, error=Forbidden("not you")),
    Trouble.REJECTED: Fault(fate=Fate.FAILED, error=Invalid("not that")),
    Trouble.BROKEN: Fault(fate=Fate.FAILED, error=TransientError("broken")),
}


@dataclass
class MemoryWorld:
    """One chat."""

    chat: Chat = field(default_factory=Chat)
    fault: Fault = WELL
    searchable = True
    secrets: Sequence[str] = ()
    live_markup: Sequence[str] = ()

    async def open(self) -> Channel:
        return MemoryChannel(chat=self.chat, fates=lambda call: self.fault)

    async def trouble(self, kind: Trouble) -> None:
        self.fault = FAULTS[kind]

    def seen(self) -> Sequence[str]:
        return ["\n".join(one.lines) for one in self.chat.messages]

    def sent(self) -> str:
        return ""


class TestMemoryChannel(ChannelContract):
    """The fake keeps the contract."""

    @pytest.fixture
    def world(self) -> MemoryWorld:
        return MemoryWorld()
