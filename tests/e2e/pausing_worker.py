"""A worker that stops at one chosen point of its first incident until a command continues it.

Run as a program by the tests of partitions. The product is whole; only the adapters
handed to `assemble` are wrapped, and the world is the counting stand-in. PAUSE_AT
names the point, PAUSE_FOLDER a folder: the file `reached` appears there at the
point, `go-on` ends the pause, and `late` has a line for whatever the worker tries afterwards: at the
target, and at the store under the claim that it held at the point. The rest
of the process, its sign of life to its peers included, runs on meanwhile.
"""

from __future__ import annotations

import asyncio
import inspect
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import app.bootstrap
from app.agent.ids import IncidentId
from app.agent.models import Incident, IncidentState
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.bootstrap import Adapters, Container, assemble
from tests.repositories import exchanged
from tests.soak.agent import connect_stand_in


class Point(StrEnum):
    """Where to pause: right after the call returned."""

    BEGUN = "begun"
    """The intent is durable as begun, its effect has not been asked for."""
    APPLIED = "applied"
    """The effect took place, its outcome is not on record."""
    VERIFYING = "verifying"
    """The outcome is on record, and the SLO is being watched."""


@dataclass(kw_only=True)
class Pause:
    """Happens once."""

    point: Point
    folder: Path
    token: tuple[str, int] | None = None
    """Incident and fencing token of the newest claim that the store was given."""
    over: bool = False

    async def at(self, point: Point) -> None:
        if point is not self.point or (self.folder / "reached").exists():
            return
        (self.folder / "reached").touch()
        while not (self.folder / "go-on").exists():  # noqa: ASYNC110 - told by another process
            await asyncio.sleep(0.02)
        self.over = True

    def note_late(self, line: str) -> None:
        with (self.folder / "late").open("a") as late:
            late.write(line + "\n")


class PausingWriter:
    def __init__(self, inner: Any, pause: Pause) -> None:
        self._inner = inner
        self._pause = pause

    async def apply(self, *arguments: Any) -> Any:
        if self._pause.over:
            self._pause.note_late("apply tried")
        after = await self._inner.apply(*arguments)
        await self._pause.at(Point.APPLIED)
        return after


_LOOKED = {"incidents": {"get"}, "claims": {"take"}}
_WATCHED = {
    "claims": {"renew"},
    "incidents": {"save"},
    "intents": {"add", "begin", "retry", "finish"},
    "approvals": {"request"},
}


class PausingRepository:
    """Notes, after the pause, what came of each write under the old claim."""

    def __init__(self, store: Store, repository: str, pause: Pause) -> None:
        self._inner = getattr(store, repository)
        self._repository = repository
        self._pause = pause

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if name in _LOOKED.get(self._repository, ()):
            return self._looked(name, found)
        if name not in _WATCHED[self._repository]:
            return found
        assert inspect.iscoroutinefunction(found)
        return self._watched(name, found)

    def _looked(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def looked(incident: IncidentId, *arguments: Any, **named: Any) -> Any:
            if self._pause.over and self._pause.token is not None and self._pause.token[0] == incident:
                self._pause.note_late(f"{name} tried")
            return await call(incident, *arguments, **named)

        return looked

    def _watched(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def watched(claim: Claim, *arguments: Any, **named: Any) -> Any:
            pause, held = self._pause, (claim.incident_id, claim.token)
            if not pause.over:
                pause.token = held
            late = pause.over and held == pause.token
            if late:
                pause.note_late(f"{name} tried")
            try:
                answer = await call(claim, *arguments, **named)
            except Exception as error:
                if late:
                    pause.note_late(f"{name} {type(error).__name__}")
                raise
            if late:
                pause.note_late(f"{name} succeeded")
            await self._pause_after(name, arguments)
            return answer

        return watched

    async def _pause_after(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name == "begin":
            await self._pause.at(Point.BEGUN)
        if name == "save" and any(isinstance(a, Incident) and _verifies_an_action(a) for a in arguments):
            await self._pause.at(Point.VERIFYING)


def _verifies_an_action(incident: Incident) -> bool:
    verification = incident.verification
    return (
        incident.state is IncidentState.VERIFYING
        and verification is not None
        and verification.intent_id is not None
    )


def assemble_with_a_pause(settings: Any, *, store: Store, world: Adapters, **named: Any) -> Container:
    pause = Pause(point=Point(os.environ["PAUSE_AT"]), folder=Path(os.environ["PAUSE_FOLDER"]))
    writer: Any = PausingWriter(world.writer, pause)
    pausing = exchanged(store, **{name: PausingRepository(store, name, pause) for name in _WATCHED})
    return assemble(settings, store=pausing, world=replace(world, writer=writer), **named)


def main() -> None:
    app.bootstrap.connect_world = connect_stand_in
    app.bootstrap.assemble = assemble_with_a_pause
    from app.cli import main as heal  # the swap comes first: later imports may take the names with them

    heal()


if __name__ == "__main__":
    main()
