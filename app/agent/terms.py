"""On which terms people are asked: who may answer, how many must agree, who is asked when nobody does. Pure.

Policy sets them for one request (`app.agent.policy`); an answer is weighed by
them where it is stored (`app.agent.approvals`), and once more before it is used.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.identity import Door

_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""What Unicode lets a display leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationStep:
    """When nobody has answered for so long, others are told, and may answer too."""

    after: timedelta
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalTerms:
    """What makes a yes count. The values that stand here ask for one yes, of anybody."""

    roles: tuple[str, ...] = ()
    """One of these is needed to answer; none: whoever may answer at all."""
    people: int = 1
    """So many different people must say yes. One no is enough."""
    not_by: tuple[str, ...] = ()
    """Who may not say yes: those who asked for the action, or sent a signal that it rests on."""
    escalation: tuple[EscalationStep, ...] = ()

    def roles_at(self, waited: timedelta) -> frozenset[str] | None:
        """The roles that may answer after that time; None where any may."""
        if not self.roles:
            return None
        reached = (step.roles for step in self.escalation if step.after <= waited)
        return frozenset(self.roles).union(*reached)

    @property
    def every_role(self) -> frozenset[str]:
        """Those that may answer at first, and those that it may be escalated to."""
        return frozenset(self.roles).union(*(step.roles for step in self.escalation))

    def met_by(self, other: ApprovalTerms, said_yes: Iterable[str] = ()) -> bool:
        """Whether what was agreed to on `other` terms, by those who said yes, would do on these.

        Nobody who said yes may be barred by now; a request that nobody answered
        would do while it bars the same people.
        """
        roles = not self.roles or (bool(other.roles) and other.every_role <= self.every_role)
        agreed = tuple(said_yes)
        barred = any(same_person(name, yes) for name in self.not_by for yes in agreed)
        kept = not barred if agreed else set(other.not_by) >= set(self.not_by)
        return roles and other.people >= self.people and kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one person said."""

    by: str
    approve: bool
    at: datetime
    comment: str = ""
    roles: tuple[str, ...] = ()
    door: Door = Door.API
    verified: bool = False


def same_person(one: str, other: str) -> bool:
    """Names as people see them: neither case, width, spaces nor what is not shown tells two people apart."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    seen = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
    return " ".join(seen.casefold().split())


def combined(own: ApprovalTerms, policy: ApprovalTerms | None) -> ApprovalTerms:
    """The configured terms and those of a policy: the policy says who, and either may ask for more."""
    if policy is None:
        return own
    return ApprovalTerms(
        roles=policy.roles or own.roles,
        people=max(own.people, policy.people),
        not_by=tuple(sorted({*own.not_by, *policy.not_by})),
        escalation=policy.escalation or own.escalation,
    )


def wanted(terms: ApprovalTerms) -> str:
    """Who is asked, in words to go behind a request; empty where anybody may answer alone."""
    if not terms.roles and terms.people == 1 and not terms.not_by:
        return ""
    who = f"{terms.people} different people" if terms.people > 1 else "a person"
    roles = f" with one of the roles {', '.join(terms.roles)}" if terms.roles else ""
    but = f", not {', '.join(terms.not_by)}" if terms.not_by else ""
    return f", by {who}{roles}{but}"
