"""The watchdog alert: one that always fires, so that its absence shows that alerts do not arrive. Pure.

The monitoring system delivers it again and again, and intake records each delivery. Not
monitored until it was delivered once, or settings say that it is expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from app.agent.freshness.clock_jumps import ahead
from app.durations import span


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogTerms:
    """The expectations on the watchdog alert."""

    alert: str
    """Its name."""
    longest_silence: timedelta
    expected_since: datetime | None = None
    """From when on it is expected although it was never delivered; None: from its first delivery on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchdogState:
    """Whether the watchdog alert arrives."""

    since: datetime | None
    """Its last delivery, or since when it is expected; None while it is not monitored."""
    silence: timedelta
    """How long ago that is; zero while it is not monitored."""
    missing: bool


def watchdog_state(terms: WatchdogTerms, delivered_at: datetime | None, now: datetime) -> WatchdogState:
    """The state, given when it was last delivered; a delivery dated in the future does not count."""
    known = None if ahead(delivered_at, now) else delivered_at
    since = max((at for at in (known, terms.expected_since) if at is not None), default=None)
    silence = timedelta() if since is None else max(timedelta(), now - since)
    return WatchdogState(since=since, silence=silence, missing=silence > terms.longest_silence)


def missing_words(terms: WatchdogTerms, state: WatchdogState) -> str:
    """The fault as a sentence, without the exact length of the silence, which grows."""
    since = "" if state.since is None else f" since {state.since:%Y-%m-%d %H:%M:%S} UTC"
    return (
        f"no delivery of the alert {terms.alert}{since}, longer than {span(terms.longest_silence)}: "
        "alerts may not reach the agent"
    )
