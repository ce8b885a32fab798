"""Runs one seed from beginning to end, and gathers what the promises are checked on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, cast

import app.bootstrap
from app.agent.ids import IncidentId, ServiceKey, SignalId
from app.agent.models import (
    Alert,
    IncidentRecord,
    MetricSample,
    TimelineEntry,
)
from app.agent.ports.store.signals import SignalRecord
from app.agent.runbooks import load_catalogue
from app.agent.workload import RevisionHealth, RevisionRecord
from app.config import Settings
from app.store import store_over
from tests.simulation.adapters import adapters_of
from tests.simulation.afterwards import LASTS_SECONDS, Playing
from tests.simulation.clients import Client, Ledger, Telling, requests_of
from tests.simulation.faults import Kind
from tests.simulation.host import Ground, Host, tasks_of_hosts
from tests.simulation.people import OnCall
from tests.simulation.scenario import Scenario, Span, scenario_of
from tests.simulation.scheduler import SimulatedLoop, moment, seeded_entropy
from tests.simulation.store import Nearby, SharedDatabase, heads
from tests.simulation.tape import (
    ApprovalMoved,
    Entry,
    IncidentMoved,
    IntentMoved,
    Nudged,
    SignalMoved,
    Tape,
)
from tests.simulation.world import GOOD, OLD, SimulatedWorld, template_hash

PATIENCE_SECONDS = 900.0
"""Every incident must have ended so long after the faults stopped: promised liveness."""


@dataclass(kw_only=True)
class Case:
    """What remains of a simulated seed: all that a promise may be checked on."""

    scenario: Scenario
    tape: Tape
    world: SimulatedWorld
    ledger: Ledger
    owners: dict[str, str] = field(default_factory=dict)
    """Owner of claims -> name of the host."""
    dry_hosts: frozenset[str] = frozenset()
    afterwards_from: float | None = None
    """When the time after the end began, in virtual seconds; None: the seed ended before it."""
    records: tuple[IncidentRecord, ...] = ()
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Length and last hash of each timeline, as the incident's own row says."""
    looks: list[dict[str, tuple[TimelineEntry, ...]]] = field(default_factory=list)
    """Timelines as they were at moments on the way."""
    signals: dict[str, SignalRecord | None] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()
    """Incidents that never ended, although the faults did."""
    defects: tuple[str, ...] = ()
    """What the product logged with a traceback: unexpected errors."""


class _Defects(logging.Handler):
    """Keeps what the worker boundary caught."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()} [{error!r}]")


@functools.cache
def database() -> SharedDatabase:
    """The one database of this process, emptied for each seed."""
    return SharedDatabase()


def run_seed(seed: int, *, calm: bool = False, afterwards: bool = True) -> Case:
    """Run a seed in virtual time, `calm` without faults; the same seed gives exactly the same case.

    Without `afterwards` it stops when all incidents have ended.
    """
    shared = database()
    scenario = scenario_of(seed).calm() if calm else scenario_of(seed)
    with seeded_entropy(seed), _quiet() as defects, _catalogue_read_once():
        loop = SimulatedLoop()
        loop.set_task_factory(cast("Any", tasks_of_hosts))  # the stubs know no keyword arguments
        loop.set_exception_handler(lambda _loop, _context: None)
        try:
            run = _Run(loop, shared, scenario)
            case = loop.run_until_complete(run.live(afterwards=afterwards))
        finally:
            _end(loop)
    case.defects = tuple(defects.found)
    return case


def _end(loop: asyncio.AbstractEventLoop) -> None:
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), 60))
    loop.close()


@contextlib.contextmanager
def _quiet() -> Iterator[_Defects]:
    """The product's log: warnings are expected here, tracebacks are kept."""
    logger, handler = logging.getLogger("app"), _Defects()
    before, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR)
    logger.propagate = False
    try:
        yield handler
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate


@contextlib.contextmanager
def _catalogue_read_once() -> Iterator[None]:
    """Hosts start by the dozen: the catalogue is parsed for the first of a process."""
    name = "load_catalogue"
    real = getattr(app.bootstrap, name)
    setattr(app.bootstrap, name, _catalogue)
    try:
        yield
    finally:
        setattr(app.bootstrap, name, real)


_catalogue = functools.cache(load_catalogue)


