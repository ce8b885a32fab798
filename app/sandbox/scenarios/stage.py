"""A variant of a scenario in the simulated world: what runs at first, and each event as it happens."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias, assert_never

import msgspec

from app.agent.guardrails.workload_kinds import STATEFUL_SET
from app.agent.ids import ServiceKey
from app.agent.models import ChangeKind, ConfigChange, Deploy, DeployStatus, Payload
from app.clock import Clock
from app.sandbox.autoscaler import Autoscaler
from app.sandbox.cluster import IRREVERSIBLE
from app.sandbox.objects import NODE_SELECTOR, PORT, PROBE, WORKLOADS, ConfigMap, Template
from app.sandbox.scenarios.document import (
    AdmissionEvent,
    BehaviourSpec,
    CallSpec,
    ConfigEvent,
    CredentialsEvent,
    DeletePodEvent,
    EnvEvent,
    Event,
    ExternalEvent,
    FlagEvent,
    LoadEvent,
    MemoryEvent,
    NetworkEvent,
    NodeEvent,
    PauseEvent,
    PlacementEvent,
    PortEvent,
    RegistryEvent,
    ReleaseEvent,
    RouteEvent,
    ScaleEvent,
    SelectorEvent,
    ServiceSpec,
    TelemetryEvent,
)
from app.sandbox.scenarios.files import Variant, node_name
from app.sandbox.scenarios.routing import RoutingEvent, change_routes
from app.sandbox.services import Behaviour, Call, External, ExternalKind, Flag, ServiceModel
from app.sandbox.traffic import Outage, OutageKind
from app.sandbox.world import Workload, World

NAMESPACE = "prod"
"""Where a scenario plays, unless its player names another place."""
PAST_SECONDS = 10_800.0
"""How long the services have run under steady load when a scenario begins."""
WorldMaker: TypeAlias = Callable[[Clock, int, tuple[str, ...]], World]
_WARM_AFTER_SECONDS = 30.0
_RAMP_STEPS = 8
_FILLERS = (
    "catalog",
    "search",
    "basket",
    "profile",
    "reviews",
    "media",
    "pricing",
    "stock",
    "mailer",
    "audit",
)


class ScenarioWorld:
    """One variant, set up and ready to be played."""

    def __init__(
        self, variant: Variant, clock: Clock, namespace: str = NAMESPACE, make: WorldMaker = World
    ) -> None:
        """`make` makes the world from clock, seed and names of nodes."""
        topology = variant.scenario.topology
        self.variant = variant
        self.namespace = namespace
        self.services = (*topology.services, *_fillers(variant))
        nodes = tuple(node_name(number) for number in range(1, topology.nodes + 1))
        random_source = random.Random(variant.seed)  # noqa: S311 - a reproducible world, no secret
        self.world = make(clock, random_source.getrandbits(32), nodes)
        self._set_up()

    @property
    def names(self) -> tuple[tuple[str, str], ...]:
        """Namespace and name of every service."""
        return tuple((self.namespace, service.name) for service in self.services)

    @property
    def calls(self) -> dict[str, list[str]]:
        """The services that each service calls, where it calls any."""
        names = {service.name for service in self.services}
        found = {s.name: [call.to for call in s.calls if call.to in names] for s in self.services}
        return {name: callees for name, callees in found.items() if callees}

    @property
    def dependencies(self) -> dict[str, list[str]]:
        """The calls between services, as they can be configured."""
        return {f"{self.namespace}/{name}": callees for name, callees in self.calls.items()}

    def _set_up(self) -> None:
        world, topology = self.world, self.variant.scenario.topology
        around = world.surroundings
        around.pods_per_node = topology.pods_per_node
        world.traffic.noise = topology.noise
        for external in topology.externals:
            around.externals[external.name] = External(
                name=external.name,
                kind=ExternalKind(external.kind),
                capacity=external.capacity,
                latency_ms=external.latency_ms,
                max_connections=external.max_connections,
            )
        for flag in topology.flags:
            around.flags[flag.name] = Flag(service=flag.service, behaviour=_behaviour(flag.behaviour))
        for name, data in topology.config_maps.items():
            world.put_config_map(self.namespace, name, data)
        for service in self.services:
            around.behaviours[image_of(service.name, service.version)] = _behaviour(service.behaviour)
            world.deploy(_workload(service, self.namespace))
            if service.autoscaler is not None:
                scaler = service.autoscaler
                Autoscaler(
                    world=world,
                    namespace=self.namespace,
                    name=service.name,
                    least=scaler.least,
                    most=scaler.most,
                    target=scaler.target,
                ).start()
        world.engine.after(_WARM_AFTER_SECONDS, self._warm)

    def _warm(self) -> None:
        self.world.surroundings.began_at = self.world.engine.now

    def happen(self, event: Event) -> list[tuple[ServiceKey, Payload]]:
        """Let an event happen now; what a pipeline or a person reports of it to the agent."""
        self.world.catch_up()
        reported = self._change(event)
        self.world.traffic.reconsider()
        return reported

    def _change(self, event: Event) -> list[tuple[ServiceKey, Payload]]:
        world = self.world
        match event:
            case ReleaseEvent():
                return self._release(event)
            case FlagEvent():
                world.surroundings.flags[event.name].on = event.enabled
                return self._reported_flag(event)
            case EnvEvent():
                world.set_env(self.namespace, event.service, {**self._env(event.service), **event.env})
            case ConfigEvent():
                old = world.api.get(ConfigMap, self.namespace, event.config_map).data
                world.put_config_map(self.namespace, event.config_map, {**old, **event.data})
            case MemoryEvent():
                world.set_memory_limit(self.namespace, event.service, event.limit)
            case PlacementEvent():
                world.set_pod_field(self.namespace, event.service, NODE_SELECTOR, event.node)
            case ScaleEvent():
                world.set_replicas(self.namespace, event.service, event.replicas)
            case DeletePodEvent():
                world.delete_pod(self.namespace, event.service, event.pod)
            case PauseEvent():
                world.set_paused(self.namespace, event.service, paused=event.paused)
            case AdmissionEvent():
                world.refuse_pods(self.namespace, event.refuses)
            case LoadEvent():
                self._load(event)
            case TelemetryEvent():
                self._telemetry(event)
            case _:
                self._surround(event)
        return []

    def _surround(
        self,
        event: RoutingEvent | NodeEvent | ExternalEvent | CredentialsEvent | RegistryEvent,
    ) -> None:
        """Changes of what is no workload."""
        around = self.world.surroundings
        match event:
            case SelectorEvent() | PortEvent() | RouteEvent() | NetworkEvent():
                change_routes(self.world, self.namespace, event)
            case NodeEvent():
                self._node(event)
            case ExternalEvent():
                external = around.externals[event.name]
                external.up = external.up if event.up is None else event.up
                external.errors = external.errors if event.errors is None else event.errors
                external.capacity *= event.capacity_factor or 1.0
                external.latency_ms *= event.latency_factor or 1.0
            case CredentialsEvent(name=name):
                around.externals[name].credentials_changed_at = self.world.engine.now
            case RegistryEvent(up=up):
                around.registry_down = not up
            case _:
                assert_never(event)

    def _release(self, event: ReleaseEvent) -> list[tuple[ServiceKey, Payload]]:
        world = self.world
        image = image_of(event.service, event.version)
        world.surroundings.behaviours[image] = _behaviour(event.behaviour)
        name = (self.namespace, event.service)
        world.surroundings.schemas[name] = max(
            world.surroundings.schemas.get(name, 1), event.behaviour.schema
        )
        old = world.api.workload(*name).template
        fields = dict(old.pod_fields)
        fields |= {PROBE: event.probe} if event.probe is not None else {}
        fields |= {PORT: event.port} if event.port is not None else {}
        marks = dict(old.annotations) | ({IRREVERSIBLE: "true"} if event.irreversible else {})
        env = dict(old.env) | (event.env or {})
        template = replace(
            old,
            image=image,
            env=tuple(sorted(env.items())),
            pod_fields=tuple(sorted(fields.items())),
            annotations=tuple(sorted(marks.items())),
            memory_limit=event.memory_limit or old.memory_limit,
            config_maps=old.config_maps if event.config_maps is None else event.config_maps,
        )
        world.set_template(self.namespace, event.service, template)
        payload = Deploy(version=event.version, status=DeployStatus.STARTED, irreversible=event.irreversible)
        return [(key_of(event.service, self.namespace), payload)] if event.reported else []

    def _reported_flag(self, event: FlagEvent) -> list[tuple[ServiceKey, Payload]]:
        state = "on" if event.enabled else "off"
        payload = ConfigChange(summary=f"feature flag {event.name} switched {state}", kind=ChangeKind.FLAG)
        service = self.world.surroundings.flags[event.name].service
        return [(key_of(service, self.namespace), payload)] if event.reported else []

    def _node(self, event: NodeEvent) -> None:
        world = self.world
        if event.lost is not None:
            (world.kubelet.lose if event.lost else world.kubelet.regain)(event.node)
        state = world.surroundings.change_node(event.node)
        state.errors = state.errors if event.errors is None else event.errors
        state.capacity_factor = event.capacity_factor or state.capacity_factor
        state.latency_factor = event.latency_factor or state.latency_factor

    def _load(self, event: LoadEvent) -> None:
        """Now, or in steps over a while."""
        world = self.world
        base = next(s.load for s in self.services if s.name == event.service)
        before = world.traffic.offered((self.namespace, event.service))
        steps = _RAMP_STEPS if event.over_seconds > 0 else 1
        for step in range(1, steps + 1):
            rate = before + (base * event.factor - before) * step / steps

            def serve(rate: float = rate) -> None:
                world.traffic.serve(self.namespace, event.service, rate)

            world.engine.after(event.over_seconds * (step - 1) / steps, serve)
        world.catch_up()

    def _telemetry(self, event: TelemetryEvent) -> None:
        if event.shows == "all":
            self.world.restore_telemetry()
            return
        names = frozenset((self.namespace, service) for service in event.services)
        self.world.traffic.outages.append(
            Outage(since=self.world.engine.now, until=None, services=names, shows=OutageKind(event.shows))
        )

    def _env(self, service: str) -> dict[str, str]:
        return dict(self.world.api.workload(self.namespace, service).template.env)


def image_of(service: str, version: str) -> str:
    return f"registry.example/{service}:{version}"


def key_of(service: str, namespace: str = NAMESPACE) -> ServiceKey:
    return ServiceKey(environment=namespace, service=service)


def _behaviour(spec: BehaviourSpec) -> Behaviour:
    return Behaviour(**msgspec.structs.asdict(spec))


def _workload(service: ServiceSpec, namespace: str) -> Workload:
    return Workload(
        namespace=namespace,
        name=service.name,
        kind=next(kind for kind in WORKLOADS if kind.kind == service.kind),
        ordered=service.ordered and service.kind == STATEFUL_SET,
        on_delete=service.on_delete,
        partition=service.partition,
        on_nodes=service.on_nodes,
        service=service.name,
        template=Template(
            image=image_of(service.name, service.version),
            env=tuple(sorted(service.env.items())),
            config_maps=service.config_maps,
            memory_limit=service.memory_limit,
            pod_fields=((PROBE, "/healthz"),),
        ),
        replicas=service.replicas,
        annotations=service.annotations,
        progress_deadline_seconds=service.progress_deadline_seconds,
        max_surge=service.max_surge,
        max_unavailable=service.max_unavailable,
        requests_per_second=service.load,
        model=ServiceModel(
            capacity=service.capacity,
            latency_ms=service.latency_ms,
            concurrency=service.concurrency,
            warm_up_seconds=service.warm_up_seconds,
            calls=tuple(Call(**msgspec.structs.asdict(call)) for call in service.calls),
        ),
    )


def _fillers(variant: Variant) -> tuple[ServiceSpec, ...]:
    """Services beside those of the scenario: of various sizes, some of which call the one before."""

    taken = {service.name for service in variant.scenario.topology.services}
    names = [name for name in _FILLERS if name not in taken]
    random_source = random.Random(f"{variant.seed}/fillers")  # noqa: S311 - reproducible, no secret
    found: list[ServiceSpec] = []
    for index in range(variant.scenario.topology.fillers):
        name = names[index % len(names)] + ("" if index < len(names) else f"-{index // len(names) + 1}")
        calls = (CallSpec(to=found[-1].name),) if found and random_source.random() < 0.4 else ()
        replicas = random_source.choice((2, 3, 4))
        load = round(random_source.uniform(10, 40 * replicas * 0.5), 1)
        # A callee has room for the load of its caller.
        found.append(
            ServiceSpec(
                name=name,
                replicas=replicas,
                load=load,
                capacity=100.0,
                latency_ms=random_source.choice((40.0, 90.0, 160.0)),
                calls=calls,
            )
        )
    return tuple(found)
