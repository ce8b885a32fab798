"""Rerun a failed Job: one new Job with the same template, where its owners declared it safe to repeat."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.actions.spec import (
    ActionSpec,
    PlanLimits,
    Resolution,
    Resolved,
    StateChange,
    Unmet,
    no_pods,
)
from app.agent.batch.repeats import name_of_repeat, obstacle
from app.agent.batch.runs import JOB
from app.agent.guardrails.target_token import REPEATED_AS, RUN
from app.agent.ids import JsonScalar
from app.agent.models import ActionName, Evidence, Risk

_EFFECT = "a new Job with the template of the failed one runs once; the failed one stays"


def resolve(parameters: Mapping[str, JsonScalar], evidence: Evidence, limits: PlanLimits) -> Resolution:  # noqa: ARG001 - every action resolves with the same signature
    """Needs a batch whose newest run failed, is declared safe to repeat, and was not repeated yet."""
    batch = evidence.batch
    if batch is None:
        return Unmet(reason="the incident is about no Job that the agent can read")
    reason = obstacle(batch)
    if reason is not None or batch.failed is None:
        return Unmet(reason=reason or "no run failed")
    failed = batch.failed
    new = name_of_repeat(failed.name, failed.uid)
    return Resolved(
        target=batch.ref.beside(JOB, failed.name),
        parameters={},
        expected_effect=f"Job {new} is created with the template of {failed.name}, which stays as it is",
        change=StateChange(leaves=f"run {failed.uid} failed", reaches=f"run {failed.uid} repeated"),
    )


SPEC = ActionSpec(
    name=ActionName.RERUN_JOB,
    risk=Risk.MEDIUM,
    parameters=(),
    expected_effect=_EFFECT,
    undo=None,
    resolve=resolve,
    kinds=frozenset({JOB}),
    changes=(REPEATED_AS,),
    based_on=(RUN,),
    pods_taken=no_pods,  # it adds pods, and serves no requests
    enabled_by_default=False,
    no_undo_note="{target} was repeated, and what a run has done cannot be undone: a new Job that has not "
    "ended is left to end.",
)
