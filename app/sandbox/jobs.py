"""The Jobs of the simulated cluster, and the CronJobs that they are runs of.

A run ends a while after it began: it fails where its image crashes, or does not exist, and completes
otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from app.agent.batch.runs import RunState
from app.sandbox.api import ApiServer
from app.sandbox.engine import Engine
from app.sandbox.objects import Job, Template

RUNS_FOR_SECONDS = 20.0
_FAILED = "BackoffLimitExceeded: Job has reached the specified backoff limit"


@dataclass(slots=True, kw_only=True)
class CronJob:
    """What starts runs by a schedule."""

    name: str
    annotations: Mapping[str, str] = field(default_factory=dict)
    suspended: bool = False
    concurrency: str = "Allow"


class Jobs:
    """The batches of one world."""

    def __init__(self, engine: Engine, api: ApiServer) -> None:
        self._engine = engine
        self._api = api
        self.cron_jobs: dict[tuple[str, str], CronJob] = {}

    def start(
        self,
        namespace: str,
        name: str,
        template: Template,
        *,
        cron_job: str | None = None,
        annotations: Mapping[str, str] | None = None,
        scheduled_at: datetime | None = None,
    ) -> Job:
        """Create a Job as its owner does."""
        job = Job(
            meta=self._api.new_meta(namespace, name),
            template=template,
            cron_job=cron_job,
            scheduled_at=scheduled_at,
        )
        job.meta.annotations.update(annotations or {})
        return self.run(job)

    def run(self, job: Job) -> Job:
        """Store a Job and let it run to its end."""
        self._api.create(job)
        self._engine.after(RUNS_FOR_SECONDS, lambda: self._end(job))
        return job

    def end(self, job: Job, state: RunState) -> None:
        """The run ends now."""
        job.state, job.ended_at = state, self._engine.now
        job.said = _FAILED if state is RunState.FAILED else ""
        self._api.bump(job)

    def _end(self, job: Job) -> None:
        if self._api.holds(job) and job.state is RunState.RUNNING:
            self.end(job, RunState.FAILED if "crash" in job.template.image else RunState.COMPLETE)
