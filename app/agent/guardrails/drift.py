"""The rules for changes of an object that a release tool wrote and does not watch. Pure.

The tool neither reverts nor notices such a change: the object drifts from its release, and the next release
overwrites it, or is refused because the agent owns the field. Undos are exempt: they end the drift.
"""

from __future__ import annotations

from enum import StrEnum

from app.agent.models import Action


class DriftRule(StrEnum):
    """The response to an action that would make an object drift from its release."""

    ASK = "ask"
    ACT = "act"
    ESCALATE = "escalate"


SETTING = "HELM_DRIFT"


def drift_words(action: Action) -> str | None:
    """That the action causes drift, as a sentence without a full stop; None if it does not."""
    if action.drifts_from is None:
        return None
    return (
        f"{action.name.words} makes {action.target} drift from {action.drifts_from}, "
        "which does not notice it: the next release overwrites it or conflicts with it"
    )


def drift_denied(action: Action, rule: DriftRule) -> str | None:
    """Why the action is left to a person; None if it is not."""
    words = drift_words(action) if rule is DriftRule.ESCALATE else None
    return None if words is None else f"{words}, and {SETTING}=escalate leaves it to a person"


def drift_asks(action: Action, rule: DriftRule) -> str | None:
    """Why the action needs an approval; None if it does not."""
    words = drift_words(action) if rule is DriftRule.ASK else None
    return None if words is None else f"{words}, and {SETTING}=ask requires an approval"
