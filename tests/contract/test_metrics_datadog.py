"""The Datadog connector with Datadog's own client: the contract, against a stand-in of its API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from app.agent.ids import ServiceKey
from app.config import Settings
from app.connectors.datadog.source import QUESTIONS_PER_REQUEST, DatadogSource
from app.connectors.observability import poll_once
from app.errors import Forbidden, Invalid, PermanentError, TransientError
from tests.contract.datadog_standin import Datadog, serving
from tests.contract.metric_suite import MetricSourceContract, MetricWorld
from tests.contract.metric_worlds import NOW, Phase, free_port

FAILING_SINCE = NOW - timedelta(minutes=5)
SILENT_SINCE = NOW - timedelta(minutes=3)
WINDOW = timedelta(minutes=1)
WELL = (Phase(until=NOW),)
SILENT = (Phase(until=SILENT_SINCE),)
SERVICES = {
    "healthy": WELL,
    "failing": (Phase(until=FAILING_SINCE), Phase(until=NOW, good=6, bad=4, latency_ms=1_800)),
    "idle": (Phase(until=NOW, good=0),),
    "silent-a": SILENT,
    "silent-b": SILENT,
    "silent-c": SILENT,
}


def key(service: str) -> ServiceKey:
    return ServiceKey(environment="prod", service=service)


def settings(url: str, **changes: object) -> Settings:
    """The shipped queries."""
    values: dict[str, object] = {
        "datadog_api_key": "api",
        "datadog_app_key": "app",
        "datadog_url": url,
        "datadog_window_seconds": WINDOW.total_seconds(),
        **changes,
    }
    return Settings.model_validate(values)


@pytest.fixture
def datadog() -> Iterator[Datadog]:
    with serving(SERVICES) as world:
        yield world


@pytest.fixture(params=["v2", "v1"])
async def source(datadog: Datadog, request: pytest.FixtureRequest) -> AsyncIterator[DatadogSource]:
    source = DatadogSource.from_settings(settings(datadog.url, datadog_query_api=request.param))
    yield source
    await source.aclose()


class TestDatadog(MetricSourceContract):
    """The contract over both versions of the query API."""

    @pytest.fixture
    async def world(self, source: DatadogSource) -> MetricWorld:
        return MetricWorld(
            source=source,
            unreachable=DatadogSource.from_settings(settings(f"http://127.0.0.1:{free_port()}")),
            now=NOW,
            window=WINDOW,
            healthy=key("healthy"),
            failing=key("failing"),
            failing_since=FAILING_SINCE,
            idle=key("idle"),
            silent=(key("silent-a"), key("silent-b"), key("silent-c")),
            silent_since=SILENT_SINCE,
            unknown=key("unheard-of"),
        )


async def test_numbers_are_those_that_were_recorded(source: DatadogSource) -> None:
    """Four of ten requests fail, two a second arrive, p95 is 1.8 s."""
    sample = await source.sli(key("failing"), NOW)
    assert sample.error_rate == pytest.approx(0.4)
    assert sample.request_rate == pytest.approx(2.0)
    assert sample.p95_latency_ms == pytest.approx(1_800)
    assert sample.at == NOW


async def test_a_round_over_many_services_is_a_few_requests(source: DatadogSource, datadog: Datadog) -> None:
    """Datadog limits requests: 40 services with three questions each share them."""
    keys = [key("healthy"), *(key(f"other-{number}") for number in range(39))]
    answers = await poll_once(source, keys, NOW, concurrency=50)
    assert dict(answers)[keys[0]].error_rate == 0.0  # type: ignore[union-attr] # an error has no rate
    assert len(datadog.requests) <= 6
    assert QUESTIONS_PER_REQUEST == 60


@pytest.mark.parametrize(
    ("refuse", "error"),
    [
        ((403, {}), Forbidden),
        ((400, {}), Invalid),
        ((500, {}), TransientError),
        ((429, {"X-RateLimit-Reset": "42", "X-RateLimit-Limit": "100"}), TransientError),
    ],
)
async def test_a_refusal_is_the_error_of_its_status(
    source: DatadogSource, datadog: Datadog, refuse: tuple[int, dict[str, str]], error: type[Exception]
) -> None:
    """Nothing is retried in silence; a limit of requests says how long it lasts."""
    datadog.refuse = refuse
    with pytest.raises(error) as found:
        await source.sli(key("healthy"), NOW)
    assert len(datadog.requests) == 1
    assert "api" not in str(found.value).split()
    if refuse[0] == 429:
        assert isinstance(found.value, TransientError)
        assert found.value.retry_after == timedelta(seconds=42)
    health = await source.telemetry([key("healthy")], NOW)
    assert not health.source_reachable


TWO_VALUES_FOR_ONE_TIME = b'{"data": {"attributes": {"times": [1], "series": [{}], "values": [[1, 2]]}}}'


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", TWO_VALUES_FOR_ONE_TIME])
async def test_an_answer_of_another_form_is_an_error(
    source: DatadogSource, datadog: Datadog, body: bytes
) -> None:
    """Never an empty world, which would look like services without traffic."""
    datadog.body = body
    with pytest.raises((PermanentError, TransientError)):
        await source.sli(key("healthy"), NOW)


async def test_a_name_that_is_no_tag_value_is_refused(source: DatadogSource) -> None:
    """No value can widen a query."""
    with pytest.raises(Invalid, match="cannot be the value of a tag"):
        await source.sli(key("a}by{host"), NOW)


async def test_a_caller_that_gives_up_leaves_the_others_alone(source: DatadogSource) -> None:
    """Questions that share a request are answered each by itself."""
    leaving = asyncio.ensure_future(source.sli(key("healthy"), NOW))
    staying = asyncio.ensure_future(source.sli(key("failing"), NOW))
    await asyncio.sleep(0)
    leaving.cancel()
    assert (await staying).error_rate == pytest.approx(0.4)
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_the_source_answers_readiness(source: DatadogSource, datadog: Datadog) -> None:
    """Also where nothing reports the metric that is asked for."""
    await source.ping()
    datadog.refuse = (403, {})
    with pytest.raises(Forbidden):
        await source.ping()
