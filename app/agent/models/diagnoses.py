"""The closed list of causes, and the ranked hypotheses of a diagnosis."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum


class Cause(StrEnum):
    """The closed list of causes the agent can name; `UNKNOWN` is an answer."""

    BAD_RELEASE = "bad_release"
    BAD_CONFIG = "bad_config"
    IRREVERSIBLE_RELEASE = "irreversible_release"
    RESOURCE_LIMIT = "resource_limit"
    MEMORY_LEAK = "memory_leak"
    TRAFFIC_SURGE = "traffic_surge"
    DEPENDENCY_FAILURE = "dependency_failure"
    NODE_FAILURE = "node_failure"
    TELEMETRY_OUTAGE = "telemetry_outage"
    MISSING_CONFIGURATION = "missing_configuration"
    SCHEDULING_FAILURE = "scheduling_failure"
    STORAGE_FAILURE = "storage_failure"
    ADMISSION_REFUSAL = "admission_refusal"
    PROBE_FAILURE = "probe_failure"
    REGISTRY_FAILURE = "registry_failure"
    SCALED_TO_ZERO = "scaled_to_zero"
    BATCH_FAILURE = "batch_failure"
    SERVICE_ROUTING = "service_routing"
    NETWORK_POLICY = "network_policy"
    SCALED_TOO_LOW = "scaled_too_low"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One cause with the evidence for and against it."""

    cause: Cause
    confidence: float
    """0..1; an ordering with a meaning for thresholds, not a probability."""
    rule: str
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Ranked hypotheses, best first; never empty."""

    hypotheses: tuple[Hypothesis, ...]
    at: datetime
    fingerprint: str | None = None
    """Hash over the parts of its evidence that can recur in another incident; None on old records."""

    @property
    def best(self) -> Hypothesis:
        return self.hypotheses[0]
