"""Which alerts of an incident may still fire, and whether all its reports were withdrawn. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime

from app.agent.freshness.memory import (
    FORGOTTEN_AFTER,
    UNKNOWN_FOR,
    all_suppressed,
    is_merged,
    may_fire,
    merged_alerts,
    still_firing,
)
from app.agent.freshness.reasons import Reason, clock_words
from app.agent.models import Trigger

NAMES_SAID = 8
"""The maximum number of alert names in a sentence; further ones are counted."""


def firing_alerts(
    known: tuple[Reason, ...], triggers: tuple[Trigger, ...], now: datetime
) -> tuple[Reason, ...]:
    """The alerts of an incident that were reported firing within a day and not resolved since.

    Merged alerts count as one for each trigger, with their number.
    """
    return tuple(_firing(known, triggers, now))


def _firing(known: tuple[Reason, ...], triggers: tuple[Trigger, ...], now: datetime) -> Iterator[Reason]:
    for one in known:
        if one.trigger not in triggers or not may_fire(one):
            continue
        merged = merged_alerts(one)
        if merged is None:
            if now - one.last_true_at <= FORGOTTEN_AFTER:
                yield one
            continue
        count, newest = still_firing(merged, now)
        if count:
            yield replace(one, said=_further(count), last_true_at=newest)


def unknown_alerts(
    known: tuple[Reason, ...], triggers: tuple[Trigger, ...], since: datetime, now: datetime
) -> tuple[Reason, ...]:
    """The alerts of which only the number is kept, one reason for each trigger; their state is unknown.

    Alerts reported before `since`, the opening of the incident, do not belong to it, and after
    `UNKNOWN_FOR` they no longer count.
    """
    found = []
    for one in known:
        merged = merged_alerts(one)
        if one.trigger not in triggers or merged is None or merged.beyond_at is None or not merged.beyond:
            continue
        if merged.beyond_at >= since and now - merged.beyond_at <= UNKNOWN_FOR:
            found.append(replace(one, said=_further(merged.beyond), last_true_at=merged.beyond_at))
    return tuple(found)


def firing_words(one: Reason, now: datetime, silenced: str = "") -> str:
    """The description of an alert that `firing_alerts` found: `the alert X is still firing, last ...`.

    `silenced` gives the author and the end of its silence.
    """
    last = f"last reported at {clock_words(one.last_true_at, now)}"
    if is_merged(one):
        were = "was" if one.said.startswith("1 ") else "were"
        if all_suppressed(one.merged, now):
            return f"{one.said} {were} reported as suppressed (silenced or inhibited by the sender), {last}"
        return f"{one.said} {were} reported firing and not as resolved, {last}"
    if silenced:
        return f"{one.said} is suppressed ({silenced}), {last}"
    if one.withdrawn is not None and one.withdrawn.muted:
        return f"{one.said} is suppressed (silenced or inhibited by its sender), {last}"
    return f"{one.said} is still firing, {last}"


def firing_clauses(
    found: tuple[Reason, ...], now: datetime, silenced: Callable[[Reason], str]
) -> tuple[str, ...]:
    """The description of alerts that `firing_alerts` found: alerts with the same name and state are counted.

    Merged alerts have a clause for each trigger and cluster. `silenced` gives the author and the end of the
    silence of an alert; empty if it is not silenced.
    """
    alike: dict[tuple[str, str, bool], list[Reason]] = {}
    for one in found:
        muted = one.withdrawn is not None and one.withdrawn.muted
        name = one.subject if is_merged(one) else one.said
        alike.setdefault((name, silenced(one), muted), []).append(one)
    clauses = []
    for (_, mute, _), group in list(alike.items())[:NAMES_SAID]:
        words = firing_words(max(group, key=lambda one: one.last_true_at), now, mute)
        clauses.append(words if len(group) == 1 else f"{words} ({len(group)} alerts)")
    left_out = [one for group in list(alike.values())[NAMES_SAID:] for one in group]
    quiet = sum(_number(one, now) for one in left_out if silenced(one) or _suppressed(one, now))
    firing = sum(_number(one, now) for one in left_out) - quiet
    if firing:
        clauses.append(f"{_further(firing)} reported firing and not as resolved")
    if quiet:
        clauses.append(f"{_further(quiet)} suppressed or silenced")
    return tuple(clauses)


def _suppressed(one: Reason, now: datetime) -> bool:
    """Whether its sender reported the alert, or each merged alert, as suppressed."""
    if is_merged(one):
        return all_suppressed(one.merged, now)
    return one.withdrawn is not None and one.withdrawn.muted


def _number(one: Reason, now: datetime) -> int:
    """How many alerts the reason represents."""
    merged = merged_alerts(one)
    return 1 if merged is None else still_firing(merged, now)[0]


def unknown_words(one: Reason, now: datetime) -> str:
    """The description of alerts that `unknown_alerts` found."""
    return f"{one.said}, state unknown, last reported at {clock_words(one.last_true_at, now)}"


def _further(count: int) -> str:
    return f"{count} further alert{'' if count == 1 else 's'}"


def all_withdrawn(known: tuple[Reason, ...], triggers: tuple[Trigger, ...]) -> bool:
    """Whether all reported triggers of an incident were withdrawn by their senders."""
    mine = [one for one in known if one.trigger in triggers and not _only_unknown(one)]
    reported_triggers = {one.trigger for one in mine}
    return reported_triggers.issuperset(triggers) and all(
        one.withdrawn is not None and not one.withdrawn.muted for one in mine
    )


def _only_unknown(reason: Reason) -> bool:
    """Whether the entry contains only alerts that are counted, not kept: see `unknown_alerts`."""
    merged = merged_alerts(reason)
    return merged is not None and not merged.firing and not merged.over
