"""Runs one seed from beginning to end, and gathers what the promises are checked on."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

from sqlalchemy import Connection, select

import app.bootstrap
from app.agent.models import (
    Brake,
    IncidentId,
    IncidentRecord,
    RevisionHealth,
    RevisionRecord,
    SignalId,
    TimelineEntry,
)
from app.agent.ports import SignalRecord
from app.agent.runbooks import load_catalogue
from app.errors import AgentError
from app.store import history, incidents, journal, signals
from app.store.tables import incidents as incident_rows
from tests.simulation.adapters import adapters_of
from tests.simulation.clients import Client, Ledger, Telling, noise, tellings_of
from tests.simulation.faults import Kind
from tests.simulation.host import Ground, Host, tasks_of_hosts
from tests.simulation.scenario import Scenario, Span, scenario_of
from tests.simulation.scheduler import SimulatedLoop, moment, seeded_entropy
from tests.simulation.store import SharedDatabase
from tests.simulation.tape import ApprovalMoved, Entry, IncidentMoved, IntentMoved, Nudged, SignalMoved, Tape
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
    records: tuple[IncidentRecord, ...] = ()
    heads: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Length and last hash of each timeline, as the incident's own row says."""
    looks: list[dict[str, tuple[TimelineEntry, ...]]] = field(default_factory=list)
    """Timelines as they were at moments on the way."""
    signals: dict[str, SignalRecord | None] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()
    """Incidents that never ended, although the faults did."""
    defects: tuple[str, ...] = ()
    """What the product logged with a traceback: errors that nobody foresaw."""


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


def run_seed(seed: int) -> Case:
    """Run a seed in virtual time; the same seed gives the same case, to the letter."""
    shared = database()
    scenario = scenario_of(seed)
    with seeded_entropy(seed), _quiet() as defects, _catalogue_read_once():
        loop = SimulatedLoop()
        loop.set_task_factory(tasks_of_hosts)
        loop.set_exception_handler(lambda _loop, _context: None)
        try:
            case = loop.run_until_complete(_Run(loop, shared, scenario).live())
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
    real = app.bootstrap.load_catalogue
    app.bootstrap.load_catalogue = _catalogue
    try:
        yield
    finally:
        app.bootstrap.load_catalogue = real


_catalogue = functools.cache(load_catalogue)


