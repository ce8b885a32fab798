"""Service levels from Datadog.

Called by the observer, the verifier and the poller through `MetricSource`. Keeps
promise 8: a point without a value is no data, and a value without a point inside
the window is none either. Requests and errors are counts, so that the error rate is
that of all requests in the window; a service with requests and no series of errors
has an error rate of zero.

Questions that are asked at the same moment go out together, because Datadog limits
requests: a round of the poller over many services is a few requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias
from weakref import WeakKeyDictionary

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.models import SliSample, TelemetryHealth
from app.config import Settings
from app.connectors.datadog.client import V1_CHARACTERS, DatadogClient, Series
from app.connectors.datadog.queries import DatadogTemplate
from app.connectors.observability import Indicator, Reading, assemble, judge_telemetry
from app.errors import AgentError, ConfigurationError, Invalid, PermanentError
from app.terms.clusters import all_namespaces, clusters_of

QUESTIONS_PER_REQUEST = 60
LOOKBACK: Final = timedelta(minutes=10)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTERVAL: Final = timedelta(seconds=10)
"""The shortest that Datadog keeps."""
_ORDER: Final = (Indicator.ERROR_RATE, Indicator.P95_LATENCY_MS, Indicator.REQUEST_RATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Milliseconds since 1970, the end not included."""

    start: int
    end: int


_Answer: TypeAlias = tuple[Mapping[int, float], timedelta]
"""The points that answer one question, and the time that each covers."""


