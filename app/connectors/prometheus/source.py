"""Service levels from Prometheus, or anything that speaks its query API, over plain HTTP.

Called by the observer, the verifier and the poller through `MetricSource`. Keeps
promise 8. An answer without a series is no data; so is NaN, which 0/0 without
traffic gives. And a number counts only when raw samples inside the window stand
behind it, because the number alone is ambiguous: an instant query repeats a
value for up to five minutes, and `... or vector(0)` gives one for nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeVar
from weakref import WeakKeyDictionary

from app.agent.guardrails.limits.clusters import Clusters
from app.agent.ids import ServiceKey
from app.agent.models import SliSample, TelemetryHealth
from app.config import Settings
from app.connectors.http import HttpPeer
from app.connectors.observability import Indicator, Polled, Reading, assemble, judge_telemetry
from app.connectors.prometheus.answers import (
    Points,
    dated,
    millis,
    newest_of,
    only_series,
    parse_answer,
    said,
    seconds_of,
    time_of,
)
from app.connectors.prometheus.promql import (
    Query,
    QueryTemplate,
    Selector,
    joined,
    parse_duration,
)
from app.connectors.text import shorten
from app.errors import AgentError, ConfigurationError, Invalid, PermanentError
from app.terms.clusters import all_namespaces, clusters_of

_LOOKBACK = "10m"
_SERVICES_PER_QUERY = 50
_CONCURRENT_QUERIES = 4
_FRESHNESS_STEPS = 12
_JUDGED_FOR = timedelta(seconds=5)
"""So long one judgement of the telemetry serves every look."""
_INDEX_LABEL = "heal_index"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is asked about one service: a query for each indicator, and the series they all read."""

    key: ServiceKey
    queries: Mapping[Indicator, Query]
    selectors: tuple[Selector, ...]

    def reading(
        self, indicator: Indicator, value: float | None, newest: Mapping[Selector, datetime], since: datetime
    ) -> Reading:
        """A value with the newest sample of any series it reads; an offset may reach further back."""
        behind = [(newest[s], since - s.shift) for s in self.queries[indicator].selectors if s in newest]
        if not behind:
            return Reading(value=value, newest=None, oldest_useful=since)
        at, useful = max(behind, key=lambda pair: (pair[0] > pair[1], pair[0]))
        return Reading(value=value, newest=at, oldest_useful=useful)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answers:
    """Everything known about one service over one or more instants."""

    values: Mapping[Indicator, Mapping[int, float]]
    newest: Mapping[int, Mapping[Selector, datetime]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _TelemetryJudgement:
    """The state of the telemetry as of a moment, perhaps still being worked out."""

    at: datetime
    loop: asyncio.AbstractEventLoop
    health: asyncio.Task[TelemetryHealth]

    def answers(self, at: datetime, loop: asyncio.AbstractEventLoop) -> bool:
        """Whether it is the answer to the same question at that moment too."""
        recent = timedelta(0) <= at - self.at < _JUDGED_FOR
        return recent and loop is self.loop and not self.health.cancelled()


class PrometheusSource:
    """`MetricSource` over `/api/v1/query` and `/api/v1/query_range`."""

    def __init__(
        self,
        peer: HttpPeer,
        templates: Mapping[Indicator, QueryTemplate],
        *,
        window: str,
        namespaces: Mapping[str, str],
        clusters: Clusters | None = None,
    ) -> None:
        """`namespaces` maps environments; one that is not listed is a namespace of the same name."""
        self._peer = peer
        self._templates = templates
        self._window_text = window
        self._window = parse_duration(window, "PROMETHEUS_WINDOW")
        self._namespaces = namespaces
        self._clusters = clusters or Clusters()
        self._judged: dict[tuple[ServiceKey, ...], _TelemetryJudgement] = {}
        self._gates: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()

    @staticmethod
    def from_settings(settings: Settings) -> PrometheusSource:
        """Raises `ConfigurationError` for settings that cannot work."""
        if settings.prometheus_url is None:
            raise ConfigurationError("PROMETHEUS_URL is not set")
        return PrometheusSource(
            HttpPeer(
                name="Prometheus",
                setting="PROMETHEUS_URL",
                url=settings.prometheus_url,
                timeout_seconds=settings.prometheus_timeout_seconds,
                bearer_token=settings.prometheus_bearer_token,
            ),
            {
                Indicator.ERROR_RATE: QueryTemplate.parse(
                    settings.prometheus_error_rate_query, "PROMETHEUS_ERROR_RATE_QUERY"
                ),
                Indicator.P95_LATENCY_MS: QueryTemplate.parse(
                    settings.prometheus_p95_query, "PROMETHEUS_P95_QUERY"
                ),
                Indicator.REQUEST_RATE: QueryTemplate.parse(
                    settings.prometheus_request_rate_query, "PROMETHEUS_REQUEST_RATE_QUERY"
                ),
            },
            window=settings.prometheus_window,
            namespaces=all_namespaces(settings),
            clusters=clusters_of(settings),
        )

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        """The indicators as of `at`; the sample's own `at` is that of the newest raw data behind them."""
        moment = millis(at)
        asked = self._asked(key)
        answers = await self._answers(asked, "query", {"time": seconds_of(moment)})
        return self._sample(asked, answers, moment) or SliSample(at=at)

    async def slis(self, keys: Sequence[ServiceKey], at: datetime) -> tuple[Polled, ...]:
        """As `sli` of each service, by a few queries for all of them.

        What cannot be answered for all (one service's query fails, a template is no vector)
        is asked for each service alone.
        """
        found: dict[ServiceKey, SliSample | AgentError] = {}
        asked: list[_Asked] = []
        for key in keys:
            try:
                asked.append(self._asked(key))
            except PermanentError as error:
                found[key] = error
        try:
            found.update(await self._together(asked, at))
        except PermanentError:
            alone = await asyncio.gather(*(self.sli(one.key, at) for one in asked), return_exceptions=True)
            for one, answer in zip(asked, alone, strict=True):
                if isinstance(answer, BaseException) and not isinstance(answer, AgentError):
                    raise answer from None
                found[one.key] = answer
        except AgentError as error:
            found.update((one.key, error) for one in asked)
        return tuple((key, found[key]) for key in keys)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        """Samples as of `start`, `start + step`, ... up to `end`; instants without current data are left out.

        Each sample's `at` is the instant asked about: its data is at most a window older.
        """
        step_millis = step // timedelta(milliseconds=1)
        if step_millis <= 0 or start > end:
            raise Invalid("a range needs a start that is not after its end and a step of at least 1 ms")
        asked = self._asked(key)
        span = {
            "start": seconds_of(millis(start)),
            "end": seconds_of(millis(end)),
            "step": seconds_of(step_millis),
        }
        answers = await self._answers(asked, "query_range", span)
        instants = sorted(set().union(*answers.values.values()))
        samples = ((instant, self._sample(asked, answers, instant)) for instant in instants)
        return tuple(
            replace(sample, at=time_of(instant)) for instant, sample in samples if sample is not None
        )

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        """Who has raw samples inside the window, against who had some in the ten minutes before it.

        Many looks at about the same time share one answer: it is about all services of a cluster.
        """
        services, loop = tuple(dict.fromkeys(keys)), asyncio.get_running_loop()
        recent = {asked: one for asked, one in self._judged.items() if one.answers(at, loop)}
        known = recent.get(services)
        if known is None:
            judging = loop.create_task(self._telemetry(services, at))
            known = recent[services] = _TelemetryJudgement(at=at, loop=loop, health=judging)
        self._judged = recent
        return await asyncio.shield(known.health)

    async def _telemetry(self, services: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        chunks = [services[i : i + _SERVICES_PER_QUERY] for i in range(0, len(services), _SERVICES_PER_QUERY)]
        window = self._window_text
        try:
            now = await _all(*(self._measured(chunk, f"[{window}]", at) for chunk in chunks))
            before = await _all(
                *(self._measured(chunk, f"[{_LOOKBACK}] offset {window}", at) for chunk in chunks)
            )
        except AgentError as error:
            return TelemetryHealth(
                known_services=len(services), silent_services=0, source_reachable=False, fault=str(error)
            )
        return judge_telemetry(set().union(*before), set().union(*now))

    async def ping(self) -> None:
        """Raises like every port when queries are not answered."""
        await self._points("query", {"query": "vector(1)"}, "readiness")

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        await self._peer.aclose()

    def _asked(self, key: ServiceKey) -> _Asked:
        values = {
            "namespace": self._namespaces.get(key.environment, key.environment),
            "service": key.service,
            "environment": key.environment,
            "cluster": self._clusters.of(key.environment),
            "window": self._window_text,
        }
        queries = {indicator: template.fill(values) for indicator, template in self._templates.items()}
        selectors = dict.fromkeys(s for query in queries.values() for s in query.selectors)
        return _Asked(key=key, queries=queries, selectors=tuple(selectors))

    async def _answers(self, asked: _Asked, endpoint: str, when: Mapping[str, str]) -> _Answers:
        """All queries about one service, at once."""
        names = [f"the {indicator} query for {asked.key}" for indicator in asked.queries]
        freshness, *values = await _all(
            self._points(
                endpoint, {"query": self._freshness(asked.selectors), **when}, "freshness of the data"
            ),
            *(
                self._points(endpoint, {"query": query.text, **when}, name)
                for query, name in zip(asked.queries.values(), names, strict=True)
            ),
        )
        newest: dict[int, dict[Selector, datetime]] = {}
        for series in freshness:
            selector = asked.selectors[_index(series, len(asked.selectors))]
            for instant, seconds in series.values.items():
                newest.setdefault(instant, {})[selector] = dated(seconds)
        return _Answers(
            values={
                indicator: only_series(points, name)
                for indicator, points, name in zip(asked.queries, values, names, strict=True)
            },
            newest=newest,
        )

    async def _together(
        self, asked: Sequence[_Asked], at: datetime
    ) -> dict[ServiceKey, SliSample | AgentError]:
        """The sample, or the error, of each service, from queries about all of them."""
        moment = millis(at)
        sources = [(place, selector) for place, one in enumerate(asked) for selector in one.selectors]
        fresh = [self._newest(selector) for _, selector in sources]
        freshness, *values = await _all(
            self._in_one(fresh, moment, "freshness of the data"),
            *(
                self._in_one([one.queries[of].text for one in asked], moment, f"the {of} query")
                for of in self._templates
            ),
        )
        newest: list[dict[Selector, datetime]] = [{} for _ in asked]
        for number, points in freshness.items():
            place, selector = sources[number]
            newest[place].update(newest_of(selector, points))
        found: dict[ServiceKey, SliSample | AgentError] = {}
        for place, one in enumerate(asked):
            try:
                answers = _Answers(
                    values={
                        of: only_series(points.get(place, ()), f"the {of} query for {one.key}")
                        for of, points in zip(self._templates, values, strict=True)
                    },
                    newest={moment: newest[place]},
                )
                found[one.key] = self._sample(one, answers, moment) or SliSample(at=at)
            except AgentError as error:
                found[one.key] = error
        return found

    async def _in_one(self, parts: Sequence[str], moment: int, what: str) -> dict[int, list[Points]]:
        """The series that each part answers, by its place, in as few queries as their length allows."""
        found: dict[int, list[Points]] = {}
        numbered = [_indexed(part, number) for number, part in enumerate(parts)]
        forms = [{"query": query, "time": seconds_of(moment)} for query in joined(numbered)]
        for answer in await _all(*(self._points("query", form, what) for form in forms)):
            for series in answer:
                found.setdefault(_index(series, len(parts)), []).append(series)
        return found

    def _sample(self, asked: _Asked, answers: _Answers, instant: int) -> SliSample | None:
        at = time_of(instant)
        newest = answers.newest.get(instant, {})
        readings = {
            indicator: asked.reading(indicator, series.get(instant), newest, at - self._window)
            for indicator, series in answers.values.items()
        }
        try:
            return assemble(readings, at)
        except Invalid as error:
            raise Invalid(f"{asked.key}: {error}") from error

    def _freshness(self, selectors: Iterable[Selector]) -> str:
        """A query for the time of the newest raw sample of each selector's series.

        The first half sees series that live; the second also those that ended
        inside the window, whose samples the range functions still count.
        """
        parts = (_indexed(self._newest(selector), place) for place, selector in enumerate(selectors))
        return " or ".join(parts)

    def _newest(self, selector: Selector) -> str:
        """A query for the time of the newest raw sample of a selector's series."""
        step = max(1_000, round(self._window.total_seconds() * 1000 / _FRESHNESS_STEPS))
        newest = f"timestamp({selector.instant()})"
        ended = f"max_over_time({newest}[{self._window_text}:{step}ms])"
        return f"max({newest}) or max({ended})"

    async def _measured(self, chunk: Sequence[ServiceKey], span: str, at: datetime) -> set[ServiceKey]:
        """Those services of the chunk that have any raw sample in the span, by one query."""
        parts: list[str] = []
        for index, key in enumerate(chunk):
            series = dict.fromkeys(selector.series for selector in self._asked(key).selectors)
            parts.append(_indexed(" or ".join(f"count(count_over_time({s}{span}))" for s in series), index))
        form = {"query": " or ".join(parts), "time": seconds_of(millis(at))}
        answer = await self._points("query", form, "presence of data")
        return {chunk[_index(series, len(chunk))] for series in answer}

    async def _points(self, endpoint: str, form: Mapping[str, str], what: str) -> list[Points]:
        """The series that one query answers; `what` names the query in errors."""
        async with self._gate():
            reply = await self._peer.send("POST", f"/api/v1/{endpoint}", form=form)
        if not reply.ok:
            raise self._peer.refusal(reply, f"{what}: {said(reply.body) or reply.excerpt()}")
        return parse_answer(reply.body, what)

    def _gate(self) -> asyncio.Semaphore:
        loop = asyncio.get_running_loop()
        gate = self._gates.get(loop)
        if gate is None:
            gate = self._gates[loop] = asyncio.Semaphore(_CONCURRENT_QUERIES)
        return gate


def _indexed(vector: str, index: int) -> str:
    """The vector with its place in the question as a label, so that many questions share one answer."""
    return f'label_replace({vector}, "{_INDEX_LABEL}", "{index}", "", "")'


def _index(series: Points, size: int) -> int:
    text = series.labels.get(_INDEX_LABEL, "")
    if not text.isdecimal() or int(text) >= size:
        raise PermanentError(
            f"Prometheus answered a question about its data with the label {shorten(text)!r}"
        )
    return int(text)


async def _all(*questions: Awaitable[T]) -> list[T]:
    """All answers in order, once every question has ended; the first error wins."""
    answers = await asyncio.gather(*questions, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return [answer for answer in answers if not isinstance(answer, BaseException)]
