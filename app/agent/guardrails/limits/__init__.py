"""Limits on actions across incidents: budgets, fleet share, cooldown, backoff and repeated actions.

Pure. `exceeded` is evaluated twice for every action: by policy, for the decision,
and by the store inside the transaction that begins the action, so that two workers
cannot spend the same budget (promise 4). It also keeps promise 10 across incidents:
an action that did not help is not repeated on the same evidence. Undos are exempt.

Times are those that the workers recorded. An action with a time in the future counts,
so that a clock set back never frees budget: each limit holds in every window of
recorded time, in whatever order actions were recorded. Only actions dated more than a
day and more than the limit's length ahead are ignored; otherwise a clock that was
briefly years ahead would block the agent for years.
"""

from __future__ import annotations

from app.agent.guardrails.limits.checks import (
    INCIDENT_BUDGET_SPENT,
    LimitStatus,
    exceeded,
    set_aside,
    standing,
)
from app.agent.guardrails.limits.counting import SMALL_FLEET, spending
from app.agent.guardrails.limits.history import (
    NAMESPACE,
    History,
    IncidentResult,
    PastAction,
    Proposed,
    Touch,
    helped,
    in_words,
    namespace_of,
    proposed_by,
)
from app.agent.guardrails.limits.terms import UNLIMITED, Budget, Excess, LimitName, Limits, Spending

__all__ = [
    "INCIDENT_BUDGET_SPENT",
    "NAMESPACE",
    "SMALL_FLEET",
    "UNLIMITED",
    "Budget",
    "Excess",
    "History",
    "IncidentResult",
    "LimitName",
    "LimitStatus",
    "Limits",
    "PastAction",
    "Proposed",
    "Spending",
    "Touch",
    "exceeded",
    "helped",
    "in_words",
    "namespace_of",
    "proposed_by",
    "set_aside",
    "spending",
    "standing",
]
