"""One simulated process of the agent: the product's own parts, behind wires and a clock that may fail.

A host dies at any of its waits: from then on nothing that it does reaches store
or world, except requests that were on the wire already, some of which arrive.
It may also stop for a while and go on as if nothing had happened, with a clock
that is wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from app.agent.ids import IncidentId
from app.agent.responders.recovery import RecoveryWatch
from app.bootstrap import Adapters as Adapters
from app.bootstrap import Container, assemble
from app.config import Settings
from app.errors import AgentError, TransientError
from app.store import store_over
from app.store.fleet import _elect, _forget
from app.workers import LocalRunner
from app.workers.driver import Driver
from app.workers.elected import ElectedTask, kept_running
from app.workers.sweeper import Sweeper
from tests.simulation.faults import Kind, Odds
from tests.simulation.scheduler import moment
from tests.simulation.store import HostDatabase, SharedDatabase
from tests.simulation.tape import Tape

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

SWEEP_EVERY = timedelta(seconds=30)
DUTY_LEASE = timedelta(seconds=40)
REAP_EVERY_SECONDS = 2.0
PENDING_FOR = timedelta(seconds=30)
HOST: contextvars.ContextVar[Host | None] = contextvars.ContextVar("host", default=None)
"""The host that the running task belongs to."""


class Killed(BaseException):
    """This host is dead: no code of the product may catch this and go on."""


@dataclass(kw_only=True)
class Ground:
    """What all hosts of a simulation stand on."""

    loop: asyncio.AbstractEventLoop
    tape: Tape
    dice: Random
    database: SharedDatabase
    odds: Odds
    hosts: list[Host]
    beginning: Callable[[], float | None] = lambda: None
    """Called when the beginning of an action is sent to the store: how many seconds that takes, if set."""
    watching: bool = False
    """Whether hosts that start watch escalated incidents."""

    def chance(self, odds: float) -> bool:
        return odds > 0 and self.dice.random() < odds

    @property
    def living(self) -> list[Host]:
        return [host for host in self.hosts if host.alive]

    def ring(self) -> None:
        """An incident became due: tell every process, as far as the bell carries."""
        for host in self.living:
            if self.chance(self.odds.bell_lost):
                self.tape.fault(Kind.BELL_LOST, host.name)
            else:
                self.loop.call_later(self.dice.uniform(0.001, 0.05), host.fleet.bell.set)


class HostClock:
    """True time plus what this machine gets wrong; waiting goes by true time, as on every machine."""

    def __init__(self, host: Host, skew_seconds: float) -> None:
        self._host = host
        self.skew_seconds = skew_seconds

    def now(self) -> datetime:
        return moment(self._host.ground.loop.time() + self.skew_seconds)

    async def sleep(self, seconds: float) -> None:
        await self._host.wire.there()
        await self._host.wire.nap(max(0.0, seconds))
        await self._host.wire.there()


class Wire:
    """Between one host and everything outside it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._ground = host.ground
        self._flying: dict[int, asyncio.TimerHandle] = {}
        self._number = 0

    async def there(self) -> None:
        """Go on only while this host is alive and running."""
        while self._host.alive and self._host.paused is not None:
            await self._unless_dead(self._host.paused.wait())
        if not self._host.alive:
            raise Killed

    async def nap(self, seconds: float) -> None:
        await self._unless_dead(asyncio.sleep(seconds))

    async def leave(self, where: str) -> None:
        """A request is about to be sent."""
        await self.there()
        if self._ground.chance(self._crash_odds(where)):
            self._host.kill(Kind.CRASH_BEFORE, where)
            raise Killed
        if where.startswith("store.") and self._ground.chance(self._ground.odds.refused):
            self._ground.tape.fault(Kind.REFUSED, self._host.name, where)
            raise TransientError("the database refuses connections")

    def send(self, where: str, serve: Callable[[], None], delay: float | None = None) -> None:
        """Put a request on the wire: it arrives whatever becomes of this host, unless the wire is cut."""
        self._number += 1
        number = self._number
        flight = self._latency(where) if delay is None else delay

        def arrive() -> None:
            self._flying.pop(number, None)
            serve()

        self._flying[number] = self._ground.loop.call_later(flight, arrive)
        if self._ground.chance(self._crash_odds(where)):
            soon = self._ground.dice.uniform(0, flight * 1.5)
            self._ground.loop.call_later(soon, self._host.kill, Kind.CRASH_WAITING, where)

    async def answered(self, answer: asyncio.Future[T], timeout: float | None = None) -> T:
        """The server's answer; `TimeoutError` when it takes too long for this host."""
        async with asyncio.timeout(timeout):
            return await self._unless_dead(answer)

    async def arrive(self, where: str) -> None:
        """An answer has come back."""
        await self.nap(self._ground.dice.uniform(0.0005, 0.004))
        await self.there()
        if self._ground.chance(self._crash_odds(where)):
            self._host.kill(Kind.CRASH_AFTER, where)
            raise Killed
        if where == "store.write" and self._ground.chance(self._ground.odds.answer_lost):
            self._ground.tape.fault(Kind.ANSWER_LOST, self._host.name, where)
            raise TransientError("the connection broke before the database answered")

    def cut(self) -> None:
        """The host died: some of what it had sent still arrives."""
        for number in list(self._flying):
            if self._ground.dice.random() < 0.5:
                self._flying.pop(number).cancel()
                self._ground.tape.fault(Kind.WIRE_CUT, self._host.name)
            else:
                self._ground.tape.fault(Kind.WIRE_LATE, self._host.name)

    def _crash_odds(self, where: str) -> float:
        odds = self._ground.odds
        return odds.crash_around_write if where == "world.write" else odds.crash

    def _latency(self, where: str) -> float:
        if self._ground.chance(self._ground.odds.slow):
            self._ground.tape.fault(Kind.SLOW, self._host.name, where)
            return self._ground.dice.uniform(1.0, 12.0)
        return self._ground.dice.uniform(0.001, 0.02)

    async def _unless_dead(self, waiting: Awaitable[T]) -> T:
        try:
            return await waiting
        except asyncio.CancelledError:
            if not self._host.alive:
                raise Killed from None
            raise


