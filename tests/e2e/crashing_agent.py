"""The agent with a fuse: kills its own process with SIGKILL at one chosen call, before or after it.

Run as a program by the crash tests. The product is whole and unchanged; only the
adapters handed to `assemble` are wrapped. Once the file CRASH_ARMED exists, calls
are counted by a label that is stable across runs, such as `store.incidents.save[verifying]#1`,
and written to CRASH_LOG; CRASH_POINT names the one to die at, as `label:before` or
`label:after`.
"""

from __future__ import annotations

import argparse
import inspect
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

import app.workers
from app.agent.models import Incident, Outcome
from app.bootstrap import Container, assemble, build, connect_world
from app.clock import SystemClock
from app.config import Settings
from app.main import create_app
from app.stopping import Stop
from app.store import open_shared
from tests.repositories import exchanged

WATCHED = {
    "store.signals": {"accept"},
    "store.claims": {"take", "take_due", "renew", "release"},
    "store.incidents": {"save"},
    "store.intents": {"add", "begin", "retry", "finish"},
    "store.history": {"record_revision", "record_config"},
    "reader": {"workload", "target", "snapshot"},
    "rehearsal": {"rehearse"},
    "writer": {"apply"},
    "gitops.writer": {"switch_off", "roll_back", "restore"},
    "gitops.repository": {"find", "open"},
    "metrics": {"sli", "sli_range", "telemetry"},
}


@dataclass
class Fuse:
    """Counts calls once armed, and kills the process at the chosen one."""

    armed: Path
    log: Path
    point: str | None
    calls: Counter[str] = field(default_factory=Counter)

    def label(self, name: str, arguments: tuple[object, ...]) -> str | None:
        """The call's label, or None while the fuse is not armed."""
        if not self.armed.exists():
            return None
        kind = next((f"[{a.state}]" for a in arguments if isinstance(a, Incident)), "")
        kind = kind or next((f"[{a.kind}]" for a in arguments if isinstance(a, Outcome)), "")
        self.calls[name + kind] += 1
        label = f"{name}{kind}#{self.calls[name + kind]}"
        with self.log.open("a") as log:
            log.write(label + "\n")
        return label

    def pass_by(self, label: str | None, moment: str) -> None:
        """Die here if this is the point."""
        if label is not None and f"{label}:{moment}" == self.point:
            os.kill(os.getpid(), signal.SIGKILL)


class Fused:
    """An adapter whose watched calls pass by the fuse."""

    def __init__(self, inner: object, name: str, fuse: Fuse) -> None:
        self._inner = inner
        self._name = name
        self._fuse = fuse

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._inner, attribute)
        if attribute not in WATCHED[self._name] or not inspect.iscoroutinefunction(found):
            return found
        return self._guarded(f"{self._name}.{attribute}", found)

    def _guarded(self, name: str, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(*arguments: Any, **named: Any) -> Any:
            label = self._fuse.label(name, arguments)
            self._fuse.pass_by(label, "before")
            answer = await call(*arguments, **named)
            self._fuse.pass_by(label, "after")
            return answer

        return guarded


@asynccontextmanager
async def running_with_a_fuse(
    settings: Settings, stop: Stop | None = None, *, builder: app.workers.Builder = build
) -> AsyncIterator[Container]:
    """As `app.workers.running`, with every adapter wrapped."""
    fuse = Fuse(
        armed=Path(os.environ["CRASH_ARMED"]),
        log=Path(os.environ["CRASH_LOG"]),
        point=os.environ.get("CRASH_POINT"),
    )

    def fused(inner: Any, name: str) -> Any:
        return None if inner is None else Fused(inner, name, fuse)

    clock = SystemClock()
    url = settings.database_url.get_secret_value()
    bell = app.workers.LocalRunner()
    world, close = connect_world(settings, clock)
    gitops = world.gitops
    if gitops is not None:
        gitops = replace(
            gitops,
            writer=fused(gitops.writer, "gitops.writer"),
            repository=fused(gitops.repository, "gitops.repository"),
        )
    store, fleet = await open_shared(url)
    container = assemble(
        settings,
        clock=clock,
        store=exchanged(
            store,
            **{
                name.removeprefix("store."): fused(getattr(store, name.removeprefix("store.")), name)
                for name in WATCHED
                if name.startswith("store.")
            },
        ),
        fleet=fleet,
        world=replace(
            world,
            reader=fused(world.reader, "reader"),
            rehearsal=fused(world.rehearsal, "rehearsal"),
            writer=fused(world.writer, "writer"),
            metrics=fused(world.metrics, "metrics"),
            gitops=gitops,
        ),
        runner=bell,
        close_world=close,
    )
    try:
        async with app.workers.attended(container, bell, stop):
            yield container
    finally:
        await container.close()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    app.workers.running = running_with_a_fuse
    uvicorn.run(create_app(Settings()), host="127.0.0.1", port=parser.parse_args().port)


if __name__ == "__main__":
    main()
