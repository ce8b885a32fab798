"""A harness for the notifier: real statements over SQLite in memory, a chat in memory, and a virtual clock.

Every call can fail, hang or kill its process, before its effect or after it; the
posted messages are then checked against the stored record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from app.agent.ids import IncidentId, ServiceKey
from app.agent.models import (
    Incident,
    IncidentRecord,
    IncidentState,
    Note,
    Stage,
)
from app.agent.notifications.channel import Channel
from app.agent.ports.store import Store
from app.store import store_over
from app.testing import VirtualClock
from app.workers.notifier import ChannelSender
from tests.contract.memory_channel import Chat, Fates, MemoryChannel
from tests.contract.store_values import Deciding, approval, claimed, closed, opened
from tests.repositories import exchanged
from tests.simulation.store import Nearby, SharedDatabase
from tests.simulation.tape import Tape

_WATCHED = {
    "notifications": {"due", "get", "announcements", "save"},
    "incidents": {"get"},
    "approvals": {"issue_nonce"},
}
"""The calls of an announcer, by repository."""
_DATABASES: list[SharedDatabase] = []


class Killed(BaseException):
    """This announcer's process is dead."""


@dataclass(kw_only=True)
class Fuse:
    """Every point between two steps, in order; the process dies at one of them."""

    die_at: int | None = None
    passed: list[str] = field(default_factory=list)

    def pass_by(self, point: str) -> None:
        self.passed.append(point)
        if self.die_at is not None and len(self.passed) > self.die_at:
            raise Killed(point)


class FusedRepository:
    """A repository as one announcer has it; each call lets others have their turn."""

    def __init__(self, store: Store, name: str, fuse: Fuse) -> None:
        self._repository = getattr(store, name)
        self._name = name
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._repository, name)
        if name not in _WATCHED[self._name]:
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            self._fuse.pass_by(f"before store.{self._name}.{name}")
            answer = await found(*arguments, **named)
            self._fuse.pass_by(f"after store.{self._name}.{name}")
            return answer

        return call


class FusedChannel:
    """The channel as one announcer has it."""

    def __init__(self, channel: MemoryChannel, fuse: Fuse) -> None:
        self._channel = channel
        self._fuse = fuse

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._channel, name)
        if name not in {"begin", "refresh", "reply", "find"}:
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            await asyncio.sleep(0)
            self._fuse.pass_by(f"before channel.{name}")
            answer = await found(*arguments, **named)
            self._fuse.pass_by(f"after channel.{name}")
            return answer

        return call