class SimulatedFleet:
    """A `Fleet`: death is noticed after a while, and sometimes where there was none."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.bell = asyncio.Event()

    async def enter(self, owner: str) -> None:
        await self._host.wire.there()

    async def reap(self) -> tuple[str, ...]:
        await self._host.wire.there()
        self._host.seems_dead = False
        dead = [host for host in self._host.ground.hosts if host.seems_dead and not host.buried]
        for host in dead:
            owner = host.owner
            await self._host.database.write(functools.partial(_forget, owner=owner))
            # One that was only paused lives on, and may be taken for dead again.
            host.buried, host.seems_dead = not host.alive, not host.alive
            self._host.ground.ring()
        return tuple(host.owner for host in dead)

    async def elect(self, duty: str, owner: str, lease: timedelta, now: datetime) -> bool:
        elected = functools.partial(_elect, duty=duty, owner=owner, lease=lease, now=now)
        return await self._host.database.write(elected)

    async def resign(self, duty: str, owner: str) -> None:
        """A simulated host never leaves regularly."""

    async def woken(self) -> None:
        await self._host.wire.there()
        await self.bell.wait()
        self.bell.clear()

    async def leave(self) -> None:
        """As above."""


class Host:
    """One start of one process, until it dies."""

    def __init__(self, name: str, ground: Ground, settings: Settings, skew_seconds: float) -> None:
        self.name = name
        self.ground = ground
        self.settings = settings
        self.alive = True
        self.seems_dead = False
        self.buried = False
        self.paused: asyncio.Event | None = None
        self.tasks: dict[asyncio.Task[Any], None] = {}
        self.wire = Wire(self)
        self.clock = HostClock(self, skew_seconds)
        self.database = HostDatabase(ground.database, self)
        self.store = store_over(self.database, narrow_samples=True)
        self.fleet = SimulatedFleet(self)
        self.container: Container | None = None
        ground.hosts.append(self)

    @property
    def agent(self) -> Container:
        assert self.container is not None, "a host is asked before it was started"
        return self.container

    @property
    def owner(self) -> str:
        return self.agent.loop.owner

    def start(self, adapters: Adapters, poll: timedelta) -> None:
        """Wire the product's parts and set them to work, as `app.workers.attended` does."""
        bell = LocalRunner()
        self.container = assemble(
            self.settings,
            clock=self.clock,
            store=self.store,
            world=adapters,
            fleet=self.fleet,
            runner=bell,
        )
        bell.driver = Driver(
            claims=self.store.claims, loop=self.container.loop, clock=self.clock, fleet=self.fleet, poll=poll
        )
        self.spawn(kept_running("driver", bell.driver.run))
        self.spawn(kept_running("presence", self._present))
        self.spawn(kept_running("sweep", self._duty().run))

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run something as part of this host: it dies with it."""
        context = contextvars.copy_context()
        context.run(HOST.set, self)
        return self.ground.loop.create_task(work, context=context)

    def kill(self, kind: Kind, where: str = "") -> None:
        """As kill -9, or the power going: nothing is tidied up."""
        if not self.alive:
            return
        self.alive = False
        self.ground.tape.fault(kind, self.name, where)
        self.wire.cut()
        me = asyncio.current_task(self.ground.loop)
        for task in list(self.tasks):
            if task is not me:
                task.cancel()
        self.ground.loop.call_later(self.ground.dice.uniform(0.5, 4.0), self._noticed)

    def pause(self, seconds: float) -> None:
        """Stop, as under SIGSTOP or in a long garbage collection, and go on later."""
        if not self.alive or self.paused is not None:
            return
        self.paused = asyncio.Event()
        self.ground.tape.fault(Kind.PAUSE, self.name, f"{seconds:.1f} s")
        self.ground.loop.call_later(seconds, self._go_on)
        if self.ground.dice.random() < 0.5:
            self.ground.loop.call_later(seconds * self.ground.dice.uniform(0.1, 0.9), self._mistaken)

    def _go_on(self) -> None:
        if self.paused is not None:
            self.paused.set()
            self.paused = None

    def _mistaken(self) -> None:
        if self.alive and self.paused is not None:
            self.seems_dead = True
            self.ground.tape.fault(Kind.MISTAKEN_FOR_DEAD, self.name)

    def _noticed(self) -> None:
        self.seems_dead = True

    async def _present(self) -> None:
        while True:
            with contextlib.suppress(AgentError):
                await self.fleet.reap()
            await self.clock.sleep(REAP_EVERY_SECONDS)

    def _watch(self) -> list[tuple[str, Callable[[], Coroutine[Any, Any, None]]]]:
        if not self.ground.watching:
            return []
        watch = RecoveryWatch(store=self.store, verifier=self.agent.loop.stages.verifier, clock=self.clock)
        return [("recovery", watch.run)]

    def _duty(self) -> ElectedTask:
        sweeper = Sweeper(
            store=self.store,
            clock=self.clock,
            every=SWEEP_EVERY,
            pending_for=PENDING_FOR,
            keep_for=timedelta(days=1),
        )
        return ElectedTask(
            name="sweep",
            work=[("sweep", sweeper.run), *self._watch()],
            fleet=self.fleet,
            owner=self.owner,
            clock=self.clock,
            lease=DUTY_LEASE,
        )


def tasks_of_hosts(
    loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
) -> asyncio.Task[Any]:
    """A task factory that gives every task to the host in whose context it runs."""
    context = options.get("context")
    host = HOST.get() if context is None else context.get(HOST)
    task: asyncio.Task[Any] = asyncio.Task(work, loop=loop, **options)
    if host is not None:
        host.tasks[task] = None
        task.add_done_callback(lambda done: host.tasks.pop(done, None))
        if not host.alive:
            task.cancel()
    return task


__all__ = ["HOST", "Ground", "Host", "HostClock", "IncidentId", "Killed", "Wire", "tasks_of_hosts"]
