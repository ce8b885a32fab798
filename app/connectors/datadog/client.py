"""Datadog's own client, loaded only when Datadog is configured, with the agent's errors.

The library works in a thread, and each call is bounded in time. It does not retry
by itself: a limit of requests an hour can ask for a pause of minutes, which goes to
the caller as `retry_after` instead.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from app.bounds.deadline import deadline
from app.connectors.answers import error_for
from app.connectors.datadog.queries import split
from app.connectors.text import shorten
from app.errors import AgentError, ConfigurationError, PermanentError, TransientError
from app.redaction import remember

if TYPE_CHECKING:
    from datadog_api_client.exceptions import ApiException

T = TypeVar("T")

V1_CHARACTERS = 4_000
"""Queries in one request of the first version, whose query stands in the URL."""

_RESET = "x-ratelimit-reset"
_LONGEST_PAUSE_SECONDS = 3_600
_GRACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One series of an answer: the question that it answers, and its points by milliseconds since 1970."""

    question: int
    points: Mapping[int, float]
    interval: timedelta
    """The time that one point covers, from its own time on."""


class DatadogClient:
    """Metric queries of one organisation."""

    def __init__(
        self, *, site: str, url: str | None, api_key: SecretStr, app_key: SecretStr, timeout_seconds: float
    ) -> None:
        """`url` replaces the address of the site. `ConfigurationError` where the library is missing."""
        try:
            from datadog_api_client import ApiClient, Configuration
            from datadog_api_client.v1.api.metrics_api import MetricsApi as FirstMetricsApi
            from datadog_api_client.v2.api.metrics_api import MetricsApi
        except ImportError:
            raise ConfigurationError(
                "DATADOG_API_KEY is set and Datadog's client is not installed: "
                "pip install 'self-healing-devops-agent[datadog]'"
            ) from None
        keys = {"apiKeyAuth": api_key.get_secret_value(), "appKeyAuth": app_key.get_secret_value()}
        remember(keys.values())
        configuration = Configuration(
            host=None if url is None else url.rstrip("/"),
            enable_retry=False,
            request_timeout=timeout_seconds,
        )
        # After the library has read its own variables from the environment: settings alone count.
        configuration.server_variables = {"site": site}
        configuration.api_key = keys
        self._timeout = timeout_seconds
        self._connection = ApiClient(configuration)
        self._first, self._second = FirstMetricsApi(self._connection), MetricsApi(self._connection)

    async def timeseries(
        self, questions: Sequence[str], start: int, end: int, interval: timedelta
    ) -> tuple[Series, ...]:
        """The series of each question between two times in milliseconds, by the second version of the API.

        Points without a value are left out. Datadog may answer a longer interval than
        it was asked for. Raises like every port.
        """
        body = _request(questions, start, end, interval)
        answer = await self._call(lambda: self._second.query_timeseries_data(body=body).to_dict())
        return tuple(_read(lambda: _series(answer, len(questions), interval)))

    async def query(self, questions: Sequence[str], start: int, end: int) -> tuple[Series, ...]:
        """The same by the first version, which takes whole seconds and chooses the interval itself."""
        answer = await self._call(
            lambda: self._first.query_metrics(
                _from=start // 1000, to=-(-end // 1000), query=",".join(questions)
            ).to_dict()
        )
        return tuple(_read(lambda: _first_series(answer, len(questions))))

    async def aclose(self) -> None:
        """Close the connections."""
        self._connection.close()

    async def _call(self, call: Callable[[], T]) -> T:
        from datadog_api_client.exceptions import ApiAttributeError, ApiException, ApiTypeError, ApiValueError
        from urllib3.exceptions import HTTPError

        try:
            async with deadline(self._timeout + _GRACE_SECONDS, _silent):
                return await asyncio.to_thread(call)
        except ApiException as error:
            raise _refusal(error) from None
        except (HTTPError, OSError) as error:
            raise TransientError(
                f"Datadog (DATADOG_SITE) cannot be reached: {type(error).__name__}"
            ) from None
        except (ApiTypeError, ApiValueError, ApiAttributeError, ValueError, TypeError, KeyError) as error:
            raise _unexpected(error) from None


