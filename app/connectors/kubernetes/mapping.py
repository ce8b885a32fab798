"""Which Deployment a service is, and which namespace an environment is.

Pure; called by the reader and the watch. A workload never answers to two keys,
because exclusion (promise 3) is by key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from app.agent.ids import JsonObject, ServiceKey
from app.connectors.kubernetes.api import EVERYWHERE
from app.connectors.kubernetes.fields import name, text
from app.errors import ConfigurationError

SERVICE_LABEL = "app.kubernetes.io/name"
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
    """Where a Deployment is."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


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
                    f"ENVIRONMENT_NAMESPACES: {namespace!r} is no namespace; name one for {environment!r}"
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

    def place(self, key: ServiceKey) -> Place | None:
        """The Deployment that the settings name for a service."""
        return self._places.get(key)

    def key(self, deployment: JsonObject) -> ServiceKey | None:
        """The service that a Deployment is; None when the agent does not look after it."""
        namespace = text(deployment, "metadata", "namespace") or ""
        place = Place(namespace=namespace, name=name(deployment))
        if place in self._keys:
            return self._keys[place]
        environment = self._environment(namespace)
        if environment is None:
            return None
        key = ServiceKey(environment=environment, service=service_name(deployment))
        return None if key in self._places else key

    def belongs(self, deployment: JsonObject, key: ServiceKey) -> bool:
        """Whether a Deployment is the service `key`, in a watched namespace or not."""
        namespace = text(deployment, "metadata", "namespace") or ""
        place = Place(namespace=namespace, name=name(deployment))
        if key in self._places or place in self._keys:
            return self._places.get(key) == place
        return self.namespace(key.environment) == namespace and service_name(deployment) == key.service

    def _environment(self, namespace: str) -> str | None:
        """The environment of a namespace that is watched."""
        if namespace in self._environments:
            return self._environments[namespace]
        if self._namespaces or not self._may_be_environment(namespace):
            return None
        return namespace

    def _may_be_environment(self, namespace: str) -> bool:
        return is_namespace_name(namespace) and not namespace.startswith(SYSTEM_PREFIX)


def service_name(deployment: JsonObject) -> str:
    """The service by label, else by the Deployment's own name."""
    return text(deployment, "metadata", "labels", SERVICE_LABEL) or name(deployment)


def _override(written_key: str, written_place: str) -> tuple[ServiceKey, Place]:
    environment, _, service = written_key.partition("/")
    namespace, _, deployment = written_place.partition("/")
    if not environment or not service or "/" in service:
        raise ConfigurationError(
            f"SERVICE_WORKLOADS: {written_key!r} is no service; write environment/service"
        )
    if not is_namespace_name(namespace) or not is_object_name(deployment):
        raise ConfigurationError(
            f"SERVICE_WORKLOADS: {written_place!r} is no Deployment; write namespace/deployment"
        )
    return ServiceKey(environment=environment, service=service), Place(namespace=namespace, name=deployment)
