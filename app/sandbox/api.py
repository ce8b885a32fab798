"""The simulated API server: the rules that every object of a cluster lives by.

One counter gives out resource versions, as etcd does. A change of what an
object asks for raises its generation and names the field manager that made it; a
change of its status or annotations raises the resource version only, and a
change that changes nothing raises neither. Preconditions (uid and
resourceVersion) and rights hold for a dry run as for the real request.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias, TypeVar

from app.agent.ids import JsonObject
from app.errors import Conflict, Forbidden, Invalid, NotFound, TransientError, UnknownOutcome
from app.sandbox.engine import Engine
from app.sandbox.objects import (
    WORKLOADS,
    ClusterNode,
    ConfigMap,
    Deployment,
    HorizontalPodAutoscaler,
    Job,
    Meta,
    Pod,
    ReplicaSet,
    parse_quantity,
)

Thing: TypeAlias = Deployment | ReplicaSet | Pod | ConfigMap | ClusterNode | HorizontalPodAutoscaler | Job
T = TypeVar("T", bound=Thing)

_MAX_CONFIG_MAP_BYTES = 1_048_576


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One write request that took effect, as an audit log would show it."""

    at: datetime
    manager: str
    verb: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Precondition:
    """The exact object state a request is bound to."""

    uid: str
    resource_version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who asks, and what they may."""

    name: str
    rights: frozenset[str] | None = None
    """Each as `patch deployments`; None is every right."""


class ApiServer:
    """Keeps the objects; every read and write of the simulated cluster ends here."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.audit: list[AuditEntry] = []
        self.unreachable = False
        self.lose_answers = 0
        """How many of the next writes take effect without an answer."""
        self.refused_pods: dict[str, str] = {}
        """Why an admission policy refuses new pods, by namespace."""
        self.changed: list[Callable[[Thing], None]] = []
        """Called with each object whose version moved: controllers and watches."""
        self._objects: dict[str, dict[tuple[str, str], Thing]] = {}
        self._version = 0

    # -------------------------------------------------------------- reading

    def ask(self, identity: Identity, verb: str, kind: str) -> None:
        """Every request of the agent begins here: is the server there, and may the agent?"""
        self.engine.catch_up()
        if self.unreachable:
            raise TransientError("the simulated API server does not answer")
        right = f"{verb} {kind.lower()}s"
        if identity.rights is not None and right not in identity.rights:
            raise Forbidden(f"forbidden: {identity.name} may not {right}; give its role that verb")

    def get(self, kind: type[T], namespace: str, name: str) -> T:
        found = self._objects.get(kind.kind, {}).get((namespace, name))
        if not isinstance(found, kind):
            raise NotFound(f"{kind.kind} {namespace}/{name} does not exist")
        return found

    def list(self, kind: type[T], namespace: str | None = None) -> list[T]:
        return [
            thing
            for thing in self._objects.get(kind.kind, {}).values()
            if isinstance(thing, kind) and (namespace is None or thing.meta.namespace == namespace)
        ]

    def workloads(self, namespace: str | None = None) -> tuple[Deployment, ...]:
        """The workloads of every kind."""
        return tuple(workload for kind in WORKLOADS for workload in self.list(kind, namespace))

    def workload(self, namespace: str, name: str) -> Deployment:
        """The workload of that name, of whatever kind."""
        for kind in WORKLOADS:
            if (namespace, name) in self._objects.get(kind.kind, {}):
                return self.get(kind, namespace, name)
        return self.get(Deployment, namespace, name)

    def holds(self, thing: Thing) -> bool:
        """Whether exactly this object still exists."""
        return self._objects.get(thing.kind, {}).get((thing.meta.namespace, thing.meta.name)) is thing

    # -------------------------------------------------------------- writing

    def new_meta(self, namespace: str, name: str, labels: dict[str, str] | None = None) -> Meta:
        """Metadata of an object about to be created; its uid comes from the world's seed."""
        return Meta(
            namespace=namespace,
            name=name,
            uid=str(uuid.UUID(int=self.engine.random.getrandbits(128), version=4)),
            created_at=self.engine.now,
            labels=dict(labels or {}),
        )

    def admit_pod(self, namespace: str, name: str) -> None:
        """Whether a new pod may be made; `Forbidden` where an admission policy refuses it."""
        why = self.refused_pods.get(namespace)
        if why is not None:
            raise Forbidden(f'pods "{name}" is forbidden: {why}')

    def create(self, thing: T) -> T:
        key, there = (thing.meta.namespace, thing.meta.name), self._objects.setdefault(thing.kind, {})
        if key in there:
            raise Conflict(f"{thing.kind} {thing.meta.namespace}/{thing.meta.name} exists already")
        _validate(thing)
        there[key] = thing
        self.bump(thing)
        return thing

    def delete(self, thing: Thing) -> None:
        self._objects.get(thing.kind, {}).pop((thing.meta.namespace, thing.meta.name), None)
        self.bump(thing)

    def remove(self, thing: Thing, *, manager: str, only_if: Precondition, dry_run: bool) -> None:
        """Delete an object as one request, in exactly the state it is bound to."""
        self._check(thing, only_if)
        if dry_run:
            return
        self.delete(thing)
        self._record(thing, manager, "delete")
        self._lose_an_answer(thing)

    def created(self, thing: Thing, *, manager: str) -> None:
        """Record that an object was created by one request, whose answer may be lost."""
        self._record(thing, manager, "create")
        self._lose_an_answer(thing)

    def take_away(self, thing: Thing, *, manager: str, dry_run: bool) -> None:
        """Delete an object as one request, in whatever version it is."""
        if dry_run:
            return
        self.delete(thing)
        self._record(thing, manager, "evict")
        self._lose_an_answer(thing)

    def bump(self, thing: Thing) -> None:
        """The stored object changed: give it the next version and notify the listeners."""
        self._version += 1
        thing.meta.resource_version = self._version
        for listener in self.changed:
            listener(thing)

    def change(
        self,
        thing: T,
        mutate: Callable[[T], None],
        *,
        manager: str,
        only_if: Precondition | None = None,
        dry_run: bool = False,
    ) -> T:
        """Patch an object as one request; the object after it, or a copy of it under a dry run."""
        self._check(thing, only_if)
        after = copy.deepcopy(thing)
        mutate(after)
        _validate(after)
        before_spec, after_spec = _spec(thing), _spec(after)
        if dry_run:
            return after
        if after_spec == before_spec and after.meta.annotations == thing.meta.annotations:
            return thing
        mutate(thing)
        if after_spec != before_spec:
            thing.meta.generation += 1
            thing.meta.changed_by, thing.meta.changed_at = manager, self.engine.now
            moved = {part for part, value in after_spec.items() if before_spec.get(part) != value}
            thing.meta.changers.update(dict.fromkeys(moved, manager))
        self._record(thing, manager, "patch")
        self.bump(thing)
        self._lose_an_answer(thing)
        return thing

    def _record(self, thing: Thing, manager: str, verb: str) -> None:
        self.audit.append(
            AuditEntry(
                at=self.engine.now,
                manager=manager,
                verb=verb,
                kind=thing.kind,
                namespace=thing.meta.namespace,
                name=thing.meta.name,
            )
        )

    def _lose_an_answer(self, thing: Thing) -> None:
        if self.lose_answers > 0:
            self.lose_answers -= 1
            raise UnknownOutcome(f"the answer to a change of {thing.kind} {thing.meta.name} was lost")

    @staticmethod
    def _check(thing: Thing, only_if: Precondition | None) -> None:
        if only_if is None:
            return
        name = f"{thing.kind} {thing.meta.namespace}/{thing.meta.name}"
        if only_if.uid != thing.meta.uid:
            raise Conflict(f"{name} is another object now (uid {thing.meta.uid})")
        if only_if.resource_version != str(thing.meta.resource_version):
            raise Conflict(
                f"{name} was modified: it is at version {thing.meta.resource_version}, "
                f"not {only_if.resource_version}"
            )


def _spec(thing: Thing) -> JsonObject:
    if isinstance(thing, Deployment):
        return thing.spec()
    if isinstance(thing, ConfigMap):
        return {"data": dict(thing.data)}
    if isinstance(thing, ClusterNode):
        return {"unschedulable": thing.unschedulable}
    if isinstance(thing, HorizontalPodAutoscaler):
        return {"maximum": thing.maximum}
    return {}


def _validate(thing: Thing) -> None:
    """What the API server rejects as 422."""
    if isinstance(thing, Deployment):
        if thing.replicas < 0:
            raise Invalid(f"spec.replicas: {thing.replicas} must not be negative")
        if not thing.template.image:
            raise Invalid("spec.template.spec.containers[0].image: required value")
        if thing.template.memory_limit is not None:
            parse_quantity(thing.template.memory_limit)
    if isinstance(thing, ConfigMap) and sum(len(k) + len(v) for k, v in thing.data.items()) > (
        _MAX_CONFIG_MAP_BYTES
    ):
        raise Invalid(f"ConfigMap {thing.meta.name} is larger than {_MAX_CONFIG_MAP_BYTES} bytes")
