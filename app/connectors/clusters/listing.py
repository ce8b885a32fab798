"""Lists of several clusters as one list, while some of them do not answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from app.agent.ids import ServiceKey
from app.connectors.clusters.routes import Routes
from app.errors import AgentError, TransientError

T = TypeVar("T")
Port = TypeVar("Port")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterLists(Generic[T]):
    """What each cluster listed last, and why it did not when it was last asked."""

    _last: dict[str, tuple[T, ...]] = field(default_factory=dict)
    _faults: dict[str, str | None] = field(default_factory=dict)

    def faults(self) -> Mapping[str, str | None]:
        """Of each cluster, why it listed nothing when it was last asked; None if it did."""
        return dict(self._faults)

    async def of_all(
        self,
        routes: Routes[Port],
        listed: Callable[[Port], Awaitable[tuple[T, ...]]],
        key: Callable[[T], ServiceKey],
    ) -> tuple[T, ...]:
        """What every cluster lists of its own environments; of one that does not answer, what it listed last.

        Raises only where no cluster lists anything: what one answered, before the silence of others.
        """
        answers = await asyncio.gather(
            *(self._ask(name, listed(port)) for name, port in routes.ports.items())
        )
        failed = [error for error in answers if error is not None]
        if failed and len(failed) == len(routes.ports):
            raise next((error for error in failed if not isinstance(error, TransientError)), failed[0])
        return tuple(
            one
            for name in routes.ports
            for one in self._last.get(name, ())
            if routes.clusters.of(key(one).environment) == name
        )

    async def _ask(self, name: str, listed: Awaitable[tuple[T, ...]]) -> AgentError | None:
        try:
            self._last[name] = await listed
        except AgentError as error:
            self._faults[name] = str(error)
            return error
        self._faults[name] = None
        return None
