"""The settings that apply in the sandbox; every other one has its default there."""

from __future__ import annotations

IN_FORCE = frozenset(
    {
        # what the agent may do
        "max_actions_per_incident",
        "max_actions_per_service",
        "max_actions_per_namespace",
        "max_actions_per_cluster",
        "budget_window_seconds",
        "max_replica_share",
        "max_cordoned_nodes",
        "max_cordoned_share",
        "cooldown_seconds",
        "backoff_base_seconds",
        "backoff_max_seconds",
        "circuit_failures_per_service",
        "circuit_failures_per_cluster",
        "circuit_open_seconds",
        "freeze_windows",
        "action_memory_seconds",
        "require_opt_in",
        "enabled_actions",
        "helm_drift",
        "approval_for_risks",
        "approval_timeout_seconds",
        "approval_people",
        "scale_min_replicas",
        "scale_max_replicas",
        "runbooks_dir",
        # when a service is unhealthy
        "slo_max_error_rate",
        "slo_max_p95_latency_ms",
        "slo_min_request_rate",
        "slo_clear_ratio",
        "evidence_max_age_seconds",
        "change_lookback_seconds",
        "reopen_after_seconds",
        "breach_for_seconds",
        "incident_settle_seconds",
        "trust_revision_after_seconds",
        "verify_soak_seconds",
        "verify_timeout_seconds",
        # policy: a server decides on documents, and reaches nothing of the simulation
        "policy_dir",
        "policy_timeout_seconds",
        "opa_url",
        "opa_token",
        "opa_timeout_seconds",
        # HTTP and the sandbox itself
        "host",
        "port",
        "max_body_bytes",
        "max_connections",
        "log_level",
        "log_format",
        "sandbox",
        "sandbox_speed",
        "sandbox_folder",
        "sandbox_scenarios",
        "sandbox_environment",
    }
)
"""The settings of the user that apply in the sandbox."""
