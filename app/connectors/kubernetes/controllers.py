"""Reads what sets the replicas of workloads, or runs their pods: autoscalers, Rollouts, Canaries.

Supplementary: a kind that the cluster does not have, or that the agent may not read, is
left out and asked for again later. What was read is used for a few seconds, since the
workloads of a namespace are read one after another.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.ids import JsonObject
from app.clock import Clock
from app.connectors.kubernetes.api import Kind, ReadApi
from app.errors import Forbidden, NotFound

AUTOSCALERS = (Kind.HORIZONTAL_POD_AUTOSCALER, Kind.VERTICAL_POD_AUTOSCALER, Kind.SCALED_OBJECT)
STAND_INS = (Kind.ROLLOUT, Kind.CANARY)

FRESH_FOR = timedelta(seconds=5)
ABSENT_FOR = timedelta(minutes=5)
"""A kind that was absent or forbidden is asked for again after this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _KindRead:
    """One kind of one namespace, as read at that time."""

    at: datetime
    items: tuple[JsonObject, ...]
    refusal: str | None = None
    absent: bool = False

    def usable(self, now: datetime) -> bool:
        kept = ABSENT_FOR if self.absent or self.refusal is not None else FRESH_FOR
        return timedelta(0) <= now - self.at < kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Controllers:
    """The objects of one namespace, each with its kind."""

    autoscalers: tuple[JsonObject, ...]
    stand_ins: tuple[JsonObject, ...]
    unread: tuple[str, ...]
    """Why a kind could not be read, in words."""


class ControllerReader:
    """Reads them through one connection."""

    def __init__(self, api: ReadApi, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._known: dict[tuple[Kind, str], _KindRead] = {}

    async def read(self, namespace: str) -> Controllers:
        """Everything of a namespace; raises like every read when the API server does not answer."""
        found = {kind: await self._read(kind, namespace) for kind in (*AUTOSCALERS, *STAND_INS)}
        return Controllers(
            autoscalers=tuple(item for kind in AUTOSCALERS for item in found[kind].items),
            stand_ins=tuple(item for kind in STAND_INS for item in found[kind].items),
            unread=tuple(one.refusal for one in found.values() if one.refusal is not None),
        )

    async def _read(self, kind: Kind, namespace: str) -> _KindRead:
        known = self._known.get((kind, namespace))
        if known is None or not known.usable(self._clock.now()):
            known = self._known[kind, namespace] = await self._ask(kind, namespace)
        return known

    async def _ask(self, kind: Kind, namespace: str) -> _KindRead:
        now = self._clock.now()
        try:
            listing = await self._api.list(kind, namespace)
        except NotFound:
            return _KindRead(at=now, items=(), absent=True)
        except Forbidden as error:
            return _KindRead(at=now, items=(), refusal=str(error))
        return _KindRead(at=now, items=tuple({**item, "kind": str(kind)} for item in listing.items))
