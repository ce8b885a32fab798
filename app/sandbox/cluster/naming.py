"""How the agent names the services of a simulated cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.agent.ids import ServiceKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """Which namespace an environment is; one that is not named is the namespace of the same name."""

    namespaces: Mapping[str, str]

    def namespace(self, environment: str) -> str:
        return self.namespaces.get(environment, environment)

    def key(self, namespace: str, service: str) -> ServiceKey | None:
        """The service as the agent names it; None for a namespace that is not watched."""
        if not self.namespaces:
            return ServiceKey(environment=namespace, service=service)
        for environment, mapped in self.namespaces.items():
            if mapped == namespace:
                return ServiceKey(environment=environment, service=service)
        return None

    def name(self, key: ServiceKey) -> tuple[str, str]:
        return self.namespace(key.environment), key.service


SAME_NAMES = Naming(namespaces={})
