"""How the services of the simulated world work: what they need, what they call, what a version does.

Values only. `app.sandbox.flow` computes from them what happens to requests, and the
kubelet what happens to containers. A service without a `ServiceModel` follows the
words in its image, as `app.sandbox.traffic` describes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One dependency of a service."""

    to: str
    """A service of the same namespace, or an external system."""
    per_request: float = 1.0
    retries: int = 0
    """How often a failed call is repeated; each repetition is load on the callee."""
    timeout_ms: float = 2000.0
    required: bool = True
    """False: the service answers without it, as fast as the timeout allows."""
    setting: str | None = None
    """The name of the setting that holds the callee's address: any other address fails the call."""
    connections: int = 0
    """Connections that each pod keeps open to a database."""
    at_start: bool = False
    """The container exits while this dependency is unreachable as it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a version, or a feature flag, does to the service that runs it."""

    errors: float = 0.0
    """Share of requests that fail for its own reasons, 0..1."""
    latency_factor: float = 1.0
    capacity_factor: float = 1.0
    calls_factor: float = 1.0
    """How many calls it makes for each one of the model."""
    leak_mib_per_minute: float = 0.0
    memory_mib: float = 64.0
    """What it needs right after its start."""
    crashes: bool = False
    image_missing: bool = False
    schema: int = 1
    """The schema of the data that it writes and reads: an older one fails on newer data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceModel:
    """A service as far as requests are concerned."""

    capacity: float = 50.0
    """Requests per second that one warm pod can serve."""
    latency_ms: float = 80.0
    """p95 at low load, without what its dependencies take."""
    concurrency: int = 100
    """Requests that one pod can have in progress: slow dependencies use them up."""
    warm_up_seconds: float = 0.0
    """How long a pod that became ready serves at `COLD_SHARE` of its capacity."""
    calls: tuple[Call, ...] = ()
    probe: str = "/healthz"
    """The path that answers a readiness probe; a template that probes another one is never ready."""
    port: str = "8080"
    """The port it listens on, and its Service sends to."""


COLD_SHARE = 0.4


class ExternalKind(StrEnum):
    DATABASE = "database"
    QUEUE = "queue"
    THIRD_PARTY = "third_party"


@dataclass(slots=True, kw_only=True)
class External:
    """A system outside the cluster that services call; it cannot be restarted from here."""

    name: str
    kind: ExternalKind
    capacity: float = 1000.0
    """Calls per second."""
    latency_ms: float = 20.0
    max_connections: int = 0
    """0: not limited."""
    errors: float = 0.0
    up: bool = True
    credentials_changed_at: datetime | None = None
    """Pods that started before hold credentials that are refused."""


@dataclass(slots=True, kw_only=True)
class Flag:
    """A feature flag of one service; it is no part of any template."""

    service: str
    behaviour: Behaviour
    on: bool = False


@dataclass(slots=True, kw_only=True)
class NodeState:
    """A node that is not as it should be."""

    lost: bool = False
    cordoned: bool = False
    errors: float = 0.0
    """Share of requests that fail on it."""
    capacity_factor: float = 1.0
    latency_factor: float = 1.0


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """Everything that services depend on besides their own objects; people and faults change it."""

    models: dict[tuple[str, str], ServiceModel] = field(default_factory=dict)
    behaviours: dict[str, Behaviour] = field(default_factory=dict)
    """By image."""
    externals: dict[str, External] = field(default_factory=dict)
    flags: dict[str, Flag] = field(default_factory=dict)
    nodes: dict[str, NodeState] = field(default_factory=dict)
    blocked: set[tuple[str, str]] = field(default_factory=set)
    """Caller and callee between which a network policy drops packets."""
    unselected: set[tuple[str, str]] = field(default_factory=set)
    """(namespace, service)s whose Service selects no pod."""
    schemas: dict[tuple[str, str], int] = field(default_factory=dict)
    """The newest schema that the data of a service was migrated to."""
    registry_down: bool = False
    pods_per_node: int = 110
    began_at: datetime | None = None
    """Pods that were ready before are warm: they had served for long when the simulation began."""

    def behaviour(self, image: str) -> Behaviour:
        return self.behaviours.get(image, _PLAIN)

    def node(self, name: str | None) -> NodeState:
        return self.nodes.get(name or "", _SOUND)

    def change_node(self, name: str) -> NodeState:
        """The state of a node, to be changed."""
        return self.nodes.setdefault(name, NodeState())

    def flag_behaviours(self, service: str) -> tuple[Behaviour, ...]:
        """What the flags that are on do to a service."""
        return tuple(flag.behaviour for flag in self.flags.values() if flag.on and flag.service == service)


_PLAIN = Behaviour()
_SOUND = NodeState()
