"""The sandbox: the whole product over a simulated cluster, in one process.

`app.main` runs it instead of the connected agent while SANDBOX=true. Store, loop, policy,
workers, API and pages are those of the product. Of the settings only `IN_FORCE` apply:
everything that would connect the process to a system outside, a new connector's settings
included, has its default, and `app.bootstrap.build` is not called.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import SecretStr

from app.agent.models import Risk
from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet, Runner
from app.agent.runbooks import load_catalogue
from app.bootstrap import Container, assemble
from app.clock import Clock, SystemClock
from app.config import Settings
from app.connectors.policy.connect import connect_policy
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.scenarios.playground import Playground, offered
from app.settings.sandbox import IN_FORCE
from app.simulation.wiring import report, simulated, watched_settings
from app.stopping import Stop
from app.store import open_shared
from app.testing import PacedClock
from app.workers import running
from app.workers.elected import kept_running

SETTLE_SECONDS = 4.0
"""Less than the first back-off of a killed container, which is back after 10 s: where time passes
fast, a decision right at its end comes too late, and nothing is restarted."""


def sandbox_settings(settings: Settings) -> Settings:
    """The settings of the sandbox, of which none connects anything outside but a policy server.

    Actions are carried out on the simulated cluster. High-risk actions need an approval,
    unless APPROVAL_FOR_RISKS says otherwise. `WATCHED_SECONDS` replace defaults only.
    """
    ours = {name: getattr(settings, name) for name in IN_FORCE if not _is_default(settings, name)}
    watched = watched_settings(Settings.model_construct(), dry_run=False)
    theirs = {"approval_for_risks": frozenset({Risk.HIGH}), "incident_settle_seconds": SETTLE_SECONDS}
    kept = watched.model_copy(update={**theirs, **ours})
    return kept.model_copy(
        update={"verify_timeout_seconds": max(kept.verify_timeout_seconds, kept.verify_soak_seconds)}
    )


def _is_default(settings: Settings, name: str) -> bool:
    return bool(getattr(settings, name) == Settings.model_fields[name].default)


def sandbox_clock(speed: float, reached: datetime | None = None) -> Clock:
    """The machine's time at a speed of 1, else a time that passes so many times as fast.

    It starts now, or at `reached`, where an earlier run on the same store is ahead of now.
    """
    now = datetime.now(UTC)
    if reached is None or reached <= now:
        return SystemClock() if speed == 1 else PacedClock(speed, now)
    return PacedClock(speed, reached)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """A sandbox at work."""

    container: Container
    playground: Playground


@asynccontextmanager
async def running_sandbox(
    settings: Settings, stop: Stop | None = None, *, clock: Clock | None = None
) -> AsyncIterator[Sandbox]:
    """The sandbox at work until the context ends; `settings` are those of `sandbox_settings`.

    The store is a file in SANDBOX_FOLDER, else in a temporary folder that is removed at the end.
    """
    with tempfile.TemporaryDirectory(prefix="heal-sandbox-") as temporary:
        folder = settings.sandbox_folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        reached = folder / "clock"
        clock = clock or sandbox_clock(settings.sandbox_speed, _read(reached))
        playground = Playground(
            clock=clock,
            scenarios=offered(settings.sandbox_scenarios),
            environment=settings.sandbox_environment,
            counted_in=folder / "runs",
        )
        database = SecretStr(f"sqlite:///{folder.absolute() / 'heal.db'}")
        ours = settings.model_copy(update={"database_url": database})

        async def built(settings: Settings, *, runner: Runner | None = None) -> Container:
            return await build_sandbox(settings, playground, runner=runner)

        async with running(ours, stop, builder=built) as container:
            playing = asyncio.create_task(
                kept_running("scenarios", lambda: playground.play(lambda r: report(container, r, "pipeline")))
            )
            try:
                yield Sandbox(container=container, playground=playground)
            finally:
                playing.cancel()
                await asyncio.gather(playing, return_exceptions=True)
                reached.write_text(clock.now().isoformat(), encoding="ascii")


async def check_sandbox(settings: Settings) -> None:
    """Raise `ConfigurationError`, naming file and line, for what the sandbox cannot start with."""
    load_catalogue(settings.runbooks_folder)
    offered(settings.sandbox_scenarios)
    await connect_policy(settings).aclose()


def _read(file: Path) -> datetime | None:
    """The simulated time at which an earlier process on the same folder ended."""
    return datetime.fromisoformat(file.read_text(encoding="ascii")) if file.is_file() else None


async def build_sandbox(
    settings: Settings, playground: Playground, *, runner: Runner | None = None
) -> Container:
    """Open the store and connect the simulated cluster.

    Raises `ConfigurationError` for a catalogue or for policies that cannot be used.
    """
    store, fleet = await open_shared(settings.database_url.get_secret_value())
    try:
        return assemble_sandbox(settings, playground, store=store, fleet=fleet, runner=runner)
    except BaseException:
        await store.close()
        raise


def assemble_sandbox(
    settings: Settings,
    playground: Playground,
    *,
    store: Store,
    fleet: Fleet | None = None,
    runner: Runner | None = None,
) -> Container:
    """The agent over the simulated cluster; constructs no connector of a real system (promise 5)."""
    cluster = SandboxCluster.following(playground.world)
    policy = connect_policy(settings)
    return assemble(
        settings,
        clock=playground.clock,
        store=store,
        world=simulated(cluster, SandboxMetrics(playground.world), settings, policy=policy),
        fleet=fleet,
        runner=runner,
        close_world=policy.aclose,
        dependencies=playground.dependencies,
    )
