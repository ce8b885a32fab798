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
from app.agent.loop import Loop
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
from app.agent.stages.components import Stages
from app.agent.verifier import Verifier
from app.bootstrap.container import Adapters, Container
from app.bootstrap.outside import connect_chats, connect_streams, connect_world, metric_pace
from app.clock import Clock, SystemClock
from app.config import Settings
from app.connectors.kinds import MetricPace
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
from app.connectors.sso.issuer import connect_issuer
from app.connectors.streams.open import OpenStream
from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import AgentError
from app.redaction import remember
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
from app.terms.clusters import clusters_of
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
        batches=world.batches,
        applications=world.gitops.reader if world.gitops is not None else None,
        clusters=clusters_of(settings),
        view=world.steady,
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
    closer = Closer(
        store=store, notifier=notifier, clock=clock, reader=world.reader, silences=world.silence_ending
    )
    stages = Stages(
        observer=observer,
        executor=executor,
        verifier=verifier,
        soak=Soak(store=store, observer=observer, executor=executor, verifier=verifier, closer=closer),
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
            silences=world.own_silences is not None,
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
        sign_in=connect_issuer(settings, clock),
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
