"""The Prometheus connector against a server that answers wrong, late, too much or nothing."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
import math
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.ids import ServiceKey
from app.agent.models import SliSample
from app.config import Settings
from app.connectors.prometheus.answers import parse_answer
from app.connectors.prometheus.source import PrometheusSource
from app.errors import (
    AgentError,
    ConfigurationError,
    Forbidden,
    Invalid,
    NotFound,
    PermanentError,
    TransientError,
)
from tests.unit.loopback import Behaviour, Loopback, Request, drip, flood, hang, loopback, raw, reply

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
KEY = ServiceKey(environment="prod", service="payments-api")


@asynccontextmanager
async def prometheus(
    behaviour: Behaviour, **changes: object
) -> AsyncIterator[tuple[PrometheusSource, Loopback]]:
    """The connector in front of a server with that behaviour."""
    async with loopback(behaviour) as server:
        values: dict[str, object] = {
            "prometheus_url": server.url,
            "prometheus_timeout_seconds": 0.5 if behaviour in (hang, drip) else 30,
            **changes,
        }
        source = PrometheusSource.from_settings(Settings.model_validate(values))
        try:
            yield source, server
        finally:
            await source.aclose()


def vector(*values: str, at: float | None = None) -> dict[str, object]:
    """An instant answer with one unlabelled series for each value."""
    when = AT.timestamp() if at is None else at
    result = [{"metric": {}, "value": [when, value]} for value in values]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def fresh(indexes: int = 3, age: float = 0.0) -> dict[str, object]:
    """The answer to the question about freshness: every series was scraped `age` seconds ago."""
    newest = str(AT.timestamp() - age)
    result = [{"metric": {"heal_index": str(n)}, "value": [AT.timestamp(), newest]} for n in range(indexes)]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def scripted(answer: Callable[[str], object]) -> Behaviour:
    """Answer by the text of the query: what the function gives, as JSON."""

    async def behave(request: Request, writer: object) -> None:
        await reply(200, answer(request.form["query"]))(request, writer)  # type: ignore[arg-type] # as given

    return behave


def indicators(error_rate: object, *, age: float = 0.0) -> Behaviour:
    """Fresh data, nothing for latency and request rate, and this for the error rate."""

    def answer(query: str) -> object:
        if "timestamp(" in query:
            return fresh(age=age)
        return error_rate if "5.." in query else vector()

    return scripted(answer)


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0.25", 0.25), ("0", 0.0), ("1.0000000001", 1.0), ("NaN", None), ("+Inf", None), ("-Inf", None)],
)
async def test_values_that_are_no_number_are_no_data(value: str, expected: float | None) -> None:
    """NaN from 0/0 and infinities are no data; rounding noise above 1 is 1."""
    async with prometheus(indicators(vector(value))) as (source, _):
        sample = await source.sli(KEY, AT)
    assert sample.error_rate == expected
    assert (sample.p95_latency_ms, sample.request_rate) == (None, None)


async def test_a_scalar_counts_as_an_answer() -> None:
    """`scalar(...)` answers without a series; its number is as good, when fresh samples stand behind it."""
    scalar = {"status": "success", "data": {"resultType": "scalar", "result": [AT.timestamp(), "0.5"]}}
    async with prometheus(indicators(scalar)) as (source, _):
        assert (await source.sli(KEY, AT)).error_rate == 0.5


def together(bad: str | None = None) -> Behaviour:
    """Answer queries about many services: their number as error rate; `bad` fails what asks about it."""

    def answer(query: str) -> tuple[int, object]:
        if bad is not None and bad in query:
            return 422, {"status": "error", "error": "many-to-many matching not allowed"}
        numbers = re.findall(r'"heal_index", "([0-9]+)"', query)
        if not numbers:
            return 200, vector("0.5") if "5.." in query else vector()
        if "timestamp(" in query:
            return 200, _numbered(dict.fromkeys(numbers, str(AT.timestamp())))
        return 200, _numbered({n: f"0.{n}" for n in numbers} if "5.." in query else {})

    async def behave(request: Request, writer: object) -> None:
        code, body = answer(request.form["query"])
        await reply(code, body)(request, writer)  # type: ignore[arg-type] # as given

    return behave


def _numbered(values: dict[str, str]) -> dict[str, object]:
    result = [{"metric": {"heal_index": n}, "value": [AT.timestamp(), v]} for n, v in values.items()]
    return {"status": "success", "data": {"resultType": "vector", "result": result}}


def services(count: int) -> list[ServiceKey]:
    return [ServiceKey(environment="prod", service=f"service-{number}") for number in range(count)]


async def test_many_services_are_asked_about_with_few_queries() -> None:
    """One query for an indicator of many services, within the length that servers take."""
    async with prometheus(together()) as (source, server):
        found = await source.slis(services(10), AT)
        assert [sample for _, sample in found] == [
            SliSample(at=AT, error_rate=float(f"0.{number}")) for number in range(10)
        ]
        assert len(server.requests) <= 6
        await source.slis(services(200), AT)
    assert len(server.requests) < 80
    assert all(len(request.form["query"]) < 16_384 for request in server.requests)


async def test_looks_at_about_the_same_time_share_one_judgement_of_the_telemetry() -> None:
    """It is about all services; asked for each of thousands it would be most of the load."""
    keys = services(60)
    async with prometheus(together()) as (source, server):
        first, second = await asyncio.gather(source.telemetry(keys, AT), source.telemetry(keys, AT))
        asked = len(server.requests)
        assert first == second == await source.telemetry(keys, AT + timedelta(seconds=4))
        assert len(server.requests) == asked
        await source.telemetry(keys, AT + timedelta(seconds=5))
        assert len(server.requests) == 2 * asked
        await source.telemetry(keys[:1], AT + timedelta(seconds=5))
        await source.telemetry(keys, AT)
        assert len(server.requests) > 3 * asked


async def test_each_cluster_has_a_judgement_of_its_own() -> None:
    """Looks at services of two clusters in turn ask no more often."""
    east, west = services(60)[:30], services(60)[30:]
    async with prometheus(together()) as (source, server):
        for keys in (east, west):
            await source.telemetry(keys, AT)
        asked = len(server.requests)
        for keys in (east, west, east, west):
            await source.telemetry(keys, AT + timedelta(seconds=1))
        assert len(server.requests) == asked


async def test_one_service_that_cannot_be_queried_is_no_other_services_fault() -> None:
    """A question that fails for all is asked for each alone; an outage is not."""
    keys = services(3)
    async with prometheus(together(bad="service-1")) as (source, server):
        found = dict(await source.slis(keys, AT))
    assert isinstance(found[keys[1]], PermanentError)
    assert [found[key] for key in (keys[0], keys[2])] == [SliSample(at=AT, error_rate=0.5)] * 2
    async with prometheus(reply(503, {})) as (source, server):
        found = dict(await source.slis(keys, AT))
        assert all(isinstance(answer, TransientError) for answer in found.values())
    assert len(server.requests) <= 4


@pytest.mark.parametrize("age", [60.0, 61.0, 299.0])
async def test_a_value_over_old_samples_is_no_data(age: float) -> None:
    """However the number came about: nothing scraped inside the window means no data (promise 8)."""
    async with prometheus(indicators(vector("0.5"), age=age)) as (source, _):
        assert (await source.sli(KEY, AT)).error_rate is None


@pytest.mark.parametrize("newest", ["NaN", "-5", "1e300", "+Inf"])
async def test_an_impossible_age_is_a_permanent_error(newest: str) -> None:
    """A time that cannot be is not taken for fresh, nor for old."""
    answer = vector(newest)
    answer["data"]["result"][0]["metric"] = {"heal_index": "0"}  # type: ignore[index] # built right above
    async with prometheus(scripted(lambda query: answer if "timestamp(" in query else vector("0.5"))) as (
        source,
        _,
    ):
        with pytest.raises(PermanentError, match="dated a sample wrongly"):
            await source.sli(KEY, AT)


async def test_the_sample_is_as_old_as_its_data() -> None:
    """Not as young as the question."""
    async with prometheus(indicators(vector("0.5"), age=42.5)) as (source, _):
        assert (await source.sli(KEY, AT)).at == AT - timedelta(seconds=42.5)


async def test_samples_from_the_future_do_not_make_a_sample_younger_than_now() -> None:
    """A skewed clock elsewhere cannot outdate the question."""
    async with prometheus(indicators(vector("0.5"), age=-30)) as (source, _):
        assert (await source.sli(KEY, AT)).at == AT


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(
            vector("0.1", "0.2"), "error_rate query for payments-api in prod answers 2", id="several"
        ),
        pytest.param(vector("13"), "a share, 0 to 1", id="percentage"),
        pytest.param(vector("-0.5"), "not be negative", id="negative"),
        pytest.param(
            {
                "status": "success",
                "data": {
                    "resultType": "vector",
                    "result": [{"metric": {}, "histogram": [1, {"count": "3", "sum": "4"}]}],
                },
            },
            "native histogram; wrap it in histogram_quantile",
            id="native histogram",
        ),
        pytest.param(
            {"status": "success", "data": {"resultType": "string", "result": [1, "x"]}},
            "answers a string",
            id="string",
        ),
    ],
)
async def test_what_is_not_one_sane_number_is_invalid(answer: object, words: str) -> None:
    """The query is wrong, and repeating it will not help: the message names it."""
    async with prometheus(indicators(answer)) as (source, _):
        with pytest.raises(Invalid, match=words):
            await source.sli(KEY, AT)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param("<html>Please log in</html>", id="html"),
        pytest.param("", id="nothing"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="list"),
        pytest.param("{}", id="empty object"),
        pytest.param('{"status":"success"}', id="no data"),
        pytest.param('{"status":"success","data":{"resultType":"vector"}}', id="no result"),
        pytest.param('{"status":"success","data":{"resultType":"vector","result":{}}}', id="result no list"),
        pytest.param(
            '{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,2]}]}}',
            id="number for text",
        ),
        pytest.param(
            '{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}',
            id="no number",
        ),
        pytest.param(
            '{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1e300,"1"]}]}}',
            id="absurd time",
        ),
        pytest.param(
            '{"status":"success","data":{"resultType":"vector","result":['
            '{"metric":{"heal_index":"99"},"value":[1771606800,"1"]}]}}',
            id="an answer to no question",
        ),
        pytest.param('{"status":"error","error":"nope"}', id="error with 200"),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b'{"status":"\xff\xff"}', id="broken text"),
        pytest.param("[" * 100_000, id="deep"),
        pytest.param('{"status":' + "[" * 100_000, id="deep inside"),
    ],
)
async def test_an_answer_of_the_wrong_shape_is_a_permanent_error(body: bytes | str) -> None:
    """Whatever answers there is no Prometheus; nothing else than the agent's own errors comes out."""
    async with prometheus(reply(200, body)) as (source, _):
        with pytest.raises(PermanentError):
            await source.sli(KEY, AT)
        with pytest.raises(PermanentError):
            await source.sli_range(KEY, AT - timedelta(minutes=1), AT, timedelta(seconds=15))
        health = await source.telemetry([KEY], AT)
    assert health.outage
    assert health.fault


