"""Whether the proposal of a dry run was right, judged by what happened to the service afterwards. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from app.agent.models import ActionName, ChangeKind

JUDGED_AFTER = timedelta(hours=6)
"""How long after the end of its incident a proposal is judged: until then a person may still act."""
STAYS_HEALTHY_FOR = timedelta(hours=1)
"""A new incident of the service within this time means that the change did not help."""

_MATCHING = {
    ActionName.ROLLBACK: frozenset({ChangeKind.DEPLOY}),
    ActionName.REVERT_CONFIG: frozenset({ChangeKind.CONFIG, ChangeKind.FLAG}),
    ActionName.SCALE: frozenset({ChangeKind.SCALE}),
}
"""The changes that match a proposed action when a person makes them; other actions cannot be matched."""


class Judged(StrEnum):
    """What became of a proposal."""

    CONFIRMED = "confirmed"
    """A person made a matching change afterwards, and the service stayed healthy."""
    CONTRADICTED = "contradicted"
    """A person made a matching change, and the service failed again within the hour."""
    NOT_NEEDED = "not_needed"
    """The service recovered and stayed healthy, and nothing was changed."""
    UNKNOWN = "unknown"
    """The events do not show it, or are no longer on record."""
    NONE = "none"
    """The incident proposed no action."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """The first action that a dry run proposed, and how its incident ended."""

    action: ActionName
    at: datetime
    ended_at: datetime
    recovered: bool


def judged(
    proposal: Proposal,
    changes: Sequence[tuple[ChangeKind, datetime]],
    opened: Sequence[datetime],
    known_since: datetime,
) -> Judged:
    """What became of the proposal.

    `changes` of the service and `opened`, when its later incidents were opened, in any order;
    changes before `known_since` may be missing.
    """
    last = proposal.ended_at + JUDGED_AFTER
    made = [(kind, at) for kind, at in changes if proposal.at <= at <= last]
    matching = [at for kind, at in made if kind in _MATCHING.get(proposal.action, frozenset())]
    if matching:
        return Judged.CONTRADICTED if _failed_again(max(matching), opened) else Judged.CONFIRMED
    if proposal.at < known_since or made or not proposal.recovered:
        return Judged.UNKNOWN
    return Judged.UNKNOWN if _failed_again(proposal.ended_at, opened) else Judged.NOT_NEEDED


def _failed_again(since: datetime, opened: Sequence[datetime]) -> bool:
    return any(since < at <= since + STAYS_HEALTHY_FOR for at in opened)
