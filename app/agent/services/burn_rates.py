"""Multi-window burn rates: how fast a service uses up its error budget.

Pure, except for its counters. A burn rate of 1 uses up the budget (1 - availability) exactly. It is
measured over a long and a short window: the long one shows that a relevant share of the budget is used up,
the short one that the burn continues.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from app.durations import span

MOST_BURN_RATES = 4
LONGEST_WINDOW = timedelta(days=3)
SLOTS = 60
"""The number of parts in which a long window is counted, two numbers each: about 1 KiB for each burn rate."""
LEAST_SHORT = 2
"""The minimum number of parts of a short window."""

_CLEAR_RATIO = 0.8
"""A burn ends only below this part of its factor: hysteresis against flapping."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class BurnRate:
    """When errors use up the budget too fast."""

    long: timedelta
    short: timedelta
    factor: float
    """At this multiple of the rate that uses up the budget exactly, in both windows."""

    def flaw(self, availability: float) -> str | None:
        """The error in it, in words; None: no error."""
        if not timedelta(minutes=5) <= self.long <= LONGEST_WINDOW:
            return "the long window must be between 5 minutes and 3 days"
        if not LEAST_SHORT * self.long / SLOTS <= self.short < self.long:
            return "the short window must be shorter than the long one, and at least a thirtieth of it"
        if self.factor * (1 - availability) > 1:
            return (
                f"no error rate can be {self.factor:g} times the budget of {percent(1 - availability)}: "
                f"the factor must be at most {1 / (1 - availability):.4g}"
            )
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorBudget:
    """The availability that is promised, and how fast its budget may be used up."""

    availability: float
    """0..1, above 0 and below 1."""
    burn_rates: tuple[BurnRate, ...]

    @property
    def least_error_rate(self) -> float:
        """0..1; an error rate below it reaches no burn rate."""
        return min(one.factor for one in self.burn_rates) * (1 - self.availability)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burning:
    """Both windows of a burn rate are above its factor."""

    rate: BurnRate
    long: float
    short: float
    availability: float

    @property
    def words(self) -> str:
        """The finding, with both figures and the limit."""
        return (
            f"error budget of {percent(1 - self.availability)} used up {self.long:.1f} times too fast over "
            f"{span(self.rate.long)} and {self.short:.1f} times over {span(self.rate.short)} "
            f"(limit {self.rate.factor:g})"
        )


def percent(part: float) -> str:
    """`0.05%`: a budget as people write it."""
    return f"{100 * part:.3g}%"


@dataclass(slots=True)
class _Counted:
    """Requests and failures of the last `SLOTS` parts of a window."""

    rate: BurnRate
    requests: array[float] = field(default_factory=lambda: array("d", bytes(8 * SLOTS)))
    failures: array[float] = field(default_factory=lambda: array("d", bytes(8 * SLOTS)))
    newest: int | None = None
    first: int | None = None

    def add(self, at: datetime, requests: float, failures: float) -> None:
        slot = self._slot(at)
        if self.newest is None or self.first is None or slot <= self.newest - SLOTS:
            # The first sample, or the clock was set back: ignore counts dated in the future.
            self.requests = array("d", bytes(8 * SLOTS))
            self.failures = array("d", bytes(8 * SLOTS))
            self.newest = self.first = slot
        for passed in range(max(self.newest + 1, slot - SLOTS + 1), slot + 1):
            self.requests[passed % SLOTS] = self.failures[passed % SLOTS] = 0.0
        self.first, self.newest = min(self.first, slot), max(self.newest, slot)
        self.requests[slot % SLOTS] += requests
        self.failures[slot % SLOTS] += failures

    def failing(self, at: datetime, parts: int) -> float:
        """The error rate over the last parts; unobserved time counts as healthy at the mean load."""
        slot = self._slot(at)
        if self.newest is None or self.first is None or slot - self.newest >= parts:
            return 0.0
        kept = [one % SLOTS for one in range(max(slot - parts, self.newest - SLOTS) + 1, self.newest + 1)]
        requests, failures = sum(self.requests[one] for one in kept), sum(self.failures[one] for one in kept)
        seen = max(1, min(parts, slot - self.first + 1))
        return failures / (requests * parts / seen) if requests else 0.0

    def covers(self, at: datetime, parts: int) -> bool:
        """Whether it was observed for that long."""
        return self.first is not None and self._slot(at) - self.first >= parts

    def _slot(self, at: datetime) -> int:
        return int((at - _EPOCH) / (self.rate.long / SLOTS))


def _parts(rate: BurnRate) -> int:
    """So many parts are a short window."""
    return max(LEAST_SHORT, round(SLOTS * (rate.short / rate.long)))


class BudgetUse:
    """What one service used of its budget: bounded, and empty after a restart."""

    def __init__(self, budget: ErrorBudget) -> None:
        self.budget = budget
        self._counted = [_Counted(rate) for rate in budget.burn_rates]

    def add(self, at: datetime, error_rate: float, requests: float) -> None:
        """A measurement of this number of requests."""
        for one in self._counted:
            one.add(at, requests, error_rate * requests)

    def burning(self, at: datetime, *, before: bool = False) -> Burning | None:
        """The first burn rate with both windows at or above its factor; `before`: it burnt a moment ago."""
        for one in self._counted:
            found = self._burning(one, at)
            least = one.rate.factor * (_CLEAR_RATIO if before else 1.0)
            if found.long >= least and found.short >= least:
                return found
        return None

    def knows_its_end(self, at: datetime) -> bool:
        """Whether every short window was observed, so that what does not burn is over."""
        return all(one.covers(at, _parts(one.rate)) for one in self._counted)

    def _burning(self, one: _Counted, at: datetime) -> Burning:
        budget, rate = 1 - self.budget.availability, one.rate
        parts = _parts(rate)
        return Burning(
            rate=rate,
            long=one.failing(at, SLOTS) / budget,
            short=one.failing(at, parts) / budget,
            availability=self.budget.availability,
        )
