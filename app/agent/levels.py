"""What is remembered of a service's levels, after the clock went back. Pure, called by intake."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import datetime

from app.agent.clock_jumps import ahead
from app.agent.ports import ServiceLevels


def without_future(levels: ServiceLevels, now: datetime) -> tuple[ServiceLevels, str | None]:
    """A service's levels without what is dated in the future, and the note that says what was set aside."""
    dated = {
        one.name: value
        for one in fields(levels)
        if isinstance(value := getattr(levels, one.name), datetime) and ahead(value, now)
    }
    if levels.last_sample is not None and ahead(levels.last_sample.at, now):
        dated["last_sample"] = levels.last_sample.at
    if not dated:
        return levels, None
    # A breach whose end is not known any more has no length: it begins with the next sample.
    for indicator in ("error_rate", "latency"):
        if f"{indicator}_breach_until" in dated:
            dated.setdefault(f"{indicator}_breach_since", dated[f"{indicator}_breach_until"])
        if f"{indicator}_breach_since" in dated:
            dated.setdefault(f"{indicator}_breach_until", dated[f"{indicator}_breach_since"])
    cleared = dict.fromkeys(dated)
    newest = max(dated.values())
    until = f"{newest:%Y-%m-%d %H:%M:%S} UTC"
    note = f"levels dated up to {until}, in the future, were set aside: the clock went back"
    return replace(levels, **cleared), note  # type: ignore[arg-type]  # each field may be None
