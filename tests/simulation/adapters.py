"""The agent's ports over the simulated world, as one host has them: every answer crosses its wire."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

from app.agent.actions.target_parts import same_ground
from app.agent.freshness.silences import Matcher, Silence, Silencing
from app.agent.guardrails.cordons import NodeCordons
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.drains import NodeLoad
from app.agent.guardrails.opt_out import OptOut
from app.agent.ids import IntentId, JsonObject, ServiceKey
from app.agent.models import (
    Action,
    DecisionKind,
    Incident,
    Rehearsal,
    SliSample,
    Snapshot,
    TelemetryHealth,
)
from app.agent.ports.policy import PolicyAnswer
from app.agent.workload import ConfigRecord, ObjectRef, TargetState, WorkloadView
from app.bootstrap import Adapters as Adapters
from app.errors import AgentError, Conflict, Forbidden, Invalid, TransientError, UnknownOutcome
from tests.simulation.faults import Kind
from tests.simulation.host import Host
from tests.simulation.hostile import Mute
from tests.simulation.scheduler import START, moment
from tests.simulation.tape import (
    HistoryAnswered,
    PolicyAnswered,
    Sent,
    SilencesAnswered,
    SliAnswered,
    TelemetryAnswered,
    Told,
    WorkloadAnswered,
    WriteCalled,
)
from tests.simulation.world import SimulatedWorld

T = TypeVar("T")

CLIENT_TIMEOUT_SECONDS = 10.0
LATEST_ARRIVAL_SECONDS = 40.0
"""How long a write may be under way that its sender has given up."""


def adapters_of(host: Host, world: SimulatedWorld, answers: Callable[[str], DecisionKind]) -> Adapters:
    """What `app.bootstrap.connect_world` would give this host: no writer in a dry run (promise 5)."""
    dry = host.settings.dry_run
    return Adapters(
        reader=Reader(host, world),
        rehearsal=Rehearsing(host, world),
        writer=None if dry else Writer(host, world),
        metrics=Metrics(host, world),
        notifier=None if dry else People(host),
        policy_engine=Engine(host, answers),
        silences=Silences(host, world) if world.mutes else None,
    )


class _Port:
    def __init__(self, host: Host, world: SimulatedWorld) -> None:
        self._host = host
        self._world = world
        self._ground = host.ground

    async def _ask(self, where: str, answer: Callable[[], T]) -> T:
        """A question to the world; answered as things stand when it arrives."""
        wire = self._host.wire
        await wire.leave(where)
        await wire.nap(self._ground.dice.uniform(0.001, 0.02))
        await wire.there()
        found = answer()
        await wire.arrive(where)
        return found

    def _maybe_down(self) -> None:
        if self._ground.chance(self._ground.odds.cluster_down):
            self._ground.tape.fault(Kind.CLUSTER_DOWN, self._host.name)
            raise TransientError("the API server does not answer")


class Reader(_Port):
    """A `ClusterReader`."""

    async def services(self) -> tuple[ServiceKey, ...]:
        self._maybe_down()
        return await self._ask("world.read", lambda: tuple(self._world.services))

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        self._maybe_down()

        def seen() -> WorkloadView | None:
            view = self._world.workload(key)
            if view is not None:
                self._ground.tape.write(
                    WorkloadAnswered(
                        at=self._world.now,
                        who=self._host.name,
                        service=key.service,
                        unhealthy=any(pod.waiting_reason is not None for pod in view.pods)
                        or view.progress_deadline_exceeded,
                        whole=view.rollout_complete and view.available_replicas >= view.desired_replicas,
                    )
                )
            return view

        return await self._ask("world.read", seen)

    async def target(self, action: Action) -> TargetState:
        self._maybe_down()
        return await self._ask("world.read", lambda: self._world.find(action.target)[1].state)

    async def snapshot(self, action: Action) -> Snapshot:
        self._maybe_down()

        def taken() -> Snapshot:
            _, thing = self._world.find(action.target)
            return Snapshot(ref=thing.ref, token=thing.token, body=dict(thing.spec))

        return await self._ask("world.read", taken)

    async def disruption(self, action: Action) -> Disruption | None:
        """Nothing in this world has single pods."""
        return None

    async def cordons(self, node: ObjectRef) -> NodeCordons:
        return NodeCordons(nodes=0)

    async def load(self, node: ObjectRef, *, rooms: bool) -> NodeLoad:
        return NodeLoad(node=node.name)

    async def opt_out(self, action: Action, key: ServiceKey) -> OptOut:
        """In this world no owner holds the agent back."""
        return OptOut()

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        return await self._ask("world.read", lambda: (self._world.config_record(key),))


class Rehearsing(_Port):
    """A `ClusterRehearsal`."""

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        def rehearsed() -> Rehearsal:
            try:
                service, thing = self._world.find(action.target)
                if not same_ground(action, target.token, thing.token):
                    raise Conflict(f"{thing.ref} was modified")
                self._world.wanted(action, service, thing, snapshot)
            except AgentError as error:
                return Rehearsal(accepted=False, message=str(error))
            return Rehearsal(accepted=True, message="it would be changed")

        return await self._ask("world.read", rehearsed)


class Writer(_Port):
    """A `ClusterWriter`: what it sends may be refused, be late, or be applied without a word."""

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        host, wire = self._host, self._host.wire
        self._ground.tape.write(WriteCalled(at=self._world.now, who=host.name, intent=intent_id))
        await wire.leave("world.write")
        trouble = self._trouble()
        if trouble is Kind.WRITE_REFUSED:
            raise TransientError("the API server is overloaded and says so")
        if trouble is Kind.WRITE_CONFLICT:
            self._world.touch_status(self._world.find(action.target)[1])
        self._ground.tape.write(
            Sent(at=self._world.now, who=host.name, intent=intent_id, action=action.name.value)
        )
        answer: asyncio.Future[TargetState] = self._ground.loop.create_future()
        who = (host.name, host.owner)

        def serve() -> None:
            try:
                after = self._world.apply(action, intent_id, target, snapshot, who)
            except AgentError as error:
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done() and trouble is not Kind.WRITE_UNHEARD:
                    answer.set_result(after)

        if trouble is not Kind.WRITE_LOST:
            late = self._ground.dice.uniform(CLIENT_TIMEOUT_SECONDS, LATEST_ARRIVAL_SECONDS)
            wire.send("world.write", serve, delay=late if trouble is Kind.WRITE_LATE else None)
        try:
            after = await wire.answered(answer, CLIENT_TIMEOUT_SECONDS)
        except TimeoutError:
            raise UnknownOutcome("the API server did not answer") from None
        except Conflict:
            await wire.there()
            raise
        await wire.arrive("world.write")
        return after

    def _trouble(self) -> Kind | None:
        if not self._ground.chance(self._ground.odds.write_trouble):
            return None
        trouble = self._ground.dice.choice(
            (
                Kind.WRITE_REFUSED,
                Kind.WRITE_CONFLICT,
                Kind.WRITE_UNHEARD,
                Kind.WRITE_LATE,
                Kind.WRITE_LOST,
            )
        )
        self._ground.tape.fault(trouble, self._host.name)
        return trouble


class Metrics(_Port):
    """A `MetricSource`; its answers are kept on the tape."""

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        def read() -> SliSample | AgentError:
            fault = self._fault(key)
            sample = None if fault is not None else self._world.sli(key, _seconds(at))
            self._ground.tape.write(
                SliAnswered(at=self._world.now, who=self._host.name, key=key, asked_at=at, sample=sample)
            )
            return sample or fault or SliSample(at=at)

        return _there(await self._ask("metrics", read))

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        def read() -> tuple[SliSample, ...] | AgentError:
            fault = self._fault(key)
            self._ground.tape.write(
                HistoryAnswered(
                    at=self._world.now,
                    who=self._host.name,
                    key=key,
                    asked_at=end,
                    refused=fault is not None,
                )
            )
            if fault is not None:
                return fault
            found = []
            at = start
            while at <= end:
                sample = self._world.sli(key, _seconds(at))
                if sample.error_rate is not None:
                    found.append(sample)
                at += step
            return tuple(found)

        return _there(await self._ask("metrics", read))

    def _fault(self, key: ServiceKey) -> AgentError | None:
        if self._world.unreachable(self._world.now):
            return TransientError("the monitoring does not answer")
        if self._world.denies(self._world.now):
            self._ground.tape.fault(Kind.METRICS_REFUSED, self._host.name)
            return Forbidden("the monitoring answered 403")
        if self._world.refuses(key):
            self._ground.tape.fault(Kind.NOT_MEASURABLE, self._host.name)
            return Invalid("the query answers 2 series where one is meant")
        return None

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        def read() -> TelemetryHealth:
            health = self._world.telemetry()
            self._ground.tape.write(
                TelemetryAnswered(
                    at=self._world.now,
                    who=self._host.name,
                    asked_at=at,
                    # By the words of promise 8, not by the product's own judgement.
                    outage=not health.source_reachable
                    or (health.silent_services >= 3 and health.silent_services * 2 > health.known_services),
                )
            )
            return health

        return await self._ask("metrics", read)


class Silences(_Port):
    """A `SilenceSource`; its answers are kept on the tape."""

    async def concerning(self, key: ServiceKey, at: datetime) -> tuple[Silencing, ...]:
        def read() -> tuple[Silencing, ...]:
            here = [mute for muted, mute in self._world.mutes if muted == key and _in_force(mute, at)]
            self._ground.tape.write(
                SilencesAnswered(
                    at=self._world.now,
                    who=self._host.name,
                    service=key.service,
                    whole=any(mute.severity is None for mute in here),
                    severities=tuple(mute.severity for mute in here if mute.severity is not None),
                )
            )
            return tuple(_silencing(key, mute) for mute in here)

        return await self._ask("silences", read)


def _in_force(mute: Mute, at: datetime) -> bool:
    return mute.stretch.start <= _seconds(at) < mute.stretch.end


def _silencing(key: ServiceKey, mute: Mute) -> Silencing:
    """As a connector makes it of the silence that people set."""
    wanted = {"service": key.service} | ({} if mute.severity is None else {"severity": mute.severity})
    silence = Silence(
        id=f"{key.service} {mute.stretch.start:.3f}",
        matchers=tuple(Matcher(name=name, value=value) for name, value in wanted.items()),
        starts_at=moment(mute.stretch.start),
        ends_at=moment(mute.stretch.end),
        by="ann",
    )
    return Silencing(silence=silence, narrowed=mute.severity is not None)


def _there(answer: T | AgentError) -> T:
    if isinstance(answer, AgentError):
        raise answer
    return answer


class People:
    """A `Notifier`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    async def send(self, text: str, incident: Incident) -> None:
        wire, ground = self._host.wire, self._host.ground
        await wire.leave("notify")
        if ground.chance(ground.odds.deaf):
            ground.tape.fault(Kind.PEOPLE_DEAF, self._host.name)
            raise UnknownOutcome("the chat did not answer")
        ground.tape.write(Told(at=ground.tape.now(), who=self._host.name, text=text))
        await wire.arrive("notify")


class Engine:
    """A `PolicyEngine`: whatever breaks in it is a deny, as the port demands (promise 7)."""

    def __init__(self, host: Host, answers: Callable[[str], DecisionKind]) -> None:
        self._host = host
        self._answers = answers

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        wire, ground = self._host.wire, self._host.ground
        await wire.leave("policy")
        action, plan = document["action"], document["plan"]
        assert isinstance(action, dict)
        assert isinstance(plan, dict)
        broken = ground.chance(ground.odds.policy_down)
        if broken:
            ground.tape.fault(Kind.POLICY_DOWN, self._host.name)
        answer = DecisionKind.DENY if broken else self._answers(str(action["name"]))
        ground.tape.write(
            PolicyAnswered(
                at=ground.tape.now(),
                who=self._host.name,
                plan_hash=str(plan["hash"]),
                action=str(action["name"]),
                answer=answer.value,
                broken=broken,
            )
        )
        await wire.arrive("policy")
        reason = "the policy engine does not answer" if broken else f"the engine says {answer}"
        return PolicyAnswer(kind=answer, reasons=(reason,))


def _seconds(at: datetime) -> float:
    return (at - START).total_seconds()
