"""The agent's ports over the counting stand-in: cluster and metrics, read and written over loopback HTTP.

Errors are distinguished as a real connector must: a connection that was refused
certainly sent nothing (`TransientError`), a connection that broke in the middle
of a write may have brought it there (`UnknownOutcome`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import httpx2
import msgspec

from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut
from app.agent.ids import IntentId, ServiceKey
from app.agent.models import (
    Action,
    Rehearsal,
    SliSample,
    Snapshot,
    TelemetryHealth,
)
from app.agent.ports.cluster import ClusterEvent
from app.agent.workload import ConfigRecord, ObjectRef, TargetState, WorkloadView
from app.errors import PermanentError, TransientError, UnknownOutcome
from tests.soak.wire import (
    ERRORS,
    AboutAction,
    AboutService,
    Change,
    Failure,
    Moved,
    MovedSince,
    SliAt,
    SliBetween,
    TelemetryOf,
    WireSnapshot,
)

T = TypeVar("T")

TIMEOUT_SECONDS = 10.0
WATCH_SECONDS = 0.5

_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


class Line:
    """One agent's connections to the stand-in."""

    def __init__(self, url: str) -> None:
        self._client = httpx2.AsyncClient(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)

    async def ask(self, path: str, question: object, kind: Any) -> Any:
        """The answer, read as `kind`; raises what the stand-in raised, or `TransientError`."""
        try:
            return self._read(await self._send(path, question), kind)
        except (httpx2.TransportError, msgspec.DecodeError) as error:
            raise TransientError(f"the stand-in does not answer {path}: {error!r}") from error

    async def write(self, path: str, question: object, kind: Any) -> Any:
        """As `ask`; `UnknownOutcome` when the request may have arrived and no answer came."""
        try:
            return self._read(await self._send(path, question), kind)
        except _NOT_SENT as error:
            raise TransientError(f"the stand-in cannot be reached: {error!r}") from error
        except (httpx2.TransportError, msgspec.DecodeError) as error:
            raise UnknownOutcome(f"the stand-in gave no answer to {path}: {error!r}") from error

    async def close(self) -> None:
        await self._client.aclose()

    async def _send(self, path: str, question: object) -> httpx2.Response:
        return await self._client.post(path, content=msgspec.json.encode(question))

    @staticmethod
    def _read(response: httpx2.Response, kind: Any) -> Any:
        if response.status_code == 200:
            return msgspec.json.decode(response.content, type=kind)
        message = msgspec.json.decode(response.content, type=Failure).message
        raise ERRORS.get(response.status_code, PermanentError)(message)


class StandInReader:
    """A `ClusterReader`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def services(self) -> tuple[ServiceKey, ...]:
        found: tuple[ServiceKey, ...] = await self._line.ask("/services", None, tuple[ServiceKey, ...])
        return found

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        found: WorkloadView | None = await self._line.ask(
            "/workload", AboutService(key=key), WorkloadView | None
        )
        return found

    async def target(self, action: Action) -> TargetState:
        found: TargetState = await self._line.ask("/target", AboutAction(action=action), TargetState)
        return found

    async def snapshot(self, action: Action) -> Snapshot:
        found: WireSnapshot = await self._line.ask("/snapshot", AboutAction(action=action), WireSnapshot)
        return found.model()

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        return NodeCordons(nodes=0)

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        return NodeLoad(node=node.name)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        return OptOut()

    async def disruption(self, action: Action) -> Disruption | None:
        """The stand-in's houses have no disruption budgets, and their pods roll one by one."""
        return None

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        found: tuple[ConfigRecord, ...] = await self._line.ask(
            "/config_contents", AboutService(key=key), tuple[ConfigRecord, ...]
        )
        return found


class StandInRehearsal:
    """A `ClusterRehearsal`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        found: Rehearsal = await self._line.ask("/rehearse", _change(action, target, snapshot), Rehearsal)
        return found


class StandInWriter:
    """A `ClusterWriter`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        change = _change(action, target, snapshot)
        change.intent_id = intent_id
        after: TargetState = await self._line.write("/apply", change, TargetState)
        return after


class StandInWatch:
    """A `ClusterWatch`: asks twice a second what moved."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def events(self) -> AsyncGenerator[ClusterEvent, None]:
        cursor = 0
        while True:
            moved: Moved = await self._line.ask("/moved", MovedSince(cursor=cursor), Moved)
            cursor = moved.cursor
            for key in moved.keys:
                yield ClusterEvent(key=key)
            await asyncio.sleep(WATCH_SECONDS)


class StandInMetrics:
    """A `MetricSource`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        found: SliSample = await self._line.ask("/sli", SliAt(key=key, at=at), SliSample)
        return found

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        asked = SliBetween(key=key, start=start, end=end, step=step)
        found: tuple[SliSample, ...] = await self._line.ask("/sli_range", asked, tuple[SliSample, ...])
        return found

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        try:
            found: TelemetryHealth = await self._line.ask(
                "/telemetry", TelemetryOf(keys=list(keys)), TelemetryHealth
            )
        except TransientError:
            return TelemetryHealth(known_services=0, silent_services=0, source_reachable=False)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """Every port over one line."""

    line: Line
    reader: StandInReader
    rehearsal: StandInRehearsal
    writer: StandInWriter
    watch: StandInWatch
    metrics: StandInMetrics

    @classmethod
    def at(cls, url: str) -> StandIn:
        line = Line(url)
        return cls(
            line=line,
            reader=StandInReader(line),
            rehearsal=StandInRehearsal(line),
            writer=StandInWriter(line),
            watch=StandInWatch(line),
            metrics=StandInMetrics(line),
        )


def _change(action: Action, target: TargetState, snapshot: Snapshot | None) -> Change:
    known = (
        None
        if snapshot is None
        else WireSnapshot(ref=snapshot.ref, token=snapshot.token, body=dict(snapshot.body))
    )
    return Change(action=action, target=target, snapshot=known)
