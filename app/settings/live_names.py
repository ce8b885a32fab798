"""The settings that a running agent takes from a changed CONFIG_FILE."""

from __future__ import annotations

LIVE = frozenset(
    {
        # guardrails
        "allow_high_risk_actions",
        "enabled_actions",
        "max_actions_per_incident",
        "max_actions_per_service",
        "max_actions_per_namespace",
        "max_actions_per_cluster",
        "budget_window_seconds",
        "max_fleet_share",
        "max_replica_share",
        "cooldown_seconds",
        "backoff_base_seconds",
        "backoff_max_seconds",
        "circuit_failures_per_service",
        "circuit_failures_per_cluster",
        "circuit_open_seconds",
        "freeze_windows",
        "action_memory_seconds",
        "require_opt_in",
        # approvals
        "approval_for_risks",
        "approval_roles",
        "approval_people",
        "approval_escalation",
        # when a service is unhealthy
        "slo_max_error_rate",
        "slo_max_p95_latency_ms",
        "slo_min_request_rate",
        # log
        "log_level",
    }
)
"""Every other setting takes effect at the next start: connections, roles, secrets, and DRY_RUN, without which
no writing component is constructed."""
