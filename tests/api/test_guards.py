"""A browser is not a way around the loopback fence, and no answer invites it to be one."""

from __future__ import annotations

import logging
from pathlib import Path

import httpx
import pytest

from app.loopback import is_loopback
from app.main import create_app
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
    assert "only this machine is heard" in caplog.text
    assert "HOST=0.0.0.0 is not listened on" in caplog.text
    assert app.state.container is None


@pytest.mark.parametrize("path", ["/incidents", "/healthz", "/docs"])
def test_without_identity_nobody_further_away_is_heard(api: Harness, path: str) -> None:
    """Whatever address the server was told to listen on, the one that a connection came in by decides."""
    transport = httpx.ASGITransport(app=api.transport.app)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://192.0.2.7:8000") as client:
            return await client.get(path, headers={"Host": "localhost"})

    answer = assert_problem(api.run(ask()), 403)
    assert "REQUIRE_IDENTITY" in answer["detail"]


@pytest.mark.parametrize("path", ["/dashboard", "/docs", "/incidents", "/nowhere", "/static/style.css"])
def test_answers_tell_the_browser_to_load_nothing_else(api: Harness, path: str) -> None:
    """The same headers on pages, data, problems and files."""
    headers = api.get(path).headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert "access-control-allow-origin" not in headers


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
