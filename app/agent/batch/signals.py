"""The signals and the reasons that follow from an observation of a batch. Pure."""

from __future__ import annotations

from datetime import timedelta

from app.agent.batch.runs import BatchView, RunState
from app.agent.models.signals import ClusterCondition, Condition

NEWS_FOR = timedelta(hours=1)
"""A failure that is older when the agent sees it first opens no incident."""


def condition_of_batch(batch: BatchView, *, known: bool) -> ClusterCondition | None:
    """The condition that appeared or cleared since it was `known`; None where nothing changed."""
    failed = batch.failed
    ended = None if failed is None else failed.ended_at or failed.created_at
    new = ended is not None and batch.observed_at - ended <= NEWS_FOR
    present = failed is not None and (known or new)
    if present == known:
        return None
    return ClusterCondition(
        condition=Condition.JOB_FAILED, present=present, message=batch.words if present else "cleared"
    )


def contradicts_failure(batch: BatchView) -> str | None:
    """Why the batch is no longer a reason for an action; None while its newest ended run failed."""
    if batch.failed is not None:
        return None
    newest = batch.newest_ended
    if newest is None:
        return f"no failed run of {batch.ref} is kept"
    return f"run {newest.name} of {batch.ref} completed"


def repaired(batch: BatchView) -> bool:
    """Whether the newest run completed."""
    return batch.state is RunState.COMPLETE
