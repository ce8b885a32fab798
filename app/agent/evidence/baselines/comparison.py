"""Whether a service level is usual for its service, by its baseline. Pure."""

from __future__ import annotations

from datetime import timedelta

from app.agent.evidence.symptoms import SymptomIndicator, breached, now_at
from app.agent.ids import ServiceKey
from app.agent.models import Evidence, SliSample, UsualLevel
from app.durations import span

_AS_OFTEN = 1.1
"""A value up to this multiple of what every tenth sample exceeds is usual."""

OBSERVED_LONG = timedelta(hours=6)
"""A baseline of a shorter time may hold little but the incident, or the rise that led to it."""


def usual_level(
    levels: tuple[UsualLevel, ...], key: ServiceKey, indicator: SymptomIndicator
) -> UsualLevel | None:
    """The baseline of one indicator of one service; None: not known yet."""
    return next((one for one in levels if one.key == key and one.indicator == indicator.name), None)


def unusual(level: UsualLevel, indicator: SymptomIndicator, value: float) -> bool:
    """Whether a value is clearly above the usual level: by as much as a rise, and by the spread."""
    spread = max(level.high - level.median, 0.1 * level.median)
    least = max(level.median * indicator.factor, level.median + indicator.least)
    return value >= max(least, level.high + spread)


def words(level: UsualLevel, indicator: SymptomIndicator, value: float) -> str:
    """`p95 latency 974 ms, usually 81 ms and up to 95 ms (observed for 14 h)`."""
    in_words = indicator.in_words
    return (
        f"{indicator.name} {in_words(value)}, usually {in_words(level.median)} and up to "
        f"{in_words(level.high)} (observed for {span(level.observed_for)})"
    )


def usual_breaches(evidence: Evidence) -> tuple[str, ...]:
    """The symptoms whose level is usual for the service although it is outside the objective, in words.

    Only where every tenth sample was outside too: a level that rose slowly to its objective is a symptom.
    """
    found = []
    for indicator in breached(evidence):
        level, value = usual_level(evidence.usual, evidence.key, indicator), now_at(evidence, indicator)
        objective = None if evidence.objectives is None else indicator.objective(evidence.objectives)
        if level is None or value is None or objective is None or level.observed_for < OBSERVED_LONG:
            continue
        if level.often > objective and value <= level.often * _AS_OFTEN:
            found.append(f"its {words(level, indicator, value)}: no more than usual")
    return tuple(found)


def unusual_levels(
    evidence: Evidence, key: ServiceKey, newest: SliSample, indicators: tuple[SymptomIndicator, ...]
) -> tuple[str, ...]:
    """The levels of a service that are clearly above its baseline, in words."""
    found = []
    for indicator in indicators:
        level, value = usual_level(evidence.usual, key, indicator), indicator.of(newest)
        if level is not None and value is not None and unusual(level, indicator, value):
            found.append(words(level, indicator, value))
    return tuple(found)
