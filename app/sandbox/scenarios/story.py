"""Stories for the simulated world, as data: what runs, and what people do to it when.

`heal demo` plays one; a scenario is a value, so that later ones can be written,
generated from a seed, and compared with a twin in which no action is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from app.agent.ids import ServiceKey
from app.sandbox.objects import Template
from app.sandbox.world import Workload, World


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """A pipeline rolls out another image, and reports it to the agent."""

    workload: str
    image: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigUpdate:
    """A person replaces the data of a ConfigMap without reporting it."""

    config_map: str
    data: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryLoss:
    """The monitoring stops hearing of every service."""


Happening: TypeAlias = Release | ConfigUpdate | TelemetryLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """Something that happens at a moment of the story."""

    at_seconds: float
    says: str
    happening: Happening


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A world and what happens to it."""

    name: str
    title: str
    namespace: str
    service: str
    """The service that the story is about."""
    workloads: tuple[Workload, ...]
    beats: tuple[Beat, ...]
    limit_seconds: float
    """By then every incident of the story has ended."""
    config_maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def key(self) -> ServiceKey:
        """The service as the agent names it: its environment is the namespace."""
        return ServiceKey(environment=self.namespace, service=self.service)

    def within(self, namespace: str) -> Scenario:
        """The same story in another namespace."""
        moved = tuple(replace(workload, namespace=namespace) for workload in self.workloads)
        return replace(self, namespace=namespace, workloads=moved)

    def set_up(self, world: World) -> None:
        """Create what runs before the story begins."""
        for name, data in self.config_maps.items():
            world.put_config_map(self.namespace, name, data)
        for workload in self.workloads:
            world.deploy(workload)

    def play(self, world: World, happening: Happening) -> None:
        """Let one thing happen to the world now."""
        match happening:
            case Release(workload=workload, image=image):
                world.release(self.namespace, workload, image)
            case ConfigUpdate(config_map=name, data=data):
                world.put_config_map(self.namespace, name, data)
            case TelemetryLoss():
                world.lose_telemetry()


NAMESPACE = "sandbox"


def _serving(name: str, image: str, *, callee: str | None = None) -> Workload:
    env = () if callee is None else (("DEPENDENCY_URL", f"http://{callee}"),)
    return Workload(
        namespace=NAMESPACE,
        name=name,
        service=name,
        template=Template(image=image, env=env),
        progress_deadline_seconds=60.0,
    )


BAD_RELEASE = Scenario(
    name="bad-release",
    title="A bad release of payments-api starts, and then half of its requests fail",
    namespace=NAMESPACE,
    service="payments-api",
    workloads=(
        _serving("payments-api", "registry.example/payments-api:1.14.2"),
        _serving("ledger", "registry.example/ledger:3.2.0"),
    ),
    beats=(
        Beat(
            at_seconds=60.0,
            says="The pipeline releases payments-api 1.15.0.",
            happening=Release(
                workload="payments-api",
                image="registry.example/payments-api:1.15.0-errors",
                version="1.15.0",
            ),
        ),
    ),
    limit_seconds=900.0,
)
