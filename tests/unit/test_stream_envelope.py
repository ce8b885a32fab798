"""Every wrapping of an event that streams may carry, and a reason in words for everything else."""

from __future__ import annotations

import base64
import io
import json
import re
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from app.agent.ids import ServiceKey
from app.agent.models import Deploy, DeployStatus, MetricSample
from app.agent.ports.streams import StreamMessage
from app.connectors.streams.avro import FlatSchema, flat_schema, schema_id
from app.connectors.streams.envelope import Poison, read_message
from app.errors import Invalid
from app.wire.events import Event
from tests.sizes import examples

LATEST = datetime(2026, 2, 20, 17, 6, tzinfo=UTC)
MAX_BYTES = 4096
KEY = ServiceKey(environment="prod", service="payments-api")

DEPLOY: dict[str, Any] = {
    "service": "payments-api",
    "environment": "prod",
    "version": "1.15.0",
    "commit_sha": "d1e2f3a",
    "status": "failed",
    "timestamp": "2026-02-20T17:00:00Z",
}
METRIC: dict[str, Any] = {
    "service": "payments-api",
    "environment": "prod",
    "error_rate": 0.13,
    "p95_latency_ms": 1450,
    "crash_looping": True,
    "timestamp": "2026-02-20T17:01:00Z",
}
CLOUD: dict[str, Any] = {
    "specversion": "1.0",
    "id": "42",
    "source": "/pipelines/7",
    "type": "com.self-healing-devops-agent.deploy",
}
CE_HEADERS = {f"ce_{name}": value for name, value in CLOUD.items()}
METRIC_SCHEMA = {
    "type": "record",
    "name": "MetricEvent",
    "namespace": "com.example",
    "fields": [
        {"name": "service", "type": "string"},
        {"name": "environment", "type": "string"},
        {"name": "error_rate", "type": ["null", "double"], "default": None},
        {"name": "crash_looping", "type": ["null", "boolean"], "default": None},
        {"name": "timestamp", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    ],
}


def message(
    body: object, headers: dict[str, str] | None = None, key: str | None = "prod/payments-api"
) -> StreamMessage:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return StreamMessage(position="test:1", key=key, body=raw, headers=headers or {}, appended_at=None)


def read(told: StreamMessage, schema: FlatSchema | None = None) -> tuple[Event, ...]:
    return read_message(told, latest=LATEST, max_bytes=MAX_BYTES, schema=schema)


def reason(told: StreamMessage, schema: FlatSchema | None = None) -> str:
    with pytest.raises(Poison) as caught:
        read(told, schema)
    return str(caught.value)


def outcome(told: StreamMessage, schema: FlatSchema | None = None) -> tuple[Event, ...] | str:
    try:
        return read(told, schema)
    except Poison as poison:
        return str(poison)


def framed(record: dict[str, Any], schema: dict[str, Any] = METRIC_SCHEMA, number: int = 7) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(schema), record)
    return struct.pack(">bI", 0, number) + stream.getvalue()


# ------------------------------------------------------------------ what is understood

FORMS = {
    "own JSON with a type": message({**DEPLOY, "type": "deploy"}),
    "own JSON under a header": message(DEPLOY, {"type": "deploy"}),
    "header names in any case": message(DEPLOY, {"Type": "deploy", "Content-Type": "application/json"}),
    "own JSON, both agree": message({**DEPLOY, "type": "deploy"}, {"type": CLOUD["type"]}),
    "no key": message({**DEPLOY, "type": "deploy"}, key=None),
    "CloudEvent, structured": message(
        {**CLOUD, "data": DEPLOY, "subject": "x", "traceparent": "y"},
        {"content-type": "application/cloudevents+json; charset=UTF-8"},
    ),
    "CloudEvent, content type forgotten": message({**CLOUD, "data": DEPLOY}),
    "CloudEvent, content type JSON": message(
        {**CLOUD, "data": DEPLOY, "datacontenttype": "application/vnd.acme+json"},
        {"content-type": "application/json"},
    ),
    "CloudEvent, base64": message(
        {**CLOUD, "data_base64": base64.b64encode(json.dumps(DEPLOY).encode()).decode()}
    ),
    "CloudEvent, binary": message(DEPLOY, {**CE_HEADERS, "content-type": "application/json"}),
    "CloudEvent, time of the envelope": message(
        {
            **CLOUD,
            "time": "2026-02-20T18:00:00+01:00",
            "data": {k: v for k, v in DEPLOY.items() if k != "timestamp"},
        }
    ),
    "CloudEvent, its own time wins": message({**CLOUD, "time": "2020-01-01T00:00:00Z", "data": DEPLOY}),
}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_is_the_event_that_the_api_takes(form: str) -> None:
    """One event, wrapped in every way that is documented, is one and the same event."""
    (event,) = read(FORMS[form])

    assert event.key == KEY
    assert event.timestamp == datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
    assert event.payload() == Deploy(
        version="1.15.0", status=DeployStatus.FAILED, commit_sha="d1e2f3a", irreversible=False
    )


