"""What Prometheus answers a query with, checked: a broken, partial or impossible answer is an error.

Called by `app.connectors.prometheus.source`. Times are milliseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from app.connectors.prometheus.promql import Selector
from app.connectors.text import shorten
from app.errors import Invalid, PermanentError, TransientError

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_SECOND: Final = 4_102_444_800


class _Series(msgspec.Struct):
    """One series of a vector (`value`, `histogram`) or a matrix (`values`, `histograms`)."""

    metric: dict[str, str] = {}
    value: tuple[float, str] | None = None
    values: list[tuple[float, str]] = []
    histogram: object = None
    histograms: list[object] = []


class _Data(msgspec.Struct, rename="camel"):
    result_type: str
    result: msgspec.Raw


class _QueryAnswer(msgspec.Struct, rename="camel"):
    status: str
    data: _Data | None = None
    error_type: str = ""
    error: str = ""
    warnings: list[str] = []
    is_partial: bool = False
    """VictoriaMetrics: not every storage node answered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Points:
    """One series of an answer; an instant answer has one point. Times are milliseconds since 1970."""

    labels: Mapping[str, str]
    values: Mapping[int, float]


def parse_answer(body: bytes, what: str) -> list[Points]:
    """The series of a successful answer; raises `AgentError`, naming the question, for all else."""
    try:
        answer = msgspec.json.decode(body, type=_QueryAnswer)
        if answer.status != "success" or answer.data is None:
            raise PermanentError(f"{what}: Prometheus answered {shorten(answer.error or answer.status)}")
        points = _parse(answer.data, what)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PermanentError(
            f"{what}: unexpected response from Prometheus ({shorten(str(error))}); "
            "is PROMETHEUS_URL the address of its query API?"
        ) from None
    # Hints about style come as warnings too before Prometheus 3; all else means the answer is partial.
    doubts = [warning for warning in answer.warnings if not warning.startswith("PromQL info:")]
    if answer.is_partial:
        doubts.append("the response is marked partial")
    if doubts:
        raise TransientError(f"{what}: the answer may be partial: {shorten('; '.join(doubts))}")
    return points


def _parse(data: _Data, what: str) -> list[Points]:
    if data.result_type == "scalar":
        at, text = msgspec.json.decode(data.result, type=tuple[float, str])
        return [Points(labels={}, values={_checked_millis(at): float(text)})]
    if data.result_type not in ("vector", "matrix"):
        raise Invalid(f"{what} answers a {shorten(data.result_type, 40)}; it must answer one number")
    points: list[Points] = []
    for series in msgspec.json.decode(data.result, type=list[_Series]):
        if series.histogram is not None or series.histograms:
            raise Invalid(
                f"{what} answers a native histogram; wrap it in histogram_quantile or histogram_fraction"
            )
        values = series.values if series.value is None else [series.value]
        points.append(
            Points(labels=series.metric, values={_checked_millis(at): float(text) for at, text in values})
        )
    return points


def only_series(points: Sequence[Points], name: str) -> Mapping[int, float]:
    """The values of the one series, none for no series; several are not guessed between."""
    if len(points) > 1:
        labels = "; ".join(str(dict(series.labels)) for series in points[:3])
        raise Invalid(
            f"{name} answers {len(points)} series instead of one; aggregate it, for example with sum(): "
            f"{shorten(labels)}"
        )
    return points[0].values if points else {}


def said(body: bytes) -> str | None:
    """Prometheus' own words for an error, where the body has any."""
    try:
        return shorten(msgspec.json.decode(body, type=_QueryAnswer).error) or None
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None


def newest_of(selector: Selector, points: Iterable[Points]) -> dict[Selector, datetime]:
    times = [dated(seconds) for series in points for seconds in series.values.values()]
    return {selector: max(times)} if times else {}


def dated(seconds: float) -> datetime:
    try:
        return time_of(_checked_millis(seconds))
    except ValueError as error:
        raise PermanentError(f"Prometheus dated a sample wrongly: {error}") from None


def millis(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _checked_millis(seconds: float) -> int:
    """Milliseconds since 1970; `ValueError` for what is no time of this century."""
    if not 0 <= seconds < _LAST_SECOND:
        raise ValueError(f"the time {seconds:g}")
    return round(seconds * 1000)


def seconds_of(millis: int) -> str:
    return f"{millis // 1000}.{millis % 1000:03d}"


def time_of(millis: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=millis)
