"""A counting stand-in for the cluster, run as a process of its own: what the soak's agents act on.

It is no Kubernetes: 200 services, each in a small simulated world of its own
(`app.sandbox`) on the real clock, with the rules of the Kubernetes API that
matter to at-most-once effects: uid, resourceVersion and generation, writes
refused with 409 unless they name the version they were decided on, the marker
annotation, revisions, pods that take a while to become ready. Every accepted
write goes to an append-only log before its answer goes out, fsynced, with its
beginning and end: effects are counted here and nowhere else. A share of the
answers is lost on purpose, and every write takes a while.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import uvicorn

from app.agent.ids import IntentId, ServiceKey
from app.agent.models import Action, SliSample, TelemetryHealth
from app.agent.workload import TargetState
from app.clock import SystemClock
from app.errors import AgentError, PermanentError, TransientError
from app.sandbox.api import Thing
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.objects import Template
from app.sandbox.world import Workload, World
from tests.soak.wire import (
    ENVIRONMENT,
    STATUS,
    AboutAction,
    AboutService,
    Break,
    Breakage,
    Change,
    Effect,
    Failure,
    Mend,
    Moved,
    MovedSince,
    Refusal,
    SliAt,
    SliBetween,
    TelemetryOf,
)

UPSTREAM = "upstream"
"""A Deployment beside each service that the service calls; no service of its own to the agent."""

WINDOW = timedelta(seconds=1.5)
"""What the stand-in's monitoring looks back over: short, so that recovery shows at once."""

