"""Rule: a run of a batch failed; whether a second run may succeed."""

from __future__ import annotations

from app.agent.batch.runs import BatchRun, BatchView, RunState
from app.agent.evidence.scoring import CauseScore
from app.agent.models import Cause, Evidence, Hypothesis

_FAILED = 0.75
_WORKED_BEFORE = 0.6
_FAILS_REPEATEDLY = 0.3

_OWN_VERDICT = "PodFailurePolicy"
"""The reason of a Job whose own policy says that this failure is not worth another attempt."""


def evaluate(evidence: Evidence) -> Hypothesis | None:
    """More certain to be passing where the run before completed; less where that failed too."""
    batch = evidence.batch
    if batch is None or batch.failed is None:
        return None
    failed, cause_score = batch.failed, CauseScore()
    said = f": {failed.said}" if failed.said else ""
    cause_score.add_for(_FAILED, f"run {failed.name} of {batch.ref} failed{said}")
    before = _before(batch, failed)
    if before is not None and before.state is RunState.COMPLETE:
        cause_score.add_for(_WORKED_BEFORE, f"the run before, {before.name}, completed")
    elif before is not None:
        cause_score.add_against(_FAILS_REPEATEDLY, f"the run before, {before.name}, failed too")
    if failed.said.startswith(_OWN_VERDICT):
        cause_score.add_against(_FAILS_REPEATEDLY, "its own failure policy says that no attempt is worth it")
    return cause_score.hypothesis(Cause.BATCH_FAILURE, "batch_failure")


def _before(batch: BatchView, failed: BatchRun) -> BatchRun | None:
    """The run that ended before the failed one."""
    ended = [one for one in batch.runs if one.ended_at is not None and one.created_at < failed.created_at]
    return ended[0] if ended else None
