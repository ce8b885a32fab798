"""No input gives a 500: every endpoint against arbitrary bytes, JSON, parameters and headers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.connectors.registry import ALERT_FORMATS
from tests.api.harness import DEPLOY, METRIC, PROBLEM_JSON, Harness, assert_problem, harness, make_settings

fuzz = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

POSTS = [
    "/events/deploy",
    "/events/metric",
    *(f"/webhooks/{one.name}" for one in ALERT_FORMATS),
    "/approvals/apr_00000000000000000000000000000000",
]
GETS = [
    "/incidents",
    "/incidents/{}",
    "/signals/{}",
    "/dashboard",
    "/dashboard/incidents/{}",
    "/static/{}",
    "/healthz",
    "/version",
    "/{}",
]

_nasty = st.sampled_from(
    [
        "",
        "\x00",
        "\ud800",
        "\u202e",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "2026-02-20T17:00:00Z",
        "2026-02-20T17:00:60Z",
        "payments-api",
        "a" * 64,
        "<script>alert(1)</script>",
        "{{7*7}}",
        "1e999",
        "failed",
        "../../etc/passwd",
    ]
)
_text = st.text(max_size=40) | _nasty
_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | _text | st.just(10**30) | st.just(-(10**400))
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
    max_leaves=12,
)
_field = st.sampled_from(sorted({*DEPLOY, *METRIC, "irreversible", "alerts", "version", "labels"})) | _text


@st.composite
def _near_events(draw: st.DrawFn) -> Any:
    """An event of the contract with some fields replaced, added or taken away, alone or in lists."""
    event: dict[str, Any] = dict(draw(st.sampled_from([DEPLOY, METRIC])))
    for name in draw(st.lists(_field, max_size=3)):
        if draw(st.booleans()):
            event[name] = draw(_values)
        else:
            event.pop(name, None)
    return draw(st.sampled_from([event, [event], [event, event], {"version": "4", "alerts": [event]}]))


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    """One application for the whole module: what earlier inputs left behind is part of the test."""
    folder: Path = tmp_path_factory.mktemp("fuzz")
    with harness(make_settings(folder)) as one:
        yield one


def _assert_sound(response: httpx2.Response, *, page: bool = False) -> None:
    """Not a fault of the agent, and every refusal is a problem document (or a page)."""
    assert response.status_code < 500, response.text
    if response.status_code >= 400 and not (
        page and response.headers["content-type"].startswith("text/html")
    ):
        assert_problem(response, response.status_code)


@fuzz
@given(path=st.sampled_from(POSTS), body=st.binary(max_size=200))
def test_arbitrary_bytes(api: Harness, path: str, body: bytes) -> None:
    """Bytes that are hardly ever JSON."""
    _assert_sound(api.post(path, content=body, headers={"Content-Type": "application/json"}))


@fuzz
@given(path=st.sampled_from(POSTS), value=_near_events() | _values)
def test_arbitrary_json(api: Harness, path: str, value: Any) -> None:
    """JSON as Python writes it: infinities, surrogates and numbers without end included."""
    body = json.dumps(value).encode()
    _assert_sound(api.post(path, content=body, headers={"Content-Type": "application/json"}))


_names = st.sampled_from(
    [
        "Content-Type",
        "Content-Length",
        "Content-Encoding",
        "Transfer-Encoding",
        "Idempotency-Key",
        "Origin",
        "Sec-Fetch-Site",
        "Host",
        "Authorization",
        "Accept",
        "Cookie",
        "X-Forwarded-For",
        "Expect",
    ]
)
_header_values = st.binary(max_size=40) | st.sampled_from(
    [
        b"application/json",
        b"application/json; charset=\xff",
        b"gzip",
        b"Bearer \xe9",
        b"chunked",
        b"[::1]:99999",
    ]
)


@fuzz
@given(
    path=st.sampled_from([*POSTS, "/agent/run-once?service=nobody", "/incidents"]),
    headers=st.lists(st.tuples(_names, _header_values), max_size=4),
)
def test_arbitrary_headers(api: Harness, path: str, headers: list[tuple[str, bytes]]) -> None:
    """Headers that a server would let through, whatever bytes they hold."""
    given_headers: Any = [(name.encode(), value) for name, value in headers]
    _assert_sound(api.post(path, content=json.dumps(DEPLOY).encode(), headers=given_headers))


_query_names = (
    st.sampled_from(["limit", "cursor", "service", "environment", "state", "since", "until"]) | _text
)
_query = st.lists(st.tuples(_query_names, _text), max_size=4)


@fuzz
@given(path=st.sampled_from(GETS), part=_text, query=_query)
def test_arbitrary_paths_and_queries(
    api: Harness, path: str, part: str, query: list[tuple[str, str]]
) -> None:
    """Path segments and parameters of any text, percent-encoded as it comes."""
    response = api.get(f"{path.format(_quoted(part))}?{_query_string(query)}")
    _assert_sound(response, page=path.startswith("/dashboard"))


@fuzz
@given(query=_query)
def test_arbitrary_passes(api: Harness, query: list[tuple[str, str]]) -> None:
    """Whatever is asked of run-once."""
    _assert_sound(api.post(f"/agent/run-once?{_query_string(query)}"))


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode("utf-8", "surrogatepass"))


def _query_string(query: list[tuple[str, str]]) -> str:
    return "&".join(f"{_quoted(name)}={_quoted(value)}" for name, value in query)


def test_the_content_type_of_problems_is_checked() -> None:
    """The assertion that every fuzz test relies on does fail."""
    plain = httpx2.Response(422, json={"status": 422}, headers={"Content-Type": "application/json"})
    with pytest.raises(AssertionError):
        _assert_sound(plain)
    assert plain.headers["content-type"] != PROBLEM_JSON
