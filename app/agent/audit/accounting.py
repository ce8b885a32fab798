"""The result of an audit of signals: totals, and the days and entries that do not balance.

The store computes it, `heal audit signals` and `GET /audit/signals` report it, and the sweep checks the
discrepancies. This verifies promise 9: one statement counts an accepted signal in the ledger, another
writes its row, and deletions are counted, so that a loss anywhere leaves a difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum

from app.agent.ids import IncidentId
from app.agent.models import DispositionKind

OVERDUE_AFTER = timedelta(minutes=5)
"""An incident that has been due for this long without a claim has no worker."""


def allowed_wait(longest_gap: timedelta) -> timedelta:
    """How long a signal may be pending before it is a discrepancy: twice the longest gap plus a sweep."""
    return 2 * longest_gap + timedelta(minutes=1)


class DiscrepancyKind(StrEnum):
    """The kinds of discrepancies."""

    PENDING_TOO_LONG = "pending_too_long"
    """A signal that waits, though the sweep should have ended it."""
    NAMES_NOTHING = "names_nothing"
    """A signal that opened or joined no named incident, or repeats no named signal."""
    REPEATS_NOTHING = "repeats_nothing"
    """A duplicate of a signal that is not there."""
    WITHOUT_ORIGIN = "without_origin"
    """An incident that no signal opened, or without triggers or timeline."""
    WITHOUT_DRIVER = "nobody_drives"
    """An open incident that is long due and unclaimed."""
    OVERDUE = "oversleeps"
    """An open incident that would be looked at later than anything it waits for."""
    EXECUTING_AFTER_END = "executing_after_end"
    """An intent still executes in an incident that has ended."""
    TIMELINE_CUT = "timeline_cut"
    """A timeline with fewer or more entries than were written, or another last one (promise 12)."""
    TIMELINE_ALTERED = "timeline_altered"
    """A timeline whose chain breaks (promise 12); looked for by a deep audit only."""


WORK_LEFT = frozenset(
    {DiscrepancyKind.PENDING_TOO_LONG, DiscrepancyKind.WITHOUT_DRIVER, DiscrepancyKind.OVERDUE}
)
"""Work that waits for an agent: not a defect in a database without one, such as a backup."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """One discrepancy."""

    kind: DiscrepancyKind
    id: str
    """Of the signal, incident or intent."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancies:
    """The discrepancies found, at most a hundred of each kind."""

    found: tuple[Discrepancy, ...]
    more: tuple[DiscrepancyKind, ...] = ()
    """Kinds of which there are more than are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuestion:
    """What to look at."""

    now: datetime
    pending_for: timedelta
    """How long signals may be pending before they are discrepancies: the time of the sweep plus a margin."""
    since: date | None = None
    """The first day of arrival (UTC) to count; None counts everything."""
    deep: bool = False
    """Look at every duplicate, incident and timeline instead of the newest, and check every chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UnevenDay:
    """A day on which accepted signals are missing, or rows exist that were never accepted."""

    day: date
    accepted: int
    accounted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalAudit:
    """The sum over every accepted signal, as of one instant."""

    since: date | None
    accepted: int
    """By the ledger, `unledgered` ones included."""
    unledgered: int
    """Accepted by a program of a version without a ledger; the sweep enters them."""
    present: Mapping[DispositionKind, int]
    """Rows by what became of the signal."""
    forgotten: Mapping[DispositionKind, int]
    """Signals that led to nothing and were forgotten when they were old, by what had become of them."""
    uneven_days: tuple[UnevenDay, ...]
    strays: Discrepancies
    mended: Mapping[str, int]
    """What sweeps have put right so far."""
    deep: bool

    @property
    def accounted(self) -> int:
        return sum(self.present.values()) + sum(self.forgotten.values())

    @property
    def adds_up(self) -> bool:
        """No signal is missing, none exists that was not accepted, and there are no discrepancies."""
        return self.accepted == self.accounted and not self.uneven_days and not self.strays.found

    @property
    def faults(self) -> tuple[Discrepancy, ...]:
        """The discrepancies of the records themselves, without the work that is left for an agent."""
        return tuple(one for one in self.strays.found if one.kind not in WORK_LEFT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Repairs:
    """What one sweep put right."""

    entered: int
    """Signals of an older program that were entered in the ledger."""
    woken: tuple[IncidentId, ...]
    """Incidents that would have overslept; they are due now."""
