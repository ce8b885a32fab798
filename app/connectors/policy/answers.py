"""Validates policy decisions of any engine: only a complete one counts (promise 7).

Used by the embedded engine and by the client of a remote one, so that the same
answer means the same from both.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.agent.identity.people import ApprovalTerms
from app.agent.models import DecisionKind
from app.agent.ports.policy import PolicyAnswer
from app.connectors.text import shorten

_Texts = Annotated[list[str], msgspec.Meta(max_length=100)]
_Names = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=200)]], msgspec.Meta(max_length=100)
]


FAULT = ("engine fault",)
"""The rule of an answer that no policy gave."""


class _Approval(msgspec.Struct, forbid_unknown_fields=True):
    """A misspelt field would ask for less than was meant: it makes the decision incomplete."""

    roles: _Names = []
    people: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1
    not_by: _Names = []


class _Decision(msgspec.Struct):
    decision: DecisionKind
    reasons: _Texts
    rules: _Texts = []
    approval: _Approval | None = None


class _EngineAnswer(msgspec.Struct):
    result: _Decision


def read_decision(body: bytes) -> PolicyAnswer:
    """The decision that `{"result": {"decision": ..., "reasons": [...]}}` holds in full, else a deny.

    `rules`, which names the rules that decided, may be left out, and so may `approval`,
    which says who must agree: `{"roles": [...], "people": 2, "not_by": [...]}`.
    """
    try:
        decision = msgspec.json.decode(body, type=_EngineAnswer).result
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return deny(f"the policy engine gave no complete decision: {shorten(str(error))}")
    return PolicyAnswer(
        kind=decision.decision,
        reasons=tuple(shorten(reason) for reason in decision.reasons),
        rules=tuple(shorten(rule) for rule in decision.rules),
        terms=None if decision.approval is None else _terms(decision.approval),
    )


def _terms(approval: _Approval) -> ApprovalTerms:
    return ApprovalTerms(
        roles=tuple(sorted(set(approval.roles))),
        people=approval.people,
        not_by=tuple(sorted(set(approval.not_by))),
    )


def deny(reason: str) -> PolicyAnswer:
    """What every fault of an engine means."""
    return PolicyAnswer(kind=DecisionKind.DENY, reasons=(reason,), rules=FAULT)
