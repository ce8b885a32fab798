"""The agent's own alerts about single services, and their meaning beside its measurements. Pure."""

from __future__ import annotations

from app.agent.freshness.memory import is_merged
from app.agent.freshness.reasons import Reason, ReasonKind, alert_name
from app.agent.models import BURN_ALERT, POLLED, SliSample
from app.agent.services.burn_rates import ErrorBudget


def is_own_alert(reason: Reason) -> bool:
    """Whether the agent created this alert from its own measurements."""
    return reason.kind is ReasonKind.ALERT and reason.source == POLLED and not is_merged(reason)


def without_past_burns(
    known: tuple[Reason, ...], newest: SliSample | None, budget: ErrorBudget | None
) -> tuple[Reason, ...]:
    """The reasons without a burn that exists only in its windows: the newest sample burns no budget.

    A window stays above its limit for long after an action ended the errors.
    """
    errors = None if newest is None or not newest.measured else newest.error_rate
    if budget is None or errors is None or errors >= budget.least_error_rate:
        return known
    return tuple(one for one in known if not (is_own_alert(one) and alert_name(one) == BURN_ALERT))
