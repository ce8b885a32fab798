"""The plan, the reason if it has no action, and the proposal of a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.agent.evidence.format import in_words
from app.agent.intents import done_intents, proposed_intents
from app.agent.models import Cause, DecisionKind, IncidentRecord, Note, Plan, RejectedRunbook, Stage


def plan_note(plan: Plan, at: datetime) -> Note:
    """The chosen runbook and its actions; the rejected runbooks are in the data."""
    if plan.actions:
        steps = ", then ".join(
            f"{in_words(a.name)} {a.target}" if a.target is not None else in_words(a.name)
            for a in plan.actions
        )
        message = f"Runbook {plan.runbook}: {steps}."
    elif plan.handover:
        message = f"Runbook {plan.runbook} escalates the incident to a person. {' '.join(plan.handover)}"
    else:
        message = "No runbook selected; no action planned."
    return Note(
        at=at,
        stage=Stage.PLAN,
        message=message,
        data={
            "hash": plan.hash,
            **({"handover": list(plan.handover)} if plan.handover else {}),
            "rejected": [{"runbook": r.runbook, "reason": r.reason} for r in plan.rejected],
        },
    )


def why_no_action(cause: str, plan: Plan | None) -> str:
    """Why the plan has no action: no runbook applies, or the matching one hands over to a person."""
    rejected = () if plan is None else plan.rejected
    if plan is None or not plan.handover or any(one.addresses_cause for one in rejected):
        return why_no_runbook(cause, rejected)
    return (
        f"No action taken: the cause is {in_words(cause)}, which runbook {plan.runbook} leaves to a person."
    )


def why_no_runbook(cause: str, rejected: Sequence[RejectedRunbook]) -> str:
    """Each runbook that addresses the cause, with the reason for its rejection."""
    if cause == Cause.UNKNOWN:
        return "No action taken: no cause reached the required confidence."
    candidates = [one for one in rejected if one.addresses_cause]
    if not candidates:
        return f"No action taken: no approved runbook addresses the cause, {in_words(cause)}."
    named = (
        one.reason if one.runbook.partition("@")[0] in one.reason else f"{one.runbook}: {one.reason}"
        for one in candidates
    )
    return f"No action taken: the cause is {in_words(cause)}, but {'; '.join(named)}."


def why_proposed(record: IncidentRecord) -> str:
    """The actions that a dry run proposes, with the policy decision on each."""
    proposed = []
    for intent in proposed_intents(record):
        allowed = intent.decision.kind is DecisionKind.ALLOW
        name = in_words(intent.action.name)
        proposed.append(name if allowed else f"{name} {_policy_said(intent.decision.kind)}")
    written = "Dry run, nothing was written." if not done_intents(record) else "Dry run now."
    return f"{written} Proposed: {'; then '.join(proposed)}."


def _policy_said(kind: DecisionKind) -> str:
    return "denied by policy" if kind is DecisionKind.DENY else "needs approval"
