"""Connects what the settings name outside the process: cluster, metrics, channels, policy, chats, streams.

Nothing is asked here; each connection is made on first use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from app.agent.ports.silences import OwnSilences, SilenceWriter
from app.agent.ports.store import Store
from app.bootstrap.clusters import ClusterSide, connect_clusters
from app.bootstrap.container import Adapters
from app.clock import Clock
from app.config import Settings
from app.connectors.git.connect import connect_repositories
from app.connectors.kinds import (
    ChatInbound,
    MetricPace,
    chosen_metrics,
    configured_gitops,
    constructed_channels,
    first_configured,
)
from app.connectors.peer_breaker import (
    PeerBreaker,
    guarded_alerts,
    guarded_metrics,
    guarded_silences,
)
from app.connectors.policy.connect import connect_policy, policy_peer
from app.connectors.registry import CHANNELS, GITOPS, LOG_SOURCES, METRIC_SOURCES, SILENCE_SOURCES
from app.connectors.silencing.ports import (
    IncidentSilences,
    SilencingReader,
    SilencingRehearsal,
    SilencingWriter,
)
from app.connectors.streams.open import OpenStream, open_streams
from app.settings.entries import Role


def connect_world(settings: Settings, clock: Clock) -> tuple[Adapters, Callable[[], Awaitable[None]]]:
    """The adapters of everything outside, asking nothing yet, and what closes them.

    In a dry run no writer and no channel is constructed (promise 5).
    """
    closers: list[Callable[[], Awaitable[None]]] = []
    cluster = connect_clusters(settings, clock)
    metrics = chosen_metrics(METRIC_SOURCES, settings)
    source = metrics.connect(settings) if metrics is not None else None
    silences = first_configured(SILENCE_SOURCES, settings)
    silenced = silences.connect(settings) if silences is not None else None
    stored = first_configured(LOG_SOURCES, settings)
    logs = stored.connect(settings, clock) if stored is not None else None
    polled = silences.polled_every(settings) if silences is not None else None
    controller = configured_gitops(GITOPS, settings)
    gitops = controller.connect(settings, connect_repositories(settings)) if controller is not None else None
    channels = constructed_channels(CHANNELS, settings)
    engine = connect_policy(settings)  # last: it has a thread of its own, which only its closing ends
    silencer = None
    if silences is not None and cluster is not None and cluster.writer is not None:
        silencer = silences.connect_writer(settings)
    if cluster is not None:
        if silenced is not None:
            cluster = with_silences(cluster, silenced, silencer, clock)
        closers.append(cluster.close)
    if gitops is not None:
        closers.append(gitops.close)
    closers += [
        one.aclose for one in (engine, *channels, source, silenced, silencer, logs) if one is not None
    ]

    async def close() -> None:
        for closer in closers:
            await closer()

    metric_source = PeerBreaker(name=metrics.title) if source and metrics else None
    silence_source = PeerBreaker(name=silences.title) if silenced and silences else None
    peers = (*(cluster.peers if cluster else ()), metric_source, silence_source, policy_peer(engine))
    return (
        Adapters(
            reader=cluster.reader if cluster is not None else None,
            steady=cluster.steady if cluster is not None else None,
            owners=cluster.owners if cluster is not None else None,
            rehearsal=cluster.rehearsal if cluster is not None else None,
            writer=cluster.writer if cluster is not None else None,
            logs=logs or (cluster.logs if cluster is not None else None),
            batches=cluster.batches if cluster is not None else None,
            watch=cluster.watch if cluster is not None else None,
            coverage=cluster.coverage if cluster is not None else None,
            clusters=cluster.each if cluster is not None else {},
            informer_ages=cluster.ages if cluster is not None else dict,
            cluster_faults=cluster.faults if cluster is not None else dict,
            metrics=guarded_metrics(source, metric_source) if source and metric_source else None,
            silences=guarded_silences(silenced, silence_source) if silenced and silence_source else None,
            own_silences=silenced if cluster is not None and polled is not None else None,
            silence_ending=IncidentSilences(silences=silenced, writer=silencer, clock=clock)
            if silenced and silencer
            else None,
            alerts=guarded_alerts(silenced, silence_source, polled)
            if silenced and silence_source and polled
            else None,
            gitops=gitops.ports if gitops is not None else None,
            channels=channels,
            policy_engine=engine,
            peers=tuple(peer for peer in peers if peer is not None),
        ),
        close,
    )


def with_silences(
    cluster: ClusterSide, silences: OwnSilences, writer: SilenceWriter | None, clock: Clock
) -> ClusterSide:
    """The cluster ports with the agent's own silences beside them; no writing side in a dry run."""
    writes = cluster.writer
    if writes is not None and writer is not None:
        writes = SilencingWriter(cluster=writes, silences=silences, writer=writer, clock=clock)
    return replace(
        cluster,
        reader=SilencingReader(cluster=cluster.reader, silences=silences, clock=clock),
        rehearsal=SilencingRehearsal(cluster=cluster.rehearsal, silences=silences),
        writer=writes,
    )


def metric_pace(settings: Settings) -> MetricPace:
    """The pace of the chosen metric source; of the first where none is configured."""
    return (chosen_metrics(METRIC_SOURCES, settings) or METRIC_SOURCES[0]).pace(settings)


def connect_chats(settings: Settings, store: Store, clock: Clock) -> dict[str, ChatInbound]:
    """What receives buttons and commands, by channel, where people are served.

    Raises `ConfigurationError`, naming the setting, for what cannot be used.
    """
    found = {
        kind.name: kind.inbound.connect(settings, store, clock)
        for kind in CHANNELS
        if kind.inbound is not None and settings.serves_people
    }
    return {name: chat for name, chat in found.items() if chat is not None}


def connect_streams(settings: Settings) -> tuple[OpenStream, ...]:
    """The streams that a worker reads; they connect on first use."""
    if settings.role not in (Role.ALL, Role.WORKER):
        return ()
    return open_streams(settings)
