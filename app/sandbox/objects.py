"""The objects of the simulated cluster, as far as the agent can distinguish them from real ones.

A `Template` is a value: two equal templates are one ReplicaSet. The other
objects are the mutable records that the simulated API server keeps; nothing
outside `app.sandbox` holds on to them.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.agent.batch.runs import RunState
from app.agent.ids import JsonObject
from app.errors import Invalid

RESTARTED_AT = "kubectl.kubernetes.io/restartedAt"
AGENT_PREFIX = "self-healing-devops-agent/"
FLAGS = AGENT_PREFIX + "flags"
NAME_LABEL = "app.kubernetes.io/name"

PROBE, PORT, NODE_SELECTOR = "readinessProbe", "containerPort", "nodeSelector"
CODE_FIELDS = frozenset({PROBE, PORT})
"""Fields of the pod's spec that a release ships with its image."""

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([KMG]i?)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What a pod runs: one container, its environment, its limits."""

    image: str
    command: tuple[str, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    config_maps: tuple[str, ...] = ()
    """Names of ConfigMaps whose keys the container reads; a change is seen without a restart."""
    memory_limit: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    pod_fields: tuple[tuple[str, str], ...] = ()
    """Other fields of the pod's spec, such as `nodeSelector`, each in one word."""

    @property
    def code(self) -> JsonObject:
        probes = {name: value for name, value in self.pod_fields if name in CODE_FIELDS}
        code: JsonObject = {"image": self.image, "command": list(self.command), "labels": dict(self.labels)}
        return {**code, **probes}

    @property
    def config(self) -> JsonObject:
        return {
            "env": dict(self.env),
            "config_maps": list(self.config_maps),
            "memory_limit": self.memory_limit,
            "pod_fields": {n: v for n, v in self.pod_fields if n not in CODE_FIELDS},
            "annotations": {n: v for n, v in self.annotations if not is_noise(n)},
        }

    @property
    def fields(self) -> tuple[tuple[str, str], ...]:
        """Each field that counts, by the name that it has in a real template, with a digest of its value."""
        found: dict[str, object] = {"image of app": self.image}
        found |= {} if not self.command else {"command of app": self.command}
        found |= {} if not self.env else {"env of app": self.env}
        found |= {} if not self.config_maps else {"envFrom of app": self.config_maps}
        found |= {} if self.memory_limit is None else {"resources of app": self.memory_limit}
        found |= {f"label {n}": v for n, v in self.labels} | dict(self.pod_fields)
        found |= {f"annotation {n}": v for n, v in self.annotations if not is_noise(n)}
        return tuple(sorted((name, digest(value)) for name, value in found.items()))

    def hash_of(self, *parts: str) -> str:
        """Short hash over `code`, `config` or both; a restart alone changes neither."""
        chosen = {"code": self.code, "config": self.config}
        return digest({part: chosen[part] for part in parts})

    @property
    def memory_bytes(self) -> int | None:
        return parse_quantity(self.memory_limit) if self.memory_limit else None


@dataclass(slots=True, kw_only=True)
class Meta:
    """Object metadata with the API server's rules: see `app.sandbox.api`."""

    namespace: str
    name: str
    uid: str
    created_at: datetime
    resource_version: int = 0
    generation: int = 1
    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    changed_by: str | None = None
    """Field manager of the last change to what the object asks for."""
    changed_at: datetime | None = None
    changers: dict[str, str] = field(default_factory=dict)
    """Field manager of the last change to each part of what the object asks for."""


@dataclass(slots=True, kw_only=True)
class DeploymentStatus:
    """What the deployment controller says; a change of it raises no generation."""

    observed_generation: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    available: int = 0
    progressing: bool = True
    reason: str = ""
    replica_failure: str | None = None
    """Why wanted pods could not be made, as the controller was answered last."""
    replica_failure_since: datetime | None = None


