"""Picks the adapter of the cluster that a service or an object is in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.models import Action
from app.agent.workload import ObjectRef
from app.errors import Invalid, PermanentError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes(Generic[T]):
    """The adapters of one port, by the names of their clusters."""

    clusters: Clusters
    ports: Mapping[str, T]

    def of_service(self, key: ServiceKey) -> tuple[str, T] | None:
        """The name of the cluster that has the environment, and its adapter; None where none has it."""
        name = self.clusters.of(key.environment)
        port = self.ports.get(name)
        return None if port is None else (name, port)

    def of_object(self, ref: ObjectRef) -> T:
        """The adapter of the cluster that has the object.

        `PermanentError` for a cluster that is not configured any more: a record may be
        older than the settings, and another cluster must not be asked in its place.
        """
        port = self.ports.get(ref.cluster)
        if port is None:
            what = f"{ref.kind} {ref.name}"
            if ref.cluster:
                raise PermanentError(
                    f"{what} is in cluster {ref.cluster}, which CLUSTERS does not have: add it"
                )
            raise PermanentError(
                f"{what} is in the cluster without a name, which is not connected: set KUBECONFIG"
            )
        return port

    def of_action(self, action: Action) -> T:
        """The adapter of the cluster that has the target."""
        if action.target is None:
            raise Invalid(f"{action.name} touches no object")
        return self.of_object(action.target)


def in_cluster(ref: ObjectRef, cluster: str) -> ObjectRef:
    """The object as the records name it: an adapter knows no name of its cluster."""
    return msgspec.structs.replace(ref, cluster=cluster)
