"""The small world that the agent acts on: a few services, their objects, how they do.

It obeys the rules that the product relies on in a real cluster: preconditions
on uid and resourceVersion, a token that changes with what an object asks for, a
marker written with the change, revisions that can be gone back to. Every change
that a write of the agent brings about goes to the tape as one effect.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from app.agent.guardrails.target_token import workload_token
from app.agent.ids import IntentId, JsonObject, ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    SliSample,
    Snapshot,
    TelemetryHealth,
)
from app.agent.workload import (
    ConfigMapView,
    ConfigRecord,
    ObjectRef,
    PodView,
    Revision,
    RevisionHealth,
    TargetState,
    WorkloadView,
)
from app.errors import Conflict, Invalid, NotFound
from tests.simulation.scheduler import moment
from tests.simulation.tape import ChangedByOther, Effect, ScaledByOther, Tape

if TYPE_CHECKING:
    from tests.simulation.hostile import Mute

AGENT = "self-healing-devops-agent"
OLDEST, GOOD, BAD = "shop:1", "shop:2", "shop:3"
BY_HAND = "shop:4"
SECRET = "hunter2-do-not-tell"
"""Stands in every ConfigMap of the world; the record of an incident must never show it."""
ROLLOUT_SECONDS = 4.0
BASE_REPLICAS = 2
BASE_RATE = 50.0
SICK_ERROR_RATE = 0.3
FEW_REQUESTS = 0.05
"""Requests per second in a quiet time; the product judges none below 0.2."""
OLD = timedelta(hours=6)
_ALERT_ABOVE = 0.05


class Ailment(StrEnum):
    """What is really wrong with a service."""

    BAD_RELEASE = "bad release"
    SLOW_RELEASE = "release that only makes errors"
    BAD_CONFIG = "bad configuration"
    LEAK = "memory leak"
    SURGE = "surge of traffic"
    MYSTERY = "unknown"


class Remedy(StrEnum):
    """What the obvious action does about it."""

    HELPS = "helps"
    USELESS = "useless"
    HARMS = "harms"


@dataclass(slots=True, kw_only=True)
class Thing:
    """A Deployment or a ConfigMap as the cluster keeps it."""

    ref: ObjectRef
    uid: str
    spec: JsonObject
    version: int
    generation: int = 1
    marker: IntentId | None = None
    changed_by: str | None = "pipeline"
    changed_at: datetime | None = None

    @property
    def token(self) -> str:
        if self.ref.kind != "Deployment":
            return f"{self.uid}/{content_hash(self.spec)}"
        replicas = self.spec["replicas"]
        assert isinstance(replicas, int)
        return workload_token(
            self.uid,
            generation=self.generation,
            template=content_hash({name: item for name, item in self.spec.items() if name != "replicas"}),
            paused=False,
            replicas=replicas,
            rest="same",
        )

    @property
    def state(self) -> TargetState:
        return TargetState(
            ref=self.ref,
            uid=self.uid,
            resource_version=str(self.version),
            token=self.token,
            marker=self.marker,
            changed_by=self.changed_by,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How a service does from a moment on."""

    since: float
    error_rate: float
    request_rate: float


@dataclass(slots=True, kw_only=True)
class Service:
    """One service with what hangs on it."""

    key: ServiceKey
    deployment: Thing
    config: Thing
    revisions: list[tuple[int, str, datetime]]
    """Number, image and birth of each template, oldest first."""
    ailment: Ailment | None = None
    remedy: Remedy = Remedy.HELPS
    sick_since: float = 0.0
    levels: list[Level] = field(default_factory=list)
    silences: list[tuple[float, float]] = field(default_factory=list)
    """When its metrics are missing."""
    refusals: list[tuple[float, float]] = field(default_factory=list)
    """When the metric source cannot answer about it."""
    quiets: list[tuple[float, float]] = field(default_factory=list)
    """When it has hardly any requests."""

    @property
    def image(self) -> str:
        return str(self.deployment.spec["image"])

    @property
    def replicas(self) -> int:
        count = self.deployment.spec["replicas"]
        assert isinstance(count, int)
        return count


