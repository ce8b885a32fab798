"""The composition root: the only place where adapters meet ports.

`build` reads settings and opens connections; `assemble` wires what it is given,
which is how tests, the demo and the sandbox run the same loop over other worlds.
"""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from app.agent.approvals.request import ApprovalRequester
from app.agent.closing import Closer
from app.agent.evidence.trust import TrustRules
from app.agent.executor import Executor
from app.agent.guardrails.circuit_breaker import Breaker
from app.agent.guardrails.freeze import FreezeWindow
from app.agent.guardrails.limits import Limits
from app.agent.guardrails.question import Guardrails
from app.agent.identity.people import ApprovalTerms, EscalationStep
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake import Intake, IntakeRules
from app.agent.loop import Loop, Stages
from app.agent.memory import Historian
from app.agent.notifications.channel import Channel
from app.agent.notifications.outbox import Announcements
from app.agent.observer import Observer
from app.agent.planner import PlanLimits
from app.agent.policy import Policy
from app.agent.ports.cluster import (
    ClusterReader,
    ClusterRehearsal,
    ClusterWatch,
    ClusterWriter,
    PodOwners,
)
from app.agent.ports.metrics import MetricSource, SilenceSource
from app.agent.ports.people import IdentityProvider, Notifier
from app.agent.ports.policy import PolicyEngine
from app.agent.ports.store import Store
from app.agent.ports.streams import StreamProgress
from app.agent.ports.workers import Fleet, Runner
from app.agent.reason_check import ReasonCheck
from app.agent.runbooks import load_catalogue
from app.agent.slo import SloThresholds
from app.agent.soak import Soak
from app.agent.verifier import Verifier, VerifyRules
from app.clock import Clock, SystemClock
from app.config import FreezeSetting, Role, Settings
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.chat.slack.channel import SlackChannel, inbound_from_settings
from app.connectors.chat.teams import TeamsChannel
from app.connectors.chat.webhook import WebhookChannel
from app.connectors.k8s import connect
from app.connectors.peer_breaker import (
    PeerBreaker,
    guarded_metrics,
    guarded_owners,
    guarded_reader,
    guarded_rehearsal,
    guarded_silences,
)
from app.connectors.policy.answers import FAULT
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.opa import OpaPolicy
from app.connectors.prometheus.promql import duration
from app.connectors.prometheus.source import PrometheusSource
from app.connectors.streams.open import OpenStream, open_stream
from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import AgentError, ConfigurationError, TransientError
from app.redaction import remember
from app.store import Alone, open_shared
from app.vitals import Vitals

if TYPE_CHECKING:
    from app.connectors.chat.slack.inbound import SlackInbound

Check = tuple[str, Callable[[], Awaitable[None]]]