class _Run:
    """One seed while it runs."""

    def __init__(self, loop: SimulatedLoop, shared: SharedDatabase, scenario: Scenario) -> None:
        self.loop = loop
        self.scenario = scenario
        self.dice = Random(f"run/{scenario.seed}")  # noqa: S311 - a seed, no secret
        self.tape = Tape(loop.time)
        shared.empty(self.tape)
        self.shared = shared
        self.ground = Ground(
            loop=loop, tape=self.tape, dice=self.dice, database=shared, odds=scenario.odds, hosts=[]
        )
        self.world = SimulatedWorld(self.tape, scenario.services, read_at_start=scenario.in_parts)
        self.world.bind(loop.call_later)
        keys = list(self.world.services)
        self.world.mutes += [(keys[mute.stretch.service], mute) for mute in scenario.hostile.mutes]
        self.case = Case(scenario=scenario, tape=self.tape, world=self.world, ledger=Ledger())
        self.on_call = OnCall(self.ground, self.dice)
        self.store = store_over(Nearby(shared), narrow_samples=True)
        self.starts = 0
        self.slots: list[Host] = []
        self.pending: dict[str, None] = {}
        self.open: dict[str, None] = {}
        self.services: dict[str, str] = {}
        self.resolutions = Random(f"resolutions/{scenario.seed}")  # noqa: S311 - a seed, no secret
        self.ground.beginning = self._beginning
        self.decided: dict[str, str] = {}
        """The intent of a service that was decided and has not begun."""
        self.alerts: list[Telling] = []
        self.at_work: set[asyncio.Task[None]] = set()
        self.tape.listen(self._react)

    async def live(self, *, afterwards: bool) -> Case:
        await self._remember_history()
        for slot in range(self.scenario.hosts):
            self._start(slot)
        self._schedule()
        clients = [self.loop.create_task(work) for work in self._clients()]
        alerting = [self.loop.create_task(work) for work in self._alerting()]
        await self._until(self.scenario.faults_until)
        self._calm()
        ended = self.loop.time() + PATIENCE_SECONDS
        await asyncio.wait(clients, timeout=PATIENCE_SECONDS)
        for client in clients:
            if client.done() and not client.cancelled() and client.exception() is not None:
                raise client.exception() or AssertionError
        await self._all_ended(ended)
        if afterwards and not (self.open or self.pending):
            await self._go_on()
        for task in (*alerting, *self.at_work):
            task.cancel()
        await self._gather()
        return self.case

    async def _all_ended(self, until: float) -> None:
        while (self.open or self.pending) and self.loop.time() < until:  # noqa: ASYNC110 - virtual seconds
            await asyncio.sleep(2.0)

    # -------------------------------------------------------------- after the end

    async def _go_on(self) -> None:
        """Every process starts again; people ask for undos, and escalated incidents are watched."""
        plan = self.scenario.afterwards
        playing = Playing(
            plan=plan,
            loop=self.loop,
            tape=self.tape,
            world=self.world,
            on_call=self.on_call,
            store=self.store,
            incidents=self.services,
        )
        if not await playing.concerned():
            return
        self.case.afterwards_from = self.loop.time()
        self.ground.watching, self.ground.odds = True, plan.odds
        for host in self.ground.living:
            host.kill(Kind.CRASH_AT_A_TIME, "started again")
        playing.schedule()
        asking = self.loop.create_task(playing.ask())
        await asyncio.sleep(LASTS_SECONDS)
        await asking
        self._calm()
        self.on_call.brake(False)
        await self._all_ended(self.loop.time() + PATIENCE_SECONDS)

    # -------------------------------------------------------------- hosts

    def _start(self, slot: int) -> None:
        """A process starts, under a new name and owner."""
        self.starts += 1
        host = Host(
            f"{'abc'[slot]}{self.starts}",
            self.ground,
            self._settings(),
            skew_seconds=self.dice.uniform(-0.5, 0.5),
        )
        adapters = adapters_of(host, self.world, lambda action: self.scenario.engine_says(action, self.dice))
        host.start(adapters, timedelta(seconds=self.scenario.poll_seconds))
        self.case.owners[host.owner] = host.name
        if host.settings.dry_run:
            self.case.dry_hosts |= {host.name}
        if slot < len(self.slots):
            self.slots[slot] = host
        else:
            self.slots.append(host)
        self.loop.create_task(self._supervise(slot, host))

    def _settings(self) -> Settings:
        before = self.scenario.settings(self.starts - 1)
        return before if self.case.afterwards_from is None else self.scenario.afterwards.settings(before)

    async def _supervise(self, slot: int, host: Host) -> None:
        """Start a dead process again after a while, as an orchestrator does."""
        while host.alive:  # noqa: ASYNC110 - virtual seconds cost nothing
            await asyncio.sleep(1.0)
        await asyncio.sleep(self.dice.uniform(0.5, 15.0))
        self._start(slot)

    def _react(self, entry: Entry) -> None:
        match entry:
            case IncidentMoved(before=None, incident=incident, service=service):
                self.open[incident] = None
                self.services[incident] = service
                self.ground.ring()
            case IncidentMoved(after=after, incident=incident):
                if entry.before in _ENDS and after not in _ENDS:
                    self.open[incident] = None  # a person had an undo begin
                elif after in _ENDS:
                    self.open.pop(incident, None)
                elif after == "verifying" != entry.before:
                    self._fall_silent(entry.service)
            case Nudged():
                self.ground.ring()
            case SignalMoved(signal=signal, after=after):
                if after == "pending":
                    self.pending[signal] = None
                else:
                    self.pending.pop(signal, None)
            case IntentMoved(after="decided" | "executing"):
                self._interfere(entry)
            case ApprovalMoved(before=None, approval=approval):
                self.on_call.asked(approval)
            case _:
                pass

    # -------------------------------------------------------------- misfortune

    def _schedule(self) -> None:
        plan, at = self.scenario, self.loop.call_at
        for moment_of_crash in plan.crashes:
            at(moment_of_crash, self._crash_one)
        for pause in plan.pauses:
            at(pause.start, self._pause, pause)
        for jump in plan.jumps:
            at(jump.start, self._jump, jump)
        for scaling in plan.scalings:
            at(scaling.start, self._scale, scaling)
        for meddling in plan.meddlings:
            at(meddling.start, self._meddle, meddling)
        for silence in plan.silences:
            self._silence(silence)
        for outage in plan.outages:
            self.world.source_down.append((outage.start, outage.end))
            at(outage.start, self.tape.fault, Kind.OUTAGE, "world", "source down")
        for refusal in plan.refusals:
            self.world.source_refuses.append((refusal.start, refusal.end))
        for number, service in enumerate(self.world.services.values()):
            if number in plan.unmeasured:
                service.silences.append((-1e9, 1e9))
                self.tape.fault(Kind.UNMEASURED, "world", str(service.key))
        keys = list(self.world.services)
        for illness in plan.illnesses:
            key = keys[illness.service]
            at(illness.at, self.world.fall_ill, key, illness.ailment, illness.remedy)
            if illness.well_at is not None:
                at(illness.well_at, self.world.get_well, key)
        self._tempt(keys)
        for share in (0.4, 0.7):
            at(plan.faults_until * share, lambda: self.loop.create_task(self._look()))
        if plan.braked is not None:
            at(plan.braked.start, self.on_call.brake, True)
            at(plan.braked.end, self.on_call.brake, False)

    def _tempt(self, keys: list[ServiceKey]) -> None:
        """What makes acting look right when it is not."""
        hostile, at = self.scenario.hostile, self.loop.call_at
        for refusal in hostile.refusals:
            self.world.services[keys[refusal.service]].refusals.append((refusal.start, refusal.end))
        for quiet in hostile.quiets:
            self.world.services[keys[quiet.service]].quiets.append((quiet.start, quiet.end))
            at(quiet.start, self.tape.fault, Kind.QUIET, "world", str(keys[quiet.service]))
        for mute in hostile.mutes:
            at(mute.stretch.start, self.tape.fault, Kind.MUTED, "people", str(keys[mute.stretch.service]))
        for release in hostile.hand_releases:
            at(release.start, self._release_by_hand, keys[release.service])

    def _release_by_hand(self, key: ServiceKey) -> None:
        self.tape.fault(Kind.BY_HAND, "world", str(key))
        self.world.release_by_hand(key)

    def _crash_one(self) -> None:
        living = self.ground.living
        if living:
            self.dice.choice(living).kill(Kind.CRASH_AT_A_TIME)

    def _pause(self, pause: Span) -> None:
        assert pause.number is not None
        self.slots[pause.number].pause(pause.end - pause.start)

    def _jump(self, jump: Span) -> None:
        assert jump.number is not None
        host = self.slots[jump.number]
        host.clock.skew_seconds += jump.end
        kind = Kind.CLOCK_FORWARD if jump.end > 0 else Kind.CLOCK_BACK
        self.tape.fault(kind, host.name, f"{jump.end:+.0f} s")

    def _meddle(self, meddling: Span) -> None:
        assert meddling.number is not None
        key = list(self.world.services)[meddling.number]
        self.tape.fault(Kind.CHANGED_BY_OTHER, "world", str(key))
        self.world.changed_by_other(key, recreated=meddling.end < 0)

    def _scale(self, scaling: Span) -> None:
        assert scaling.number is not None
        key = list(self.world.services)[scaling.number]
        self.tape.fault(Kind.SCALED_BY_OTHER, "world", str(key))
        self.world.scaled_by_other(key)

    def _interfere(self, moved: IntentMoved) -> None:
        """The worst moments for others to act are those between a decision and its effect."""
        service = self.services[moved.incident]
        soon = self.dice.uniform(0.0, self.dice.choice((0.02, 0.3)))
        if self.ground.chance(self.ground.odds.meddled):
            key = next(k for k in self.world.services if k.service == service)
            number = list(self.world.services).index(key)
            once = Span(start=0, end=self.dice.choice((1.0, 1.0, -1.0)), number=number)
            self.loop.call_later(soon, self._meddle, once)
        if self.ground.chance(self.ground.odds.braked):
            self.loop.call_later(soon / 2, self.on_call.brake, True)
            self.loop.call_later(soon + self.dice.uniform(3, 15), self.on_call.brake, False)
        if moved.after == "decided" and moved.undoes is None:
            self.decided[service] = moved.intent
        elif self.decided.get(service) == moved.intent:
            del self.decided[service]
        if self.ground.chance(self.ground.odds.slept):
            sleeper = next((host for host in self.ground.living if host.name == moved.who), None)
            if sleeper is not None:
                self.tape.fault(Kind.SLEPT, sleeper.name)
                length = self.dice.uniform(20, 60)
                self.loop.call_later(soon / 4, sleeper.pause, length)

    def _beginning(self) -> float | None:
        """The worst moment for an alert to resolve: while the beginning of an action is on its way."""
        if self.resolutions.random() >= self.ground.odds.resolved:
            return None
        for service in self.decided:
            self.at_work.add(self.loop.create_task(self._all_over(service)))
        return self.resolutions.uniform(0.3, 1.5)

    async def _all_over(self, service: str) -> None:
        """The reporters of a service withdraw everything at once."""
        now = self.loop.time()
        mine = [one for one in self.alerts if one.key.service == service and one.at <= now]
        over = [
            self._now(one, replace(one.payload, firing=False))
            for one in mine
            if isinstance(one.payload, Alert)
        ]
        key = next(key for key in self.world.services if key.service == service)
        well = MetricSample(error_rate=0.001, p95_latency_ms=90.0)
        self.tape.fault(Kind.RESOLVED_EARLY, "people")
        dice = Random(self.resolutions.random())  # noqa: S311 - a seed, no secret
        tellings = [*over, Telling(at=now, observed=now, key=key, payload=well)]
        await Client(self.ground, dice, self.case.ledger).deliver(tellings)

    def _fall_silent(self, name: str) -> None:
        """The worst moment for metrics to go missing is when a verdict depends on them."""
        if self.ground.chance(self.ground.odds.silenced):
            service = next(s for s in self.world.services.values() if s.key.service == name)
            now = self.loop.time()
            service.silences.append((now, now + self.dice.uniform(10, 60)))
            self.tape.fault(Kind.SILENT, "world", name)

    def _silence(self, silence: Span) -> None:
        for number, service in enumerate(self.world.services.values()):
            if silence.number in (None, number):
                service.silences.append((silence.start, silence.end))
        everybody = silence.number is None and len(self.world.services) >= 3
        kind = Kind.OUTAGE if everybody else Kind.SILENT
        self.loop.call_at(silence.start, self.tape.fault, kind, "world", "no series")

    def _calm(self) -> None:
        """The faults stop: clocks are set right, who stands still goes on."""
        self.ground.odds = self.ground.odds.calm()
        for host in self.ground.living:
            host.clock.skew_seconds = self.dice.uniform(-0.2, 0.2)
        for service in self.world.services.values():
            service.silences = [s for s in service.silences if s[1] <= self.loop.time() or s[0] < 0]
            service.refusals = [s for s in service.refusals if s[1] <= self.loop.time()]
            service.quiets = [s for s in service.quiets if s[1] <= self.loop.time()]
        now = self.loop.time()
        self.world.source_refuses = [s for s in self.world.source_refuses if s[1] <= now]
        self.world.source_down = [s for s in self.world.source_down if s[1] <= self.loop.time()]

    def _clients(self) -> list[Coroutine[Any, Any, None]]:
        dice = Random(f"clients/{self.scenario.seed}")  # noqa: S311 - a seed, no secret
        return [self._tell(request, dice) for request in requests_of(dice, self.scenario)]

    def _alerting(self) -> list[Coroutine[Any, Any, None]]:
        """One for each alert that fires: it resolves, sooner or later, or never."""
        dice = Random(f"clients/{self.scenario.seed}")  # noqa: S311 - a seed, no secret
        told = [one for request in requests_of(dice, self.scenario) for one in request]
        self.alerts = [one for one in told if isinstance(one.payload, Alert)]
        dice = Random(f"alerts/{self.scenario.seed}")  # noqa: S311 - as above
        return [
            self._resolve(one, one.payload, Random(dice.random()))  # noqa: S311 - as above
            for one in self.alerts
            if isinstance(one.payload, Alert)
        ]

    async def _resolve(self, telling: Telling, alert: Alert, dice: Random) -> None:
        await self._until(telling.at + dice.uniform(1, 12))
        fate = dice.random()
        if fate < 0.15:
            self.tape.fault(Kind.NEVER_RESOLVED, "people")
            if fate < 0.07:
                await self._fire_later(telling, alert, dice)
            return
        early = fate < 0.35
        while not early and self.world.unwell(telling.key):  # noqa: ASYNC110 - virtual seconds cost nothing
            await asyncio.sleep(2.0)
        unwell = self.world.unwell(telling.key)
        self.tape.fault(Kind.RESOLVED_EARLY if unwell else Kind.RESOLVED, "people")
        client = Client(self.ground, dice, self.case.ledger)
        await client.deliver([self._now(telling, replace(alert, firing=False))])
        if not unwell or dice.random() < 0.5:
            return
        for _ in range(3):
            await asyncio.sleep(dice.uniform(5, 25))
            self.tape.fault(Kind.FIRES_AGAIN, "people")
            await client.deliver([self._now(telling, alert)])
        while self.world.unwell(telling.key):  # noqa: ASYNC110 - virtual seconds cost nothing
            await asyncio.sleep(2.0)
        await client.deliver([self._now(telling, replace(alert, firing=False))])

    async def _fire_later(self, telling: Telling, alert: Alert, dice: Random) -> None:
        """It fires again with a later start, and only the end of that firing is delivered."""
        await asyncio.sleep(dice.uniform(5, 25))
        client = Client(self.ground, dice, self.case.ledger)
        later = replace(alert, starts_at=moment(self.loop.time()))
        self.tape.fault(Kind.FIRES_AGAIN, "people")
        await client.deliver([self._now(telling, later)])
        if dice.random() < 0.5:
            await client.deliver([self._now(telling, alert)])
        while self.world.unwell(telling.key):  # noqa: ASYNC110 - virtual seconds cost nothing
            await asyncio.sleep(2.0)
        await client.deliver([self._now(telling, replace(later, firing=False))])

    def _now(self, telling: Telling, alert: Alert) -> Telling:
        at = self.loop.time()
        return replace(telling, at=at, observed=at, payload=alert, kinds=())

    async def _tell(self, request: list[Telling], dice: Random) -> None:
        await self._until(request[-1].at)
        await Client(self.ground, dice, self.case.ledger).deliver(request)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.loop.time()))

    # -------------------------------------------------------------- what is known

    async def _remember_history(self) -> None:
        """What the agent knows of before: the release and the configuration that served well."""
        for key in self.world.services:
            record = RevisionRecord(
                key=key,
                template_hash=template_hash(GOOD),
                number=2,
                health=RevisionHealth.SERVED_WELL,
                seen_at=moment(0) - OLD / 2,
                reason="complete and within the SLO",
            )
            await self.store.history.record_revision(record)
            await self.store.history.record_config(self.world.config_record(key))

    async def _gather(self) -> None:
        case = self.case
        found = [await self.store.incidents.get(IncidentId(known)) for known in self.services]
        case.records = tuple(record for record in found if record is not None)
        case.unfinished = tuple(self.open)
        told = {a.signal_id for _, _, answer in case.ledger.acknowledged for a in answer}
        told |= {SignalId(moved.signal) for moved in self.tape.of(SignalMoved)}
        case.signals = {signal: await self.store.signals.get(signal) for signal in sorted(told)}
        case.heads = self.shared.run(heads, "people")
        await self._look()

    async def _look(self) -> None:
        """What the timelines say now; they may only grow from here."""
        look = {
            known: await self.store.incidents.timeline(IncidentId(known)) for known in list(self.services)
        }
        self.case.looks.append(look)


_ENDS = frozenset({"recovered", "recovered_without_action", "proposed", "escalated"})