@dataclass(slots=True, kw_only=True)
class Deployment:
    meta: Meta
    template: Template
    replicas: int = 3
    paused: bool = False
    max_surge: float = 0.25
    max_unavailable: float = 0.25
    progress_deadline_seconds: float = 600.0
    revision_history_limit: int = 10
    status: DeploymentStatus = field(default_factory=DeploymentStatus)
    last_progress_at: datetime | None = None

    kind = "Deployment"

    def rolling(self) -> tuple[int, int]:
        """How many pods more than wanted a rollout may make, and how many of the wanted may be missing."""
        surge = math.ceil(self.max_surge * self.replicas)
        missing = math.floor(self.max_unavailable * self.replicas)
        return (surge, missing) if surge or missing else (1, 0)

    @property
    def missing_at_once(self) -> int:
        """How many pods a rollout may take away at once; where its strategy allows none, it takes one."""
        surge = math.ceil(self.max_surge * self.replicas)
        missing = math.floor(self.max_unavailable * self.replicas)
        return missing if missing or surge else 1

    def spec(self) -> JsonObject:
        """Everything whose change raises the generation."""
        return {
            "replicas": self.replicas,
            "paused": self.paused,
            "progressDeadlineSeconds": self.progress_deadline_seconds,
            "template": template_body(self.template),
        }


@dataclass(slots=True, kw_only=True)
class StatefulSet(Deployment):
    """Pods with ordinals, replaced one at a time from the highest on (`app.sandbox.rollouts`)."""

    ordered: bool = False
    """`podManagementPolicy: OrderedReady`: a pod that is not ready holds up every other one."""
    on_delete: bool = False
    """Update strategy `OnDelete`: a pod takes a new template only when someone deletes it."""
    partition: int = 0
    """Pods with a lower ordinal keep the template of the last complete rollout."""
    settled: Template | None = None
    """The template of the last complete rollout; None before the first."""

    kind = "StatefulSet"

    @property
    def missing_at_once(self) -> int:
        return min(1, self.replicas)


@dataclass(slots=True, kw_only=True)
class DaemonSet(StatefulSet):
    """A pod on each of its nodes, replaced one at a time."""

    nodes: tuple[str, ...] = ()
    """The nodes that it runs on."""

    kind = "DaemonSet"


WORKLOADS: tuple[type[Deployment], ...] = (Deployment, StatefulSet, DaemonSet)
"""The kinds of workloads; one controller rolls out all of them."""


@dataclass(slots=True, kw_only=True)
class ReplicaSet:
    """One revision of a workload of any kind."""

    meta: Meta
    owner_uid: str
    template: Template
    revision: int
    replicas: int = 0
    taken_up_at: datetime | None = None
    """When its template was brought back, other than by the agent; None if it never was."""

    kind = "ReplicaSet"


@dataclass(slots=True, kw_only=True)
class Pod:
    meta: Meta
    owner_uid: str
    template: Template
    node: str | None = None
    bound_to: str | None = None
    """The only node that takes it; None: any node."""
    stays: bool = False
    """It is not replaced while its node is lost, because it may still run there."""
    phase: str = "Pending"
    ready: bool = False
    restarts: int = 0
    waiting_reason: str | None = "ContainerCreating"
    waiting_message: str = ""
    last_termination_reason: str | None = None
    exit_code: int | None = None
    last_ended_at: datetime | None = None
    ready_changed_at: datetime | None = None
    started_at: datetime | None = None
    """When its container last started."""
    back_offs: int = 0
    """Restarts since it last ran for long: how far the next one is put off."""

    kind = "Pod"

    def set_ready(self, ready: bool, at: datetime) -> None:
        """Ready or not from now on; the time of the change is kept as a cluster keeps it."""
        if self.ready is not ready:
            self.ready, self.ready_changed_at = ready, at


@dataclass(slots=True, kw_only=True)
class Job:
    """One run of a batch."""

    meta: Meta
    template: Template
    cron_job: str | None = None
    """The CronJob that it is a run of."""
    state: RunState = RunState.RUNNING
    said: str = ""
    ended_at: datetime | None = None
    scheduled_at: datetime | None = None

    kind = "Job"


