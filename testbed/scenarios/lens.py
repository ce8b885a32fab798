"""Reads the API server's times on a clock that runs faster than the machine's.

What the API server says happened t seconds after `began` happened `speed * t` seconds
after `start`. What was there before began is `past_seconds` older. A progress deadline is
given to the API server in the machine's time, and is read on the faster clock.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.generic_client import BasicRequest

from app.agent.ids import Json, JsonObject
from app.connectors.kubernetes.connection import Connection
from app.connectors.kubernetes.errors import KubernetesCall

DEADLINE = "progressDeadlineSeconds"
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_UNREAD = frozenset({"annotations", "labels", "data", "env"})
"""Fields whose times were set by their authors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lens:
    """How times are read."""

    began: datetime
    start: datetime
    speed: float
    past_seconds: float

    def moment(self, real: datetime) -> datetime:
        """The time on the faster clock."""
        since = real - self.began
        if since < timedelta(0):
            return self.start - timedelta(seconds=self.past_seconds) + since
        return self.start + since * self.speed

    def of(self, value: Json) -> Json:
        """A JSON value with every time in it, and every progress deadline, as the agent reads it."""
        if isinstance(value, dict):
            return {key: item if key in _UNREAD else self._field(key, item) for key, item in value.items()}
        if isinstance(value, list):
            return [self.of(item) for item in value]
        if isinstance(value, str) and _TIME.fullmatch(value):
            return self.moment(datetime.fromisoformat(value).astimezone(UTC)).isoformat()
        return value

    def _field(self, key: str, value: Json) -> Json:
        if key == DEADLINE and isinstance(value, int):
            return round(value * self.speed)
        return self.of(value)


class LensConnection(Connection):
    """A connection whose answers are read through a lens."""

    def __init__(self, config: SingleConfig, *, lens: Lens, timeout_seconds: float, dry_run: bool) -> None:
        super().__init__(config, timeout_seconds=timeout_seconds, dry_run=dry_run)
        self._lens = lens

    async def exchange(self, call: KubernetesCall, request: BasicRequest) -> JsonObject:
        seen = self._lens.of(await super().exchange(call, request))
        return seen if isinstance(seen, dict) else {}

    async def lines(
        self, call: KubernetesCall, request: BasicRequest, silence_seconds: float, opened: Callable[[], None]
    ) -> AsyncGenerator[str, None]:
        async with aclosing(super().lines(call, request, silence_seconds, opened)) as lines:
            async for line in lines:
                yield json.dumps(self._lens.of(json.loads(line))) if line else line
