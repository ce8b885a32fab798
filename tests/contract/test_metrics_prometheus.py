"""The Prometheus connector against a real Prometheus: the contract, and what only the real one can show."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest

from app.agent.ids import ServiceKey
from app.config import Settings
from app.connectors.observability import poll_once
from app.connectors.prometheus.source import PrometheusSource
from app.errors import Invalid, NotFound
from tests.contract.metric_suite import MetricSourceContract, MetricWorld
from tests.contract.metric_worlds import NOW, Phase, exposition, free_port, gauge, prometheus

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="Prometheus is not installed"),
]

FAILING_SINCE = NOW - timedelta(minutes=5)
SILENT_SINCE = NOW - timedelta(minutes=2)
LAST_RECORDED = NOW - timedelta(seconds=100)
WELL_TO_THE_END = (Phase(until=NOW),)
SILENT = (Phase(until=SILENT_SINCE),)
ENVIRONMENT = "prod"


def key(service: str) -> ServiceKey:
    return ServiceKey(environment=ENVIRONMENT, service=service)


def settings(url: str, **changes: object) -> Settings:
    """The shipped defaults, but for the address and what the test is about."""
    values: dict[str, object] = {
        "prometheus_url": url,
        "environment_namespaces": {ENVIRONMENT: "payments"},
        **changes,
    }
    return Settings.model_validate(values)


def ask_directly(url: str, query: str, at: datetime) -> list[dict[str, list[str]]]:
    """What Prometheus itself answers, without the connector."""
    form = {"query": query, "time": str(at.timestamp())}
    answer = httpx2.post(f"{url}/api/v1/query", data=form, trust_env=False)
    answer.raise_for_status()
    result: list[dict[str, list[str]]] = answer.json()["data"]["result"]
    return result


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a Prometheus that holds twenty minutes of every role."""
    services = {
        "healthy": WELL_TO_THE_END,
        "failing": (Phase(until=FAILING_SINCE), Phase(until=NOW, good=6, bad=4, latency_ms=1_800)),
        "idle": (Phase(until=NOW, good=0),),
        "silent-a": SILENT,
        "silent-b": SILENT,
        "silent-c": SILENT,
    }
    rule = gauge("service:error_ratio", 'service="ruled"', 0.4, LAST_RECORDED)
    folder = tmp_path_factory.mktemp("prometheus")
    with prometheus(folder, openmetrics=f"{exposition(services)}\n{rule}") as url:
        yield url


@pytest.fixture
async def source(recorded: str) -> AsyncIterator[PrometheusSource]:
    source = PrometheusSource.from_settings(settings(recorded))
    yield source
    await source.aclose()


class TestPrometheus(MetricSourceContract):
    """The contract, with the shipped default queries."""

    @pytest.fixture
    async def world(self, source: PrometheusSource) -> MetricWorld:
        return MetricWorld(
            source=source,
            unreachable=PrometheusSource.from_settings(settings(f"http://127.0.0.1:{free_port()}")),
            now=NOW,
            window=timedelta(minutes=1),
            healthy=key("healthy"),
            failing=key("failing"),
            failing_since=FAILING_SINCE,
            idle=key("idle"),
            silent=(key("silent-a"), key("silent-b"), key("silent-c")),
            silent_since=SILENT_SINCE,
            unknown=key("unheard-of"),
        )


async def test_numbers_are_those_that_were_recorded(source: PrometheusSource) -> None:
    """Four of ten requests fail, two a second arrive, and the newest scrape was at this very instant."""
    sample = await source.sli(key("failing"), NOW)
    assert sample.error_rate == pytest.approx(0.4)
    assert sample.request_rate == pytest.approx(2.0)
    assert sample.p95_latency_ms == pytest.approx(1_000 + 0.95 * 1_500)
    assert sample.at == NOW


async def test_the_age_is_that_of_the_newest_scrape(source: PrometheusSource) -> None:
    """Asked 40 s after the last scrape, the sample says it is 40 s old although the question was for now."""
    sample = await source.sli(key("silent-a"), SILENT_SINCE + timedelta(seconds=40))
    assert sample.error_rate == 0.0
    assert sample.at == SILENT_SINCE


