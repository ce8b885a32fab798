"""What the analytics page draws: bars of the trend, and links that keep its view. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from app.agent.evidence.format import counted
from app.wire.statistics import TrendView

CHART_HEIGHT = 100.0
PERIODS = (
    ("24h", "last 24 h"),
    ("7d", "last 7 days"),
    ("30d", "last 30 days"),
    ("90d", "last 90 days"),
    ("365d", "last year"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One day or week: a bar of all incidents, the lower part those that recovered; in chart units."""

    x: int
    all_y: float
    all_height: float
    healed_y: float
    healed_height: float
    title: str


def columns(trend: Sequence[TrendView]) -> list[Column]:
    """A column for each point, as high as its share of the highest one."""
    most = max((point.incidents for point in trend), default=0) or 1
    found = []
    for number, point in enumerate(trend):
        healed = (point.recovered + point.recovered_without_action) * CHART_HEIGHT / most
        height = point.incidents * CHART_HEIGHT / most
        found.append(
            Column(
                x=number,
                all_y=round(CHART_HEIGHT - height, 2),
                all_height=round(height, 2),
                healed_y=round(CHART_HEIGHT - healed, 2),
                healed_height=round(healed, 2),
                title=f"{point.start}: {counted(point.incidents, 'incident')}, {point.recovered} recovered",
            )
        )
    return found


def query_of(given: Mapping[str, str]) -> str:
    """The parameters of a view, for a link; empty ones are left out."""
    return urlencode({name: value for name, value in given.items() if value})