class Unattended:
    """A `Runner` for processes without an engine: incidents move only under run-once."""

    async def wake(self, incident_id: IncidentId) -> None:
        """Leave the incident where it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The adapters of everything outside: what a connected agent reads and writes.

    A part that is None is not connected; without a writer nothing can be written.
    """

    reader: ClusterReader | None = None
    owners: PodOwners | None = None
    rehearsal: ClusterRehearsal | None = None
    writer: ClusterWriter | None = None
    watch: ClusterWatch | None = None
    metrics: MetricSource | None = None
    silences: SilenceSource | None = None
    notifier: Notifier | None = None
    """Notifies people directly instead of through the outbox: for tests and simulations."""
    channels: tuple[Channel, ...] = ()
    """Where people are shown incidents, out of the outbox."""
    policy_engine: PolicyEngine | None = None


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
    streams: tuple[OpenStream, ...]
    """What this process takes signals from, besides HTTP."""
    schemas: SchemaRegistry | None
    checks: tuple[Check, ...]
    """What readiness asks; each raises an `AgentError` when its part is not ready."""
    sign_on: IdentityProvider | None
    """The sign-in issuer, if one is set."""
    close_world: Callable[[], Awaitable[None]]
    vitals: Vitals = field(default_factory=Vitals)
    """Whether the driver moves, where this process has one."""
    slack: SlackInbound | None = None
    """Receives Slack buttons and commands, in a process that serves people."""

    async def reload_policies(self) -> None:
        """Reload the policies; a remote OPA server manages its own."""
        if isinstance(self.world.policy_engine, EmbeddedPolicy):
            await self.world.policy_engine.reload()

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
        if self.slack is not None:
            await self.slack.aclose()
        await self.close_world()
        await self.store.close()


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
) -> Container:
    """Wire the loop over the given parts; raises `ConfigurationError` for an unusable catalogue."""
    slo = SloThresholds(
        max_error_rate=settings.slo_max_error_rate,
        max_p95_latency_ms=settings.slo_max_p95_latency_ms,
        clear_ratio=settings.slo_clear_ratio,
        breach_for=timedelta(seconds=settings.breach_for_seconds),
        reopen_after=timedelta(seconds=settings.reopen_after_seconds),
        min_request_rate=settings.slo_min_request_rate,
    )
    notifier = world.notifier or (Announcements(store=store, clock=clock) if world.channels else None)
    observer = Observer(
        store=store,
        reader=world.reader,
        metrics=world.metrics,
        lookback=timedelta(seconds=settings.change_lookback_seconds),
        dependencies=_dependencies(settings.service_dependencies),
        objectives=slo.objectives,
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
            limits=Guardrails(
                enabled_actions=settings.enabled_actions,
                allow_high_risk=settings.allow_high_risk_actions,
                max_actions_per_incident=settings.max_actions_per_incident,
                approval_for=settings.approval_for_risks,
                approval_terms=_approval_terms(settings),
                shared=_shared_limits(settings),
                max_replica_share=settings.max_replica_share,
                require_opt_in=settings.require_opt_in,
            ),
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
        lease=timedelta(seconds=settings.claim_lease_seconds),
    )
    verifier = Verifier(
        observer=observer,
        rules=VerifyRules(
            slo=slo,
            soak=timedelta(seconds=settings.verify_soak_seconds),
            timeout=timedelta(seconds=settings.verify_timeout_seconds),
            interval=timedelta(seconds=settings.verify_interval_seconds),
            max_sample_age=timedelta(seconds=settings.verify_max_sample_age_seconds),
        ),
        silences=world.silences,
    )
    closer = Closer(store=store, notifier=notifier, clock=clock)
    stages = Stages(
        observer=observer,
        executor=executor,
        verifier=verifier,
        trial=Soak(store=store, observer=observer, executor=executor, verifier=verifier, closer=closer),
        closer=closer,
        catalogue=load_catalogue(settings.runbooks_dir),
        plan_limits=PlanLimits(scale_min=settings.scale_min_replicas, scale_max=settings.scale_max_replicas),
        check=check,
    )
    intake = Intake(
        store=store,
        rules=IntakeRules(slo=slo, max_open_per_sender=settings.max_open_incidents_per_sender),
        runner=runner or Unattended(),
        dry_run=settings.dry_run,
    )
    vitals = Vitals()
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
        historian=_historian(settings, store, world, slo),
        slo=slo,
        streams=tuple(streams),
        schemas=_schemas(settings),
        checks=(*_checks(store, world, clock), ("driver", vitals.check), *_stream_checks(streams)),
        vitals=vitals,
        sign_on=connect_issuer(settings, clock),
        close_world=close_world or _nothing_to_close,
        slack=inbound_from_settings(settings, store, clock) if _serves_people(settings) else None,
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
        )
    except AgentError:
        await close_world()
        raise