async def test_the_namespace_of_another_environment_has_other_data(source: PrometheusSource) -> None:
    """The same service name in an environment without data is no data."""
    sample = await source.sli(ServiceKey(environment="staging", service="healthy"), NOW)
    assert sample.request_rate is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param('service:error_ratio{service="{{service}}"}', None, id="frozen recording rule"),
        pytest.param(
            'sum(rate(http_requests_total{service="{{service}}"}[{{window}}])) or vector(0)',
            None,
            id="zero for nothing",
        ),
        pytest.param(
            'avg_over_time(service:error_ratio{service="{{service}}"}[10m])',
            None,
            id="window wider than asked",
        ),
        pytest.param(
            'service:error_ratio{service="{{service}}"} offset 2m', 0.4, id="deliberately delayed data"
        ),
    ],
)
async def test_a_number_without_recent_samples_is_no_data(
    recorded: str, query: str, expected: float | None
) -> None:
    """Prometheus answers each of these; only samples inside the window make it data (promise 8)."""
    source = PrometheusSource.from_settings(settings(recorded, prometheus_error_rate_query=query))
    ruled = key("ruled")
    raw = ask_directly(recorded, query.replace("{{service}}", "ruled").replace("{{window}}", "1m"), NOW)
    assert raw, "the trap is not set: Prometheus itself has no answer"
    assert (await source.sli(ruled, NOW)).error_rate == expected
    history = await source.sli_range(ruled, NOW - timedelta(seconds=15), NOW, timedelta(seconds=5))
    assert {sample.error_rate for sample in history} == ({expected} if expected is not None else set())
    await source.aclose()


async def test_several_series_in_one_answer_are_refused(recorded: str) -> None:
    """The agent does not guess which one is meant, and names the query."""
    query = 'rate(http_requests_total{service="{{service}}"}[{{window}}])'
    source = PrometheusSource.from_settings(settings(recorded, prometheus_request_rate_query=query))
    with pytest.raises(Invalid, match=r"request_rate query for failing in prod answers 2 series"):
        await source.sli(key("failing"), NOW)
    await source.aclose()


async def test_a_percentage_is_not_taken_for_a_share(recorded: str) -> None:
    """A query that answers 40 for 40 % is refused with what it should answer."""
    query = '100 * (service:error_ratio{service="{{service}}"} offset 2m)'
    source = PrometheusSource.from_settings(settings(recorded, prometheus_error_rate_query=query))
    with pytest.raises(Invalid, match=r"ruled in prod: the error_rate query answered 40; .* share"):
        await source.sli(key("ruled"), NOW)
    await source.aclose()


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ('sum(rate(http_requests_total{service="{{service}}"}[1m])', "unclosed left parenthesis"),
        ('label_replace(up{service="{{service}}"}, "a", "$1", "b", "(")', "invalid regular expression"),
        ('http_requests_total{service="{{service}}"} * on() http_requests_total', "many-to-many"),
    ],
)
async def test_a_query_that_prometheus_rejects_is_reported_in_its_own_words(
    recorded: str, query: str, words: str
) -> None:
    """The operator sees which query, and what Prometheus has against it (400 and 422 alike)."""
    source = PrometheusSource.from_settings(settings(recorded, prometheus_p95_query=query))
    with pytest.raises(
        Invalid, match=rf"answered 4\d\d: the p95_latency_ms query for failing in prod: .*{words}"
    ):
        await source.sli(key("failing"), NOW)
    await source.aclose()


async def test_the_wrong_path_is_distinguished_from_a_wrong_query(recorded: str) -> None:
    """An address that is not Prometheus' root is a mistake that a retry does not fix."""
    source = PrometheusSource.from_settings(settings(f"{recorded}/nowhere"))
    with pytest.raises(NotFound, match="PROMETHEUS_URL"):
        await source.ping()
    await source.aclose()