def test_a_list_may_mix_kinds() -> None:
    """Entries of a list say each what they are; the header speaks for those that do not."""
    events = read(message([{**METRIC, "type": "metric"}, {**DEPLOY, "type": "deploy"}]))
    plain = read(message([METRIC, METRIC], {"type": "metric"}))

    assert [type(e.payload()) for e in events] == [MetricSample, Deploy]
    assert [type(e.payload()) for e in plain] == [MetricSample, MetricSample]


def test_a_batch_of_cloudevents_is_a_list() -> None:
    """The batched form of CloudEvents gives its events in order."""
    metric = {**CLOUD, "type": "com.self-healing-devops-agent.metric", "data": METRIC}
    events = read(
        message([{**CLOUD, "data": DEPLOY}, metric], {"content-type": "application/cloudevents-batch+json"})
    )

    assert [type(e.payload()) for e in events] == [Deploy, MetricSample]


def test_avro_in_a_registry_frame() -> None:
    """A framed record is read by its schema, its kind taken from the record's name."""
    at = datetime(2026, 2, 20, 17, 1, tzinfo=UTC)
    body = framed({"service": "payments-api", "environment": "prod", "error_rate": 0.25, "timestamp": at})
    assert schema_id(body) == 7

    (event,) = read(message(body), flat_schema(json.dumps(METRIC_SCHEMA)))

    assert event.timestamp == at
    assert event.payload() == MetricSample(error_rate=0.25)


def test_the_examples_of_the_documentation_are_events() -> None:
    """What docs/streams.md shows can be sent as it stands."""
    page = (Path(__file__).parents[2] / "docs" / "streams.md").read_text()
    examples = re.findall(r"```json\n(.*?)```", page, re.DOTALL)

    assert [len(read(message(example.encode()))) for example in examples] == [1, 2, 1]


# ------------------------------------------------------------------ what is not

_DEEP = b'{"type":"deploy","x":' + b"[" * 40 + b"]" * 40 + b"}"