@pytest.mark.parametrize(
    "warning", ["remote read failed: only local data", "PromQL warning: bucket label le"]
)
async def test_a_partial_answer_is_not_taken_for_the_whole(warning: str) -> None:
    """Warnings mean that data may be missing; a rate over half of the pods would be wrong."""
    answer = {**vector("0.01"), "warnings": [warning]}
    async with prometheus(indicators(answer)) as (source, _):
        with pytest.raises(TransientError, match="may be partial"):
            await source.sli(KEY, AT)


async def test_a_hint_about_style_does_not_spoil_an_answer() -> None:
    """`PromQL info` and the newer `infos` say that the query could be nicer, not that data is missing."""
    answer = {**vector("0.25"), "warnings": ["PromQL info: not a counter"], "infos": ["PromQL info: more"]}
    async with prometheus(indicators(answer)) as (source, _):
        assert (await source.sli(KEY, AT)).error_rate == 0.25


REJECTED = {"status": "error", "errorType": "execution", "error": "many-to-many matching not allowed"}


@pytest.mark.parametrize(
    ("behaviour", "kind", "words"),
    [
        pytest.param(reply(422, REJECTED), Invalid, "422: .*many-to-many matching not allowed", id="422"),
        pytest.param(reply(400, REJECTED), Invalid, "400: .*many-to-many", id="400"),
        pytest.param(reply(400, "plain words"), Invalid, "plain words", id="400 in plain text"),
        pytest.param(reply(401), Forbidden, "401", id="401"),
        pytest.param(reply(403, "no entry"), Forbidden, "no entry", id="403"),
        pytest.param(reply(404), NotFound, "404", id="404"),
        pytest.param(reply(429), TransientError, "429", id="429"),
        pytest.param(reply(499), TransientError, "499", id="cancelled"),
        pytest.param(reply(500, "boom"), TransientError, "boom", id="500"),
        pytest.param(reply(503, REJECTED), TransientError, "503", id="503"),
        pytest.param(reply(302, Location="http://elsewhere"), PermanentError, "redirects", id="redirect"),
        pytest.param(hang, TransientError, "no complete answer within 0.5 s", id="hangs"),
        pytest.param(drip, TransientError, "no complete answer within 0.5 s", id="drips"),
        pytest.param(raw(b""), TransientError, "closed the connection", id="hangs up"),
        pytest.param(
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"),
            TransientError,
            "closed the connection",
            id="cut",
        ),
        pytest.param(raw(b"SSH-2.0-OpenSSH\r\n"), TransientError, "closed the connection", id="no HTTP"),
        pytest.param(flood, PermanentError, "more than 8,388,608 bytes", id="flood"),
        pytest.param(
            reply(200, gzip.compress(b"{}"), Content_Encoding="gzip"), PermanentError, "compressed", id="gzip"
        ),
    ],
)
async def test_each_way_to_fail_has_its_error(
    behaviour: Behaviour, kind: type[AgentError], words: str
) -> None:
    """The class says what to do next, the message what happened and where to look."""
    async with prometheus(behaviour) as (source, _):
        with pytest.raises(kind, match=words):
            await source.ping()


