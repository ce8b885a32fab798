"""Which cluster each environment is in. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

UNNAMED = ""
"""The name of the cluster that KUBECONFIG or KUBE_IN_CLUSTER connects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clusters:
    """Which cluster each environment is in; without named clusters all are in the one without a name."""

    environments: Mapping[str, str] = field(default_factory=dict)
    """Environments of named clusters, each with that name; all others are in the cluster without one."""

    def of(self, environment: str) -> str:
        """The name of the cluster that has the environment."""
        return self.environments.get(environment, UNNAMED)

    def environments_of(self, cluster: str) -> frozenset[str]:
        """The environments of a named cluster."""
        return frozenset(one for one, name in self.environments.items() if name == cluster)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the named clusters, sorted."""
        return tuple(sorted(set(self.environments.values())))


def in_words(cluster: str) -> str:
    """`cluster east`; `the cluster` for the one without a name."""
    return f"cluster {cluster}" if cluster else "the cluster"