LOOK_BACK = timedelta(minutes=10)
SETTLING_TIME = timedelta(seconds=30)
PUMP_SECONDS = 0.25
SCRAPE_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How the stand-in treats writes."""

    slowest_seconds: float
    """A write takes up to this long, before or after its effect."""
    lost_share: float
    """This share of accepted writes gets no answer."""
    refused_share: float
    """This share of writes is turned away as overload, with nothing changed."""


class LostAnswer(Exception):
    """The effect took place, and the caller is not to hear of it."""


class BeginningEarlier:
    """The system's clock, save that it is late until a house has settled.

    Pods take a few seconds to come up, in which their requests fail; the score leaves that out.
    """

    settled = False

    def now(self) -> datetime:
        present = SystemClock().now()
        return present if self.settled else present - SETTLING_TIME

    async def sleep(self, seconds: float) -> None:
        await SystemClock().sleep(seconds)


class House:
    """One service, what it calls, and the people who change it."""

    def __init__(self, service: str, seed: int) -> None:
        self.service = service
        began = BeginningEarlier()
        self.world = World(began, seed)
        self.cluster = SandboxCluster.over(self.world)
        self.writer = self.cluster.writer()
        self.metrics = SandboxMetrics(self.world, window=WINDOW)
        self.world.put_config_map(ENVIRONMENT, self.config_map, {"MODE": "normal"})
        for name, image, callee, maps in (
            (UPSTREAM, "upstream:1", None, ()),
            (service, f"{service}:1", UPSTREAM, (self.config_map,)),
        ):
            env = () if callee is None else (("DEPENDENCY_URL", f"http://{callee}"),)
            self.world.deploy(
                Workload(
                    namespace=ENVIRONMENT,
                    name=name,
                    template=Template(image=image, env=env, config_maps=maps),
                    replicas=1,
                    progress_deadline_seconds=60.0,
                )
            )
        began.settled = True
        self.world.catch_up()

    @property
    def config_map(self) -> str:
        return f"{self.service}-settings"

    @property
    def key(self) -> ServiceKey:
        return ServiceKey(environment=ENVIRONMENT, service=self.service)

    def damage(self, breakage: Breakage, number: int) -> None:
        """A pipeline or a person does something unwise."""
        match breakage:
            case Breakage.CRASH | Breakage.ERRORS | Breakage.MISSING:
                self.world.release(ENVIRONMENT, self.service, f"{self.service}:{number}-{breakage}")
            case Breakage.CONFIG:
                data = {"MODE": "normal", "FAIL_RATIO": "0.5", "CHANGE": str(number)}
                self.world.put_config_map(ENVIRONMENT, self.config_map, data)
            case Breakage.UPSTREAM:
                self.world.set_replicas(ENVIRONMENT, UPSTREAM, 0)
                self.world.release(ENVIRONMENT, self.service, f"{self.service}:{number}")

    def mend(self) -> None:
        """A person puts everything right."""
        self.world.set_replicas(ENVIRONMENT, UPSTREAM, 1)
        self.world.put_config_map(ENVIRONMENT, self.config_map, {"MODE": "normal"})
        self.world.release(ENVIRONMENT, self.service, f"{self.service}:1")


class Target:
    """All houses, and the log of what was done to them."""

    def __init__(self, services: int, seed: int, manner: Manner, log: Path) -> None:
        self._random = random.Random(seed)  # noqa: S311 - a reproducible world, no secret
        self._manner = manner
        self._log = log.open("ab")
        self._cursor = 0
        self._moved: dict[str, int] = {}
        self._known: frozenset[ServiceKey] = frozenset()
        self._silent: frozenset[ServiceKey] = frozenset()
        self._houses: dict[str, House] = {}
        for number in range(services):
            house = House(f"svc-{number:03d}", seed * 1000 + number)
            self._houses[house.service] = house
            house.world.api.changed.append(self._noticing(house.service))
            self._note(house.service)

    def _noticing(self, service: str) -> Callable[[Thing], None]:
        return lambda _: self._note(service)

    def _note(self, service: str) -> None:
        self._cursor += 1
        self._moved[service] = self._cursor

    async def live(self) -> None:
        """Let every house's time pass, and scrape them, until cancelled."""
        scraped = 0.0
        while True:
            for house in self._houses.values():
                house.world.catch_up()
            now = asyncio.get_running_loop().time()
            if now - scraped >= SCRAPE_SECONDS:
                scraped = now
                self._scrape()
            await asyncio.sleep(PUMP_SECONDS)

    def _scrape(self) -> None:
        at = datetime.now(UTC)
        newest = {
            house.key: house.world.traffic.newest((ENVIRONMENT, house.service), at, LOOK_BACK)
            for house in self._houses.values()
        }
        self._known = frozenset(key for key, seen in newest.items() if seen is not None)
        self._silent = frozenset(
            key for key, seen in newest.items() if seen is not None and at - seen > WINDOW
        )

    # -------------------------------------------------------------- reading

    async def services(self, _: None) -> list[ServiceKey]:
        return [house.key for house in self._houses.values()]

    async def workload(self, asked: AboutService) -> object:
        house = self._houses.get(asked.key.service)
        return None if house is None else await house.cluster.reader.workload(asked.key)

    async def target(self, asked: AboutAction) -> object:
        return await self._house(asked.action).cluster.reader.target(asked.action)

    async def snapshot(self, asked: AboutAction) -> object:
        return await self._house(asked.action).cluster.reader.snapshot(asked.action)

    async def config_contents(self, asked: AboutService) -> object:
        house = self._houses.get(asked.key.service)
        return () if house is None else await house.cluster.reader.config_contents(asked.key)

    async def moved(self, asked: MovedSince) -> Moved:
        moved = [self._houses[name].key for name, at in self._moved.items() if at > asked.cursor]
        return Moved(cursor=self._cursor, keys=moved)

    async def rehearse(self, asked: Change) -> object:
        snapshot = None if asked.snapshot is None else asked.snapshot.model()
        rehearsal = self._house(asked.action).cluster.rehearsal
        return await rehearsal.rehearse(asked.action, asked.target, snapshot)

    async def sli(self, asked: SliAt) -> object:
        """A service that is not known has no data."""
        house = self._houses.get(asked.key.service)
        return SliSample(at=asked.at) if house is None else await house.metrics.sli(asked.key, asked.at)

    async def sli_range(self, asked: SliBetween) -> object:
        house = self._houses.get(asked.key.service)
        if house is None:
            return ()
        return await house.metrics.sli_range(asked.key, asked.start, asked.end, asked.step)

    async def telemetry(self, asked: TelemetryOf) -> TelemetryHealth:
        """As of the last scrape, which is at most half a second old."""
        keys = frozenset(asked.keys)
        return TelemetryHealth(
            known_services=len(keys & self._known),
            silent_services=len(keys & self._silent),
            source_reachable=True,
        )

    # -------------------------------------------------------------- writing

    async def apply(self, asked: Change) -> TargetState:
        """Change an object if it is as the caller saw it; log the change before any answer."""
        if asked.intent_id is None:
            raise PermanentError("a write names its intent")
        began = datetime.now(UTC)
        house = self._house(asked.action)
        delay = self._random.uniform(0, self._manner.slowest_seconds)
        effect_first, fate = self._random.random() < 0.5, self._random.random()
        if not effect_first:
            await asyncio.sleep(delay)
        try:
            if fate < self._manner.refused_share:
                raise TransientError("the stand-in is busy; nothing was changed")
            snapshot = None if asked.snapshot is None else asked.snapshot.model()
            after = await house.writer.apply(asked.action, asked.intent_id, asked.target, snapshot)
        except AgentError as error:
            await self._write(
                Refusal(
                    service=house.service,
                    intent=asked.intent_id,
                    action=asked.action.name,
                    error=type(error).__name__,
                    message=str(error),
                    at=datetime.now(UTC),
                )
            )
            raise
        committed = datetime.now(UTC)
        if effect_first:
            await asyncio.sleep(delay)
        lost = fate > 1 - self._manner.lost_share
        await self._write(self._effect(house, asked, asked.intent_id, after, (began, committed), not lost))
        if lost:
            raise LostAnswer
        return after

    @staticmethod
    def _effect(
        house: House,
        asked: Change,
        intent: IntentId,
        after: TargetState,
        times: tuple[datetime, datetime],
        answered: bool,
    ) -> Effect:
        return Effect(
            service=house.service,
            intent=intent,
            action=asked.action.name,
            object=str(after.ref),
            version_before=asked.target.resource_version,
            version_after=after.resource_version,
            began=times[0],
            committed=times[1],
            ended=datetime.now(UTC),
            answered=answered,
        )

    async def _write(self, entry: Effect | Refusal) -> None:
        kind = "effect" if isinstance(entry, Effect) else "refusal"
        line = msgspec.json.encode({"kind": kind, **msgspec.to_builtins(entry)})
        self._log.write(line + b"\n")
        self._log.flush()
        await asyncio.to_thread(os.fsync, self._log.fileno())

    def _house(self, action: Action) -> House:
        """Objects are named after their service."""
        if action.target is not None:
            found = self._houses.get(action.target.name.removesuffix("-settings"))
            if found is not None:
                return found
        raise PermanentError(f"{action.target} is not here")

    # -------------------------------------------------------------- people

    async def damage(self, asked: Break) -> None:
        self._houses[asked.service].damage(asked.breakage, asked.number)

    async def mend(self, asked: Mend) -> None:
        self._houses[asked.service].mend()

    def routes(self) -> dict[str, tuple[Any, Callable[[Any], Awaitable[object]]]]:
        return {
            "/services": (None, self.services),
            "/workload": (AboutService, self.workload),
            "/target": (AboutAction, self.target),
            "/snapshot": (AboutAction, self.snapshot),
            "/config_contents": (AboutService, self.config_contents),
            "/moved": (MovedSince, self.moved),
            "/rehearse": (Change, self.rehearse),
            "/apply": (Change, self.apply),
            "/sli": (SliAt, self.sli),
            "/sli_range": (SliBetween, self.sli_range),
            "/telemetry": (TelemetryOf, self.telemetry),
            "/damage": (Break, self.damage),
            "/mend": (Mend, self.mend),
        }


