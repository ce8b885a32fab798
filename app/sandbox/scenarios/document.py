"""The format of a scenario file, as types: `scenario.schema.json` is generated from them.

Times are seconds from the moment the agent starts, when the services have run for
three hours (`PAST_SECONDS` in `app.sandbox.scenarios.stage`); rates are requests per second,
shares lie between 0 and 1.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from app.agent.models import ActionName

Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1000)]
Some = Annotated[int, msgspec.Meta(ge=1, le=1000)]


class _Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of a scenario; unknown fields are errors."""


# ---------------------------------------------------------------- topology


class CallSpec(_Part, frozen=True, kw_only=True):
    """One dependency of a service: see `app.sandbox.services.Call`."""

    to: Name
    per_request: Amount = 1.0
    retries: Annotated[int, msgspec.Meta(ge=0, le=10)] = 0
    timeout_ms: Positive = 2000.0
    required: bool = True
    setting: str | None = None
    connections: Count = 0
    at_start: bool = False


class BehaviourSpec(_Part, frozen=True, kw_only=True):
    """What a version or a flag does: see `app.sandbox.services.Behaviour`."""

    errors: Share = 0.0
    latency_factor: Positive = 1.0
    capacity_factor: Positive = 1.0
    calls_factor: Amount = 1.0
    leak_mib_per_minute: Amount = 0.0
    memory_mib: Positive = 64.0
    crashes: bool = False
    image_missing: bool = False
    schema: Some = 1


class AutoscalerSpec(_Part, frozen=True, kw_only=True):
    """Keeps the number of replicas so that each uses about `target` of its capacity."""

    least: Some
    most: Some
    target: Share = 0.6


class ServiceSpec(_Part, frozen=True, kw_only=True):
    """A workload with the load on it."""

    name: Name
    kind: Literal["Deployment", "StatefulSet", "DaemonSet"] = "Deployment"
    ordered: bool = True
    """Of a StatefulSet: each pod waits for the ones before it (`podManagementPolicy: OrderedReady`)."""
    on_delete: bool = False
    """Of a StatefulSet or DaemonSet: a pod takes a new version only when someone deletes it."""
    partition: Count = 0
    """Of a StatefulSet: pods with a lower ordinal keep their version."""
    on_nodes: tuple[str, ...] | None = None
    """Of a DaemonSet: the nodes that it runs on, one pod each; every node where it is missing."""
    version: str = "1.0.0"
    behaviour: BehaviourSpec = BehaviourSpec()
    replicas: Count = 3
    load: Amount = 0.0
    """From outside; what callers send comes on top."""
    capacity: Positive = 50.0
    """Of one pod."""
    latency_ms: Positive = 80.0
    concurrency: Some = 100
    warm_up_seconds: Amount = 0.0
    calls: tuple[CallSpec, ...] = ()
    env: dict[str, str] = {}
    config_maps: tuple[Name, ...] = ()
    memory_limit: str | None = None
    max_surge: Share = 0.25
    max_unavailable: Share = 0.25
    progress_deadline_seconds: Positive = 600.0
    annotations: dict[str, str] = {}
    autoscaler: AutoscalerSpec | None = None


class ExternalSpec(_Part, frozen=True, kw_only=True):
    """A system outside the cluster: see `app.sandbox.services.External`."""

    name: Name
    kind: Literal["database", "queue", "third_party"]
    capacity: Positive = 1000.0
    latency_ms: Positive = 20.0
    max_connections: Count = 0


class FlagSpec(_Part, frozen=True, kw_only=True):
    """A feature flag, off at first."""

    name: Name
    service: Name
    behaviour: BehaviourSpec


class Topology(_Part, frozen=True, kw_only=True):
    """What runs before anything happens."""

    services: Annotated[tuple[ServiceSpec, ...], msgspec.Meta(min_length=1)]
    externals: tuple[ExternalSpec, ...] = ()
    flags: tuple[FlagSpec, ...] = ()
    config_maps: dict[str, dict[str, str]] = {}
    nodes: Some = 3
    pods_per_node: Some = 110
    fillers: Count = 0
    """Services beside those of the scenario, with load, some of which call each other."""
    noise: Share = 0.03
    """By how much measured rates and latencies differ from the true ones."""
    dependencies_known: bool = True
    """Whether the agent is configured with the calls between services."""