@dataclass(slots=True, kw_only=True)
class _Batch:
    """Questions about one span that go out together."""

    questions: list[str] = field(default_factory=list)
    answers: list[asyncio.Future[_Answer]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """The points of one service over a span, by indicator: errors, latencies, requests."""

    points: Mapping[Indicator, Mapping[int, float]]
    interval: timedelta


class DatadogSource:
    """`MetricSource` over the query API."""

    def __init__(
        self,
        client: DatadogClient,
        templates: Mapping[Indicator, DatadogTemplate],
        *,
        window: timedelta,
        namespaces: Mapping[str, str],
        clusters: Clusters | None = None,
        first_version: bool = False,
    ) -> None:
        """`namespaces` maps environments; one that is not listed is a namespace of the same name."""
        self._client = client
        self._templates = templates
        self._window = window
        self._namespaces = namespaces
        self._clusters = clusters or Clusters()
        self._first_version = first_version
        self._waiting: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[_Span, _Batch]] = WeakKeyDictionary()
        self._sending: set[asyncio.Task[None]] = set()

    @staticmethod
    def from_settings(settings: Settings) -> DatadogSource:
        """Raises `ConfigurationError` for settings that cannot work."""
        if settings.datadog_api_key is None or settings.datadog_app_key is None:
            raise ConfigurationError("Datadog needs both DATADOG_API_KEY and DATADOG_APP_KEY")
        return DatadogSource(
            DatadogClient(
                site=settings.datadog_site,
                url=settings.datadog_url,
                api_key=settings.datadog_api_key,
                app_key=settings.datadog_app_key,
                timeout_seconds=settings.datadog_timeout_seconds,
            ),
            {
                Indicator.ERROR_RATE: DatadogTemplate.parse(
                    settings.datadog_errors_query, "DATADOG_ERRORS_QUERY"
                ),
                Indicator.P95_LATENCY_MS: DatadogTemplate.parse(
                    settings.datadog_p95_query, "DATADOG_P95_QUERY"
                ),
                Indicator.REQUEST_RATE: DatadogTemplate.parse(
                    settings.datadog_requests_query, "DATADOG_REQUESTS_QUERY"
                ),
            },
            window=timedelta(seconds=settings.datadog_window_seconds),
            namespaces=all_namespaces(settings),
            clusters=clusters_of(settings),
            first_version=settings.datadog_query_api == "v1",
        )

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        """The indicators over the window before `at`; the sample's own `at` is that of its newest data."""
        measured = await self._measured(key, at - self._window, at)
        return self._sample(key, measured, at) or SliSample(at=at)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        """Samples as of `start`, `start + step`, ... up to `end`; instants without data are left out."""
        if step <= timedelta(0) or start > end:
            raise Invalid("a range needs a start that is not after its end and a step above zero")
        measured = await self._measured(key, start - self._window, end)
        found: list[SliSample] = []
        at = start
        while at <= end:
            sample = self._sample(key, measured, at)
            if sample is not None:
                found.append(replace(sample, at=at))
            at += step
        return tuple(found)

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        """Who has points inside the window, against who had some in the ten minutes before it."""
        services = tuple(dict.fromkeys(keys))
        since = at - self._window
        try:
            found = await asyncio.gather(*(self._measured(key, since - LOOKBACK, at) for key in services))
        except AgentError as error:
            return TelemetryHealth(
                known_services=len(services), silent_services=0, source_reachable=False, fault=str(error)
            )
        before: set[ServiceKey] = set()
        now: set[ServiceKey] = set()
        for key, measured in zip(services, found, strict=True):
            times = {instant for points in measured.points.values() for instant in points}
            # A point covers its interval: it is inside the window if any part of that is.
            border = _millis(since - measured.interval)
            if any(instant > border for instant in times):
                now.add(key)
            if any(instant <= border for instant in times):
                before.add(key)
        return judge_telemetry(before, now)

    async def ping(self) -> None:
        """Raises like every port when queries are not answered."""
        now = datetime.now(UTC)
        await self._ask(
            "avg:datadog.agent.running{*}", _Span(start=_millis(now - self._window), end=_millis(now))
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    # ------------------------------------------------------------------ asking

    async def _measured(self, key: ServiceKey, start: datetime, end: datetime) -> _Measured:
        values = {
            "namespace": self._namespaces.get(key.environment, key.environment),
            "service": key.service,
            "environment": key.environment,
            "cluster": self._clusters.of(key.environment),
        }
        span = _Span(start=_millis(start), end=_millis(end))
        answers = await asyncio.gather(
            *(self._ask(self._templates[indicator].fill(values), span) for indicator in _ORDER)
        )
        intervals = [interval for _, interval in answers]
        return _Measured(
            points={indicator: points for indicator, (points, _) in zip(_ORDER, answers, strict=True)},
            interval=max(intervals),
        )

    async def _ask(self, question: str, span: _Span) -> _Answer:
        loop = asyncio.get_running_loop()
        waiting = self._waiting.setdefault(loop, {})
        batch = waiting.get(span)
        if batch is None or not self._has_room(batch, question):
            batch = waiting[span] = _Batch()
            task = loop.create_task(self._send(span, batch))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        answer: asyncio.Future[_Answer] = loop.create_future()
        batch.questions.append(question)
        batch.answers.append(answer)
        return await answer

    def _has_room(self, batch: _Batch, question: str) -> bool:
        if self._first_version and sum(map(len, batch.questions)) + len(question) > V1_CHARACTERS:
            return False
        return len(batch.questions) < QUESTIONS_PER_REQUEST

    async def _send(self, span: _Span, batch: _Batch) -> None:
        """Ask everything that gathered since the batch began, and give each question its answer."""
        await asyncio.sleep(0)  # callers that run now add their questions first
        waiting = self._waiting[asyncio.get_running_loop()]
        if waiting.get(span) is batch:
            del waiting[span]
        try:
            if self._first_version:
                series = await self._client.query(batch.questions, span.start, span.end)
            else:
                series = await self._client.timeseries(batch.questions, span.start, span.end, _INTERVAL)
            answers = _by_question(series, len(batch.questions))
        except AgentError as error:
            for each in batch.answers:
                if not each.done():
                    each.set_exception(error)
            return
        interval = max((one.interval for one in series), default=_INTERVAL)
        for each, points in zip(batch.answers, answers, strict=True):
            if not each.done():
                each.set_result((points, interval))

    # ------------------------------------------------------------------ judging

    def _sample(self, key: ServiceKey, measured: _Measured, at: datetime) -> SliSample | None:
        window = max(self._window, measured.interval)
        inside = {
            indicator: _inside(points, _millis(at - window), _millis(at))
            for indicator, points in measured.points.items()
        }
        requests = sum(inside[Indicator.REQUEST_RATE].values())
        errors = sum(inside[Indicator.ERROR_RATE].values())
        latencies = inside[Indicator.P95_LATENCY_MS]
        rate = requests / window.total_seconds() if inside[Indicator.REQUEST_RATE] else None
        values: dict[Indicator, float | None] = {
            Indicator.ERROR_RATE: errors / requests if requests > 0 else None,
            Indicator.P95_LATENCY_MS: sum(latencies.values()) / len(latencies) if latencies else None,
            Indicator.REQUEST_RATE: rate,
        }
        readings = {
            indicator: Reading(
                value=value,
                newest=self._newest(inside, indicator, measured.interval, at),
                oldest_useful=at - window,
            )
            for indicator, value in values.items()
        }
        try:
            return assemble(readings, at)
        except Invalid as error:
            raise Invalid(f"{key}: {error}") from error

    @staticmethod
    def _newest(
        inside: Mapping[Indicator, Mapping[int, float]],
        indicator: Indicator,
        interval: timedelta,
        at: datetime,
    ) -> datetime | None:
        """The end of the newest point behind a value; an error rate rests on the requests."""
        behind = inside[Indicator.REQUEST_RATE if indicator is Indicator.ERROR_RATE else indicator]
        return min(at, _time(max(behind)) + interval) if behind else None


def _by_question(series: Sequence[Series], questions: int) -> list[Mapping[int, float]]:
    """The points of the one series of each question, none for no series; several are not guessed between."""
    found: list[Mapping[int, float]] = [{} for _ in range(questions)]
    answered: set[int] = set()
    for one in series:
        if one.question in answered:
            raise PermanentError(
                "a Datadog query answered several series: leave `by {...}` out, or sum over the groups"
            )
        answered.add(one.question)
        found[one.question] = one.points
    return found


def _inside(points: Mapping[int, float], start: int, end: int) -> Mapping[int, float]:
    return {instant: value for instant, value in points.items() if start <= instant < end}


def _millis(at: datetime) -> int:
    return (at - _EPOCH) // timedelta(milliseconds=1)


def _time(millis: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=millis)