@pytest.mark.parametrize(("said", "seconds"), [("7", 7), ("999999", 3_600), ("soon", None), ("-1", None)])
async def test_the_wait_that_the_server_names_is_kept(said: str, seconds: int | None) -> None:
    """Retry-After in seconds is handed on, bounded; anything else counts as not said."""
    async with prometheus(reply(503, "busy", Retry_After=said)) as (source, _):
        with pytest.raises(TransientError) as caught:
            await source.ping()
    assert caught.value.retry_after == (None if seconds is None else timedelta(seconds=seconds))


@pytest.mark.parametrize("behaviour", [hang, raw(b""), reply(503), reply(500, "x")])
async def test_a_failing_source_is_an_answer_about_telemetry(behaviour: Behaviour) -> None:
    """A query of health reports that measuring does not work (promise 8)."""
    async with prometheus(behaviour) as (source, _):
        health = await source.telemetry([KEY], AT)
    assert (health.source_reachable, health.outage) == (False, True)


async def test_a_query_that_telemetry_cannot_ask_is_a_fault_with_its_reason() -> None:
    """The agent cannot measure, whatever the mistake; the source's own words say where to look."""
    async with prometheus(reply(400, REJECTED)) as (source, _):
        health = await source.telemetry([KEY], AT)
    assert health.outage
    assert "PROMETHEUS_URL" in health.said
    assert "400" in health.said


