"""Detection of a change over the action under verification. Pure.

A verdict applies to the agent's action. Once another party has changed the same fields, a service that does
not recover is no evidence about the action.
"""

from __future__ import annotations

from datetime import datetime

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import on_status
from app.agent.batch.runs import JOB
from app.agent.evidence.format import in_words
from app.agent.gitops.steps import application_of
from app.agent.guardrails.workload_kinds import NODE
from app.agent.intents import Since, judged_with
from app.agent.models import IncidentRecord, Intent, Note, Stage, Verdict, VerdictKind
from app.agent.verification.assessment import Assessment

NOTHING_UNDONE = "Verification ends, and nothing is undone."
VERIFYING_ON = "Verifying the new state."

_SUPERSEDED = "superseded"
"""The key of the timeline's data that names the action."""


def comparable(record: IncidentRecord, judged: Intent) -> list[Intent]:
    """The actions under verification whose object can be compared with the state that the agent left.

    Excluded are actions that a controller continues: a change of a status, a change through a GitOps
    controller, and a failed Job, which is cleaned up.
    """
    return [
        one
        for one in judged_with(record, judged)
        if one.applied_token is not None
        and not on_status(one.action)
        and application_of(one.action) is None
        and ACTIONS[one.action.name].kinds != {JOB}
    ]


def by_whom(intents: list[Intent], since: Since) -> str | None:
    """The changes over the actions, in words; None if there are none, or the objects could not be read.

    A deleted node does not count: its platform removes a failed node.
    """
    found = [
        since.fate(one)
        for one in intents
        if one.id in since.changed_by or (one.id in since.gone and not _on_node(one))
    ]
    return "; ".join(dict.fromkeys(found)) or None


def _on_node(intent: Intent) -> bool:
    return intent.action.target is not None and intent.action.target.kind == NODE


def noted(record: IncidentRecord, judged: Intent) -> bool:
    """Whether the timeline already has this note."""
    return any(entry.data.get(_SUPERSEDED) == judged.id for entry in record.timeline)


def superseded_note(judged: Intent, what: str, follows: str, at: datetime) -> Note:
    """The author and the object of the change, and its consequence."""
    return Note(
        at=at,
        stage=Stage.VERIFY,
        message=f"{in_words(judged.action.name)} is superseded: {what}. {follows}",
        data={_SUPERSEDED: judged.id},
    )


def superseded_verdict(judged: Intent, what: str, now: Assessment, at: datetime) -> Verdict:
    """The verdict that ends the verification: whether the action helped is unknown."""
    reasons = (f"{in_words(judged.action.name)} is superseded: {what}", *now.reasons)
    return Verdict(kind=VerdictKind.CANNOT_TELL, reasons=reasons, at=at, intent_id=judged.id)
