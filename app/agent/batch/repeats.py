"""Whether a failed run may be repeated. Pure.

The planner checks this before a plan, and the connector again on the state right before the write, because
a batch changes by itself.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from itertools import pairwise

from app.agent.batch.runs import CRON_JOB, BatchRun, BatchView, RunState
from app.durations import span

SAFE_TO_REPEAT = "self-healing-devops-agent/safe-to-repeat"
"""The annotation by which owners declare that a run may be started a second time."""
REPEATS = "self-healing-devops-agent/repeats"
"""The label of a repetition: the uid of the failed Job."""

_LONGEST_BASE = 45
_DIGITS = 10


def name_of_repeat(run_name: str, uid: str) -> str:
    """The name of the one repetition that a failed Job can have: the API server accepts it once."""
    digest = hashlib.sha256(uid.encode()).hexdigest()[:_DIGITS]
    return f"{run_name[:_LONGEST_BASE].rstrip('-.')}-rerun-{digest}"


def obstacle(batch: BatchView, run: str | None = None) -> str | None:
    """Why the failed run must not be repeated, or why there is nothing to repeat; None if it may be repeated.

    `run`: the name of the run of the decision; None: the last failed run.
    """
    failed = batch.failed
    return (
        _owners_object(batch)
        or _nothing_to_do(batch, run)
        or (None if failed is None else _repeated(batch, failed))
        or _no_room(batch)
    )


def _owners_object(batch: BatchView) -> str | None:
    if batch.opted_out:
        return f"{batch.ref} is opted out by its owners"
    if batch.controller is not None:
        return f"{batch.ref} is run by {batch.controller}: act on {batch.controller} instead"
    if not batch.safe_to_repeat:
        return f'{batch.ref} is not declared safe to repeat ({SAFE_TO_REPEAT}: "true")'
    if batch.suspended:
        return f"{batch.ref} is suspended: its owners want no run now"
    return None


def _nothing_to_do(batch: BatchView, run: str | None) -> str | None:
    active, failed = batch.under_way, batch.failed
    if active is not None:
        return f"run {active.name} of {batch.ref} is {active.state}: its end decides"
    if failed is None:
        newest = batch.newest_ended
        return "no run failed" if newest is None else f"run {newest.name} completed: nothing to repeat"
    if run is not None and failed.name != run:
        return f"run {failed.name} failed since: a new decision is required"
    return None


def _repeated(batch: BatchView, failed: BatchRun) -> str | None:
    if failed.repeats is not None:
        return f"run {failed.name} is a repetition itself, and failed too"
    again = next((one for one in batch.runs if one.repeats == failed.uid), None)
    return None if again is None else f"run {failed.name} was repeated already as {again.name}"


def _no_room(batch: BatchView) -> str | None:
    """A CronJob that forbids concurrent runs counts only the runs that it started."""
    if batch.ref.kind != CRON_JOB or batch.concurrency == "Allow":
        return None
    due, longest = _next_due(batch), _longest(batch)
    forbids = f"{batch.ref} allows one run at a time (concurrencyPolicy {batch.concurrency})"
    if due is None or longest is None:
        return f"{forbids}, and too few runs are kept to know whether one ends before the next is due"
    if batch.observed_at + longest > due:
        return f"{forbids}: the next is due in {span(due - batch.observed_at)}, and one takes {span(longest)}"
    return None


def _next_due(batch: BatchView) -> datetime | None:
    """When the next run is due, from the shortest time between scheduled runs."""
    times = sorted({run.scheduled_at for run in batch.runs if run.scheduled_at is not None})
    if len(times) < 2:
        return None
    step = min(later - earlier for earlier, later in pairwise(times))
    missed = max(timedelta(0), batch.observed_at - times[-1]) // step
    return times[-1] + (missed + 1) * step


def _longest(batch: BatchView) -> timedelta | None:
    taken = [
        run.ended_at - run.created_at
        for run in batch.runs
        if run.state is RunState.COMPLETE and run.ended_at is not None
    ]
    return max(taken, default=None)
