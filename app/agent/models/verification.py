"""The observations of the verifier after an action, and its verdict."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.batch.runs import BatchView
from app.agent.ids import IntentId
from app.agent.models.evidence import SliSample, TelemetryHealth
from app.agent.models.signals import Condition
from app.agent.workload import WorkloadView


class VerdictKind(StrEnum):
    RECOVERED = "recovered"
    NOT_RECOVERED = "not_recovered"
    WORSE = "worse"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of a verification."""

    kind: VerdictKind
    reasons: tuple[str, ...]
    at: datetime
    intent_id: IntentId | None = None
    """The action that it judges; None where the service was only watched, and on old records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """The observation of the verifier at one instant; missing parts stay missing."""

    at: datetime
    sli: SliSample | None
    workload: WorkloadView | None
    telemetry: TelemetryHealth | None = None
    reported_conditions: tuple[Condition, ...] = ()
    """Conditions reported by pushed signals whose end was not reported yet."""
    batch: BatchView | None = None
    """The batch that the incident is about; None where it is about a service."""
    gone: bool = False
    """The cluster answered, and no workload maps to the service; or the batch does not exist."""
    missing: tuple[str, ...] = ()
    """What could not be read, in words."""
    unmeasured: str | None = None
    """Why the agent's own metric source gave no usable answer; None: it answered, or none is configured."""
    unseen: str | None = None
    """Why the cluster gave no usable answer about the workload; None: it answered, or none is connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How far verification has come; durable, so that a restart of the process does not restart the soak."""

    intent_id: IntentId | None
    """The action under test; None while a dry run only watches."""
    started_at: datetime
    """When the action was done, or when the agent looked again after a time in which it did not."""
    healthy_since: datetime | None = None
    last_unhealthy_at: datetime | None = None
    last_observed_at: datetime | None = None
    baseline: SliSample | None = None
    """Service levels right before the action: what "worse" is measured against."""
    lost_seconds: float = 0.0
    """The length of the attempts that a gap between observations ended; bounds the number of restarts."""
    waited_for: tuple[str, ...] = ()
    """What could not be determined in a row, in words without figures, since the service was last known to be
    healthy; the timeline has an entry for each."""