class SimulatedWorld:
    """All services, their measurements, and the API server's side of every request."""

    def __init__(self, tape: Tape, count: int, *, read_at_start: bool = False) -> None:
        self._tape = tape
        self._read_at_start = read_at_start
        self._version = 1000
        self.services: dict[ServiceKey, Service] = {}
        self.source_down: list[tuple[float, float]] = []
        self.source_refuses: list[tuple[float, float]] = []
        self.mutes: list[tuple[ServiceKey, Mute]] = []
        """What people silence in the monitoring, past and future."""
        for number in range(count):
            self._add(service_key(number), number)

    @property
    def now(self) -> float:
        return self._tape.now()

    def things(self) -> list[tuple[Service, Thing]]:
        return [(s, t) for s in self.services.values() for t in (s.deployment, s.config)]

    def find(self, ref: ObjectRef | None) -> tuple[Service, Thing]:
        for service, thing in self.things():
            if thing.ref == ref:
                return service, thing
        raise NotFound(f"{ref} does not exist")

    # -------------------------------------------------------------- what happens to services

    def fall_ill(self, key: ServiceKey, ailment: Ailment, remedy: Remedy) -> None:
        """Whatever is behind it, it begins now."""
        service = self.services[key]
        service.ailment, service.remedy, service.sick_since = ailment, remedy, self.now
        if ailment in (Ailment.BAD_RELEASE, Ailment.SLOW_RELEASE):
            self._change(service, service.deployment, {**service.deployment.spec, "image": BAD}, "pipeline")
        elif ailment is Ailment.BAD_CONFIG:
            data = {"secret": SECRET, "mode": "broken"}
            self._change(service, service.config, {"data": {**data}}, "pipeline")
        self._settle(service, 0.5)

    def get_well(self, key: ServiceKey) -> None:
        """It goes away by itself."""
        service = self.services[key]
        service.ailment = None
        self._settle(service, 0.5)

    def changed_by_other(self, key: ServiceKey, *, recreated: bool) -> None:
        """A person touches the Deployment: asks for something else, or deletes it and creates it again."""
        service = self.services[key]
        thing = service.deployment
        if recreated:
            thing.uid = f"{thing.uid}x"
            thing.marker = None
        spec = {**thing.spec, "note": f"touched at {self.now:.3f}"}
        self._change(service, thing, spec, "operator")
        self._tape.write(
            ChangedByOther(at=self.now, who="world", service=service.key.service, token_after=thing.token)
        )

    def scaled_by_other(self, key: ServiceKey) -> None:
        """An autoscaler asks for one replica more, and for nothing else."""
        service = self.services[key]
        thing = service.deployment
        self._change(service, thing, {**thing.spec, "replicas": service.replicas + 1}, "autoscaler")
        self._tape.write(
            ScaledByOther(at=self.now, who="world", service=service.key.service, token_after=thing.token)
        )

    def touch_status(self, thing: Thing) -> None:
        """A controller writes a status: the version moves, what is asked for does not."""
        self._version += 1
        thing.version = self._version

    # -------------------------------------------------------------- the API server

    def apply(
        self,
        action: Action,
        intent_id: IntentId,
        target: TargetState,
        snapshot: Snapshot | None,
        who: tuple[str, str],
    ) -> TargetState:
        """One write request, as it arrives; `who` is the host that sent it and its owner."""
        service, thing = self.find(action.target)
        wanted = self.checked(action, target, snapshot)
        before = thing.token
        if wanted == thing.spec and thing.marker == intent_id:
            return thing.state
        thing.marker = intent_id
        self._change(service, thing, wanted, AGENT)
        self._tape.write(
            Effect(
                at=self.now,
                who=who[0],
                intent=intent_id,
                action=action.name.value,
                risk=action.risk.value,
                service=service.key.service,
                token_before=before,
                token_after=thing.token,
                owner=who[1],
            )
        )
        self._settle(service, ROLLOUT_SECONDS)
        return thing.state

    def checked(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> JsonObject:
        """What the object would ask for, after the preconditions were checked; changes nothing."""
        service, thing = self.find(action.target)
        if (thing.uid, str(thing.version)) != (target.uid, target.resource_version):
            raise Conflict(f"{thing.ref} was modified: it is at version {thing.version}")
        return self.wanted(action, service, thing, snapshot)

    def wanted(self, action: Action, service: Service, thing: Thing, snapshot: Snapshot | None) -> JsonObject:
        """What the object would ask for after the action."""
        spec = dict(thing.spec)
        match action.name:
            case ActionName.RESTART:
                spec["restarted_at"] = self.now
            case ActionName.ROLLBACK:
                number = action.parameters["revision"]
                images = [image for n, image, _ in service.revisions if n == number]
                if not images or images[0] == service.image:
                    raise Invalid(f"{thing.ref} cannot go back to revision {number}")
                spec["image"] = images[0]
            case ActionName.SCALE:
                spec["replicas"] = action.parameters["replicas"]
            case ActionName.RESTORE if snapshot is not None and thing.ref.kind == "Deployment":
                # Only what the undone action changed: the rest may have become others' since.
                by_scale = action.parameters.get("undoes") == ActionName.SCALE
                names = {*spec, *snapshot.body}
                put_back = {name for name in names if (name == "replicas") is by_scale}
                kept = {name: item for name, item in spec.items() if name not in put_back}
                spec = {**kept, **{n: snapshot.body[n] for n in put_back if n in snapshot.body}}
            case ActionName.REVERT_CONFIG | ActionName.RESTORE if snapshot is not None:
                spec = dict(snapshot.body)
            case _:
                raise Invalid(f"{action.name} means nothing here")
        return spec

    # -------------------------------------------------------------- looking

    def workload(self, key: ServiceKey) -> WorkloadView | None:
        service = self.services.get(key)
        if service is None:
            return None
        at = moment(self.now)
        changed = service.deployment.changed_at
        rolling = changed is not None and at - changed < timedelta(seconds=ROLLOUT_SECONDS)
        crashing = self._crashing(service)
        complete = not rolling and crashing is not Ailment.BAD_RELEASE
        number, image, _ = service.revisions[-1]
        return WorkloadView(
            target=service.deployment.state,
            observed_at=at,
            desired_replicas=service.replicas,
            updated_replicas=service.replicas if complete else 1,
            ready_replicas=service.replicas,
            available_replicas=0 if crashing is Ailment.LEAK else service.replicas,
            paused=False,
            rollout_complete=complete,
            progress_deadline_exceeded=False,
            current_revision=number,
            revisions=tuple(
                _revision(n, i, born, service.replicas if i == image else 0)
                for n, i, born in reversed(service.revisions)
            ),
            pods=_pods(service, image, crashing, at),
            config_maps=(
                ConfigMapView(
                    name=service.config.ref.name,
                    content_hash=content_hash(service.config.spec),
                    resource_version=str(service.config.version),
                    keys=("mode", "secret"),
                    changed_at=service.config.changed_at,
                    read_at_start=self._read_at_start,
                ),
            ),
        )

    def config_record(self, key: ServiceKey) -> ConfigRecord:
        """The content of its ConfigMap as history keeps it."""
        config = self.services[key].config
        data = config.spec["data"]
        assert isinstance(data, dict)
        return ConfigRecord(
            key=key,
            name=config.ref.name,
            content_hash=content_hash(config.spec),
            data={name: str(value) for name, value in data.items()},
            health=RevisionHealth.SERVED_WELL,
            seen_at=moment(self.now) - OLD,
        )

    def sli(self, key: ServiceKey, at: float) -> SliSample:
        """What the monitoring has of a moment; nothing where nothing was measured."""
        measured = min(at, self.now)
        service = self.services[key]
        if any(start <= measured < end for start, end in service.silences):
            return SliSample(at=moment(measured))
        level = next((one for one in reversed(service.levels) if one.since <= measured), None)
        if level is None:
            return SliSample(at=moment(measured))
        if any(start <= measured < end for start, end in service.quiets):
            return SliSample(
                at=moment(measured), error_rate=0.0, p95_latency_ms=90.0, request_rate=FEW_REQUESTS
            )
        return SliSample(
            at=moment(measured),
            error_rate=level.error_rate,
            p95_latency_ms=90.0,
            request_rate=level.request_rate,
        )

    def telemetry(self) -> TelemetryHealth:
        if self.unreachable(self.now):
            return TelemetryHealth(known_services=0, silent_services=0, source_reachable=False)
        silent = sum(
            # What never had a series does not fall silent.
            any(0 <= start <= self.now < end for start, end in service.silences)
            for service in self.services.values()
        )
        return TelemetryHealth(
            known_services=len(self.services), silent_services=silent, source_reachable=True
        )

    def refuses(self, key: ServiceKey) -> bool:
        """Whether the metric source cannot answer about the service now."""
        return any(start <= self.now < end for start, end in self.services[key].refusals)

    def release_by_hand(self, key: ServiceKey) -> None:
        """A person releases a version that neither helps nor harms."""
        service = self.services[key]
        self._change(service, service.deployment, {**service.deployment.spec, "image": BY_HAND}, "operator")
        self._settle(service, ROLLOUT_SECONDS)

    def denies(self, at: float) -> bool:
        """Whether the monitoring answers 403 to questions about levels."""
        return any(start <= at < end for start, end in self.source_refuses)

    def unwell(self, key: ServiceKey) -> bool:
        """Whether an alert on its error rate would fire now."""
        return self.services[key].levels[-1].error_rate > _ALERT_ABOVE

    def unreachable(self, at: float) -> bool:
        return any(start <= at < end for start, end in self.source_down)

    # -------------------------------------------------------------- inside

    def _add(self, key: ServiceKey, number: int) -> None:
        name = key.service
        born = moment(0) - OLD
        service = Service(
            key=key,
            deployment=Thing(
                ref=ObjectRef(kind="Deployment", namespace="prod", name=name),
                uid=f"d{number}",
                spec={"image": GOOD, "replicas": BASE_REPLICAS, "restarted_at": 0.0},
                version=number * 2 + 1,
                changed_at=born,
            ),
            config=Thing(
                ref=ObjectRef(kind="ConfigMap", namespace="prod", name=f"{name}-config"),
                uid=f"c{number}",
                spec={"data": {"secret": SECRET, "mode": "sound"}},
                version=number * 2 + 2,
                changed_at=born,
            ),
            revisions=[(1, OLDEST, born - OLD), (2, GOOD, born)],
            levels=[Level(since=-OLD.total_seconds(), error_rate=0.001, request_rate=BASE_RATE)],
        )
        self.services[key] = service

    def _change(self, service: Service, thing: Thing, spec: JsonObject, by: str) -> None:
        self._version += 1
        thing.version = self._version
        if spec == thing.spec:
            return
        thing.spec = spec
        thing.generation += 1
        thing.changed_by, thing.changed_at = by, moment(self.now)
        image = service.image
        if image != service.revisions[-1][1]:
            kept = [r for r in service.revisions if r[1] != image]
            service.revisions = [*kept, (service.revisions[-1][0] + 1, image, moment(self.now))]

    def _settle(self, service: Service, lag: float) -> None:
        """What the service does from a little later on, given what it asks for now."""
        self._tape_later(lag, lambda: self._measure(service))

    def _measure(self, service: Service) -> None:
        surge = service.ailment is Ailment.SURGE
        level = Level(
            since=self.now,
            error_rate=self._error_rate(service),
            request_rate=BASE_RATE * (4 if surge else 1),
        )
        service.levels.append(level)

    def _error_rate(self, service: Service) -> float:
        if service.ailment is None:
            return 0.001
        if not self._treated(service):
            return SICK_ERROR_RATE
        return {Remedy.HELPS: 0.001, Remedy.USELESS: SICK_ERROR_RATE, Remedy.HARMS: 0.9}[service.remedy]

    def _treated(self, service: Service) -> bool:
        """Whether the obvious action was taken and stands."""
        spec = service.deployment.spec
        match service.ailment:
            case Ailment.BAD_RELEASE | Ailment.SLOW_RELEASE:
                return service.image == GOOD
            case Ailment.BAD_CONFIG:
                data = service.config.spec["data"]
                return isinstance(data, dict) and data["mode"] == "sound"
            case Ailment.LEAK:
                restarted = spec["restarted_at"]
                return isinstance(restarted, float) and restarted > service.sick_since
            case Ailment.SURGE:
                return service.replicas > BASE_REPLICAS
            case _:
                return False

    def _crashing(self, service: Service) -> Ailment | None:
        if service.ailment in (Ailment.BAD_RELEASE, Ailment.LEAK) and not self._treated(service):
            return service.ailment
        return None

    def bind(self, later: Callable[[float, Callable[[], None]], object]) -> None:
        """How to have something happen after some seconds of virtual time."""
        self._tape_later = later


def service_key(number: int) -> ServiceKey:
    """The name of the service number so and so of every simulated world."""
    return ServiceKey(environment="prod", service=f"svc{number}")


def content_hash(spec: JsonObject) -> str:
    return hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:16]


