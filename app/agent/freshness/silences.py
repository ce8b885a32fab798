"""Silences in the monitoring system, and the reasons that they withdraw (promise 13).

Pure. A silence that names the service, or the namespace it runs in, silences the service: no reason for an
action holds until the silence ends. Any other silence applies to the alerts whose labels it matches, as in
the monitoring, and to no other alert of the service. If the labels of an alert were not kept, the known
data of the alert decide; if they are not enough, the alert is not a reason for an action, and not a reason
to wait for the end of the silence either. Undo and verification need no reason, so no silence stops them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

from app.agent.freshness.memory import all_suppressed
from app.agent.freshness.own_alerts import is_own_alert
from app.agent.freshness.reasons import (
    Reason,
    ReasonKind,
    Withdrawal,
    alert_name,
)
from app.agent.ids import IncidentId, IntentId
from app.redaction import HIDDEN, cut, redacted

LONGEST_PATTERN = 2_000
MOST_STEPS = 5_000_000
"""A pattern that could take more steps over one label is not evaluated: it counts as matching."""

EVERYTHING = (".*", ".+")

_CUT = "…"
"""At the end of a name that was too long to be kept as a whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matcher:
    """One condition of a silence on one label."""

    name: str
    value: str
    is_regex: bool = False
    is_equal: bool = True

    @property
    def everything(self) -> bool:
        """Every non-empty value matches."""
        return self.is_regex and self.is_equal and self.value in EVERYTHING

    def matches(self, text: str) -> bool:
        """Whether a label with this value is meant; a pattern that cannot be evaluated safely matches."""
        if not self.is_regex:
            return (text == self.value) is self.is_equal
        found = _full_match(self.value, text)
        return True if found is None else found is self.is_equal

    def meets(self, kept: str) -> bool | None:
        """The same for a label as stored; None if a removed part of it could decide.

        From a matcher value without a pattern the same part is removed.
        """
        if self.is_regex:
            return None if HIDDEN in kept and not self.everything else self.matches(kept)
        if HIDDEN in kept:
            return (kept == cut(self.value)) is self.is_equal
        # An older version took a part out and left no sign of it.
        return None if kept != self.value and kept == redacted(self.value) else self.matches(kept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """A silence as its source keeps it."""

    id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    by: str
    comment: str = ""
    incident_id: IncidentId | None = None
    """The incident that it is for, where its source says that the agent created it."""
    intent_id: IntentId | None = None

    def active(self, at: datetime) -> bool:
        """Whether it is in force at that moment."""
        return self.starts_at <= at < self.ends_at

    def meets(self, kept: Mapping[str, str]) -> bool | None:
        """Whether an alert with these labels, as kept, is meant: by all conditions; a missing one is empty.

        None where that is not known.
        """
        answers = [matcher.meets(kept.get(matcher.name, "")) for matcher in self.matchers]
        return False if False in answers else None if None in answers else True


@dataclass(frozen=True, slots=True, kw_only=True)
class Silencing:
    """A silence as it concerns one service."""

    silence: Silence
    alerts: tuple[Matcher, ...] = ()
    """Conditions on the name of the alert; none: any name."""
    narrowed: bool = False
    """It has conditions on labels that say neither service nor place, so that it means some alerts only."""
    labels_only: bool = False
    """It does not speak of the service: only the labels of an alert can say whether it is meant."""
    elsewhere: bool = False
    """The silence applies to no alert of the service, regardless of the labels."""

    @property
    def whole(self) -> bool:
        """It silences the service, and not some of its alerts."""
        return not self.alerts and not self.narrowed and not self.labels_only

    def covers(self, reason: Reason) -> bool | None:
        """Whether the reason is silenced; None if it may be, and the known data cannot show it."""
        if self.whole:
            return True
        if reason.kind is not ReasonKind.ALERT:
            return False
        if reason.labels is not None and self.silence.matchers:
            return self.silence.meets(dict(reason.labels))
        if self.elsewhere:
            return False
        if reason.merged is not None:
            return self._covers_all(dict(reason.merged.labels or ()))
        names = (*self.alerts, *(one for one in self.silence.matchers if one.name == "alertname"))
        name = alert_name(reason)
        if name.endswith(_CUT):  # what follows is not known
            return None if names or self.narrowed or self.labels_only else True
        if not all(matcher.matches(name) for matcher in names):
            return False
        return None if self.narrowed or self.labels_only else True

    def _covers_all(self, common: Mapping[str, str]) -> bool | None:
        """Whether alerts are silenced of which only the labels that all of them have are known."""
        given = self.silence.matchers
        answers = [one.meets(common[one.name]) for one in given if one.name in common]
        if False in answers:
            return False
        if given and len(answers) == len(given) and None not in answers:
            return True
        name = common.get("alertname", _CUT)
        if name.endswith(_CUT) or self.narrowed or self.labels_only or None in answers:
            return None
        return True if all(matcher.matches(name) for matcher in self.alerts) else None

    @property
    def words(self) -> str:
        """Who silenced until when and why: `silenced by ann until 2026-02-20 18:00:00 UTC (migration)`."""
        why = f" ({self.silence.comment})" if self.silence.comment else ""
        until = f"{self.silence.ends_at:%Y-%m-%d %H:%M:%S} UTC"
        return f"silenced by {self.silence.by or 'an unnamed person'} until {until}{why}"


def silenced(
    found: tuple[Reason, ...], silencings: Iterable[Silencing], at: datetime
) -> tuple[tuple[Reason, ...], tuple[Silencing, ...]]:
    """The reasons with those withdrawn that a silence covers, and the silences that cover one."""
    active = [one for one in silencings if one.silence.active(at)]
    used: dict[str, Silencing] = {one.silence.id: one for one in active if one.whole}
    after = []
    for reason in found:
        mute = None if reason.withdrawn is not None else covering(reason, active)
        if mute is not None:
            used[mute.silence.id] = mute
            said = f"the service was {mute.words}" if mute.whole else f"{reason.said} was {mute.words}"
            over = Withdrawal(at=at, by=mute.silence.by, said=f"{said}, as read from the source", muted=True)
            after.append(replace(reason, withdrawn=over))
        elif reason.withdrawn is None and (maybe := _possible(reason, active)) is not None:
            said = (
                f"{reason.said} may be {maybe.words}; its labels were not kept, so this could not be checked"
            )
            over = Withdrawal(at=at, by="the agent", said=said, muted=True)
            after.append(replace(reason, withdrawn=over))
        else:
            after.append(reason)
    return tuple(after), tuple(used.values())


def covering(reason: Reason, active: Iterable[Silencing]) -> Silencing | None:
    """The first of these silences that is known to silence the reason."""
    return next((one for one in active if one.covers(reason)), None)


def _possible(reason: Reason, active: Iterable[Silencing]) -> Silencing | None:
    return next((one for one in active if one.covers(reason) is None), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Muting:
    """Whether every alert of an incident that may fire is muted, by people or by the sender."""

    silencings: tuple[Silencing, ...] = ()
    """The silences in force that mute them."""
    suppressed: tuple[Reason, ...] = ()
    """The alerts that were reported as suppressed."""

    def __bool__(self) -> bool:
        return bool(self.silencings or self.suppressed)


def muting(firing: tuple[Reason, ...], silencings: Iterable[Silencing], at: datetime) -> Muting:
    """The silences of these alerts, each of which may fire; none if one of them is not muted.

    The agent's own alerts do not count: people silence alerts of their own system.
    """
    active = [one for one in silencings if one.silence.active(at)]
    whole = tuple(one for one in active if one.whole)
    if whole:
        return Muting(silencings=whole)
    used: dict[str, Silencing] = {}
    suppressed = []
    for alert in firing:
        if is_own_alert(alert):
            continue
        mute = covering(alert, active)
        if mute is not None:
            used[mute.silence.id] = mute
        elif _suppressed(alert, at):
            suppressed.append(alert)
        else:
            return Muting()
    return Muting(silencings=tuple(used.values()), suppressed=tuple(suppressed))


def _suppressed(alert: Reason, at: datetime) -> bool:
    """Whether the alert, or each merged alert, was reported as suppressed."""
    if alert.merged is not None:
        return all_suppressed(alert.merged, at)
    return alert.withdrawn is not None and alert.withdrawn.muted


def unreadable(found: tuple[Reason, ...], fault: str, at: datetime) -> tuple[Reason, ...]:
    """The reasons while silences cannot be read: none holds, because the service may be silenced."""
    said = f"silences could not be read ({fault}), so the service may be silenced, last attempt"
    over = Withdrawal(at=at, by="the agent", said=said, muted=True)
    return tuple(reason if reason.withdrawn else replace(reason, withdrawn=over) for reason in found)


# ---------------------------------------------------------------- patterns of others


def _full_match(pattern: str, text: str) -> bool | None:
    """Whether the anchored pattern matches; None where it cannot be evaluated within a bound."""
    compiled = _compiled(pattern)
    if compiled is None or _steps(pattern, len(text)) > MOST_STEPS:
        return None
    return compiled.fullmatch(text) is not None


@lru_cache(maxsize=512)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    if len(pattern) > LONGEST_PATTERN or "(?" in pattern.replace("(?:", "").removeprefix("(?i)"):
        return None  # look-around and names of groups: RE2 has no or other ones
    if re.search(r"\\[0-9A-Zkpz]", re.sub(r"\\[DWSB]", "", pattern)):
        return None  # back-references, and escapes that mean something else in RE2
    try:
        return re.compile(pattern, re.ASCII | re.DOTALL)
    except (re.error, OverflowError, RecursionError):
        return None


@lru_cache(maxsize=4096)
def _steps(pattern: str, length: int) -> float:
    """An upper bound for the steps that backtracking takes over a text of that length."""
    pieces = re.findall(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{[0-9]*,?[0-9]*\}|\(\?:|.", pattern, re.S)
    stack: list[list[float]] = []
    total, product, last = 0.0, 1.0, 1.0  # of the branches before, of this branch, of its last item
    for piece in pieces:
        if piece in ("(", "(?:"):
            stack.append([total, product])
            total, product, last = 0.0, 1.0, 1.0
        elif piece == "|":
            total, product, last = total + product, 1.0, 1.0
        elif piece == ")" and stack:
            inside = total + product
            total, product = stack.pop()
            product, last = product * inside, -inside  # negative: a group
        elif piece == "?":
            product *= 2.0
        elif piece in ("*", "+") or (piece[0] == "{" and len(piece) > 1):
            # A repeated group backtracks exponentially, unless it is known not to.
            product *= length + 1.0 if last > 0 else float("inf")
        else:
            last = 1.0
    return total + product