@dataclass(kw_only=True)
class Theatre:
    """One store, one chat, and the announcer."""

    clock: VirtualClock
    database: Nearby
    store: Store
    chat: Chat
    opened: list[IncidentId] = field(default_factory=list)
    _numbers: int = 0

    def channel(self, **changes: Any) -> MemoryChannel:
        return MemoryChannel(**{"chat": self.chat, **changes})

    def channel_sender(self, channel: Channel | None = None, fuse: Fuse | None = None) -> ChannelSender:
        """A freshly started announcer of one channel."""
        told = channel or self.channel()
        if fuse is None:
            return ChannelSender(store=self.store, clock=self.clock, channel=told)
        fused = exchanged(self.store, **{name: FusedRepository(self.store, name, fuse) for name in _WATCHED})
        fused_channel: Any = FusedChannel(told, fuse)  # type: ignore[arg-type]
        return ChannelSender(store=fused, clock=self.clock, channel=fused_channel)

    # ------------------------------------------------------------ what happens to incidents

    async def open(self) -> IncidentId:
        self._numbers += 1
        key = ServiceKey(environment="prod", service=f"service-{self._numbers}")
        incident = await opened(self.store, key, at=self.clock.now(), decide=Deciding())
        self.opened.append(incident.id)
        return incident.id

    async def note(self, incident_id: IncidentId, count: int = 1) -> None:
        """Entries of the timeline, each like no other."""
        self._numbers += 1
        notes = [self._note(f"note {self._numbers}.{index}") for index in range(count)]
        await self._save(incident_id, lambda incident: incident, notes)

    async def announce(self, incident_id: IncidentId) -> None:
        self._numbers += 1
        await self.store.notifications.announce(
            incident_id, f"announcement {self._numbers}", self.clock.now()
        )

    async def ask(self, incident_id: IncidentId) -> None:
        incident = (await self.record(incident_id)).incident
        claim = await claimed(self.store, incident, at=self.clock.now())
        request = replace(
            approval(incident), requested_at=self.clock.now(), expires_at=self.clock.now() + timedelta(days=2)
        )
        waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL)
        await self.store.approvals.request(claim, waiting, request, [self._note("asked")])
        await self.store.claims.release(claim)

    async def close(self, incident_id: IncidentId) -> None:
        def end(incident: Incident) -> Incident:
            return replace(closed(incident), closed_at=self.clock.now())

        await self._save(incident_id, end, [self._note("recovered")])

    async def record(self, incident_id: IncidentId) -> IncidentRecord:
        found = await self.store.incidents.get(incident_id)
        assert found is not None
        return found

    async def _save(
        self, incident_id: IncidentId, change: Callable[[Incident], Incident], notes: list[Note]
    ) -> None:
        incident = (await self.record(incident_id)).incident
        if incident.state.closed:
            return
        claim = await claimed(self.store, incident, at=self.clock.now())
        await self.store.incidents.save(claim, change(incident), notes)
        await self.store.claims.release(claim)

    def _note(self, message: str) -> Note:
        return Note(at=self.clock.now(), stage=Stage.DIAGNOSE, message=message)

    # ------------------------------------------------------------ what people see

    async def run(self, couriers: ChannelSender | Sequence[ChannelSender], seconds: float) -> None:
        """Let announcers work for that long."""
        several = [couriers] if isinstance(couriers, ChannelSender) else couriers
        working = [asyncio.ensure_future(channel_sender.run()) for channel_sender in several]
        try:
            await self.clock.advance(seconds)
        finally:
            for task in working:
                task.cancel()
            await asyncio.wait(working)

    async def live(self, channel_sender: ChannelSender, seconds: float, every: float = 30) -> None:
        """As `run`, for long times: the announcer looks now and then."""
        until = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < until:
            await self.clock.run_until(channel_sender.round(), limit=10_000)
            await self.clock.advance(every)

    async def complaints(self, *, once: bool = True) -> list[str]:
        """Entries on record that were not posted, not in order, or more often than necessary."""
        found: list[str] = []
        for incident_id in self.opened:
            record = await self.record(incident_id)
            first = self.chat.of(incident_id)
            if not first or (once and len(first) > 1):
                found.append(f"{incident_id} has {len(first)} first messages")
                continue
            state = record.incident.state.replace("_", " ")
            words = {"open": "incident open", "awaiting approval": "awaiting approval"}.get(state, state)
            if words not in first[-1].lines[0]:
                found.append(f"{incident_id} is {state}, and {first[-1].lines[0]} is what people see")
            announced = await self.store.notifications.announcements(incident_id, 0)
            expected = [f"{incident_id}-a{one.number}" for one in announced]
            found += _in_order(expected, [one.key for one in self.chat.messages], once)
            told = [line for one in self._quiet(incident_id) for line in one.lines]
            wanted = [f"{entry.at:%H:%M:%S} {entry.stage}: {entry.message}" for entry in record.timeline]
            found += _in_order(wanted, told, once and len(set(wanted)) == len(wanted))
        return found

    def _quiet(self, incident_id: IncidentId) -> list[Any]:
        return [one for one in self.chat.messages if one.key.startswith(f"{incident_id}-t")]


def _in_order(wanted: list[str], told: list[str], once: bool) -> Iterator[str]:
    seen: list[int] = []
    for one in dict.fromkeys(wanted):
        if one not in told:
            yield f"{one!r} was never told"
            continue
        if once and told.count(one) > 1:
            yield f"{one!r} was told {told.count(one)} times"
        seen.append(told.index(one))
    if seen != sorted(seen):
        yield f"{wanted} were told in another order"


@contextmanager
def theatre() -> Iterator[Theatre]:
    """An empty store and an empty chat."""
    if not _DATABASES:
        _DATABASES.append(SharedDatabase())
    clock = VirtualClock()
    _DATABASES[0].empty(Tape(lambda: 0.0))
    nearby = Nearby(_DATABASES[0])
    yield Theatre(clock=clock, database=nearby, store=store_over(nearby), chat=Chat(clock=clock))


__all__ = ["Fates", "Fuse", "Killed", "Theatre", "theatre"]
