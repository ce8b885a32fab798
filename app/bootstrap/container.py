"""The wired agent, and what of the outside it is connected to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from app.agent.freshness.watchdog import WatchdogTerms
from app.agent.intake import Intake
from app.agent.loop import Loop
from app.agent.memory import Historian
from app.agent.notifications.channel import Channel
from app.agent.observer import Observer
from app.agent.ports.cluster import (
    BatchReader,
    ClusterCoverage,
    ClusterReader,
    ClusterRehearsal,
    ClusterWatch,
    ClusterWriter,
    ContainerLogs,
    PodOwners,
)
from app.agent.ports.gitops import GitOps
from app.agent.ports.metrics import MetricSource, SilenceSource
from app.agent.ports.people import IdentityProvider, Notifier
from app.agent.ports.policy import PolicyEngine
from app.agent.ports.silences import OwnSilences, SilenceEnding
from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet
from app.agent.slo import SloThresholds
from app.clock import Clock
from app.config import Settings
from app.connectors.kinds import AlertSource, ChatInbound, MetricPace
from app.connectors.peer_breaker import PeerBreaker
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.readiness import ConnectedCluster, ReadinessCheck
from app.connectors.streams.open import OpenStream
from app.connectors.streams.schema_registry import SchemaRegistry
from app.measures.process import Measures
from app.settings.services import WatchedServices
from app.terms import guardrails
from app.terms.live import LiveSettings
from app.vitals import Vitals


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The adapters of everything outside: what a connected agent reads and writes.

    A part that is None is not connected; without a writer nothing can be written.
    """

    reader: ClusterReader | None = None
    steady: ClusterReader | None = None
    """Reads workloads from a view that a watch keeps, for what looks at every service; None: as `reader`."""
    owners: PodOwners | None = None
    logs: ContainerLogs | None = None
    """Reads the logs of failing containers; None where that is not allowed."""
    batches: BatchReader | None = None
    """Reads Jobs and CronJobs; None where failed Jobs are not watched."""
    rehearsal: ClusterRehearsal | None = None
    writer: ClusterWriter | None = None
    watch: ClusterWatch | None = None
    coverage: ClusterCoverage | None = None
    """Says what of the cluster is not watched."""
    clusters: Mapping[str, ConnectedCluster] = field(default_factory=dict)
    """Each connected cluster by name, as readiness asks about it, where clusters have names."""
    informer_ages: Callable[[], Mapping[str, Mapping[str, float]]] = dict
    """Seconds since each API server last sent something, by cluster and watched kind."""
    cluster_faults: Callable[[], Mapping[str, str | None]] = dict
    """Of each of several clusters, why it did not list its services when last asked; None if it did."""
    metrics: MetricSource | None = None
    pace: MetricPace | None = None
    """How the metrics are polled; None: as the settings say."""
    silences: SilenceSource | None = None
    own_silences: OwnSilences | None = None
    """Reads the agent's own silences, which `reader` shows as targets; None: no alerts can be silenced."""
    silence_ending: SilenceEnding | None = None
    alerts: AlertSource | None = None
    """Holds the alerts that fire now, for those whose delivery was missed."""
    gitops: GitOps | None = None
    notifier: Notifier | None = None
    """Notifies people directly instead of through the outbox: for tests and simulations."""
    channels: tuple[Channel, ...] = ()
    """Where people are shown incidents, out of the outbox."""
    policy_engine: PolicyEngine | None = None
    peers: tuple[PeerBreaker, ...] = ()
    """The circuit breaker of each connected peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """The wired agent, without the engine that drives it."""

    settings: Settings
    clock: Clock
    store: Store
    fleet: Fleet
    world: Adapters
    observer: Observer
    intake: Intake
    loop: Loop
    historian: Historian | None
    slo: SloThresholds
    services: WatchedServices | None
    """What `SERVICES_FILE` sets for single services."""
    live: LiveSettings | None
    """What of the settings may change while the agent runs; None without CONFIG_FILE."""
    pace: MetricPace
    streams: tuple[OpenStream, ...]
    """What this process takes signals from, besides HTTP."""
    schemas: SchemaRegistry | None
    checks: tuple[ReadinessCheck, ...]
    """What readiness asks; each raises an `AgentError` when its part is not ready."""
    sign_in: IdentityProvider | None
    """The sign-in issuer, if one is set."""
    close_world: Callable[[], Awaitable[None]]
    watchdog: WatchdogTerms | None = None
    """What is expected of the watchdog alert; None where it is not monitored."""
    vitals: Vitals = field(default_factory=Vitals)
    """Whether the driver moves, where this process has one."""
    measures: Measures = field(default_factory=Measures.of_process)
    """What this process counts, for `/metrics`."""
    chats: Mapping[str, ChatInbound] = field(default_factory=dict)
    """Receives buttons and commands by channel, in a process that serves people."""

    async def reload_policies(self) -> None:
        """Reload CONFIG_FILE, the services file and the policies; a policy server manages its own."""
        self.reload_settings()
        if self.services is not None:
            self.services.reload()
        if isinstance(self.world.policy_engine, EmbeddedPolicy):
            await self.world.policy_engine.reload()

    @property
    def settings_in_force(self) -> Settings:
        """The settings of the start, with what CONFIG_FILE changed since."""
        return self.settings if self.live is None else self.live.settings

    def reload_settings(self) -> None:
        """Put in force what changed in CONFIG_FILE, as far as it may change while the agent runs."""
        if self.live is not None and self.live.reload():
            policy = self.loop.stages.executor.policy
            policy.limits = guardrails(self.live.settings, policy.limits.services)

    @property
    def peers(self) -> tuple[PeerBreaker, ...]:
        """The circuit breaker of each connected peer."""
        return self.world.peers

    def informer_ages(self) -> Mapping[str, Mapping[str, float]]:
        """Seconds since each API server last sent something, by cluster and watched kind."""
        return self.world.informer_ages()

    @property
    def pod_owners(self) -> PodOwners | None:
        """Says what workload a pod belongs to; None where no cluster is connected."""
        return self.world.owners

    @property
    def stale_after(self) -> timedelta:
        return timedelta(seconds=self.settings.signal_stale_after_seconds)

    async def close(self) -> None:
        """Close every connection."""
        for one in self.streams:
            await one.stream.close()
        if self.schemas is not None:
            await self.schemas.aclose()
        for chat in self.chats.values():
            await chat.aclose()
        await self.close_world()
        await self.store.close()
