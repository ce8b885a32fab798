"""Budgets and the share of the fleet: how many actions began within the window."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from app.agent.guardrails.limits.clusters import in_words
from app.agent.guardrails.limits.history import History, Proposed, Touch, of_this_time
from app.agent.guardrails.limits.terms import Excess, LimitName, Limits, Spending
from app.durations import span

SMALL_FLEET = 3
"""The minimum number of services that the fleet share allows in a window."""


def spending(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> tuple[Spending, ...]:
    """The counts over the window, without this action."""
    window = _within(history.window, limits.window, at)
    others = {t.key for t in window} - {proposed.key}
    share = _services_allowed(limits, known_services)
    return (
        Spending(
            limit=LimitName.SERVICE,
            spent=sum(t.key == proposed.key for t in window),
            allowed=limits.per_service,
        ),
        Spending(
            limit=LimitName.NAMESPACE,
            spent=sum(t.namespace == proposed.namespace for t in window),
            allowed=limits.per_namespace,
        ),
        Spending(limit=LimitName.CLUSTER, spent=len(window), allowed=limits.per_cluster),
        Spending(limit=LimitName.FLEET_SHARE, spent=len(others), allowed=share),
    )


def budgets_spent(
    proposed: Proposed, history: History, limits: Limits, known_services: int | None, at: datetime
) -> Iterator[Excess]:
    """The budgets and the share of the fleet that the action would exceed."""
    cluster = limits.clusters.of(proposed.key.environment)
    beside = f" of {in_words(cluster)}" if cluster else ""
    window = span(limits.window)
    of = {
        LimitName.SERVICE: (f"on {proposed.key}", "MAX_ACTIONS_PER_SERVICE"),
        LimitName.NAMESPACE: (f"in namespace {proposed.namespace}{beside}", "MAX_ACTIONS_PER_NAMESPACE"),
        LimitName.CLUSTER: (f"in {in_words(cluster)}", "MAX_ACTIONS_PER_CLUSTER"),
    }
    for one in spending(proposed, history, limits, known_services, at):
        if one.allowed is None or one.spent < one.allowed:
            continue
        if one.limit is LimitName.FLEET_SHARE:
            known = "an unknown number of" if known_services is None else str(known_services)
            reason = (
                f"{one.spent} other services of {known} were acted on within {window}, "
                f"and MAX_FLEET_SHARE={limits.fleet_share:g} allows {one.allowed}"
            )
        else:
            where, setting = of[one.limit]
            reason = (
                f"the budget is exhausted: {one.spent} of {setting}={one.allowed} {where} within {window}"
            )
        yield Excess(limit=one.limit, reason=reason)


def _services_allowed(limits: Limits, known_services: int | None) -> int | None:
    """How many services may be acted on in one window; an unknown fleet counts as small."""
    if limits.fleet_share >= 1:
        return None
    return max(SMALL_FLEET, int(limits.fleet_share * (known_services or 0)))


def _within(window: Iterable[Touch], length: timedelta, at: datetime) -> list[Touch]:
    return [t for t in window if t.began_at > at - length and of_this_time(t.began_at, length, at)]
