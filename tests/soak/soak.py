"""The soak: many signals, many breakages, many kills, and accounts that must add up in the end.

What runs are the product's own processes (`tests.soak.agent`) on a real
database; the cluster is a counting stand-in (`tests.soak.target`), and is
labelled so in every figure. `play` plays one score and answers what came of
it; the choice of victims and moments is the seed's.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx2
import msgspec

from app.store import open_store
from testbed.ports import free_ports
from testbed.supervisor import Supervisor
from testbed.waiting import NotYet, wait_for
from tests.soak import accounts, audit
from tests.soak.accounts import Books
from tests.soak.intakes import Intake, Sent
from tests.soak.processes import ROOT, Agent, Ground, Killing
from tests.soak.score import DEPLOYS, Happening, Manner, Message, Outage, Score, Trouble
from tests.soak.wire import ENVIRONMENT, Break, Breakage, Mend

DRAIN_SECONDS = 600.0
QUIET_SECONDS = 3.0
"""Nothing may be open or pending for this long before the end is believed."""
TOLD_AGAIN_SECONDS = 5.0
"""A service with something pending gets a report of another failed deploy this often."""
ACTED_WITHIN_SECONDS = 30.0
"""Then another service breaks, if nothing was done for the one before."""

START_SECONDS = 300.0

WORST_MOMENT_SECONDS = 1.5
"""How long a killing waits for its victim to hold an incident."""

IDLE = ("api", "watch")
"""Roles that never hold one."""

STAND_IN = "counting stand-in for the cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a score is played on: everything started, nothing sent yet."""

    ground: Ground
    agents: list[Agent]
    """Every place whose process may be killed."""
    intake: Intake
    troubles: dict[Trouble, Callable[[Outage], Awaitable[None]]]
    """What each fault does here; one without an entry does not happen."""
    embedded: bool
    """On SQLite: one process, whose successor goes by the same name."""

    @property
    def target_log(self) -> Path:
        return self.ground.folder / "target.log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a soak."""

    name: str
    score: Score
    books: Books
    sent: Sent
    killings: tuple[Killing, ...]
    outages: tuple[str, ...]
    ended_alone: tuple[str, ...]
    wrong: tuple[str, ...]
    """What does not add up; empty is the only good answer."""
    seconds: float
    drain_seconds: float
    embedded: bool

    def figures(self) -> dict[str, object]:
        """For people and for `docs`: counts and times, nothing that identifies."""
        taken = audit.take_over_seconds(self.books, self.killings, same_name=self.embedded)
        healed = audit.recovery_seconds(self.books)
        effects = self.books.effects
        return {
            "soak": self.name,
            "cluster": STAND_IN,
            "size": asdict(self.score.size),
            "entries_acknowledged": self.sent.accepted,
            "entries_sent_without_an_answer": self.sent.unsure.total(),
            "entries_refused": self.sent.refused,
            "signals_in_store": len(self.books.signals),
            "dispositions": _counted(row.disposition for row in self.books.signals),
            "sent_again": dict(sorted(self.sent.retries.items())),
            "incidents": len(self.books.incidents),
            "ends": _counted(str(i.state) for i in self.books.incidents.values()),
            "intents": len(self.books.intents),
            "outcomes": _counted(str(i.outcome) for i in self.books.intents.values()),
            "effects_counted": len(effects),
            "effects_by_action": _counted(effect.action for effect in effects),
            "answers_lost": sum(not effect.answered for effect in effects),
            "writes_refused": _counted(refusal.error for refusal in self.books.refusals),
            "kills": _counted(killing.process.rstrip("0123456789-") for killing in self.killings),
            "outages": list(self.outages),
            "starts_after_ending_alone": len(self.ended_alone),
            "take_overs": len(taken),
            "take_over_p50_seconds": _rounded(audit.percentile(taken, 0.5)),
            "take_over_p99_seconds": _rounded(audit.percentile(taken, 0.99)),
            "take_over_longest_seconds": _rounded(taken[-1] if taken else None),
            "recovery_p50_seconds": _rounded(audit.percentile(healed, 0.5)),
            "recovery_p99_seconds": _rounded(audit.percentile(healed, 0.99)),
            "seconds": round(self.seconds, 1),
            "drain_seconds": round(self.drain_seconds, 1),
            "wrong": len(self.wrong),
        }

    def publish(self) -> None:
        """Print the table, and leave it as JSON where the figures of a run belong."""
        figures = self.figures()
        width = max(len(name) for name in figures)
        lines = [f"  {name:<{width}}  {value}" for name, value in figures.items()]
        sys.stdout.write("\n".join([f"soak {self.name} ({STAND_IN})", *lines, *self.wrong[:50]]) + "\n")
        folder = ROOT / "build" / "soak"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.name}.json").write_text(json.dumps(figures, indent=2) + "\n")


