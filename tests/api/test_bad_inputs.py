"""Bad input gets a problem document that names the field, the value and the fix, and leaves no trace."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from app.connectors.registry import ALERT_FORMATS
from tests.api.harness import DEPLOY, METRIC, Harness, assert_problem, harness, make_settings

DELIVERIES = tuple(f"/webhooks/{one.name}" for one in ALERT_FORMATS)

JSON = {"Content-Type": "application/json"}


def _metric(**changes: Any) -> dict[str, Any]:
    return {**METRIC, **changes}


def _deploy(**changes: Any) -> dict[str, Any]:
    return {**DEPLOY, **changes}


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"error_rate": 1.5}, "error_rate"),
        ({"error_rate": -0.1}, "error_rate"),
        ({"error_rate": True}, "error_rate"),
        ({"error_rate": "0.1"}, "error_rate"),
        ({"error_rate": [0.1]}, "error_rate"),
        ({"p95_latency_ms": -1}, "p95_latency_ms"),
        ({"p95_latency_ms": 1e12}, "p95_latency_ms"),
        ({"p95_latency_ms": False}, "p95_latency_ms"),
        ({"crash_looping": 1}, "crash_looping"),
        ({"crash_looping": "true"}, "crash_looping"),
        ({"service": "Payments"}, "service"),
        ({"service": "-payments"}, "service"),
        ({"service": "payments-"}, "service"),
        ({"service": "payments.api"}, "service"),
        ({"service": "payments_api"}, "service"),
        ({"service": "payments\n"}, "service"),
        ({"service": ""}, "service"),
        ({"service": "a" * 64}, "service"),
        ({"service": "zahlungen-ä"}, "service"),
        ({"service": "١٢"}, "service"),
        ({"service": None}, "service"),
        ({"service": 7}, "service"),
        ({"environment": "prod/eu"}, "environment"),
        ({"timestamp": 5}, "timestamp"),
        ({"timestamp": 1771606860.0}, "timestamp"),
        ({"timestamp": True}, "timestamp"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "1771606860"}, "timestamp"),
        ({"timestamp": "2026-02-20T17:01:00"}, "timestamp"),
        ({"timestamp": "2026-02-20"}, "timestamp"),
        ({"timestamp": "2026-02-30T17:01:00Z"}, "timestamp"),
        ({"timestamp": "2026-02-20T25:01:00Z"}, "timestamp"),
        ({"timestamp": "2026-02-20T17:01:00+99:00"}, "timestamp"),
        ({"timestamp": "2026-02-20T17:07:01Z"}, "timestamp"),
        ({"timestamp": "9999-12-31T23:59:59Z"}, "timestamp"),
        ({"timestamp": "9999-12-31T23:59:59-01:00"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": "0001-01-01T00:00:00+01:00"}, "timestamp"),
        ({"timestamp": "0000-01-01T00:00:00Z"}, "timestamp"),
        ({"timestamp": "1999-12-31T23:59:59Z"}, "timestamp"),
        ({"timestamp": "20260220T170100Z"}, "timestamp"),
        ({"timestamp": "2026-02-20T17:01:00Z\n"}, "timestamp"),
        ({"timestamp": "٢٠٢٦-02-20T17:01:00Z"}, "timestamp"),
        ({"error_ratio": 0.1}, "error_ratio"),
        ({"": 1}, '""'),
        ({"error_rate": None, "p95_latency_ms": None, "crash_looping": None}, "body"),
    ],
)
def test_a_metric_that_cannot_be_true_is_refused(api: Harness, changes: dict[str, Any], field: str) -> None:
    """The field is named, alone and inside a list, and nothing is recorded."""
    document = assert_problem(api.post("/events/metric", json=_metric(**changes)), 422)
    assert [error["field"] for error in document["errors"]] == [field]

    document = assert_problem(api.post("/events/metric", json=[METRIC, _metric(**changes)]), 422)
    expected = "[1]" if field == "body" else f"[1].{field}"
    assert [error["field"] for error in document["errors"]] == [expected]
    assert api.incidents() == 0


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"status": "broken"}, "status"),
        ({"status": "FAILED"}, "status"),
        ({"status": True}, "status"),
        ({"version": ""}, "version"),
        ({"version": "   "}, "version"),
        ({"version": "1.0\n2.0"}, "version"),
        ({"version": "1.0\u202egnp"}, "version"),
        ({"version": "v" * 129}, "version"),
        ({"version": 1.15}, "version"),
        ({"commit_sha": "not-hex"}, "commit_sha"),
        ({"commit_sha": "abc"}, "commit_sha"),
        ({"commit_sha": "a" * 65}, "commit_sha"),
        ({"irreversible": "yes"}, "irreversible"),
        ({"irreversible": None}, "irreversible"),
        ({"rollback": True}, "rollback"),
    ],
)
def test_a_deploy_that_cannot_be_true_is_refused(api: Harness, changes: dict[str, Any], field: str) -> None:
    """The field is named, and nothing is recorded."""
    document = assert_problem(api.post("/events/deploy", json=_deploy(**changes)), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert api.incidents() == 0


@pytest.mark.parametrize("field", ["service", "environment", "version", "status", "timestamp"])
def test_a_missing_field_is_named(api: Harness, field: str) -> None:
    """A missing field has no value to show, and a fix."""
    body = {name: value for name, value in DEPLOY.items() if name != field}
    document = assert_problem(api.post("/events/deploy", json=body), 422)
    assert document["errors"][0] == {
        "field": field,
        "value": None,
        "message": "is missing",
        "fix": document["errors"][0]["fix"],
        "mend": document["errors"][0]["fix"],
    }


def test_every_misfit_is_reported_at_once(api: Harness) -> None:
    """A sender mends a body in one go, not field by field."""
    document = assert_problem(
        api.post("/events/metric", json=[_metric(error_rate=2), _metric(service="A", surplus=1)]), 422
    )
    assert [error["field"] for error in document["errors"]] == [
        "[0].error_rate",
        "[1].service",
        "[1].surplus",
    ]
    assert document["errors"][0]["value"] == 2


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b"   \n", "empty"),
        (b"{", "line 1"),
        (b'{"service": "payments-api",}', "line 1"),
        (b"{} {}", "Extra data"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'{"error_rate": NaN}', "NaN"),
        (b'{"error_rate": Infinity}', "Infinity"),
        (b'{"error_rate": -Infinity}', "-Infinity"),
        (b'{"error_rate": 1e999}', "1e999"),
        (b'{"error_rate": -1e999}', "-1e999"),
        (b'{"error_rate": ' + b"9" * 400 + b"}", "digits"),
        (b'{"error_rate": ' + b"9" * 5000 + b"}", "digits"),
        (b'{"error_rate": 0.1, "error_rate": 0.2}', "twice"),
        (b'{"a": {"b": 1, "b": 2}}', "twice"),
        (b"[" * 33 + b"]" * 33, "nested"),
        (b"[" * 30_000 + b"]" * 30_000, "nested"),
        (b"[" * 60_000, "nested"),
        (b'{"a":' * 10_000, "nested"),
        (b'{"version": "1\\u0000"}', "NUL"),
        (b'{"version": "\\ud800"}', "surrogate"),
        (b'{"\\udfff": 1}', "surrogate"),
        (b'[{"a": ["\\ud800"]}]', "surrogate"),
    ],
)
@pytest.mark.parametrize("path", ["/events/metric", "/events/deploy", *DELIVERIES])
def test_a_body_that_is_no_sound_json_is_refused(api: Harness, path: str, raw: bytes, said: str) -> None:
    """Broken JSON, and JSON that cannot be carried further, is a 400 that says where or why."""
    response = api.post(path, content=raw, headers=JSON)
    document = assert_problem(response, 400)
    told = json.dumps(document)
    assert said in told
    assert api.incidents() == 0


@pytest.mark.parametrize("raw", [b"1", b'"text"', b"null", b"true", b"[]", b"[1]", b"[[]]", b"[null]"])
def test_json_that_is_no_event_is_refused(api: Harness, raw: bytes) -> None:
    """Neither a scalar, nor an empty list, nor a list of anything else is an event."""
    assert_problem(api.post("/events/deploy", content=raw, headers=JSON), 422)


def test_a_list_is_refused_beyond_a_thousand_entries(api: Harness) -> None:
    """The limit is named, so that a sender knows how to split."""
    document = assert_problem(
        api.post("/events/metric", content=b"[" + b"0," * 1000 + b"0]", headers=JSON), 422
    )
    assert "1 to 1000" in document["detail"]
    assert len(document["errors"]) == 1


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "application/jsonp"},
        {"Content-Type": "application/json; charset=latin-1"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ],
)
def test_another_form_of_body_is_refused(api: Harness, headers: dict[str, str]) -> None:
    """Only JSON in UTF-8, uncompressed, is read."""
    response = api.post("/events/deploy", content=json.dumps(DEPLOY), headers=headers)
    assert_problem(response, 415)
    assert api.incidents() == 0


def test_a_compressed_body_is_refused_by_name(api: Harness) -> None:
    """The answer names the encoding and says what is taken instead."""
    response = api.post(
        "/events/deploy",
        content=gzip.compress(json.dumps(DEPLOY).encode()),
        headers={**JSON, "Content-Encoding": "gzip"},
    )
    document = assert_problem(response, 415)
    assert "gzip" in document["detail"]
    assert response.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", '; charset="UTF-8"'])
def test_json_in_utf8_is_taken_however_it_is_written(api: Harness, charset: str) -> None:
    """Parameters of the media type that change nothing are no reason to refuse."""
    headers = {"Content-Type": f"Application/JSON{charset}"}
    response = api.post("/events/deploy", content=json.dumps(DEPLOY), headers=headers)
    assert response.status_code == 202


@pytest.mark.parametrize("path", ["/events/metric", "/events/deploy", *DELIVERIES])
def test_ten_megabytes_are_refused(api: Harness, path: str) -> None:
    """A declared length over the limit is refused before a byte is read."""
    response = api.post(path, content=b" " * 10_000_000, headers=JSON)
    document = assert_problem(response, 413)
    assert "65536" in document["detail"]


@pytest.mark.parametrize("declared", [None, "10", "0", "-1", "abc", "\u0661"])
def test_a_body_is_counted_whatever_it_declares(api: Harness, declared: str | None) -> None:
    """Chunked bodies and lying lengths end at the limit, and no more than that is taken in."""
    taken = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(1000):
            taken += 10_000
            yield b" " * 10_000

    headers: dict[str, Any] = dict(JSON)
    if declared is not None:
        headers["Content-Length"] = declared.encode()
    response = api.post("/events/metric", content=chunks(), headers=headers)
    assert_problem(response, 413)


def test_a_body_exactly_at_the_limit_is_read(api: Harness) -> None:
    """The limit is the largest size that is taken."""
    raw = json.dumps(DEPLOY).encode()
    at_limit = raw + b" " * (65_536 - len(raw))
    assert api.post("/events/deploy", content=at_limit, headers=JSON).status_code == 202
    assert_problem(api.post("/events/deploy", content=at_limit + b" ", headers=JSON), 413)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.0", "limit"),
        ("limit=1e999", "limit"),
        ("limit=NaN", "limit"),
        ("limit=1_0", "limit"),
        ("limit=%2010", "limit"),
        ("limit=%D9%A1", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=", "limit"),
        ("limit=1&limit=2", "limit"),
        ("cursor=nonsense", "cursor"),
        ("cursor=", "cursor"),
        ("cursor=%00", "cursor"),
        ("cursor=%ED%A0%80", "cursor"),
        ("cursor=" + "a" * 513, "cursor"),
        ("service=UPPER", "service"),
        ("environment=%00", "environment"),
        ("state=closed", "state"),
        ("since=yesterday", "since"),
        ("since=5", "since"),
        ("since=2026-02-20T17:00:00", "since"),
        ("until=9999-12-31T23:59:59-01:00", "until"),
        ("since=2026-02-20T17:00:00Z&until=2026-02-20T17:00:00Z", "until"),
        ("stat=open", "stat"),
        ("%FF=1", "\ufffd"),
    ],
)
def test_a_listing_that_cannot_be_asked_for_is_refused(api: Harness, query: str, field: str) -> None:
    """Unknown, repeated and misshapen parameters are named instead of ignored."""
    document = assert_problem(api.get(f"/incidents?{query}"), 422)
    assert [error["field"] for error in document["errors"]] == [field]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("", "service"),
        ("service=", "service"),
        ("service=Payments", "service"),
        ("service=payments-api&environment=", "environment"),
        ("service=payments-api&env=prod", "env"),
        ("service=a&service=b", "service"),
    ],
)
def test_run_once_needs_a_service(api: Harness, query: str, field: str) -> None:
    """The parameter is named, and no pass is run."""
    document = assert_problem(api.post(f"/agent/run-once?{query}"), 422)
    assert [error["field"] for error in document["errors"]] == [field]


@pytest.mark.parametrize(
    "path",
    [
        "/incidents/none",
        "/incidents/inc_" + "0" * 32,
        "/incidents/inc_%00",
        "/incidents/%ff",
        "/signals/none",
        "/signals/sig_" + "0" * 32,
        "/signals/%00",
        "/nowhere",
        "/static/none.css",
        "/static/%00",
        "/static/../main.py",
        "/static/%2e%2e/pages.py",
        "/events",
        "/incidents/",
    ],
)
def test_what_does_not_exist_is_a_404(api: Harness, path: str) -> None:
    """Unknown ids and paths alike, whatever characters they hold."""
    assert_problem(api.get(path), 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/events/deploy"),
        ("PUT", "/events/metric"),
        ("GET", "/agent/run-once"),
        ("POST", "/incidents"),
        ("DELETE", "/incidents/inc_" + "0" * 32),
        ("PATCH", "/healthz"),
        ("POST", "/dashboard"),
        ("POST", "/static/style.css"),
    ],
)
def test_another_method_is_a_405(api: Harness, method: str, path: str) -> None:
    """A path that does not answer a method says so in the same form."""
    assert_problem(api.request(method, path), 405)


def test_a_credential_in_a_version_is_not_kept(tmp_path: Path) -> None:
    """A pipeline names the address of its run: the release is on record, without user and query."""
    with harness(make_settings(tmp_path)) as api:
        for version in ("https://ann:hunter2@ci.example/7?sig=hunter3", "1.15.0 password=hunter4"):
            assert api.post("/events/deploy", json=_deploy(version=version)).status_code == 202
    kept = b"".join(file.read_bytes() for file in tmp_path.glob("heal.db*"))
    assert b"https://ci.example/7" in kept
    assert b"hunter" not in kept