POISON: dict[str, tuple[StreamMessage, str]] = {
    "empty": (message(b""), "The body is empty"),
    "no JSON": (message(b"service=payments-api"), "Expecting value at line 1, column 1"),
    "half a JSON": (message(b'{"type":"deploy"'), "at line 1"),
    "not UTF-8": (message('{"type":"d\u00e9ploy"}'.encode("latin-1")), "not UTF-8: byte 10"),
    "UTF-16": (message(json.dumps(DEPLOY).encode("utf-16")), "not UTF-8"),
    "NaN": (message(b'{"type":"metric","error_rate":NaN}'), "NaN is not JSON"),
    "infinite": (message(b'{"type":"metric","error_rate":1e999}'), "too large to be represented"),
    "twice": (message(b'{"type":"metric","type":"deploy"}'), "'type' appears twice"),
    "deep": (message(_DEEP), "deeper than 32 levels"),
    "very deep": (message(b"[" * 4000), "deeper than 32 levels"),
    "NUL": (message({**DEPLOY, "type": "deploy", "version": "1\0"}), "version: holds a NUL"),
    "surrogate": (message(b'{"type":"deploy","version":"\\ud800"}'), "lone surrogate"),
    "too large": (message(b" " * (MAX_BYTES + 1)), "larger than 4096 bytes"),
    "no kind": (message(DEPLOY), "nothing says which kind of event it is"),
    "unknown kind": (message({**DEPLOY, "type": "restart"}), "its type 'restart' is not known"),
    "kind no text": (message({**DEPLOY, "type": ["deploy"]}), "its type is not a text"),
    "two kinds": (
        message({**DEPLOY, "type": "deploy"}, {"type": "metric"}),
        "its header says the type 'metric', and its content 'deploy'",
    ),
    "a number": (message(7, {"type": "deploy"}), "is not a JSON object"),
    "missing field": (
        message({"type": "deploy", "service": "a", "environment": "prod"}, key=None),
        "version: is missing. Fix: send the release's version",
    ),
    "unknown field": (message({**DEPLOY, "type": "deploy", "stage": 1}), "stage: is an unknown field"),
    "coercion": (
        message({**METRIC, "type": "metric", "error_rate": "0.1"}),
        "error_rate: input should be a valid number",
    ),
    "future": (
        message({**DEPLOY, "type": "deploy", "timestamp": "2026-02-20T17:06:01Z"}),
        "timestamp: is too far in the future",
    ),
    "second of a list": (
        message([{**METRIC, "type": "metric"}, {**METRIC, "type": "metric", "error_rate": 2}]),
        "[1].error_rate: input should be less than or equal to 1",
    ),
    "empty list": (message([]), "is not a list of 1 to 1000 entries"),
    "list too long": (message([1] * 1001, {"type": "deploy"}), "is not a list of 1 to 1000 entries"),
    "wrong key": (
        message({**DEPLOY, "type": "deploy"}, key="payments-api"),
        "its key is 'payments-api', and its event is about 'prod/payments-api'",
    ),
    "key of the first only": (
        message([{**METRIC, "type": "metric"}, {**METRIC, "type": "metric", "service": "other"}]),
        "its event is about 'prod/other'",
    ),
    "compressed": (message(DEPLOY, {"content-encoding": "gzip"}), "'gzip' is not supported"),
    "charset": (message(DEPLOY, {"content-type": "application/json; charset=latin1"}), "charset 'latin1'"),
    "media type": (message(DEPLOY, {"content-type": "text/plain"}), "'text/plain' is not supported"),
    "CloudEvent 0.3": (message({**CLOUD, "specversion": "0.3", "data": DEPLOY}), "specversion is '0.3'"),
    "CloudEvent without id": (
        message(DEPLOY, {k: v for k, v in CE_HEADERS.items() if k != "ce_id"}),
        "no attribute 'id'",
    ),
    "CloudEvent of another type": (
        message({**CLOUD, "type": "dev.cdevents.service.deployed", "data": DEPLOY}),
        "its type 'dev.cdevents.service.deployed' is not known",
    ),
    "CloudEvent without data": (message(CLOUD), "has no data"),
    "CloudEvent with two data": (
        message({**CLOUD, "data": DEPLOY, "data_base64": "e30="}),
        "both data and data_base64",
    ),
    "CloudEvent not base64": (message({**CLOUD, "data_base64": "???"}), "not base64"),
    "CloudEvent in XML": (
        message({**CLOUD, "datacontenttype": "application/xml", "data": "<x/>"}),
        "'application/xml' is not JSON",
    ),
    "CloudEvent no object": (
        message(["x"], {"content-type": "application/cloudevents+json"}),
        "is not a JSON object",
    ),
    "batch no list": (
        message({**CLOUD, "data": DEPLOY}, {"content-type": "application/cloudevents-batch+json"}),
        "wants a list",
    ),
    "Avro without a registry": (message(b"\0\0\0\0\7abc"), "it is Avro (schema 7)"),
}


@pytest.mark.parametrize("case", POISON)
def test_poison_says_why(case: str) -> None:
    """What is no event is refused with a reason that names what is wrong."""
    told, words = POISON[case]

    assert words in reason(told)


def test_reasons_stay_short() -> None:
    """However much a sender sends, the reason fits where dead letters keep it."""
    told = message({**DEPLOY, "type": "deploy", "version": "v" * 3000, "x" * 400: "y" * 400})

    assert len(reason(told)) < 1000


