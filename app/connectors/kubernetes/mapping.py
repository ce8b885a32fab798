"""Which workload a service is, and which namespace an environment is.

Pure; called by the reader and the watch. A workload never answers to two keys,
because exclusion (promise 3) is by key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.agent.guardrails.workload_kinds import DEPLOYMENT, WORKLOAD_KINDS
from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE, Kind
from app.connectors.kubernetes.fields import kind_of, mapping, name, number, text
from app.connectors.kubernetes.templates import PREFIX
from app.errors import ConfigurationError

WORKLOADS = tuple(Kind(name) for name in WORKLOAD_KINDS)
"""The kinds of workloads, in the order in which they are looked for."""
SERVICE_LABEL = "app.kubernetes.io/name"
SERVICE_ANNOTATION = PREFIX + "service"
SYSTEM_PREFIX = "kube-"
"""Namespaces of the cluster itself: never an environment unless one is configured to be."""
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_DNS_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def is_namespace_name(value: str) -> bool:
    return _DNS_LABEL.fullmatch(value) is not None


def is_object_name(value: str) -> bool:
    return _DNS_SUBDOMAIN.fullmatch(value) is not None


def is_label_value(value: str) -> bool:
    return _LABEL_VALUE.fullmatch(value) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a workload is."""

    namespace: str
    name: str
    kind: str = ""
    """Empty: the first kind that has a workload of this name (`WORKLOADS`)."""

    def first(self, claims: Sequence[WorkloadClaim]) -> WorkloadClaim | None:
        """The workload at this place, or the Rollout that runs the pods of the Deployment there."""
        near = [claim for claim in claims if claim.namespace == self.namespace]
        there = [claim for claim in near if claim.name == self.name and self.kind in ("", claim.kind)]
        found = min(there, key=_order, default=None)
        behind = {lent: claim for claim, lent in _behind_rollouts(near).items()}
        return found if found is None else behind.get(found, found)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadClaim:
    """What a workload says about which service it is."""

    kind: str
    namespace: str
    name: str
    service: str
    """By annotation, else by label, else its own name."""
    runs_for: str | None = None
    """The Deployment whose pods a Rollout runs in its place."""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Which service each workload of a namespace is, and which of them is none."""

    keys: Mapping[WorkloadClaim, ServiceKey]
    """A Deployment whose pods a Rollout runs has the key of the Rollout."""
    unwatched: Mapping[WorkloadClaim, str]
    """The others, with the reason."""

    def workload(self, key: ServiceKey) -> WorkloadClaim | None:
        """The workload that a service is; not a Deployment that another object stands in for."""
        found = [claim for claim, assigned in self.keys.items() if assigned == key]
        return min(found, key=lambda claim: claim.runs_for is None, default=None)


class ServiceMap:
    """The configured and the conventional names of things."""

    def __init__(
        self, *, environment_namespaces: Mapping[str, str], service_workloads: Mapping[str, str]
    ) -> None:
        """Takes `ENVIRONMENT_NAMESPACES` and `SERVICE_WORKLOADS`; raises `ConfigurationError`."""
        self._namespaces = dict(environment_namespaces)
        self._environments: dict[str, str] = {}
        for environment, namespace in self._namespaces.items():
            if not is_namespace_name(namespace):
                raise ConfigurationError(
                    f"ENVIRONMENT_NAMESPACES: {namespace!r} is not a namespace; name one for {environment!r}"
                )
            if namespace in self._environments:
                raise ConfigurationError(
                    f"ENVIRONMENT_NAMESPACES: namespace {namespace!r} belongs to two environments;"
                    f" keep one of {self._environments[namespace]!r} and {environment!r}"
                )
            self._environments[namespace] = environment
        self._places: dict[ServiceKey, Place] = {}
        self._keys: dict[Place, ServiceKey] = {}
        for written_key, written_place in service_workloads.items():
            key, place = _override(written_key, written_place)
            if place in self._keys:
                raise ConfigurationError(
                    f"SERVICE_WORKLOADS: {place} is named for {self._keys[place]} and for {key}; keep one"
                )
            self._places[key] = place
            self._keys[place] = key
        self._watched = frozenset({*self._environments, *(place.namespace for place in self._keys)})

    def namespaces(self) -> tuple[str, ...]:
        """The namespaces to read and watch, or `EVERYWHERE` alone."""
        if not self._namespaces:
            return (EVERYWHERE,)
        return tuple(sorted(self._watched))

    def watches(self, namespace: str) -> bool:
        """Whether workloads of a namespace may be services."""
        if self._namespaces:
            return namespace in self._watched
        return self._may_be_environment(namespace) or namespace in self._watched

    def namespace(self, environment: str) -> str | None:
        """The namespace of an environment; None where no workload of ours can be."""
        if environment in self._namespaces:
            return self._namespaces[environment]
        ours = self._environment(environment)
        return environment if ours in (environment, None) and self._may_be_environment(environment) else None

    def environment(self, namespace: str) -> str | None:
        """The environment of a namespace; None where it is not watched."""
        return self._environment(namespace)

    def place(self, key: ServiceKey) -> Place | None:
        """The workload that the settings name for a service."""
        return self._places.get(key)

    def assigned(self, claims: Sequence[WorkloadClaim], environment: str | None = None) -> Assignment:
        """The service that each workload of one namespace is.

        A workload that shares its service with others is the service of its own name.
        `environment` is that of a namespace that is read without being watched.
        """
        keys: dict[WorkloadClaim, ServiceKey] = {}
        unwatched: dict[WorkloadClaim, str] = {}
        sharing: dict[ServiceKey, list[WorkloadClaim]] = {}
        behind = _behind_rollouts(claims)
        configured = self._configured(claims)
        for claim in claims:
            if claim in behind.values():
                continue
            lent = behind.get(claim)
            own = configured.get(claim)
            key = own or self._claimed(claim, lent, environment)
            if key is None:
                continue
            if own is None and key in self._places:
                unwatched[claim] = f"SERVICE_WORKLOADS names {self._places[key]} for {key}"
            else:
                sharing.setdefault(key, []).append(claim)
        keys |= {those[0]: key for key, those in sharing.items() if len(those) == 1}
        self._by_own_name(sharing, keys, unwatched)
        keys |= {lent: keys[claim] for claim, lent in behind.items() if claim in keys}
        return Assignment(keys=keys, unwatched=unwatched)

    def _by_own_name(
        self,
        sharing: Mapping[ServiceKey, list[WorkloadClaim]],
        keys: dict[WorkloadClaim, ServiceKey],
        unwatched: dict[WorkloadClaim, str],
    ) -> None:
        """Give each of several workloads of one service the key of its own name, where that is free.

        Of two kinds with one name the first keeps it (`WORKLOADS`): a new StatefulSet takes no
        Deployment out of the agent's sight.
        """
        wanted: dict[ServiceKey, list[WorkloadClaim]] = {}
        for key, those in sharing.items():
            for claim in those:
                if claim not in keys:
                    own = ServiceKey(environment=key.environment, service=claim.name)
                    wanted.setdefault(own, []).append(claim)
        taken = {*keys.values(), *self._places}
        for own, those in wanted.items():
            those.sort(key=_order)
            if own not in taken:
                keys[those.pop(0)] = own
            holder = next((str(claim) for claim, key in keys.items() if key == own), None)
            rival = holder or str(self._places[own])
            unwatched |= dict.fromkeys(those, f"{rival} is {own} too; name one in SERVICE_WORKLOADS")

    def _configured(self, claims: Sequence[WorkloadClaim]) -> dict[WorkloadClaim, ServiceKey]:
        """The workloads that the settings name."""
        spaces = {claim.namespace for claim in claims}
        found = {key: place.first(claims) for key, place in self._places.items() if place.namespace in spaces}
        return {claim: key for key, claim in found.items() if claim is not None}

    def _claimed(
        self, claim: WorkloadClaim, lent: WorkloadClaim | None, environment: str | None
    ) -> ServiceKey | None:
        """By label or name; a Rollout without a label is the service of the Deployment whose pods it runs."""
        where = environment or self._environment(claim.namespace)
        if where is None:
            return None
        by_name = claim.service == claim.name
        service = lent.service if lent is not None and by_name else claim.service
        return ServiceKey(environment=where, service=service)

    def _environment(self, namespace: str) -> str | None:
        """The environment of a namespace that is watched."""
        if namespace in self._environments:
            return self._environments[namespace]
        if self._namespaces or not self._may_be_environment(namespace):
            return None
        return namespace

    def _may_be_environment(self, namespace: str) -> bool:
        return is_namespace_name(namespace) and not namespace.startswith(SYSTEM_PREFIX)


def _behind_rollouts(claims: Sequence[WorkloadClaim]) -> dict[WorkloadClaim, WorkloadClaim]:
    """The Deployment whose pods each Rollout runs in its place."""
    deployments = {claim.name: claim for claim in claims if claim.kind == DEPLOYMENT}
    named = ((claim, deployments.get(claim.runs_for or "")) for claim in claims)
    return {claim: deployment for claim, deployment in named if deployment is not None}


def _order(claim: WorkloadClaim) -> int:
    return WORKLOADS.index(Kind(claim.kind))


def claim_of(workload: JsonObject) -> WorkloadClaim:
    """What a workload says about itself."""
    ref = mapping(workload, "spec", "workloadRef")
    runs_pods = number(workload, "spec", "replicas") != 0
    return WorkloadClaim(
        kind=kind_of(workload),
        namespace=text(workload, "metadata", "namespace") or "",
        name=name(workload),
        service=service_name(workload),
        runs_for=text(ref, "name") if text(ref, "kind") == DEPLOYMENT and runs_pods else None,
    )


def service_name(workload: JsonObject) -> str:
    """The service by annotation, else by label, else by the workload's own name."""
    annotated = text(workload, "metadata", "annotations", SERVICE_ANNOTATION)
    return annotated or text(workload, "metadata", "labels", SERVICE_LABEL) or name(workload)


def _override(written_key: str, written_place: str) -> tuple[ServiceKey, Place]:
    environment, _, service = written_key.partition("/")
    if not environment or not service or "/" in service:
        raise ConfigurationError(
            f"SERVICE_WORKLOADS: {written_key!r} is not a service; write environment/service"
        )
    parts, known = written_place.split("/"), {kind.lower(): kind for kind in WORKLOAD_KINDS}
    kinds = [known.get(part.lower(), "") for part in parts[1:-1]]
    if (
        len(parts) not in (2, 3)
        or not (is_namespace_name(parts[0]) and is_object_name(parts[-1]))
        or not all(kinds)
    ):
        raise ConfigurationError(
            f"SERVICE_WORKLOADS: {written_place!r} is not a workload; write namespace/name, "
            f"or namespace/kind/name with one of {', '.join(known)}"
        )
    place = Place(namespace=parts[0], name=parts[-1], kind="".join(kinds))
    return ServiceKey(environment=environment, service=service), place