async def test_hostile_names_select_nothing(source: PrometheusSource) -> None:
    """A service name that tries to leave its quotes stays a name, and matches no series."""
    for name in ('x"} or http_requests_total{code="200', "x\\", "healthy|failing", ".*", "`", "'"):
        sample = await source.sli(key(name), NOW)
        assert sample.request_rate is None, name


async def test_a_pattern_matches_the_name_and_nothing_wider(recorded: str) -> None:
    """Inside a regular expression the name is a literal: a dot is a dot."""
    query = 'sum(rate(http_requests_total{service=~"{{service}}"}[{{window}}]))'
    source = PrometheusSource.from_settings(settings(recorded, prometheus_request_rate_query=query))
    assert (await source.sli(key("silent-a"), SILENT_SINCE)).request_rate == pytest.approx(2.0)
    assert (await source.sli(key("silent.a"), SILENT_SINCE)).request_rate is None
    assert (await source.sli(key(".*"), SILENT_SINCE)).request_rate is None
    await source.aclose()


async def test_a_hundred_and_twenty_services_take_a_handful_of_questions(source: PrometheusSource) -> None:
    """Telemetry is asked in chunks: the services at the far end count as well."""
    crowd = [key(f"absent-{n}") for n in range(117)]
    health = await source.telemetry([*crowd, key("silent-a"), key("silent-b"), key("silent-c")], NOW)
    assert (health.known_services, health.silent_services) == (3, 3)
    assert health.outage


async def test_one_poll_reports_all(source: PrometheusSource) -> None:
    """The poller gets every service in the order asked."""
    polled = await poll_once(source, [key("healthy"), key("unheard-of"), key("failing")], NOW)
    rates = [getattr(sample, "error_rate", "error") for _, sample in polled]
    assert rates == [0.0, None, pytest.approx(0.4)]


async def test_connections_do_not_leak_between_event_loops(recorded: str) -> None:
    """The durable engine runs a loop of its own; one source serves both, one after the other and again."""
    source = PrometheusSource.from_settings(settings(recorded))

    def elsewhere() -> None:
        async def ask() -> None:
            await source.ping()
            await source.aclose()

        asyncio.run(ask())

    await source.ping()
    await asyncio.to_thread(elsewhere)
    await source.ping()
    await asyncio.to_thread(elsewhere)
    await source.aclose()


class _Exporter(BaseHTTPRequestHandler):
    """A live service: every scrape sees ten more requests."""

    requests = 0

    def do_GET(self) -> None:
        type(self).requests += 10
        body = f'http_requests_total{{service="live",namespace="payments",code="200"}} {self.requests}\n'
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4")
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
        """Keep the test's output clean."""


async def test_a_target_that_stops_being_scraped_becomes_no_data_within_the_window(tmp_path: Path) -> None:
    """A live target dies: its sample grows old at once, and is gone a window later."""
    window = timedelta(seconds=10)
    exporter = ThreadingHTTPServer(("127.0.0.1", 0), _Exporter)
    threading.Thread(target=exporter.serve_forever, daemon=True).start()
    config = (
        "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: live, "
        f"static_configs: [{{targets: ['127.0.0.1:{exporter.server_port}']}}]}}]"
    )
    with prometheus(tmp_path, config=config) as url:
        source = PrometheusSource.from_settings(settings(url, prometheus_window="10s"))
        live = key("live")
        deadline = time.monotonic() + 300
        while (await source.sli(live, datetime.now(UTC))).request_rate is None:
            assert time.monotonic() < deadline, "the live target never had data"
            await asyncio.sleep(0.2)
        exporter.shutdown()
        exporter.server_close()
        dead_since = datetime.now(UTC)
        while _is_up(url):
            assert time.monotonic() < deadline, "Prometheus never noticed that the target is gone"
            await asyncio.sleep(0.2)
        fading = await source.sli(live, datetime.now(UTC))
        assert fading.request_rate is not None
        assert fading.at <= dead_since
        gone = await source.sli(live, dead_since + window)
        assert gone.request_rate is None
        await source.aclose()


def _is_up(url: str) -> bool:
    return any(series["value"][1] == "1" for series in ask_directly(url, "up", datetime.now(UTC)))