class Application:
    """The stand-in as a plain ASGI application."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._routes = target.routes()
        self._life: asyncio.Task[None] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        try:
            status, answer = await self._answer(scope["path"], bytes(body))
        except LostAnswer:
            # An answer that is announced and never given: the server breaks the connection off.
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"9")]})
            await send({"type": "http.response.body", "body": b""})
            return
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _answer(self, path: str, body: bytes) -> tuple[int, bytes]:
        if path not in self._routes:
            return 404, msgspec.json.encode(Failure(message=f"there is no {path}"))
        kind, work = self._routes[path]
        try:
            asked = None if kind is None else msgspec.json.decode(body, type=kind)
            return 200, msgspec.json.encode(await work(asked))
        except msgspec.ValidationError as error:
            return 400, msgspec.json.encode(Failure(message=str(error)))
        except AgentError as error:
            status = next((s for kind, s in STATUS.items() if isinstance(error, kind)), None)
            return status or 500, msgspec.json.encode(Failure(message=str(error)))

    async def _lifespan(self, receive: Any, send: Any) -> None:
        await receive()
        self._life = asyncio.create_task(self._target.live())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._life.cancel()
        await send({"type": "lifespan.shutdown.complete"})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--services", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--slowest", type=float, default=0.15)
    parser.add_argument("--lost", type=float, default=0.05)
    parser.add_argument("--refused", type=float, default=0.03)
    given = parser.parse_args()
    manner = Manner(slowest_seconds=given.slowest, lost_share=given.lost, refused_share=given.refused)
    target = Target(given.services, given.seed, manner, given.log)
    uvicorn.run(
        Application(target), host="127.0.0.1", port=given.port, log_level="critical", access_log=False
    )


if __name__ == "__main__":
    main()