@dataclass(slots=True, kw_only=True)
class ConfigMap:
    meta: Meta
    data: dict[str, str]

    kind = "ConfigMap"

    @property
    def content_hash(self) -> str:
        return content_hash(self.data)


@dataclass(slots=True, kw_only=True)
class ClusterNode:
    """Made when it is first asked for: a world without actions on nodes keeps none."""

    meta: Meta
    unschedulable: bool

    kind = "Node"


@dataclass(slots=True, kw_only=True)
class HorizontalPodAutoscaler:
    """The bounds of an autoscaler, made when they are first asked for."""

    meta: Meta
    maximum: int

    kind = "HorizontalPodAutoscaler"


@dataclass(frozen=True, slots=True, kw_only=True)
class WarningEvent:
    """A Warning event on an object of the cluster."""

    at: datetime
    namespace: str
    owner: str
    """Name of the Deployment that the object belongs to."""
    reason: str
    message: str


def config_maps_of(workload: Deployment) -> frozenset[str]:
    """The ConfigMaps of its template, and those of feature flags that its annotation names."""
    named = workload.meta.annotations.get(FLAGS, "").split(",")
    return frozenset({*workload.template.config_maps, *(one.strip() for one in named)} - {""})


def template_body(template: Template) -> JsonObject:
    """A template as plain JSON."""
    body: JsonObject = {
        "image": template.image,
        "command": list(template.command),
        "labels": dict(template.labels),
        **template.config,
        "pod_fields": dict(template.pod_fields),
        "annotations": {**dict(template.annotations)},
    }
    # Kept out where empty, so that a template reads as it did before there were such fields.
    return {name: item for name, item in body.items() if item or name not in ("labels", "pod_fields")}


def template_from(body: Mapping[str, object]) -> Template:
    """The template that `template_body` wrote; `Invalid` where the body is none."""
    env, annotations = body.get("env"), body.get("annotations")
    command, config_maps = body.get("command"), body.get("config_maps")
    image, memory = body.get("image"), body.get("memory_limit")
    if not (isinstance(env, dict) and isinstance(annotations, dict) and isinstance(image, str)):
        raise Invalid("not a template: image, env and annotations are needed")
    if not (isinstance(command, list) and isinstance(config_maps, list)):
        raise Invalid("not a template: command and config_maps are lists")
    return Template(
        image=image,
        command=tuple(str(part) for part in command),
        env=tuple((str(k), str(v)) for k, v in env.items()),
        config_maps=tuple(str(name) for name in config_maps),
        memory_limit=None if memory is None else str(memory),
        annotations=tuple((str(k), str(v)) for k, v in annotations.items()),
        labels=_pairs(body.get("labels")),
        pod_fields=_pairs(body.get("pod_fields")),
    )


def _pairs(found: object) -> tuple[tuple[str, str], ...]:
    return tuple((str(k), str(v)) for k, v in found.items()) if isinstance(found, dict) else ()


def is_noise(annotation: str) -> bool:
    """Whether it changes nothing of what runs: a restart's, or one of the agent's own marks."""
    return annotation == RESTARTED_AT or annotation.startswith(AGENT_PREFIX)


def parse_quantity(text: str) -> int:
    """Bytes of a memory quantity such as `64Mi`; `Invalid` for anything else."""
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise Invalid(f"{text!r} is no memory quantity; write it like 64Mi")
    return int(float(found[1]) * _UNITS[found[2] or ""])


def content_hash(data: Mapping[str, str]) -> str:
    """SHA-256 over a ConfigMap's data in its canonical form."""
    return hashlib.sha256(json.dumps(dict(data), sort_keys=True).encode()).hexdigest()


def digest(value: object) -> str:
    """Ten hex digits over a JSON value in its canonical form."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:10]