def _request(questions: Sequence[str], start: int, end: int, interval: timedelta) -> Any:
    """One request for all questions; a metric query that several share is asked once."""
    from datadog_api_client.v2.model.metrics_data_source import MetricsDataSource
    from datadog_api_client.v2.model.metrics_timeseries_query import MetricsTimeseriesQuery
    from datadog_api_client.v2.model.query_formula import QueryFormula
    from datadog_api_client.v2.model.timeseries_formula_query_request import TimeseriesFormulaQueryRequest
    from datadog_api_client.v2.model.timeseries_formula_request import TimeseriesFormulaRequest
    from datadog_api_client.v2.model.timeseries_formula_request_attributes import (
        TimeseriesFormulaRequestAttributes,
    )
    from datadog_api_client.v2.model.timeseries_formula_request_queries import TimeseriesFormulaRequestQueries
    from datadog_api_client.v2.model.timeseries_formula_request_type import TimeseriesFormulaRequestType

    asked = split(questions)
    attributes = TimeseriesFormulaRequestAttributes(
        _from=start,
        to=end,
        interval=interval // timedelta(milliseconds=1),
        formulas=[QueryFormula(formula=formula) for formula in asked.formulas],
        queries=TimeseriesFormulaRequestQueries(
            [
                MetricsTimeseriesQuery(data_source=MetricsDataSource.METRICS, name=name, query=query)
                for name, query in asked.queries.items()
            ]
        ),
    )
    return TimeseriesFormulaQueryRequest(
        data=TimeseriesFormulaRequest(
            attributes=attributes, type=TimeseriesFormulaRequestType.TIMESERIES_REQUEST
        )
    )


def _series(answer: Mapping[str, Any], questions: int, asked: timedelta) -> Iterator[Series]:
    if answer.get("errors"):
        raise TransientError(f"Datadog could not answer: {shorten(str(answer['errors']))}")
    data = answer["data"]["attributes"]
    times = [int(at) for at in data["times"] or ()]
    rows = data["values"] or ()
    interval = timedelta(milliseconds=min((b - a for a, b in pairwise(times)), default=0))
    for series, values in zip(data["series"] or (), rows, strict=True):
        yield Series(
            question=_index(series.get("query_index", 0), questions),
            points={at: float(value) for at, value in zip(times, values, strict=True) if value is not None},
            interval=interval or asked,
        )


def _first_series(answer: Mapping[str, Any], questions: int) -> Iterator[Series]:
    if answer.get("status", "ok") != "ok" or answer.get("error"):
        raise TransientError(f"Datadog could not answer: {shorten(str(answer.get('error')))}")
    for series in answer["series"]:
        yield Series(
            question=_index(series.get("query_index", 0), questions),
            points={
                int(at): float(value)
                for at, value in series.get("pointlist") or ()
                if at is not None and value is not None
            },
            interval=timedelta(seconds=int(series.get("interval") or 1)),
        )


def _index(given: object, questions: int) -> int:
    if not isinstance(given, int) or not 0 <= given < questions:
        raise ValueError(f"a series answers question {given!r} of {questions}")
    return given


def _read(read: Callable[[], Iterator[Series]]) -> list[Series]:
    """The series; `PermanentError` for an answer of another form."""
    try:
        return list(read())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unexpected(error) from None


def _unexpected(error: Exception) -> PermanentError:
    return PermanentError(f"unexpected response from Datadog: {shorten(str(error))}")


def _silent() -> TransientError:
    return TransientError("Datadog (DATADOG_SITE) gave no complete answer in time")


def _refusal(error: ApiException) -> AgentError:
    """The error for a status, with the pause that a limit of requests asks for."""
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    reset = str(headers.get(_RESET, ""))
    pause = timedelta(seconds=min(int(reset), _LONGEST_PAUSE_SECONDS)) if reset.isdigit() else None
    message = f"Datadog (DATADOG_SITE) answered {error.status}: {shorten(str(error.body or error.reason))}"
    return error_for(int(error.status or 500), message, pause)
