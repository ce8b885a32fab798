"""The sandbox as a server: labelled on every answer, started from page and API, connected to nothing real."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from app.config import Settings
from app.connectors.registry import CHANNELS, LOG_SOURCES, METRIC_SOURCES, SILENCE_SOURCES
from app.main import FOR_SANDBOX, create_app
from app.sandbox.cluster import SandboxReader, SandboxWatch, SandboxWriter
from app.sandbox.metrics import SandboxMetrics
from app.settings.entries import Role
from app.settings.sandbox import IN_FORCE
from app.simulation.sandbox import sandbox_settings
from tests.api.harness import RUNBOOKS, assert_problem

SPEED = 50.0
PATIENCE_SECONDS = 120.0
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def sandboxed(**changes: Any) -> Settings:
    values: dict[str, Any] = {"runbooks_dir": RUNBOOKS, "sandbox": True, "sandbox_speed": SPEED}
    return Settings(_env_file=None, **{**values, **changes})


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[tuple[FastAPI, httpx2.AsyncClient]]:
    """The application with its whole lifespan, and a client on this machine."""
    app = create_app(settings)
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 50000))
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client,
    ):
        yield app, client


async def until_one(client: httpx2.AsyncClient, state: str) -> dict[str, Any]:
    """The first incident in this state."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            items = (await client.get("/incidents", params={"state": state})).json()["items"]
            if items:
                found: dict[str, Any] = items[0]
                return found
            await asyncio.sleep(0.05)


