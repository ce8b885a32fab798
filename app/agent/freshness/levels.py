"""The stored levels of a service after the clock was set back. Pure, called by intake."""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter

from msgspec import structs

from app.agent.freshness.clock_jumps import SKEW, ahead
from app.agent.ports.store.signals import ServiceLevels
from app.agent.slo import Breach

_BREACHES = ("measured_error_rate", "measured_latency")
_TIMES = tuple(one.name for one in structs.fields(ServiceLevels) if one.type == datetime | None)

_every_time = attrgetter(
    *_TIMES, *(f"{breach}.{one.name}" for breach in _BREACHES for one in structs.fields(Breach))
)


def without_future(levels: ServiceLevels, now: datetime) -> tuple[ServiceLevels, str | None]:
    """The levels of a service without times in the future, and a note that names the ignored ones."""
    if not _any_later(levels, now + SKEW):
        return levels, None
    dated = {
        name: value for name in _TIMES if (value := getattr(levels, name)) is not None and ahead(value, now)
    }
    if levels.last_sample is not None and ahead(levels.last_sample.at, now):
        dated["last_sample"] = levels.last_sample.at
    measured = {
        name: at
        for name in _BREACHES
        if (at := _newest(getattr(levels, name))) is not None and ahead(at, now)
    }
    future = [one.newest for one in levels.reasons if ahead(one.newest, now)]
    others = [*measured.values(), *future]
    if not dated and not others:
        return levels, None
    reasons = tuple(one for one in levels.reasons if not ahead(one.newest, now))
    # A breach with an unknown end has no length: it begins with the next sample.
    for indicator in ("error_rate", "latency"):
        if f"{indicator}_breach_until" in dated:
            dated.setdefault(f"{indicator}_breach_since", dated[f"{indicator}_breach_until"])
        if f"{indicator}_breach_since" in dated:
            dated.setdefault(f"{indicator}_breach_until", dated[f"{indicator}_breach_since"])
    cleared = dict.fromkeys(dated)
    newest = max([*dated.values(), *others])
    until = f"{newest:%Y-%m-%d %H:%M:%S} UTC"
    note = f"levels dated up to {until}, in the future, are ignored: the clock went back"
    forgotten = dict.fromkeys(measured, Breach())
    after = structs.replace(levels, **cleared, **forgotten, reasons=reasons)
    return after, note


def _any_later(levels: ServiceLevels, latest: datetime) -> bool:
    # A plain loop: this is asked for every signal.
    for at in _every_time(levels):
        if at is not None and at > latest:
            return True
    if levels.last_sample is not None and levels.last_sample.at > latest:
        return True
    return bool(levels.reasons) and any(one.newest > latest for one in levels.reasons)


def newest_time(levels: ServiceLevels) -> datetime | None:
    """The newest of all times that are remembered; None without any."""
    times = [at for at in _every_time(levels) if at is not None]
    if levels.last_sample is not None:
        times.append(levels.last_sample.at)
    times += [one.newest for one in levels.reasons]
    return max(times, default=None)


def _newest(breach: Breach) -> datetime | None:
    return max((at for at in (breach.since, breach.until, breach.clear_at) if at is not None), default=None)
