"""What counts as a decision, whichever engine gave it: nothing but a complete one (promise 7).

Used by the embedded engine and by the client of a remote one, so that the same
answer means the same whoever gives it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.agent.models import DecisionKind
from app.agent.ports import PolicyAnswer
from app.connectors.text import shorten

_Texts = Annotated[list[str], msgspec.Meta(max_length=100)]


class _Decision(msgspec.Struct):
    decision: DecisionKind
    reasons: _Texts
    rules: _Texts = []


class _Answer(msgspec.Struct):
    result: _Decision


def read_decision(body: bytes) -> PolicyAnswer:
    """The decision that `{"result": {"decision": ..., "reasons": [...]}}` holds in full, else a deny.

    `rules`, which names the rules that decided, may be left out.
    """
    try:
        decision = msgspec.json.decode(body, type=_Answer).result
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        return deny(f"the policy engine gave no complete decision: {shorten(str(error))}")
    return PolicyAnswer(
        kind=decision.decision,
        reasons=tuple(shorten(reason) for reason in decision.reasons),
        rules=tuple(shorten(rule) for rule in decision.rules),
    )


def deny(reason: str) -> PolicyAnswer:
    """What every fault of an engine means."""
    return PolicyAnswer(kind=DecisionKind.DENY, reasons=(reason,), rules=("engine fault",))
