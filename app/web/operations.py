"""The configured budgets of actions and what is left of them now. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from app.agent.guardrails.limits import Limits
from app.agent.guardrails.status import Attempts
from app.durations import span

_MOST_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """One budget: how many actions of how many began within the window."""

    name: str
    spent: int
    allowed: int

    @property
    def left(self) -> int:
        """How many may begin now; 0 too where the limit was lowered below what began."""
        return max(self.allowed - self.spent, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """The lines to show, and the length of the window in words."""

    window: str
    lines: Sequence[BudgetLine]


def budgets_left(attempts: Attempts, limits: Limits, now: datetime) -> Budgets:
    """The budget of each cluster, and those of the services that spent most."""
    began = Counter(
        {
            key: sum(1 for one in tried if one.began_at > now - limits.window)
            for key, tried in attempts.tried.items()
        }
    )
    lines: list[BudgetLine] = []
    if limits.per_cluster is not None:
        spent_in = Counter(dict.fromkeys(("", *limits.clusters.names), 0))
        for key, spent in began.items():
            spent_in[limits.clusters.of(key.environment)] += spent
        lines.extend(
            BudgetLine(name=f"cluster {name}".strip(), spent=spent, allowed=limits.per_cluster)
            for name, spent in spent_in.items()
        )
    if limits.per_service is not None:
        lines.extend(
            BudgetLine(name=str(key), spent=spent, allowed=limits.per_service)
            for key, spent in began.most_common(_MOST_ROWS)
            if spent
        )
    return Budgets(window=span(limits.window), lines=lines)