# ---------------------------------------------------------------- what happens


class _Event(_Part, frozen=True, kw_only=True, tag_field="do"):
    """Something that happens at a moment."""

    at: Amount
    role: Literal["fault", "decoy", "end"] = "fault"
    """`decoy`: innocent; `end`: the fault passes by itself."""
    variants: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] | None = None
    """The variants in which it happens; all where it is missing."""


class ReleaseEvent(_Event, frozen=True, kw_only=True, tag="release"):
    """A pipeline rolls out another version, and reports it unless `reported` is false."""

    service: Name
    version: str
    behaviour: BehaviourSpec = BehaviourSpec()
    env: dict[str, str] | None = None
    probe: str | None = None
    port: str | None = None
    config_maps: tuple[Name, ...] | None = None
    """What it reads from now on; the pods of a ConfigMap that does not exist never start."""
    memory_limit: str | None = None
    irreversible: bool = False
    reported: bool = True


class EnvEvent(_Event, frozen=True, kw_only=True, tag="set_env"):
    """Settings in the workload change; the image stays."""

    service: Name
    env: dict[str, str]


class ConfigEvent(_Event, frozen=True, kw_only=True, tag="set_config"):
    """Keys of a ConfigMap change."""

    config_map: Name
    data: dict[str, str]


class MemoryEvent(_Event, frozen=True, kw_only=True, tag="set_memory"):
    """The memory limit changes."""

    service: Name
    limit: str


class PlacementEvent(_Event, frozen=True, kw_only=True, tag="place_on"):
    """The pods ask for one node, which may not exist."""

    service: Name
    node: str


class SelectorEvent(_Event, frozen=True, kw_only=True, tag="selector"):
    """The Service object stops selecting its pods, or selects them again."""

    service: Name
    selects: bool = False


class NetworkEvent(_Event, frozen=True, kw_only=True, tag="network"):
    """A network policy drops the packets of one edge, or no longer does."""

    caller: Name
    callee: Name
    blocked: bool = True


class PortEvent(_Event, frozen=True, kw_only=True, tag="target_port"):
    """The Service object sends requests to a port that no container has, or to the right one again."""

    service: Name
    heard: bool = False


class RouteEvent(_Event, frozen=True, kw_only=True, tag="route"):
    """Someone changes a Service or a network policy so that every request is still let through."""

    service: Name
    changes: Literal["policy", "ports", "labels"]
    """policy: it lets one more caller through; ports: the Service has one more; labels: only its own."""


class NodeEvent(_Event, frozen=True, kw_only=True, tag="node"):
    """A node is lost, returns, or serves badly."""

    node: str
    lost: bool | None = None
    errors: Share | None = None
    capacity_factor: Positive | None = None
    latency_factor: Positive | None = None


class LoadEvent(_Event, frozen=True, kw_only=True, tag="load"):
    """The load on a service from outside becomes `factor` times that of the start."""

    service: Name
    factor: Amount
    over_seconds: Amount = 0.0


class ExternalEvent(_Event, frozen=True, kw_only=True, tag="external"):
    """A system outside changes."""

    name: Name
    up: bool | None = None
    errors: Share | None = None
    capacity_factor: Positive | None = None
    latency_factor: Positive | None = None


class CredentialsEvent(_Event, frozen=True, kw_only=True, tag="rotate_credentials"):
    """A system outside accepts only credentials that pods read as they start from now on."""

    name: Name


class FlagEvent(_Event, frozen=True, kw_only=True, tag="flag"):
    """A feature flag is switched; the change is reported unless `reported` is false."""

    name: Name
    enabled: bool = True
    reported: bool = True


class TelemetryEvent(_Event, frozen=True, kw_only=True, tag="telemetry"):
    """The monitoring shows nothing, old values or zeros of some services or of all, or is repaired."""

    shows: Literal["nothing", "frozen", "zeros", "all"]
    services: tuple[Name, ...] = ()