def connect_world(settings: Settings, clock: Clock) -> tuple[Adapters, Callable[[], Awaitable[None]]]:
    """The adapters of everything outside, asking nothing yet, and what closes them.

    In a dry run no writer and no channel is constructed (promise 5).
    """
    closers: list[Callable[[], Awaitable[None]]] = []
    cluster = connect(settings, clock)
    metrics = PrometheusSource.from_settings(settings) if settings.prometheus_url else None
    silences = AlertmanagerSilences.from_settings(settings) if settings.alertmanager_url else None
    channels = connect_channels(settings)
    engine = connect_policy(settings)  # last: it has a thread of its own, which only its closing ends
    if cluster is not None:
        closers.append(cluster.close)
    closers.append(engine.aclose)
    closers += [channel.aclose for channel in channels]
    if metrics is not None:
        closers.append(metrics.aclose)
    if silences is not None:
        closers.append(silences.aclose)

    async def close() -> None:
        for closer in closers:
            await closer()

    api_server = PeerBreaker(name="the cluster")
    return (
        Adapters(
            reader=guarded_reader(cluster.reader, api_server) if cluster is not None else None,
            owners=guarded_owners(cluster.reader, api_server) if cluster is not None else None,
            rehearsal=guarded_rehearsal(cluster.rehearsal, api_server) if cluster is not None else None,
            writer=cluster.writer if cluster is not None else None,
            watch=cluster.watch if cluster is not None else None,
            metrics=guarded_metrics(metrics, PeerBreaker(name="Prometheus")) if metrics is not None else None,
            silences=guarded_silences(silences, PeerBreaker(name="Alertmanager"))
            if silences is not None
            else None,
            channels=channels,
            policy_engine=engine,
        ),
        close,
    )


def connect_policy(settings: Settings) -> OpaPolicy | EmbeddedPolicy:
    """The server that OPA_URL names, else the engine in this process.

    Raises `ConfigurationError`, naming file and line, for policies that cannot be used.
    """
    return OpaPolicy.from_settings(settings) if settings.opa_url else EmbeddedPolicy.from_settings(settings)


def connect_issuer(settings: Settings, clock: Clock) -> IdentityProvider | None:
    """The issuer that OIDC_ISSUER names, where people are served; asks nothing yet.

    Raises `ConfigurationError` where it cannot be used, or its packages are missing.
    """
    if settings.oidc_issuer is None or not _serves_people(settings):
        return None
    if any(importlib.util.find_spec(name) is None for name in ("authlib", "itsdangerous")):
        raise ConfigurationError("sign-in with OIDC_ISSUER needs the extra 'oidc': pip install '.[oidc]'")
    from app.connectors.sso.oidc import OidcIssuer  # here: only who signs on needs what the extra brings

    return OidcIssuer.from_settings(settings, clock)


def _serves_people(settings: Settings) -> bool:
    return settings.role in (Role.ALL, Role.API)


def connect_channels(settings: Settings) -> tuple[Channel, ...]:
    """The chats and webhooks where people are shown incidents; none in a dry run (promise 5).

    They connect on first use, and none of them makes the agent unready: the loop
    goes on without them. Raises `ConfigurationError` for one that could never work.
    """
    if settings.dry_run:
        return ()
    channels: list[Channel] = []
    if settings.slack_bot_token is not None:
        channels.append(SlackChannel.from_settings(settings))
    if settings.notify_webhook_url is not None:
        channels.append(WebhookChannel.from_settings(settings))
    if settings.teams_webhook_url is not None:
        channels.append(TeamsChannel.from_settings(settings))
    return tuple(channels)


def connect_streams(settings: Settings) -> tuple[OpenStream, ...]:
    """The streams that a worker reads; they connect on first use."""
    if settings.role not in (Role.ALL, Role.WORKER):
        return ()
    properties = {name: value.get_secret_value() for name, value in settings.kafka_properties.items()}
    return tuple(open_stream(url.get_secret_value(), properties) for url in settings.intake_from)


def _schemas(settings: Settings) -> SchemaRegistry | None:
    if settings.schema_registry_url is None:
        return None
    return SchemaRegistry(
        url=settings.schema_registry_url,
        timeout_seconds=settings.schema_registry_timeout_seconds,
        bearer_token=settings.schema_registry_token,
    )


def _stream_checks(streams: Sequence[OpenStream]) -> list[Check]:
    def moving(progress: StreamProgress) -> Callable[[], Awaitable[None]]:
        async def check() -> None:
            if progress.blocked_since is not None:
                since = f"{progress.blocked_since:%Y-%m-%d %H:%M:%S}"
                raise TransientError(f"blocked since {since} UTC: {progress.trouble}")

        return check

    return [(one.address, moving(one.progress)) for one in streams]