async def test_no_service_to_ask_about_takes_no_question() -> None:
    """Telemetry over no services is no outage, and no request."""
    async with prometheus(reply(500)) as (source, server):
        health = await source.telemetry([], AT)
    assert (health.known_services, health.outage, server.requests) == (0, False, [])


async def test_few_questions_for_many_services() -> None:
    """Two for each fifty services, however often one is named."""
    async with prometheus(reply(200, vector())) as (source, server):
        keys = [ServiceKey(environment="prod", service=f"s{n}") for n in range(120)]
        await source.telemetry([*keys, *keys], AT)
    assert len(server.requests) == 6


async def test_the_bearer_token_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    """It goes into the header, and into no error and no log line."""
    caplog.set_level(logging.DEBUG)
    token = {"prometheus_bearer_token": "s3cret-token\n"}
    async with prometheus(reply(403, "no"), **token) as (source, server):
        with pytest.raises(Forbidden) as caught:
            await source.ping()
    assert server.requests[0].headers["authorization"] == "Bearer s3cret-token"
    assert "s3cret" not in str(caught.value) + caplog.text


async def test_a_path_in_the_address_is_kept() -> None:
    """Prometheus behind a prefix, with or without a slash at the end."""
    async with loopback(reply(200, vector("1"))) as server:
        for prefix in ("/prometheus", "/prometheus/"):
            settings = Settings.model_validate({"prometheus_url": server.url + prefix})
            source = PrometheusSource.from_settings(settings)
            await source.ping()
            await source.aclose()
    assert [request.path for request in server.requests] == ["/prometheus/api/v1/query"] * 2


