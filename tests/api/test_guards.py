"""A browser is not a way around the loopback fence, and no answer invites it to be one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr
from starlette.types import Message

from app.main import create_app
from app.wire.loopback import is_loopback
from tests.api.harness import DEPLOY, Harness, assert_problem, harness, make_settings


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:8001"},
        {"Origin": "null"},
        {"Origin": ""},
    ],
)
@pytest.mark.parametrize("path", ["/events/deploy", "/agent/run-once?service=payments-api"])
def test_another_site_may_not_post(api: Harness, path: str, headers: dict[str, str]) -> None:
    """Neither an event nor a pass of the loop can be caused by a page of another site."""
    assert_problem(api.post(path, json=DEPLOY, headers=headers), 403)
    assert api.incidents() == 0


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://127.0.0.1:8000"},
    ],
)
def test_programs_and_our_own_pages_may_post(api: Harness, headers: dict[str, str]) -> None:
    """The API page's own requests and programs without such headers pass."""
    assert api.post("/events/deploy", json=DEPLOY, headers=headers).status_code == 202


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "10.0.0.1",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "",
        "a@127.0.0.1",
    ],
)
@pytest.mark.parametrize("path", ["/incidents", "/dashboard", "/docs"])
def test_a_foreign_name_for_a_loopback_address_is_refused(api: Harness, path: str, host: str) -> None:
    """DNS rebinding does not let a page read the agent under its own name."""
    assert_problem(api.get(path, headers={"Host": host}), 421)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:9", "LOCALHOST", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "heal.localhost"],
)
def test_the_machines_own_names_are_answered(api: Harness, host: str) -> None:
    """Every name that a browser resolves to this machine only."""
    assert api.get("/healthz", headers={"Host": host}).status_code == 200


def test_an_agent_for_the_network_answers_to_any_name(tmp_path: Path) -> None:
    """Where who asks is known, names do not matter; posts across sites stay refused."""
    with harness(make_settings(tmp_path, require_identity=True)) as api:
        assert api.get("/healthz", headers={"Host": "heal.example.com"}).status_code == 200
        headers = {"Host": "heal.example.com", "Origin": "https://evil.example"}
        assert_problem(api.post("/events/deploy", json=DEPLOY, headers=headers), 403)