def _historian(settings: Settings, store: Store, world: Adapters, slo: SloThresholds) -> Historian | None:
    if world.reader is None:
        return None
    return Historian(
        store=store,
        reader=world.reader,
        metrics=world.metrics,
        slo=slo,
        rules=TrustRules(
            after=timedelta(seconds=settings.trust_revision_after_seconds),
            min_requests=settings.trust_min_requests,
            window=duration(settings.prometheus_window),
        ),
    )


def _checks(store: Store, world: Adapters, clock: Clock) -> tuple[Check, ...]:
    checks: list[Check] = [("store", store.ping)]
    reader, metrics = world.reader, world.metrics
    if reader is not None:

        async def cluster_answers() -> None:
            await reader.services()

        checks.append(("cluster", cluster_answers))
    if metrics is not None:
        nobody = ServiceKey(environment="none", service="none")

        async def metrics_answer() -> None:
            await metrics.sli(nobody, clock.now())

        checks.append(("metrics", metrics_answer))
    if world.silences is not None:
        checks.append(("silences", _silences_answer(world.silences, clock)))
    engine = world.policy_engine
    if engine is not None:

        async def policy_decides() -> None:
            answer = await engine.decide({})
            if answer.rules == FAULT:
                raise TransientError("; ".join(answer.reasons))

        checks.append(("policy", policy_decides))
    return tuple(checks)


def _silences_answer(source: SilenceSource, clock: Clock) -> Callable[[], Awaitable[None]]:
    async def silences_answer() -> None:
        await source.concerning(ServiceKey(environment="none", service="none"), clock.now())

    return silences_answer


def _owner(settings: Settings) -> str:
    """Who holds claims: on SQLite there is one process, whose successor takes over without waiting."""
    return "embedded" if settings.embedded else f"process-{uuid.uuid4().hex}"


def _shared_limits(settings: Settings) -> Limits:
    return Limits(
        window=timedelta(seconds=settings.budget_window_seconds),
        per_service=settings.max_actions_per_service,
        per_namespace=settings.max_actions_per_namespace,
        per_cluster=settings.max_actions_per_cluster,
        fleet_share=settings.max_fleet_share,
        cooldown=timedelta(seconds=settings.cooldown_seconds),
        backoff_base=timedelta(seconds=settings.backoff_base_seconds),
        backoff_max=timedelta(seconds=settings.backoff_max_seconds),
        memory=timedelta(seconds=settings.action_memory_seconds),
        service_breaker=_breaker(settings, settings.circuit_failures_per_service),
        cluster_breaker=_breaker(settings, settings.circuit_failures_per_cluster),
        freezes=tuple(map(_freeze_window, settings.freeze_windows)),
    )


def _approval_terms(settings: Settings) -> ApprovalTerms:
    return ApprovalTerms(
        roles=tuple(sorted(settings.approval_roles)),
        people=settings.approval_people,
        escalation=tuple(
            EscalationStep(after=timedelta(seconds=step.after_seconds), roles=tuple(sorted(set(step.roles))))
            for step in sorted(settings.approval_escalation, key=lambda step: step.after_seconds)
        ),
    )


def _freeze_window(window: FreezeSetting) -> FreezeWindow:
    return FreezeWindow(
        name=window.name,
        length=timedelta(hours=window.hours),
        cron=window.cron,
        starts_at=window.starts_at,
        time_zone=window.time_zone,
        environments=window.environments,
        services=window.services,
    )


def _breaker(settings: Settings, failures: int) -> Breaker | None:
    if failures == 0:
        return None
    return Breaker(failures=failures, open_for=timedelta(seconds=settings.circuit_open_seconds))


async def _nothing_to_close() -> None:
    """The parts belong to the caller."""


def _dependencies(
    configured: Mapping[str, Sequence[str]],
) -> dict[ServiceKey, tuple[ServiceKey, ...]]:
    """`{"prod/shop": ["prod/db"]}` as keys; a callee without an environment shares the caller's."""
    found = {}
    for caller, callees in configured.items():
        environment, _, service = caller.partition("/")
        found[ServiceKey(environment=environment, service=service)] = tuple(
            ServiceKey(
                environment=callee.partition("/")[0] if "/" in callee else environment,
                service=callee.rpartition("/")[2],
            )
            for callee in callees
        )
    return found