@contextmanager
def ground(supervisor: Supervisor, folder: Path, database_url: str, score: Score) -> Iterator[Ground]:
    """A migrated database that writes down changes of hands, and a stand-in that runs."""
    (port,) = free_ports(1)
    asyncio.run(_migrate(database_url))
    accounts.install_claim_log(accounts.engine_of(database_url))
    target = supervisor.start(
        "target",
        [
            *(sys.executable, "-m", "tests.soak.target", "--port", str(port)),
            *("--log", str(folder / "target.log")),
            *("--services", str(score.size.services), "--seed", str(score.size.seed)),
        ],
        log=folder / "target.out",
        env={"PYTHONPATH": str(ROOT)},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for("the stand-in to answer", lambda: _answers(url), timeout_seconds=START_SECONDS)
        yield Ground(supervisor=supervisor, folder=folder, target_url=url, database_url=database_url)
        target.check()
    finally:
        target.stop()


def play(name: str, score: Score, stage: Stage) -> Report:
    """Start the agents, play the score, wait for the end, close the books."""
    return asyncio.run(_Play(name, score, stage).run())


@dataclass(kw_only=True)
class _Diary:
    sent: Sent = field(default_factory=Sent)
    killings: list[Killing] = field(default_factory=list)
    outages: list[str] = field(default_factory=list)


class _Play:
    def __init__(self, name: str, score: Score, stage: Stage) -> None:
        self._name = name
        self._score = score
        self._stage = stage
        self._diary = _Diary()
        self._engine = accounts.engine_of(stage.ground.database_url)
        self._began = 0.0
        self._told = 0

    async def run(self) -> Report:
        stage, size = self._stage, self._score.size
        self._say(
            f"seed {size.seed}: {size.signals} signals, {size.kills} kills, {len(stage.agents)} processes"
        )
        keeper: asyncio.Task[None] | None = None
        started = time.monotonic()
        try:
            for agent in stage.agents:
                agent.start()
            await self._until_trusted()
            keeper = asyncio.create_task(self._keep())
            await self._disturb_and_send()
            await self._until_acted()
            drain_began = time.monotonic()
            await self._drain()
            drained = time.monotonic() - drain_began
        finally:
            if keeper is not None:
                keeper.cancel()
                await asyncio.gather(keeper, return_exceptions=True)
            await asyncio.gather(*(asyncio.to_thread(agent.stop) for agent in stage.agents))
            await stage.intake.close()
        books = accounts.read_books(self._engine, stage.target_log)
        wrong = audit.audit(books, self._diary.sent, stage.intake.source)
        wrong += [f"an answer no sender should see: {s}" for s in self._diary.sent.surprises[:20]]
        return Report(
            name=self._name,
            score=self._score,
            books=books,
            sent=self._diary.sent,
            killings=tuple(self._diary.killings),
            outages=tuple(self._diary.outages),
            ended_alone=tuple(line for agent in stage.agents for line in agent.ended_alone),
            wrong=tuple(wrong),
            seconds=time.monotonic() - started,
            drain_seconds=drained,
            embedded=stage.embedded,
        )

    # -------------------------------------------------------------- the disturbance

    async def _disturb_and_send(self) -> None:
        """All of it at once, until the last signal is acknowledged."""
        beginning, self._began = datetime.now(UTC), time.monotonic()
        queue: asyncio.Queue[Message] = asyncio.Queue()
        for message in self._score.messages:
            queue.put_nowait(message)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._people())
            tasks.create_task(self._killer())
            tasks.create_task(self._outages())
            for _ in range(self._score.size.senders):
                tasks.create_task(self._sender(queue, beginning))

    async def _sender(self, queue: asyncio.Queue[Message], beginning: datetime) -> None:
        while not queue.empty():
            message = queue.get_nowait()
            await self._at(message.at)
            await self._stage.intake.send(message, beginning, self._diary.sent)

    async def _people(self) -> None:
        async with httpx2.AsyncClient(base_url=self._stage.ground.target_url, trust_env=False) as client:
            for happening in self._score.happenings:
                await self._at(happening.at)
                await _happen(client, happening)

    async def _killer(self) -> None:
        """At the worst moment where there is one: while the victim is at work on an incident."""
        agents = self._stage.agents
        for at, choice in zip(self._score.kills, self._score.victims, strict=True):
            await self._at(at)
            victim = agents[int(choice * len(agents))]
            if victim.owners() and not victim.name.startswith(IDLE):
                await asyncio.to_thread(
                    accounts.wait_until_held, self._engine, victim.owners(), WORST_MOMENT_SECONDS
                )
            self._diary.killings.append(await asyncio.to_thread(victim.kill))

    async def _outages(self) -> None:
        for outage in self._score.outages:
            if outage.trouble in self._stage.troubles:
                await self._at(outage.at)
                began = time.monotonic()
                await self._stage.troubles[outage.trouble](outage)
                self._diary.outages.append(f"{outage.trouble}: {time.monotonic() - began:.1f} s")

    async def _keep(self) -> None:
        while True:
            for agent in self._stage.agents:
                await asyncio.to_thread(agent.keep)
            await asyncio.sleep(0.5)

    async def _at(self, moment: float) -> None:
        await asyncio.sleep(max(0.0, self._began + moment - time.monotonic()))

    # -------------------------------------------------------------- beginning and end

    async def _until_trusted(self) -> None:
        """The agents have seen what runs serve well: only then may it be broken."""
        size = self._score.size

        def check() -> bool | NotYet:
            for agent in self._stage.agents:
                agent.keep()
            unready = [agent.name for agent in self._stage.agents if not agent.ready()]
            trusted = accounts.trusted_services(self._engine)
            if unready or trusted < size.services:
                return NotYet(f"{trusted} of {size.services} trusted; not ready: {unready}")
            return True

        await asyncio.to_thread(
            wait_for,
            "every service to be trusted",
            check,
            timeout_seconds=START_SECONDS,
            interval_seconds=0.5,
        )

    async def _until_acted(self) -> None:
        """Until the agents acted at least once: on a busy machine the last signal may come before that.

        One service after the other gets a release that crashes, and a report of it.
        """
        last = time.monotonic() + DRAIN_SECONDS
        async with httpx2.AsyncClient(base_url=self._stage.ground.target_url, trust_env=False) as client:
            for number in range(self._score.size.services):
                if self._acted() or time.monotonic() >= last:
                    return
                service = f"svc-{number:03d}"
                await _happen(client, _crashing(service, self._score.size.breakages + 2 + number))
                await self._tell_failed(service)
                until = time.monotonic() + ACTED_WITHIN_SECONDS
                while time.monotonic() < until:
                    await asyncio.sleep(0.5)
                    if self._acted():
                        return

    def _acted(self) -> bool:
        return b'"effect"' in self._stage.target_log.read_bytes()

    async def _drain(self) -> None:
        """Until nothing is open and nothing is pending, and stays so for a while.

        A breach too short to count waits for its service's next incident; so that
        none has to wait for minutes, those services get reports of failed deploys
        for as long as something of theirs waits.
        """
        async with httpx2.AsyncClient(base_url=self._stage.ground.target_url, trust_env=False) as client:
            for number in range(self._score.size.services):
                await _happen(client, _mending(f"svc-{number:03d}"))
        deadline = time.monotonic() + DRAIN_SECONDS
        quiet_since: float | None = None
        told: dict[str, float] = {}
        while time.monotonic() < deadline:
            left = await asyncio.to_thread(accounts.unfinished, self._engine, self._stage.intake.source)
            pending = left.pending_services
            if left.open_incidents or pending or left.arrived < self._diary.sent.accepted:
                quiet_since = None
                for service in set(pending):
                    if time.monotonic() - told.get(service, -TOLD_AGAIN_SECONDS) >= TOLD_AGAIN_SECONDS:
                        told[service] = time.monotonic()
                        await self._tell_failed(service)
            elif quiet_since is None:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since >= QUIET_SECONDS:
                return
            await asyncio.sleep(0.5)
        self._say(f"not at rest after {DRAIN_SECONDS:.0f} s")

    async def _tell_failed(self, service: str) -> None:
        self._told += 1
        entry = {
            "service": service,
            "environment": ENVIRONMENT,
            "version": f"0.{self._told}",
            "status": "failed",
        }
        message = Message(
            at=0,
            path=DEPLOYS,
            entries=(entry,),
            moments=(0.0,),
            manner=Manner.PLAIN,
            key=f"soak-end-{self._told}",
        )
        await self._stage.intake.send(message, datetime.now(UTC), self._diary.sent)

    def _say(self, what: str) -> None:
        sys.stdout.write(f"soak {self._name}: {what}\n")


def _mending(service: str) -> Happening:
    return Happening(at=0, service=service, breakage=None, number=0)


def _crashing(service: str, number: int) -> Happening:
    return Happening(at=0, service=service, breakage=Breakage.CRASH, number=number)


async def _happen(client: httpx2.AsyncClient, happening: Happening) -> None:
    asked: Break | Mend
    if happening.breakage is None:
        path, asked = "/mend", Mend(service=happening.service)
    else:
        path = "/damage"
        asked = Break(service=happening.service, breakage=happening.breakage, number=happening.number)
    answer = await client.post(path, content=msgspec.json.encode(asked))
    answer.raise_for_status()


async def _migrate(database_url: str) -> None:
    store = await open_store(database_url)
    await store.close()


def _answers(url: str) -> bool | NotYet:
    try:
        return httpx2.post(f"{url}/services", timeout=20, trust_env=False).status_code == 200
    except httpx2.TransportError as error:
        return NotYet(repr(error))


def _counted(names: Iterator[str] | Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