@contextmanager
def real_system() -> Iterator[tuple[str, list[socket.socket]]]:
    """An address that counts who connects to it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.setblocking(False)
        callers: list[socket.socket] = []
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", callers
        try:
            while True:
                callers.append(listening.accept()[0])
        except BlockingIOError:
            pass
        for one in callers:
            one.close()


async def test_a_bad_release_is_approved_and_healed_with_no_real_system_connected(tmp_path: Path) -> None:
    """With every connector configured, none is constructed and nothing connects to their addresses."""
    mine = tmp_path / "mine.db"
    with real_system() as (address, callers):
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            "{apiVersion: v1, kind: Config, current-context: c, "
            f"clusters: [{{name: c, cluster: {{server: '{address}'}}}}], "
            "users: [{name: u, user: {token: t}}], contexts: [{name: c, context: {cluster: c, user: u}}]}"
        )
        settings = sandboxed(
            kubeconfig=kubeconfig,
            prometheus_url=address,
            alertmanager_url=address,
            notify_webhook_url=SecretStr(address),
            teams_webhook_url=SecretStr(address),
            intake_from=(SecretStr(address.replace("http", "redis") + "/stream"),),
            database_url=SecretStr(f"sqlite:///{mine}"),
            dry_run=True,
        )
        async with serving(settings) as (app, client):
            world = app.state.container.world
            assert isinstance(world.reader, SandboxReader)
            assert isinstance(world.owners, SandboxReader)
            assert isinstance(world.writer, SandboxWriter)
            assert isinstance(world.watch, SandboxWatch)
            assert isinstance(world.metrics, SandboxMetrics)
            assert (world.silences, world.channels, world.notifier) == (None, (), None)
            assert app.state.container.streams == ()
            assert app.state.container.chats == {}
            started = await client.post("/v1/sandbox/scenarios/bad-release/start")
            assert started.status_code == 202
            assert started.json()["environment"] == "sandbox"
            asked = await until_one(client, "awaiting_approval")
            assert asked["environment"] == "sandbox"
            (approval,) = (await client.get("/approvals", params={"state": "pending"})).json()["items"]
            said = {"decision": "approve", "by": "visitor"}
            assert (await client.post(f"/approvals/{approval['id']}", json=said)).status_code == 200
            healed = await until_one(client, "recovered")
            assert healed["id"] == asked["id"]
            assert not healed["dry_run"]
    assert callers == []
    assert not mine.exists()


async def test_every_answer_of_the_sandbox_says_so() -> None:
    """Pages, API and OpenAPI document; those of the agent do not."""
    async with serving(sandboxed()) as (app, client):
        await client.post("/v1/sandbox/scenarios/traffic-surge/start")
        for path in ("/dashboard", "/dashboard/incidents/unknown", "/sandbox", "/docs", "/sign-on/token"):
            page = await client.get(path)
            assert "SANDBOX</strong> Simulated cluster" in page.text, path
            assert "(sandbox)</title>" in page.text, path
            assert "LIVE</strong>" not in page.text
        for path in ("/incidents", "/healthz", "/version", "/nowhere", "/static/style.css", "/sandbox"):
            assert (await client.get(path)).headers["Heal-Sandbox"] == "simulated-cluster", path
        assert (await client.get("/version")).json()["sandbox"] is True
        assert app.title.endswith("(sandbox)")
        assert "traffic-surge" in (await client.get("/sandbox")).text


async def test_outside_the_sandbox_there_is_none_of_it(tmp_path: Path) -> None:
    """No label, no page, no route."""
    settings = Settings(_env_file=None, database_url=SecretStr(f"sqlite:///{tmp_path / 'heal.db'}"))
    async with serving(settings) as (_, client):
        assert "Heal-Sandbox" not in (await client.get("/version")).headers
        assert (await client.get("/version")).json()["sandbox"] is False
        assert "SANDBOX" not in (await client.get("/dashboard")).text
        for path in ("/sandbox", "/v1/sandbox"):
            assert (await client.get(path)).status_code == 404


async def test_a_scenario_starts_from_page_and_api() -> None:
    """Each start has an environment of its own; an unknown name is an error that lists the names."""
    async with serving(sandboxed()) as (_, client):
        before = (await client.get("/v1/sandbox")).json()
        assert before["run"] is None
        assert before["speed"] == SPEED
        names = [one["name"] for one in before["scenarios"]]
        assert names[0] == "bad-release"
        assert all(one["about"] and one["title"] for one in before["scenarios"])
        posted = await client.post(f"/sandbox/scenarios/{names[0]}", headers=FORM)
        assert (posted.status_code, posted.headers["location"]) == (303, "/sandbox")
        again = (await client.post(f"/v1/sandbox/scenarios/{names[1]}/start")).json()
        assert again["environment"] == "sandbox-2"
        assert (await client.get("/v1/sandbox")).json()["run"]["scenario"] == names[1]
        wrong = await client.post("/v1/sandbox/scenarios/no-such/start")
        assert names[0] in assert_problem(wrong, 404)["detail"]
        assert (await client.post("/sandbox/scenarios/no-such", headers=FORM)).status_code == 404
        foreign = {"Sec-Fetch-Site": "cross-site"}
        for path in (f"/sandbox/scenarios/{names[0]}", f"/v1/sandbox/scenarios/{names[0]}/start"):
            assert (await client.post(path, headers=foreign)).status_code == 403


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_only_the_settings_in_force_apply(name: str) -> None:
    """A setting that no one listed, such as that of a new connector, has its default in the sandbox."""
    given = Settings.model_construct(sandbox=True)
    default = Settings.model_fields[name].default
    changed = sandbox_settings(given.model_copy(update={name: _another(name, default)}))
    plain = sandbox_settings(given)
    if name in IN_FORCE:
        assert getattr(changed, name) == _another(name, default)
    else:
        assert changed == plain
    assert changed.listens_on in {"127.0.0.1", "localhost"}


def test_no_setting_that_connects_a_system_is_in_force() -> None:
    """Those of every registered vendor, and those of cluster, store, streams and sign-in."""
    connecting = {name.lower() for metrics in METRIC_SOURCES for name in metrics.settings}
    connecting |= {name.lower() for silences in SILENCE_SOURCES for name in silences.settings}
    connecting |= {name.lower() for logs in LOG_SOURCES for name in logs.settings}
    connecting |= {"kubeconfig", "kube_in_cluster", "database_url", "intake_from", "oidc_issuer"}
    channels = {kind.name for kind in CHANNELS} | {"notify"}
    assert connecting <= set(Settings.model_fields)
    assert not connecting & IN_FORCE
    assert not [name for name in IN_FORCE if name.partition("_")[0] in channels]


def _another(name: str, default: object) -> object:
    """A value that is not the default; of some settings one that others allow."""
    if name == "verify_timeout_seconds":
        return 900.0
    others: dict[type, object] = {bool: not default, int: 7, float: 77.0, Role: Role.API}
    return others.get(type(default), f"another-{name}")


def test_own_scenarios_are_offered_and_replace_those_of_the_same_name(tmp_path: Path) -> None:
    """A file of SANDBOX_SCENARIOS in the documented format."""
    from app.sandbox.scenarios.playground import OFFERED, offered

    text = next(OFFERED.glob("*bad-release.yaml")).read_text()
    (tmp_path / "one.yaml").write_text(text.replace("A bad release", "Mine"))
    (tmp_path / "two.yaml").write_text(text.replace("id: bad-release", "id: other"))
    found = {one.scenario.id: one.scenario.title for one in offered(tmp_path)}
    assert found["bad-release"] == "Mine"
    assert "other" in found
    assert len(found) == len(offered(None)) + 1


def test_the_routes_of_the_sandbox_need_a_scope() -> None:
    """As those of the agent do."""
    from tests.api.test_access import _scope_of

    routes = [one for module in FOR_SANDBOX for one in module.router.routes]
    assert all(_scope_of(one) is not None for one in routes)
    assert len(routes) == 4