class _Run:
    """One seed while it runs."""

    def __init__(self, loop: SimulatedLoop, shared: SharedDatabase, scenario: Scenario) -> None:
        self.loop = loop
        self.scenario = scenario
        self.dice = Random(f"run/{scenario.seed}")
        self.tape = Tape(loop.time)
        shared.empty(self.tape)
        self.shared = shared
        self.ground = Ground(
            loop=loop, tape=self.tape, dice=self.dice, database=shared, odds=scenario.odds, hosts=[]
        )
        self.world = SimulatedWorld(self.tape, scenario.services)
        self.world.bind(loop.call_later)
        self.case = Case(scenario=scenario, tape=self.tape, world=self.world, ledger=Ledger())
        self.starts = 0
        self.slots: list[Host] = []
        self.pending: dict[str, None] = {}
        self.open: dict[str, None] = {}
        self.services: dict[str, str] = {}
        self.tape.listen(self._react)

    async def live(self) -> Case:
        self._remember_history()
        for slot in range(self.scenario.hosts):
            self._start(slot)
        self._schedule()
        clients = [self.loop.create_task(work) for work in self._clients()]
        await self._until(self.scenario.faults_until)
        self._calm()
        ended = self.loop.time() + PATIENCE_SECONDS
        await asyncio.wait(clients, timeout=PATIENCE_SECONDS)
        for client in clients:
            if client.done() and not client.cancelled() and client.exception() is not None:
                raise client.exception() or AssertionError
        while (self.open or self.pending) and self.loop.time() < ended:
            await asyncio.sleep(2.0)
        self._gather()
        return self.case

    # -------------------------------------------------------------- hosts

    def _start(self, slot: int) -> None:
        """A process starts, under a new name and owner."""
        self.starts += 1
        host = Host(
            f"{'abc'[slot]}{self.starts}",
            self.ground,
            self.scenario.settings(self.starts - 1),
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

    async def _supervise(self, slot: int, host: Host) -> None:
        """Start a dead process again after a while, as an orchestrator does."""
        while host.alive:
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
                if after in _ENDS:
                    self.open.pop(incident, None)
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
                self._people_answer(approval)
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
        for meddling in plan.meddlings:
            at(meddling.start, self._meddle, meddling)
        for silence in plan.silences:
            self._silence(silence)
        for outage in plan.outages:
            self.world.source_down.append((outage.start, outage.end))
            at(outage.start, self.tape.fault, Kind.OUTAGE, "world", "source down")
        keys = list(self.world.services)
        for illness in plan.illnesses:
            key = keys[illness.service]
            at(illness.at, self.world.fall_ill, key, illness.ailment, illness.remedy)
            if illness.well_at is not None:
                at(illness.well_at, self.world.get_well, key)
        for share in (0.4, 0.7):
            at(plan.faults_until * share, self._look)
        if plan.braked is not None:
            at(plan.braked.start, self._brake, True)
            at(plan.braked.end, self._brake, False)

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

    def _interfere(self, moved: IntentMoved) -> None:
        """The worst moments for others to act are those between a decision and its effect."""
        service = self.services[moved.incident]
        soon = self.dice.uniform(0.0, 0.3)
        if self.ground.chance(self.ground.odds.meddled):
            key = next(k for k in self.world.services if k.service == service)
            number = list(self.world.services).index(key)
            once = Span(start=0, end=self.dice.choice((1.0, 1.0, -1.0)), number=number)
            self.loop.call_later(soon, self._meddle, once)
        if self.ground.chance(self.ground.odds.braked):
            self.loop.call_later(soon / 2, self._brake, True)
            self.loop.call_later(soon + self.dice.uniform(3, 15), self._brake, False)

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
            service.silences = [s for s in service.silences if s[1] <= self.loop.time()]
        self.world.source_down = [s for s in self.world.source_down if s[1] <= self.loop.time()]

    # -------------------------------------------------------------- people

    def _brake(self, engaged: bool) -> None:
        if engaged:
            self.tape.fault(Kind.BRAKED, "people")
        brake = Brake(engaged=engaged, by="on-call", reason="drill", at=moment(self.loop.time()))
        self.loop.create_task(self._insist(lambda host: host.store.set_brake(brake)))

    def _people_answer(self, approval: str) -> None:
        """Somebody says yes or no after a while, perhaps twice; or nobody says anything."""
        if self.dice.random() < 0.15:
            return
        for _ in range(self.dice.choice((1, 1, 2))):
            approve = self.dice.random() < 0.75
            self.loop.call_later(self.dice.uniform(1, 50), self._answer, approval, approve)

    def _answer(self, approval: str, approve: bool) -> None:
        from app.agent.models import ApprovalId

        def answered(host: Host) -> object:
            return host.store.answer(
                ApprovalId(approval), approve=approve, by="on-call", comment="", at=host.clock.now()
            )

        self.loop.create_task(self._insist(answered))

    async def _insist(self, what: Callable[[Host], object]) -> None:
        """Ask one process after another until one has done it, or said why not."""
        for _ in range(10):
            living = self.ground.living
            if living:
                host = self.dice.choice(living)
                call = host.spawn(_awaited(what(host)))
                await asyncio.wait({call}, timeout=10)
                if call.done() and not call.cancelled():
                    error = call.exception()
                    if error is None or (isinstance(error, AgentError) and "refuse" not in str(error)):
                        return
            await asyncio.sleep(1.0)

    def _clients(self) -> list[object]:
        dice = Random(f"clients/{self.scenario.seed}")
        keys = list(self.world.services)
        tellings: list[Telling] = []
        for illness in self.scenario.illnesses:
            tellings += tellings_of(
                dice, keys[illness.service], illness.ailment, illness.at, lambda at, i=illness: 0.3
            )
        for key in keys:
            tellings += noise(dice, key, self.scenario.faults_until)
        tellings.sort(key=lambda telling: telling.at)
        return [self._tell(batch, dice) for batch in _batches(dice, tellings)]

    async def _tell(self, batch: list[Telling], dice: Random) -> None:
        await self._until(batch[-1].at)
        await Client(self.ground, dice, self.case.ledger).deliver(batch)

    async def _until(self, at: float) -> None:
        await asyncio.sleep(max(0.0, at - self.loop.time()))

    # -------------------------------------------------------------- what is known

    def _remember_history(self) -> None:
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
            config = self.world.config_record(key)
            self.shared.run(lambda c, record=record: history.record_revision(c, record), "people")
            self.shared.run(lambda c, config=config: history.record_config(c, config), "people")

    def _gather(self) -> None:
        case, run = self.case, self.shared.run
        known = list(dict.fromkeys(m.incident for m in self.tape.of(IncidentMoved)))
        found = [run(lambda c, i=i: incidents.load(c, IncidentId(i)), "people") for i in known]
        case.records = tuple(record for record in found if record is not None)
        case.unfinished = tuple(self.open)
        told = {a.signal_id for _, _, answer in case.ledger.acknowledged for a in answer}
        told |= {SignalId(m.signal) for m in self.tape.of(SignalMoved)}
        case.signals = {s: run(lambda c, s=s: signals.get(c, s), "people") for s in sorted(told)}
        case.heads = run(_heads, "people")
        self._look()

    def _look(self) -> None:
        """What the timelines say now; they may only grow from here."""
        known = list(dict.fromkeys(m.incident for m in self.tape.of(IncidentMoved)))
        self.case.looks.append(
            {i: self.shared.run(lambda c, i=i: journal.entries(c, IncidentId(i)), "people") for i in known}
        )


_ENDS = frozenset({"recovered", "recovered_without_action", "proposed", "escalated"})


def _heads(connection: Connection) -> dict[str, tuple[int, str]]:
    rows = connection.execute(
        select(incident_rows.c.id, incident_rows.c.timeline_length, incident_rows.c.timeline_head)
    )
    return {row.id: (row.timeline_length, row.timeline_head) for row in rows}


async def _awaited(what: object) -> object:
    return await what  # type: ignore[misc]  # whatever the store's method returned is awaitable


def _batches(dice: Random, tellings: list[Telling]) -> list[list[Telling]]:
    """Mostly one at a time, now and then several in one request."""
    found: list[list[Telling]] = []
    for telling in tellings:
        if found and len(found[-1]) < 4 and telling.at - found[-1][0].at < 3 and dice.random() < 0.3:
            found[-1].append(telling)
        else:
            found.append([telling])
    return found
