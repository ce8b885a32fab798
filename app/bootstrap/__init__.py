"""The composition root: the only place where adapters meet ports.

`build` reads settings and opens connections; `assemble` wires what it is given,
which is how tests, the demo and the sandbox run the same loop over other worlds.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import timedelta

from app.agent.approvals.request import ApprovalRequester
from app.agent.closing import Closer
from app.agent.executor import Executor
from app.agent.gitops.follow_up import FollowUp
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake import Intake, IntakeRules
from app.agent.loop import Loop, Stages
from app.agent.memory import Historian
from app.agent.notifications.outbox import Announcements
from app.agent.observer import Observer
from app.agent.planner import PlanLimits
from app.agent.policy import Policy
from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet, Runner
from app.agent.reason_check import ReasonCheck
from app.agent.responders.undo import RequestedUndo
from app.agent.runbooks import load_catalogue
from app.agent.services.annotated import AnnotatedServices
from app.agent.services.terms import NO_SERVICES, ServiceCatalogue
from app.agent.slo import SloThresholds
from app.agent.soak import Soak
from app.agent.verifier import Verifier
from app.bootstrap.clusters import connect_clusters
from app.bootstrap.container import Adapters, Container
from app.clock import Clock, SystemClock
from app.config import Settings
from app.connectors.git.connect import connect_repositories
from app.connectors.kinds import (
    ChatInbound,
    MetricPace,
    chosen_metrics,
    configured_gitops,
    configured_silences,
    constructed_channels,
)
from app.connectors.peer_breaker import (
    PeerBreaker,
    guarded_alerts,
    guarded_metrics,
    guarded_silences,
)
from app.connectors.policy.connect import connect_policy, policy_peer
from app.connectors.readiness import (
    ReadinessCheck,
    alerts_arrive,
    cluster_ready,
    clusters_ready,
    metrics_ready,
    policy_ready,
    services_read,
    settings_read,
    silences_ready,
    streams_ready,
)
from app.connectors.registry import CHANNELS, GITOPS, METRIC_SOURCES, SILENCE_SOURCES
from app.connectors.sso.issuer import connect_issuer
from app.connectors.streams.open import OpenStream, open_streams
from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import AgentError
from app.redaction import remember
from app.settings.entries import Role
from app.settings.services import watched_services
from app.store import Alone, open_shared
from app.terms import (
    guardrails,
    service_dependencies,
    slo_thresholds,
    trust_rules,
    verify_rules,
    watchdog_terms,
)
from app.terms.live import LiveServices, LiveSettings
from app.vitals import Vitals

__all__ = ["Adapters", "Container", "assemble", "build", "connect_world"]


class Unattended:
    """A `Runner` for processes without an engine: incidents move only under run-once."""

    async def wake(self, incident_id: IncidentId) -> None:
        """Leave the incident where it is."""


def assemble(
    settings: Settings,
    *,
    clock: Clock,
    store: Store,
    world: Adapters,
    fleet: Fleet | None = None,
    runner: Runner | None = None,
    streams: Sequence[OpenStream] = (),
    close_world: Callable[[], Awaitable[None]] | None = None,
    dependencies: Mapping[ServiceKey, tuple[ServiceKey, ...]] | None = None,
    live: LiveSettings | None = None,
) -> Container:
    """Wire the loop over the given parts; raises `ConfigurationError` for an unusable catalogue.

    `dependencies`: the calls between services; None: as the settings say. `live`: None: no setting
    changes.
    """
    watched = watched_services(settings)
    services: ServiceCatalogue = watched or NO_SERVICES
    if live is not None:
        services = LiveServices(services, live)
    services = annotated = AnnotatedServices(services)
    slo = slo_thresholds(settings, services)
    pace = world.pace or metric_pace(settings)
    notifier = world.notifier or (
        Announcements(notifications=store.notifications, clock=clock) if world.channels else None
    )
    observer = Observer(
        store=store,
        reader=world.reader,
        metrics=world.metrics,
        lookback=timedelta(seconds=settings.change_lookback_seconds),
        dependencies=service_dependencies(settings) if dependencies is None else dependencies,
        objectives=slo.objectives,
        services=services,
        annotated=annotated,
        logs=world.logs,
        applications=world.gitops.reader if world.gitops is not None else None,
    )
    check = ReasonCheck(
        observer=observer,
        slo=slo,
        max_age=timedelta(seconds=settings.evidence_max_age_seconds),
        clock=clock,
        silences=world.silences,
    )
    executor = Executor(
        store=store,
        policy=Policy(
            limits=guardrails(settings, services),
            engine=world.policy_engine,
        ),
        clock=clock,
        reader=world.reader,
        rehearsal=world.rehearsal,
        writer=world.writer,
        notifier=notifier,
        asking=ApprovalRequester(
            store=store,
            clock=clock,
            notifier=notifier,
            timeout=timedelta(seconds=settings.approval_timeout_seconds),
        ),
        check=check,
        gitops=world.gitops,
        lease=timedelta(seconds=settings.claim_lease_seconds),
    )
    verifier = Verifier(
        observer=observer,
        rules=verify_rules(settings, slo),
        silences=world.silences,
    )
    closer = Closer(store=store, notifier=notifier, clock=clock, reader=world.reader)
    stages = Stages(
        observer=observer,
        executor=executor,
        verifier=verifier,
        trial=Soak(store=store, observer=observer, executor=executor, verifier=verifier, closer=closer),
        closer=closer,
        follow_up=FollowUp(
            store=store,
            clock=clock,
            verifier=verifier,
            closer=closer,
            notifier=notifier,
            gitops=world.gitops,
            execution=executor.through_controller,
            timeout=timedelta(seconds=settings.git_merge_timeout_seconds),
        ),
        undo=RequestedUndo(
            store=store,
            observer=observer,
            executor=executor,
            closer=closer,
            rules=verifier.rules,
            max_age=check.max_age,
        ),
        catalogue=load_catalogue(settings.runbooks_folder),
        plan_limits=PlanLimits(
            scale_min=settings.scale_min_replicas,
            scale_max=settings.scale_max_replicas,
            memory_limit_max_mib=settings.memory_limit_max_mib,
        ),
        check=check,
    )
    intake = Intake(
        signals=store.signals,
        rules=IntakeRules(
            slo=slo,
            max_open_per_sender=settings.max_open_incidents_per_sender,
            max_services=settings.max_services,
        ),
        runner=runner or Unattended(),
        dry_run=settings.dry_run,
    )
    vitals = Vitals()
    watchdog = watchdog_terms(settings, clock.now())
    loop = Loop(
        store=store,
        intake=intake,
        stages=stages,
        clock=clock,
        owner=_owner(settings),
        lease=timedelta(seconds=settings.claim_lease_seconds),
        dry_run=settings.dry_run,
        settle=timedelta(seconds=settings.incident_settle_seconds),
    )
    return Container(
        settings=settings,
        clock=clock,
        store=store,
        fleet=fleet or Alone(),
        world=world,
        observer=observer,
        intake=intake,
        loop=loop,
        historian=_historian(settings, store, world, slo, pace),
        slo=slo,
        streams=tuple(streams),
        schemas=SchemaRegistry.from_settings(settings),
        checks=(
            *_checks(store, world, clock, streams),
            *services_read(watched),
            *settings_read(live),
            *([alerts_arrive(store.signals, watchdog, clock)] if watchdog is not None else []),
            ("driver", vitals.check),
        ),
        services=watched,
        live=live,
        watchdog=watchdog,
        vitals=vitals,
        sign_on=connect_issuer(settings, clock),
        close_world=close_world or _nothing_to_close,
        chats=connect_chats(settings, store, clock),
        pace=pace,
    )


async def build(settings: Settings, *, runner: Runner | None = None) -> Container:
    """Open the store and connect the world that the settings name.

    Raises `ConfigurationError` for settings that cannot work, `TransientError`
    when the database does not answer.
    """
    remember(settings.secret_values())
    clock = SystemClock()
    streams = connect_streams(settings)
    world, close_world = connect_world(settings, clock)
    try:
        store, fleet = await open_shared(settings.database_url.get_secret_value())
        return assemble(
            settings,
            clock=clock,
            store=store,
            world=world,
            fleet=fleet,
            runner=runner,
            streams=streams,
            close_world=close_world,
            live=LiveSettings(settings) if settings.config_file is not None else None,
        )
    except AgentError:
        await close_world()
        raise


def connect_world(settings: Settings, clock: Clock) -> tuple[Adapters, Callable[[], Awaitable[None]]]:
    """The adapters of everything outside, asking nothing yet, and what closes them.

    In a dry run no writer and no channel is constructed (promise 5).
    """
    closers: list[Callable[[], Awaitable[None]]] = []
    cluster = connect_clusters(settings, clock)
    metrics = chosen_metrics(METRIC_SOURCES, settings)
    source = metrics.connect(settings) if metrics is not None else None
    silences = configured_silences(SILENCE_SOURCES, settings)
    silenced = silences.connect(settings) if silences is not None else None
    polled = silences.polled_every(settings) if silences is not None else None
    controller = configured_gitops(GITOPS, settings)
    gitops = controller.connect(settings, connect_repositories(settings)) if controller is not None else None
    channels = constructed_channels(CHANNELS, settings)
    engine = connect_policy(settings)  # last: it has a thread of its own, which only its closing ends
    if cluster is not None:
        closers.append(cluster.close)
    if gitops is not None:
        closers.append(gitops.close)
    closers += [one.aclose for one in (engine, *channels, source, silenced) if one is not None]

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
            logs=cluster.logs if cluster is not None else None,
            watch=cluster.watch if cluster is not None else None,
            coverage=cluster.coverage if cluster is not None else None,
            clusters=cluster.each if cluster is not None else {},
            informer_ages=cluster.ages if cluster is not None else dict,
            cluster_faults=cluster.faults if cluster is not None else dict,
            metrics=guarded_metrics(source, metric_source) if source and metric_source else None,
            silences=guarded_silences(silenced, silence_source) if silenced and silence_source else None,
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


def _historian(
    settings: Settings, store: Store, world: Adapters, slo: SloThresholds, pace: MetricPace
) -> Historian | None:
    if world.reader is None:
        return None
    return Historian(
        store=store,
        reader=world.reader,
        metrics=world.metrics,
        slo=slo,
        rules=trust_rules(settings, pace.window),
    )


def _checks(
    store: Store, world: Adapters, clock: Clock, streams: Sequence[OpenStream]
) -> Iterator[ReadinessCheck]:
    """What readiness asks of the parts that are connected."""
    yield "store", store.ping
    if world.clusters:
        yield from clusters_ready(world.clusters)
    elif world.reader is not None:
        yield cluster_ready(world.reader, world.coverage)
    if world.metrics is not None:
        yield metrics_ready(world.metrics, clock)
    if world.silences is not None:
        yield silences_ready(world.silences, clock)
    if world.policy_engine is not None:
        yield policy_ready(world.policy_engine)
    yield from streams_ready(streams)


def _owner(settings: Settings) -> str:
    """Who holds claims: on SQLite there is one process, whose successor takes over without waiting."""
    return "embedded" if settings.embedded else f"process-{uuid.uuid4().hex}"


async def _nothing_to_close() -> None:
    """The parts belong to the caller."""
