"""Diagnostic rules, one cause each: `evaluate(evidence)` returns a hypothesis or None.

A rule reads only the evidence, reports evidence for and against its cause, and has
no special case for any service. `app.agent.evidence` holds what rules share:
symptoms, candidate changes, and scoring.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from app.agent.models import Evidence, Hypothesis
from app.agent.rules import (
    admission_refusal,
    bad_config,
    bad_release,
    batch_failure,
    dependency_failure,
    irreversible_release,
    memory_leak,
    missing_configuration,
    network_policy,
    node_failure,
    probe_failure,
    registry_failure,
    resource_limit,
    scaled_to_zero,
    scaled_too_low,
    scheduling_failure,
    service_routing,
    storage_failure,
    telemetry_outage,
    traffic_surge,
)
from app.agent.rules.unknown import unexplained

__all__ = ["RULES", "Rule", "unexplained"]

Rule: TypeAlias = Callable[[Evidence], Hypothesis | None]

RULES: tuple[Rule, ...] = (
    telemetry_outage.evaluate,
    irreversible_release.evaluate,
    scaled_to_zero.evaluate,
    node_failure.evaluate,
    admission_refusal.evaluate,
    scheduling_failure.evaluate,
    storage_failure.evaluate,
    registry_failure.evaluate,
    missing_configuration.evaluate,
    probe_failure.evaluate,
    batch_failure.evaluate,
    service_routing.evaluate,
    network_policy.evaluate,
    dependency_failure.evaluate,
    scaled_too_low.evaluate,
    traffic_surge.evaluate,
    memory_leak.evaluate,
    resource_limit.evaluate,
    bad_config.evaluate,
    bad_release.evaluate,
)
