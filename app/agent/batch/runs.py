"""The runs of one batch, a CronJob or a standalone Job, as the cluster shows them. Pure.

A batch has a separate key: its failure is never an outage of the service that shares its label.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.ids import ServiceKey
from app.agent.workload import ObjectRef

JOB, CRON_JOB = "Job", "CronJob"
BATCH_KINDS = frozenset({JOB, CRON_JOB})
"""They run to completion: a failure is not an outage of the service that shares the label."""

_PREFIXES = {f"{kind.lower()}:": kind for kind in sorted(BATCH_KINDS)}


def batch_key(environment: str, kind: str, name: str) -> ServiceKey:
    """The key of a batch: `cronjob:report`; no label of a service can hold a colon."""
    return ServiceKey(environment=environment, service=f"{kind.lower()}:{name}")


def batch_named(key: ServiceKey) -> tuple[str, str] | None:
    """Kind and name of the batch that a key is about; None for a service."""
    for prefix, kind in _PREFIXES.items():
        if key.service.startswith(prefix):
            return kind, key.service.removeprefix(prefix)
    return None


class RunState(StrEnum):
    """The state of a run, by the conditions of its Job."""

    RUNNING = "running"
    SUSPENDED = "suspended"
    COMPLETE = "complete"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRun:
    """One Job of a batch."""

    name: str
    uid: str
    state: RunState
    created_at: datetime
    ended_at: datetime | None = None
    """When it completed or failed; None before that."""
    scheduled_at: datetime | None = None
    """The time of the schedule that it was started for; None where a person or the agent started it."""
    said: str = ""
    """Why it failed, in the words of its controller, redacted, at most 300 characters."""
    repeats: str | None = None
    """The uid of the failed Job that the agent repeated with it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedContainer:
    """A container of a failed run that ended with an error."""

    pod: ObjectRef
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchView:
    """A batch with the runs that the cluster still keeps, read at `observed_at`."""

    key: ServiceKey
    ref: ObjectRef
    """The CronJob, or the Job that no CronJob started."""
    observed_at: datetime
    runs: tuple[BatchRun, ...]
    """Newest first."""
    suspended: bool = False
    """The CronJob starts no runs."""
    concurrency: str = "Allow"
    """What its CronJob does about runs at once: `Allow`, `Forbid` or `Replace`."""
    safe_to_repeat: bool = False
    """Its owners declared that a failed run may be started a second time."""
    opted_out: bool = False
    controller: str | None = None
    """Another controller that runs the Job (`Workflow nightly`); None for a CronJob, or if there is none."""

    @property
    def failed(self) -> BatchRun | None:
        """The newest run that ended, if it failed; None: nothing is left to repair."""
        ended = self.newest_ended
        return ended if ended is not None and ended.state is RunState.FAILED else None

    @property
    def newest_ended(self) -> BatchRun | None:
        return next((run for run in self.runs if run.state in (RunState.COMPLETE, RunState.FAILED)), None)

    @property
    def under_way(self) -> BatchRun | None:
        """A run that has not ended, the newest one."""
        return next((run for run in self.runs if run.state in (RunState.RUNNING, RunState.SUSPENDED)), None)

    @property
    def state(self) -> RunState | None:
        """The state of the batch: complete or failed once its newest run ended; None without a run."""
        return self.runs[0].state if self.runs else None

    @property
    def words(self) -> str:
        """The state of the batch, in words."""
        if not self.runs:
            return f"no run of {self.ref} is kept"
        newest = self.runs[0]
        said = f": {newest.said}" if newest.said else ""
        return f"run {newest.name} of {self.ref} {_WORDS[newest.state]}{said}"


_WORDS = {
    RunState.RUNNING: "has not ended",
    RunState.SUSPENDED: "is suspended",
    RunState.COMPLETE: "completed",
    RunState.FAILED: "failed",
}