class AdmissionEvent(_Event, frozen=True, kw_only=True, tag="admission"):
    """New pods are refused, for a quota or a policy; without `refuses` they are admitted again."""

    refuses: str | None = None


class RegistryEvent(_Event, frozen=True, kw_only=True, tag="registry"):
    """The registry answers, or does not: images that a node has are not pulled."""

    up: bool


class ScaleEvent(_Event, frozen=True, kw_only=True, tag="scale"):
    """A person sets the number of replicas."""

    service: Name
    replicas: Count


class DeletePodEvent(_Event, frozen=True, kw_only=True, tag="delete_pod"):
    """A person deletes one pod, and the controller makes another one."""

    service: Name
    pod: Count = 0
    """Its ordinal; of other kinds than StatefulSets the place of its name in their order."""


class PauseEvent(_Event, frozen=True, kw_only=True, tag="pause"):
    """A person pauses the rollout, or resumes it."""

    service: Name
    paused: bool = True


Event: TypeAlias = (
    ReleaseEvent
    | EnvEvent
    | ConfigEvent
    | MemoryEvent
    | PlacementEvent
    | SelectorEvent
    | NetworkEvent
    | PortEvent
    | RouteEvent
    | NodeEvent
    | LoadEvent
    | ExternalEvent
    | CredentialsEvent
    | FlagEvent
    | TelemetryEvent
    | AdmissionEvent
    | RegistryEvent
    | ScaleEvent
    | DeletePodEvent
    | PauseEvent
)


# ---------------------------------------------------------------- how it should end


class ActSpec(_Part, frozen=True, kw_only=True):
    """One action on one service, or for whichever service: on a node it is for all that run there."""

    action: ActionName
    service: Name | None = None

    def meets(self, action: ActionName, service: str) -> bool:
        """Whether an action for a service is meant."""
        return self.action is action and self.service in (None, service)

    def overlaps(self, other: ActSpec) -> bool:
        """Whether an action can be meant by both."""
        either = None in (self.service, other.service)
        return self.action is other.action and (either or self.service == other.service)


class EndSpec(_Part, frozen=True, kw_only=True):
    """One end that a careful engineer would want."""

    end: Literal["recovered", "escalated", "no_action"]
    by: tuple[ActSpec, ...] = ()
    """recovered: at least one of these was carried out; escalated: these may have been."""
    all_of: bool = False
    """recovered: every action of `by` is needed."""
    undone: bool = False
    """escalated: every action of `by` that was carried out was undone again."""


class RangeSpec(_Part, frozen=True, kw_only=True):
    """A number drawn for each variant."""

    least: float
    most: float
    whole: bool = False


class ScenarioFile(_Part, frozen=True, kw_only=True):
    """One file of the benchmark."""

    schema: Literal[1]
    id: Name
    title: str
    family: Name
    """The mechanism, in one word: results are compared by it."""
    topology: Topology
    timeline: tuple[Event, ...]
    right_ends: Annotated[tuple[EndSpec, ...], msgspec.Meta(min_length=1)]
    about: str = ""
    held_out: Name | None = None
    """The group that it was written and first played with, before any rule was adjusted to it."""
    fault_at: Amount | None = None
    """When the fault begins, where no event of the timeline is its beginning."""
    control: bool = False
    """Nothing is wrong, and nothing may be done."""
    forbidden: tuple[ActSpec, ...] = ()
    """The traps: any action that no right end names is wrong; these are counted by themselves too."""
    vary: dict[str, RangeSpec | tuple[str | float | int | bool, ...]] = {}
    """What differs between variants: a range, or values taken in turn; used as `$name`."""
    variants: Some = 10
    enables: tuple[ActionName, ...] = ()
    """Actions of the agent that are enabled beside the default ones."""
    horizon: Annotated[float, msgspec.Meta(ge=60, le=86400)] = 2100.0
    answer: Literal["approve", "deny"] = "approve"
    """How a person answers where the agent asks for an approval."""
