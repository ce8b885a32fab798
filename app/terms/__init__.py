"""Settings as the values that decisions take: objectives, guardrails, freeze windows, approval terms.

Called by the composition root alone; nothing here connects to anything.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from app.agent.evidence.trust import TrustRules
from app.agent.freshness.watchdog import WatchdogTerms
from app.agent.guardrails.circuit_breaker import Breaker
from app.agent.guardrails.cordons import CordonLimits
from app.agent.guardrails.freeze import FreezeWindow
from app.agent.guardrails.limits import Limits
from app.agent.guardrails.question import Guardrails
from app.agent.identity.people import ApprovalTerms, EscalationStep
from app.agent.ids import ServiceKey
from app.agent.services.terms import NO_SERVICES, ServiceCatalogue
from app.agent.slo import SloThresholds
from app.agent.verification.rules import VerifyRules
from app.config import Settings
from app.settings.entries import FreezeSetting
from app.terms.clusters import clusters_of


def slo_thresholds(settings: Settings, services: ServiceCatalogue = NO_SERVICES) -> SloThresholds:
    """When a service is unhealthy, and when it is healthy again."""
    return SloThresholds(
        max_error_rate=settings.slo_max_error_rate,
        max_p95_latency_ms=settings.slo_max_p95_latency_ms,
        clear_ratio=settings.slo_clear_ratio,
        breach_for=timedelta(seconds=settings.breach_for_seconds),
        reopen_after=timedelta(seconds=settings.reopen_after_seconds),
        min_request_rate=settings.slo_min_request_rate,
        services=services,
    )


def watchdog_terms(settings: Settings, now: datetime) -> WatchdogTerms | None:
    """What is expected of the watchdog alert from now on; None where it is not monitored."""
    if not settings.watchdog_silence_seconds or not settings.watchdog_alert:
        return None
    return WatchdogTerms(
        alert=settings.watchdog_alert,
        longest_silence=timedelta(seconds=settings.watchdog_silence_seconds),
        expected_since=now if settings.watchdog_expected else None,
    )


def guardrails(settings: Settings, services: ServiceCatalogue = NO_SERVICES) -> Guardrails:
    """What holds actions back."""
    return Guardrails(
        enabled_actions=settings.enabled_actions,
        allow_high_risk=settings.allow_high_risk_actions,
        max_actions_per_incident=settings.max_actions_per_incident,
        approval_for=settings.approval_for_risks,
        approval_terms=_approval_terms(settings),
        shared=_shared_limits(settings),
        services=services,
        max_replica_share=settings.max_replica_share,
        require_opt_in=settings.require_opt_in,
        drift=settings.helm_drift,
        cordons=CordonLimits(own=settings.max_cordoned_nodes, share=settings.max_cordoned_share),
    )


def verify_rules(settings: Settings, slo: SloThresholds) -> VerifyRules:
    """When an incident counts as recovered."""
    return VerifyRules(
        slo=slo,
        soak=timedelta(seconds=settings.verify_soak_seconds),
        timeout=timedelta(seconds=settings.verify_timeout_seconds),
        batch_timeout=timedelta(seconds=settings.job_timeout_seconds),
        interval=timedelta(seconds=settings.verify_interval_seconds),
        max_sample_age=timedelta(seconds=settings.verify_max_sample_age_seconds),
    )


def trust_rules(settings: Settings, window: timedelta) -> TrustRules:
    """When a revision counts as healthy; `window` is the time over which metrics average."""
    return TrustRules(
        after=timedelta(seconds=settings.trust_revision_after_seconds),
        min_requests=settings.trust_min_requests,
        window=window,
    )


def service_dependencies(settings: Settings) -> dict[ServiceKey, tuple[ServiceKey, ...]]:
    """`{"prod/shop": ["prod/db"]}` as keys; a callee without an environment shares the caller's."""
    found = {}
    for caller, callees in settings.service_dependencies.items():
        environment, _, service = caller.partition("/")
        found[ServiceKey(environment=environment, service=service)] = tuple(
            ServiceKey(
                environment=callee.partition("/")[0] if "/" in callee else environment,
                service=callee.rpartition("/")[2],
            )
            for callee in callees
        )
    return found


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
        clusters=clusters_of(settings),
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