BAD_SCHEMAS = {
    "nothing": "",
    "a string": '"string"',
    "an array": '{"type":"array","items":"string"}',
    "a nested record": json.dumps(
        {
            "type": "record",
            "name": "Deploy",
            "fields": [{"name": "x", "type": {"type": "record", "name": "Y", "fields": []}}],
        }
    ),
    "a list of nothings": json.dumps(
        {
            "type": "record",
            "name": "Deploy",
            "fields": [{"name": "x", "type": {"type": "array", "items": "null"}}],
        }
    ),
    "itself": json.dumps(
        {"type": "record", "name": "Deploy", "fields": [{"name": "x", "type": ["null", "Deploy"]}]}
    ),
    "bytes": json.dumps({"type": "record", "name": "Deploy", "fields": [{"name": "x", "type": "bytes"}]}),
    "no fields": json.dumps({"type": "record", "name": "Deploy"}),
    "no name": json.dumps({"type": "record", "fields": []}),
    "a field twice": json.dumps(
        {
            "type": "record",
            "name": "D",
            "fields": [{"name": "x", "type": "int"}, {"name": "x", "type": "int"}],
        }
    ),
    "a field without a name": json.dumps({"type": "record", "name": "D", "fields": [{"type": "int"}]}),
    "an enum without a name": json.dumps(
        {"type": "record", "name": "D", "fields": [{"name": "x", "type": {"type": "enum", "symbols": ["A"]}}]}
    ),
}


@pytest.mark.parametrize("case", BAD_SCHEMAS)
def test_a_schema_that_no_event_can_have_is_refused(case: str) -> None:
    """Only flat records are read: nothing that nests, repeats or refers can come through a schema."""
    with pytest.raises(Invalid):
        flat_schema(BAD_SCHEMAS[case])


def test_avro_that_does_not_fit_its_schema() -> None:
    """Missing and surplus bytes, values out of bounds and unknown records are poison with a reason."""
    schema = flat_schema(json.dumps(METRIC_SCHEMA))
    at = datetime(2026, 2, 20, 17, 1, tzinfo=UTC)
    good = framed({"service": "a", "environment": "prod", "error_rate": 0.5, "timestamp": at})

    assert "do not fit the schema MetricEvent" in reason(message(good[:-9], key=None), schema)
    assert "more bytes follow" in reason(message(good + b"\1", key=None), schema)
    nan = framed({"service": "a", "environment": "prod", "error_rate": float("nan"), "timestamp": at})
    assert "error_rate: input should be" in reason(message(nan, key=None), schema)
    other = {**METRIC_SCHEMA, "name": "Order"}
    order = framed({"service": "a", "environment": "prod", "timestamp": at}, other)
    assert "its type 'Order' is not known" in reason(message(order, key=None), flat_schema(json.dumps(other)))


# ------------------------------------------------------------------ nothing else ever comes out

_HEADERS = st.dictionaries(
    st.sampled_from(["type", "content-type", "content-encoding", "ce_specversion", "ce_type", "ce_id", "x"]),
    st.sampled_from(
        ["deploy", "metric", "1.0", "application/json", "application/cloudevents+json", "", "\u00e9"]
    ),
)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*DEPLOY, *METRIC, *CLOUD, "data", "data_base64", "time", "z"]), inner, max_size=8
        )
    ),
    max_leaves=12,
)
_BODIES = st.binary(max_size=64) | _VALUES.map(lambda value: json.dumps(value).encode())


@settings(max_examples=examples(400), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(body=_BODIES, headers=_HEADERS, key=st.none() | st.just("prod/payments-api"))
def test_any_message_is_an_event_or_poison(body: bytes, headers: dict[str, str], key: str | None) -> None:
    """Whatever arrives, reading it answers events or `Poison`, and nothing else."""
    assert outcome(message(body, headers, key))


@settings(max_examples=examples(400), deadline=None)
@given(data=st.binary(max_size=48))
@example(data=b"\x02a\x02b\x02" + struct.pack("<d", 0.5) + b"\0" + b"\xff" * 9 + b"\x01")
@example(data=b"\x01a")
@example(data=b"\xfe\xff\xff\xff\x0f")
def test_any_avro_is_an_event_or_poison(data: bytes) -> None:
    """Bytes that claim to be a record, with lengths and times beyond all bounds, are poison at worst."""
    schema = flat_schema(json.dumps(METRIC_SCHEMA))
    assert outcome(message(b"\0\0\0\0\7" + data, key=None), schema)