def _revision(number: int, image: str, born: datetime, replicas: int) -> Revision:
    digest = hashlib.sha256(image.encode()).hexdigest()[:10]
    return Revision(
        number=number,
        template_hash=f"t{digest}",
        code_hash=f"c{digest}",
        config_hash="same",
        images=(image,),
        created_at=born,
        replicas=replicas,
        ready_replicas=replicas,
    )


def template_hash(image: str) -> str:
    return _revision(0, image, moment(0), 0).template_hash


def _pods(service: Service, image: str, crashing: Ailment | None, at: datetime) -> tuple[PodView, ...]:
    born = service.deployment.changed_at or at
    running = image if crashing is not Ailment.BAD_RELEASE else GOOD
    killed = crashing is Ailment.LEAK
    pods = [
        PodView(
            name=f"{service.key.service}-{n}",
            node="node-1",
            phase="Running",
            ready=not killed,
            restarts=3 if killed else 0,
            waiting_reason="CrashLoopBackOff" if killed else None,
            last_termination_reason="OOMKilled" if killed else None,
            template_hash=template_hash(running),
            created_at=born if running == image else at - OLD,
        )
        for n in range(service.replicas)
    ]
    if crashing is Ailment.BAD_RELEASE:
        pods.append(
            PodView(
                name=f"{service.key.service}-new",
                node="node-1",
                phase="Running",
                ready=False,
                restarts=3,
                waiting_reason="CrashLoopBackOff",
                last_termination_reason="Error",
                template_hash=template_hash(image),
                created_at=born,
            )
        )
    return tuple(pods)
