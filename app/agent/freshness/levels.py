"""What is remembered of a service's levels, after the clock went back. Pure, called by intake."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime

from app.agent.freshness.clock_jumps import ahead
from app.agent.ports.store.signals import ServiceLevels
from app.agent.slo import Breach

_NAMES = tuple(one.name for one in fields(ServiceLevels))


def without_future(levels: ServiceLevels, now: datetime) -> tuple[ServiceLevels, str | None]:
    """A service's levels without what is dated in the future, and the note that says what was set aside."""
    dated = {
        name: value
        for name in _NAMES
        if isinstance(value := getattr(levels, name), datetime) and ahead(value, now)
    }
    if levels.last_sample is not None and ahead(levels.last_sample.at, now):
        dated["last_sample"] = levels.last_sample.at
    measured = {
        name: at
        for name in ("measured_error_rate", "measured_latency")
        if (at := _newest(getattr(levels, name))) is not None and ahead(at, now)
    }
    future = [one.newest for one in levels.reasons if ahead(one.newest, now)]
    others = [*measured.values(), *future]
    if not dated and not others:
        return levels, None
    reasons = tuple(one for one in levels.reasons if not ahead(one.newest, now))
    # A breach whose end is not known any more has no length: it begins with the next sample.
    for indicator in ("error_rate", "latency"):
        if f"{indicator}_breach_until" in dated:
            dated.setdefault(f"{indicator}_breach_since", dated[f"{indicator}_breach_until"])
        if f"{indicator}_breach_since" in dated:
            dated.setdefault(f"{indicator}_breach_until", dated[f"{indicator}_breach_since"])
    cleared = dict.fromkeys(dated)
    newest = max([*dated.values(), *others])
    until = f"{newest:%Y-%m-%d %H:%M:%S} UTC"
    note = f"levels dated up to {until}, in the future, were set aside: the clock went back"
    forgotten = dict.fromkeys(measured, Breach())
    after = replace(levels, **cleared, **forgotten, reasons=reasons)  # type: ignore[arg-type]  # each may be None
    return after, note


def _newest(breach: Breach) -> datetime | None:
    return max((at for at in (breach.since, breach.until, breach.clear_at) if at is not None), default=None)