async def test_the_question_is_about_the_moment_given() -> None:
    """Milliseconds included, in the form, and with the namespace of the environment."""
    async with prometheus(reply(200, vector()), environment_namespaces={"prod": "payments"}) as (
        source,
        server,
    ):
        await source.sli(KEY, AT + timedelta(milliseconds=7, microseconds=999))
    assert {request.form["time"] for request in server.requests} == {f"{int(AT.timestamp())}.007"}
    assert all('namespace="payments"' in request.form["query"] for request in server.requests)


@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(1, 0, timedelta(seconds=1)), (0, 1, timedelta(0)), (0, 1, timedelta(microseconds=10))],
)
async def test_a_range_that_is_none_is_refused(start: int, end: int, step: timedelta) -> None:
    """Without asking anyone."""
    async with prometheus(reply(200, vector())) as (source, server):
        with pytest.raises(Invalid, match="range"):
            await source.sli_range(KEY, AT + timedelta(hours=start), AT + timedelta(hours=end), step)
    assert server.requests == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prometheus_url": None}, "PROMETHEUS_URL is not set"),
        ({"prometheus_url": "prometheus:9090"}, "PROMETHEUS_URL must be"),
        ({"prometheus_url": "ftp://prometheus"}, "PROMETHEUS_URL must be"),
        ({"prometheus_url": "http://"}, "PROMETHEUS_URL must be"),
        ({"prometheus_url": "http://h:port"}, "PROMETHEUS_URL must be"),
        ({"prometheus_bearer_token": "two words"}, "token"),
        ({"prometheus_bearer_token": "schlüssel"}, "token"),
        ({"prometheus_window": "soon"}, "PROMETHEUS_WINDOW must be a duration"),
        ({"prometheus_window": "0s"}, "PROMETHEUS_WINDOW must be longer"),
        ({"prometheus_p95_query": "up"}, "PROMETHEUS_P95_QUERY must select by"),
    ],
)
def test_settings_that_cannot_work_stop_the_start(changes: dict[str, object], words: str) -> None:
    """The message names the setting, and shows no token."""
    settings = Settings.model_validate({"prometheus_url": "http://localhost", **changes})
    with pytest.raises(ConfigurationError, match=words) as caught:
        PrometheusSource.from_settings(settings)
    assert "two words" not in str(caught.value)


@given(
    body=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["status", "data", "resultType", "result", "metric", "value", "values", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=15,
    )
)
def test_no_body_brings_the_parser_down(body: object) -> None:
    """Whatever JSON arrives, the parser gives points or one of the agent's errors."""
    with suppress(AgentError):
        points = parse_answer(json.dumps(body).encode(), "the question")
        assert all(math.isfinite(instant) for series in points for instant in series.values)