async def test_the_start_says_that_only_this_machine_is_heard(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without identity HOST is not listened on, and the log says how to change that."""
    settings = make_settings(tmp_path, host="0.0.0.0")  # noqa: S104  (the setting under test)
    assert settings.listens_on == "127.0.0.1"
    app = create_app(settings)
    with caplog.at_level(logging.INFO, logger="app.main"):
        async with app.router.lifespan_context(app):
            assert app.state.container is not None
    assert "authentication disabled: accepting localhost connections only" in caplog.text
    assert "HOST=0.0.0.0 is not listened on" in caplog.text
    assert app.state.container is None


@pytest.mark.parametrize("path", ["/incidents", "/healthz", "/docs"])
def test_without_identity_requests_from_elsewhere_are_refused(api: Harness, path: str) -> None:
    """The address that the connection used decides, not the configured one."""
    transport = httpx2.ASGITransport(app=api.transport.app)

    async def ask() -> httpx2.Response:
        async with httpx2.AsyncClient(transport=transport, base_url="http://192.0.2.7:8000") as client:
            return await client.get(path, headers={"Host": "localhost"})

    answer = assert_problem(api.run(ask()), 403)
    assert "REQUIRE_IDENTITY" in answer["detail"]


@pytest.mark.parametrize("path", ["/dashboard", "/docs", "/incidents", "/nowhere", "/static/style.css"])
def test_answers_instruct_the_browser_to_load_nothing_else(api: Harness, path: str) -> None:
    """The same headers on pages, data, problems and files."""
    headers = api.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers


@pytest.mark.parametrize(
    "path", ["/dashboard", "/incidents", "/v1/stats", "/v1/stats.csv", "/audit/people", "/nowhere"]
)
def test_no_browser_stores_what_an_answer_says(api: Harness, path: str) -> None:
    """Pages, data, exports and problems name services and people; a file of the program does not."""
    assert api.get(path).headers["cache-control"] == "no-store"
    assert "cache-control" not in api.get("/static/style.css").headers


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.255.0.9", True),
        ("::1", True),
        ("[::1]", True),
        ("::ffff:127.0.0.1", True),
        ("localhost.", True),
        ("0.0.0.0", False),  # noqa: S104  (a value under test)
        ("::", False),
        ("128.0.0.1", False),
        ("0x7f.1", False),
        ("", False),
        (None, False),
    ],
)
def test_what_loopback_is(host: str | None, expected: bool) -> None:
    """Addresses and names that mean this machine, however they are written."""
    assert is_loopback(host) is expected


# ------------------------------------------------------------------ proxies and foreign names

FORWARDING = [
    {"Forwarded": "for=203.0.113.9"},
    {"X-Forwarded-For": "203.0.113.9"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"X-Forwarded-Host": "localhost"},
    {"X-Forwarded-Proto": "https"},
    {"X-FORWARDED-ANYTHING": ""},
    {"Via": "1.1 proxy"},
    {"X-Real-IP": "203.0.113.9"},
    {"CF-Connecting-IP": "203.0.113.9"},
    {"X-Original-URL": "/incidents"},
]
TCP = (("127.0.0.1", 8000), ("127.0.0.1", 50000))
_BODY = json.dumps(DEPLOY).encode()
SOCKET_FILE = (("/run/heal.sock", None), None)


def _arrives(
    api: Harness,
    method: str,
    path: str,
    headers: dict[str, str],
    by: tuple[object, object],
    body: bytes = b"",
    more: tuple[tuple[bytes, bytes], ...] = (),
) -> httpx2.Response:
    """A request as the server hands it on, by TCP or by a socket file."""
    server, client = by
    given = {
        "host": "localhost",
        "content-type": "application/json",
        **{k.lower(): v for k, v in headers.items()},
    }
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [*((name.encode(), value.encode()) for name, value in given.items()), *more],
        "server": server,
        "client": client,
    }
    sent: list[Message] = []
    arrived = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return arrived.pop() if arrived else {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    api.run(api.app(scope, receive, send))
    content = b"".join(message.get("body", b"") for message in sent[1:])
    return httpx2.Response(sent[0]["status"], headers=sent[0]["headers"], content=content)


@pytest.mark.parametrize("by", [TCP, SOCKET_FILE], ids=["tcp", "socket file"])
@pytest.mark.parametrize("headers", FORWARDING, ids=lambda headers: next(iter(headers)))
def test_what_a_proxy_brings_is_refused_without_identity(
    api: Harness, headers: dict[str, str], by: tuple[object, object]
) -> None:
    """Whatever the forged headers say, they name no sender."""
    for method, path in (("GET", "/incidents"), ("GET", "/docs"), ("POST", "/events/deploy")):
        answer = assert_problem(_arrives(api, method, path, headers, by, json.dumps(DEPLOY).encode()), 403)
        assert "REQUIRE_IDENTITY" in answer["detail"]
    assert api.incidents() == 0


@pytest.mark.parametrize("by", [TCP, SOCKET_FILE], ids=["tcp", "socket file"])
@pytest.mark.parametrize("host", ["evil.example", "192.0.2.7:8000", "", "127.0.0.1.evil.example"])
def test_a_foreign_host_is_refused_by_whatever_way_it_comes(
    api: Harness, host: str, by: tuple[object, object]
) -> None:
    """A name that an attacker points at this machine reaches a socket file behind a proxy as well."""
    assert_problem(_arrives(api, "GET", "/incidents", {"Host": host}, by), 421)
    assert_problem(_arrives(api, "POST", "/events/deploy", {"Host": host}, by), 421)
    second = (b"host", host.encode())
    assert_problem(_arrives(api, "GET", "/incidents", {}, by, more=(second,)), 421)
    local = (b"host", b"localhost")
    length = (b"content-length", str(len(_BODY)).encode())
    hosts = {"Host": host}
    assert_problem(_arrives(api, "POST", "/events/deploy", hosts, by, _BODY, (length, local)), 421)


@pytest.mark.parametrize("by", [TCP, SOCKET_FILE], ids=["tcp", "socket file"])
def test_this_machine_is_answered_by_whatever_way_it_asks(api: Harness, by: tuple[object, object]) -> None:
    """A program on it that names it, and adds nothing of a proxy's."""
    assert _arrives(api, "GET", "/incidents", {}, by).status_code == 200
    body = json.dumps(DEPLOY).encode()
    assert _arrives(api, "POST", "/events/deploy", {}, by, body).status_code == 202
    delivery = b'{"version": "4", "alerts": []}'
    assert _arrives(api, "POST", "/webhooks/alertmanager", {}, by, delivery).status_code == 202


@pytest.mark.parametrize("by", [TCP, SOCKET_FILE], ids=["tcp", "socket file"])
@pytest.mark.parametrize("headers", [*FORWARDING, {"Host": "10.0.0.7:8000"}], ids=str)
def test_probes_get_a_status_and_nothing_else(
    api: Harness, headers: dict[str, str], by: tuple[object, object]
) -> None:
    """The operator behind a proxy may ask whether the agent is up, and learns nothing else about it."""
    for path in ("/healthz", "/readyz"):
        answer = _arrives(api, "GET", path, headers, by)
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert_problem(_arrives(api, "POST", "/healthz", headers, by), 421 if "Host" in headers else 403)


def test_a_probe_from_elsewhere_does_not_learn_what_is_missing(tmp_path: Path) -> None:
    """The status says that it is not ready; what it depends on stays on this machine."""
    with harness(make_settings(tmp_path)) as api:
        api.run(api.container.store.close())
        here = _arrives(api, "GET", "/readyz", {}, TCP)
        assert "store" in assert_problem(here, 503)["detail"]
        answer = _arrives(api, "GET", "/readyz", {"Via": "1.1 proxy"}, TCP)
        assert (answer.status_code, answer.json()) == (503, {"status": "unavailable"})
        assert answer.headers["retry-after"]


@pytest.mark.parametrize("headers", [*FORWARDING, {"Host": "heal.example.com"}], ids=str)
def test_webhooks_prove_themselves_behind_a_proxy_too(tmp_path: Path, headers: dict[str, str]) -> None:
    """With its token Alertmanager is accepted through a proxy; without one no proxy gives access."""
    body = json.dumps({"version": "4", "alerts": []}).encode()
    path = "/webhooks/alertmanager"
    for token, status in ((SecretStr("s3cret"), 202), (None, 403)):
        folder = tmp_path / str(status)
        folder.mkdir()
        with harness(make_settings(folder, alertmanager_token=token)) as api:
            proved = {**headers, "Authorization": "Bearer s3cret"}
            assert _arrives(api, "POST", path, proved, TCP, body).status_code == status
            if token is not None:
                assert _arrives(api, "POST", path, headers, TCP, body).status_code == 401


def test_with_identity_proxies_are_as_welcome_as_others(tmp_path: Path) -> None:
    """The token says who asks, whatever brought the request."""
    with harness(make_settings(tmp_path, require_identity=True)) as api:
        headers = {"Via": "1.1 proxy", "Host": "heal.example.com"}
        assert _arrives(api, "GET", "/incidents", headers, TCP).status_code == 401
        assert "checks" in _arrives(api, "GET", "/readyz", headers, TCP).json()
