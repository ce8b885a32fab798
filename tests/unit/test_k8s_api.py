"""What the connector makes of answers that an API server or a proxy before it can give."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from app.agent.ids import JsonObject, ServiceKey
from app.agent.models import Action, ActionName, Risk
from app.agent.workload import ObjectRef
from app.bounds.backoff import Backoff
from app.clock import SystemClock
from app.config import Settings
from app.connectors.k8s import KubernetesReader, connect
from app.connectors.kubernetes.api import (
    Connection,
    Kind,
    PatchApi,
    ReadApi,
)
from app.connectors.kubernetes.catalog import WorkloadCatalog
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.errors import Expired
from app.connectors.kubernetes.mapping import ServiceMap
from app.connectors.kubernetes.reading.informer import WatchTiming
from app.connectors.kubernetes.reading.objects import LiveObjects
from app.connectors.kubernetes.reading.view import ClusterView
from app.connectors.kubernetes.watch import KubernetesWatch
from app.connectors.kubernetes.writing import KubernetesRehearsal
from app.errors import ConfigurationError, Forbidden, TransientError, UnknownOutcome
from tests.contract.loopback import Answer, Fate, Loopback, Request, kubeconfig_for, loopback, status
from tests.unit.k8s_samples import REF, deployment

Made = Callable[..., Connection]


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type] # pydantic checks the values


@pytest.fixture
async def server() -> AsyncIterator[Loopback]:
    """A server whose answers the test sets."""
    async with loopback() as made:
        yield made


@pytest.fixture
async def connection(server: Loopback, tmp_path: Path) -> AsyncIterator[Made]:
    """Connections to it."""
    opened: list[Connection] = []

    def make(*, dry_run: bool = False, timeout_seconds: float = 30) -> Connection:
        config = load_config(settings(kubeconfig=kubeconfig_for(server.url, tmp_path)))
        assert config is not None
        opened.append(Connection(config, timeout_seconds=timeout_seconds, dry_run=dry_run))
        return opened[-1]

    yield make
    for one in opened:
        await one.close()


def listing(*names: str, page: str = "") -> Answer:
    items = [{"metadata": {"name": name, "namespace": "payments"}} for name in names]
    metadata = {"resourceVersion": "5", "continue": page}
    return Answer(code=200, body=json.dumps({"metadata": metadata, "items": items}).encode())


def query(request: Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(request.target).query).items()}


# ------------------------------------------------------------------ reading


async def test_lists_are_read_page_by_page(server: Loopback, connection: Made) -> None:
    """No page is left out, and no request asks for all at once."""
    pages = {"": listing("a", "b", page="p2"), "p2": listing("c", page="p3"), "p3": listing("d")}
    server.rule = lambda request: pages[query(request).get("continue", "")]
    found = await ReadApi(connection()).list(Kind.POD, "payments", labels="app=shop")
    assert [str(item["metadata"]) for item in found.items] == [
        str({"name": name, "namespace": "payments"}) for name in "abcd"
    ]
    assert found.version == "5"
    assert all(query(request)["limit"] == "500" for request in server.requests)
    assert all(query(request)["labelSelector"] == "app=shop" for request in server.requests)


async def test_a_page_that_expired_starts_the_list_again(server: Loopback, connection: Made) -> None:
    """Nothing of the first attempt is kept, and the attempts end."""
    pages = iter([listing("old", page="p2"), status(410, "expired"), listing("new")])
    server.rule = lambda _: next(pages)
    found = await ReadApi(connection()).list(Kind.POD, "payments")
    assert len(found.items) == 1
    server.rule = lambda _: status(410, "expired")
    with pytest.raises(Expired):
        await ReadApi(connection()).list(Kind.POD, "payments")
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "answer",
    [
        Answer(code=200, body=b"<html>login</html>", headers=()),
        Answer(code=200, body=b"[]"),
        Answer(code=200, body=b""),
        Answer(code=200, body=b'{"items": [', then_cut=True),
        Answer(code=502, body=b"<html>bad gateway</html>", headers=()),
        Answer(code=200, body=b"\x00", headers=(("Content-Encoding", "gzip"),)),
        Fate.CLOSE,
        Fate.HANG,
    ],
    ids=["html", "list", "empty", "cut", "gateway", "encoding", "closed", "hung"],
)
async def test_a_broken_answer_is_transient_for_a_read_and_unknown_for_a_write(
    server: Loopback, connection: Made, answer: Answer | Fate
) -> None:
    """No answer of a broken proxy leaves the connector as another error."""
    server.rule = lambda _: answer
    seconds = 2 if answer is Fate.HANG else 30
    with pytest.raises(TransientError):
        await ReadApi(connection(timeout_seconds=seconds)).get(Kind.DEPLOYMENT, "payments", "shop")
    with pytest.raises(TransientError):
        await PatchApi(connection(dry_run=True, timeout_seconds=seconds)).patch(REF, [])
    with pytest.raises(UnknownOutcome):
        await PatchApi(connection(timeout_seconds=seconds)).patch(REF, [])


async def test_a_trickling_answer_is_not_waited_for_for_ever(server: Loopback, connection: Made) -> None:
    """Each byte in time is still too late when the whole never comes."""

    async def trickle(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.1)

    slow = await asyncio.start_server(trickle, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{slow.sockets[0].getsockname()[1]}"
    try:
        async with asyncio.timeout(120):
            with pytest.raises(TransientError, match="Timeout"):
                await ReadApi(connection(timeout_seconds=2)).get(Kind.POD, "payments", "x")
    finally:
        slow.close()


# ------------------------------------------------------------------ writing


async def test_a_patch_names_its_manager_and_a_rehearsal_its_dry_run(
    server: Loopback, connection: Made
) -> None:
    """The two differ in nothing but the parameter that keeps the server from persisting."""
    server.rule = lambda _: Answer(code=200, body=json.dumps(deployment()).encode())
    operations: list[JsonObject] = [{"op": "add", "path": "/spec/paused", "value": True}]
    await PatchApi(connection()).patch(REF, operations)
    await PatchApi(connection(dry_run=True)).patch(REF, operations)
    real, dry = server.requests
    assert real.body == dry.body == json.dumps(operations, separators=(",", ":")).encode()
    assert query(real) == {"fieldManager": "self-healing-devops-agent"}
    assert query(dry) == {"fieldManager": "self-healing-devops-agent", "dryRun": "All"}
    path = "/apis/apps/v1/namespaces/payments/deployments/shop"
    assert {urlsplit(request.target).path for request in server.requests} == {path}
    config = ObjectRef(kind="ConfigMap", namespace="payments", name="c")
    await PatchApi(connection()).patch(config, operations)
    assert urlsplit(server.requests[-1].target).path == "/api/v1/namespaces/payments/configmaps/c"


async def test_a_rehearsal_cannot_be_built_on_what_persists(connection: Made) -> None:
    """Promise 5 does not hang on a parameter being passed right."""
    with pytest.raises(ValueError, match="persists"):
        KubernetesRehearsal(ReadApi(connection()), PatchApi(connection()))


# ------------------------------------------------------------------ watching

KINDS = 16
"""The kinds that a view follows, each with a stream."""


def watch_over(
    api: ReadApi, timing: WatchTiming | None = None, jitter: Callable[[], float] = random.random
) -> KubernetesWatch:
    """The watch of one namespace."""
    services = ServiceMap(environment_namespaces={"prod": "payments"}, service_workloads={})
    clock = SystemClock()
    live = LiveObjects(api, services, clock)
    view = ClusterView(lambda _: api, live, services, clock, timing=timing, jitter=jitter)
    return KubernetesWatch(view, clock)


@pytest.mark.parametrize(
    "line",
    [b"garbage", b"[]", b'{"type":"NEWS","object":{}}', b'{"type":"ERROR","object":{"code":500}}'],
)
async def test_a_broken_event_is_transient(server: Loopback, connection: Made, line: bytes) -> None:
    """The caller lists again."""
    server.rule = lambda _: Answer(code=200, body=line + b"\n")
    with pytest.raises(TransientError):
        async with aclosing(ReadApi(connection()).watch(Kind.POD, "payments", "5", seconds=1)) as events:
            await anext(events)


async def test_a_stream_that_ends_at_once_is_not_asked_for_without_pause(
    server: Loopback, connection: Made
) -> None:
    """A proxy that closes every watch politely does not make the agent spin."""
    server.rule = lambda request: Answer(code=200, body=b"") if request.watches else listing("shop")
    timing = WatchTiming(coalesce_seconds=0.01, backoff=Backoff.of_seconds(0.2, 10))
    api = ReadApi(connection())
    watch = watch_over(api, timing, jitter=lambda: 1.0)
    async with asyncio.timeout(120):
        async with aclosing(watch.events()) as events:
            began = asyncio.get_running_loop().time()
            await anext(events)
            await server.until(lambda requests: sum(request.watches for request in requests) >= 3 * KINDS)
            passed = asyncio.get_running_loop().time() - began
    # So many attempts of each stream that at least pauses of 0.2 and 0.4 s lie between.
    assert passed >= 0.6


async def test_a_kind_that_may_not_be_read_takes_no_other_with_it(server: Loopback, connection: Made) -> None:
    """With a role of Deployments alone these are read and watched; the kind is named, and asked for once."""

    def answer(request: Request) -> Answer:
        if "/statefulsets" in request.target or "/rollouts" in request.target:
            return status(403, "not yours", reason="Forbidden")
        if request.watches:
            return Answer(code=200, body=b"")
        return listing("shop") if "/deployments" in request.target else listing()

    server.rule = answer
    services = ServiceMap(environment_namespaces={"prod": "payments"}, service_workloads={})
    api, key = ReadApi(connection()), ServiceKey(environment="prod", service="shop")
    live = LiveObjects(api, services, SystemClock())
    catalog = WorkloadCatalog(services, objects=live, around=live)
    assert await catalog.services() == (key,)
    [unwatched] = await catalog.unwatched()
    assert str(unwatched) == "every StatefulSet (the agent may not list statefulsets)"
    assert await catalog.key_of("Deployment", "payments", "gone") is None
    assert sum("/statefulsets" in request.target for request in server.requests) == 1
    timing = WatchTiming(coalesce_seconds=0.01, backoff=Backoff.of_seconds(0.05, 0.1))
    watch = watch_over(api, timing)
    async with asyncio.timeout(120), aclosing(watch.events()) as events:
        assert (await anext(events)).key == key
        waiting = asyncio.ensure_future(anext(events))
        # The streams end at once; the others are taken up again and again all the same.
        await server.until(lambda requests: sum(one.watches for one in requests) >= 3 * KINDS)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_retry_after_is_waited_for(server: Loopback, connection: Made) -> None:
    """A server that sheds load is not asked before it said."""
    busy = Answer(code=429, headers=(("Retry-After", "1"), ("Content-Type", "application/json")))
    server.rule = lambda _: busy
    timing = WatchTiming(coalesce_seconds=0.01, backoff=Backoff.of_seconds(0.01, 30))
    api = ReadApi(connection())
    watch = watch_over(api, timing)
    async with asyncio.timeout(120):
        async with aclosing(watch.events()) as events:
            began = asyncio.get_running_loop().time()
            first = asyncio.ensure_future(anext(events))
            await server.until(lambda requests: len(requests) >= 3)
            server.rule = lambda request: Fate.HANG if request.watches else listing("shop")
            assert (await first).key == ServiceKey(environment="prod", service="shop")
            assert asyncio.get_running_loop().time() - began >= 1.0


async def test_a_forbidden_list_ends_the_watch(server: Loopback, connection: Made) -> None:
    """One missing right is enough, and it is named."""
    server.rule = lambda request: (
        status(403, "no")
        if "configmaps" in request.target
        else Fate.HANG
        if request.watches
        else listing("shop")
    )
    api = ReadApi(connection())
    watch = watch_over(api)
    async with asyncio.timeout(120):
        with pytest.raises(Forbidden, match="configmaps in namespace payments"):
            async for _ in watch.events():
                pass


async def test_a_kind_that_may_not_be_watched_is_listed_for_each_look(
    server: Loopback, connection: Made
) -> None:
    """An older role still works; one that may not be listed either is named among what is unread."""

    def rule(request: Request) -> Fate | Answer:
        if "/events" in request.target and request.watches:
            return status(403, "cannot watch events")
        if "/poddisruptionbudgets" in request.target:
            return status(403, "cannot list budgets")
        if "/configmaps/" in request.target:
            return Answer(code=200, body=json.dumps({"metadata": {"name": "shop"}}).encode())
        return Fate.HANG if request.watches else listing("shop")

    server.rule = rule
    api, clock = ReadApi(connection()), SystemClock()
    services = ServiceMap(environment_namespaces={"prod": "payments"}, service_workloads={})
    view = ClusterView(lambda _: api, LiveObjects(api, services, clock), services, clock)
    assert (await view.find(Kind.CONFIG_MAP, "payments", "shop")) is not None
    asked = len(server.requests)
    async with view.followed() as feed, asyncio.timeout(120):
        await feed.wait()
        await server.until(lambda requests: sum(one.watches for one in requests[asked:]) >= KINDS - 1)
        asked = len(server.requests)
        assert (await view.find(Kind.CONFIG_MAP, "payments", "shop")) is not None
        assert "cannot list budgets" in str((await view.budgets("payments")).unread)
        assert len(server.requests) == asked
        for _ in range(2):
            assert len((await view.warnings("payments", {"uid"})).items) == 1
        assert len(server.requests) == asked + 2


async def test_disruption_budgets_of_an_action_are_read_from_the_api_server(
    server: Loopback, connection: Made, tmp_path: Path
) -> None:
    """A budget that the watches have not reported yet counts."""
    budget: JsonObject = {
        "metadata": {"name": "shop-pdb", "namespace": REF.namespace, "uid": "b-1", "resourceVersion": "9"},
        "spec": {"minAvailable": 3, "selector": {"matchLabels": {"app": "shop"}}},
    }
    found: list[JsonObject] = []

    def rule(request: Request) -> Fate | Answer:
        if request.watches:
            return Fate.HANG
        if "/poddisruptionbudgets" in request.target:
            body = {"metadata": {"resourceVersion": "1"}, "items": list(found)}
            return Answer(code=200, body=json.dumps(body).encode())
        if f"/deployments/{REF.name}" in request.target:
            return Answer(code=200, body=json.dumps(deployment()).encode())
        return listing("shop")

    server.rule = rule
    api, clock = ReadApi(connection()), SystemClock()
    services = ServiceMap(environment_namespaces={"prod": "payments"}, service_workloads={})
    live = LiveObjects(api, services, clock)
    view = ClusterView(lambda _: api, live, services, clock)
    reader = KubernetesReader(api, services, clock, objects=live, around=view)
    restart = Action(
        name=ActionName.RESTART, risk=Risk.MEDIUM, target=REF, parameters={}, expected_effect="", undo=None
    )
    async with view.followed(), asyncio.timeout(120):
        watched = "/poddisruptionbudgets"
        await server.until(lambda requests: any(one.watches and watched in one.target for one in requests))
        found.append(budget)
        assert (await view.budgets(REF.namespace)).items == ()
        seen = await reader.disruption(restart)
    assert seen is not None
    assert [one.name for one in seen.budgets] == ["shop-pdb"]


# ------------------------------------------------------------------ configuration


def test_without_a_cluster_there_is_no_connector() -> None:
    """An agent can run on metrics alone."""
    assert connect(settings(), SystemClock()) is None


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{not yaml", "not a valid kubeconfig"),
        ("- a\n- list", "not a valid kubeconfig"),
        ("\x00\x01", "not a valid kubeconfig"),
        ("apiVersion: v1\n", "not a valid kubeconfig"),
        ("clusters: []\ncontexts: []\nusers: []\n", "current-context"),
        (
            "clusters: []\ncontexts: [{name: c, context: {cluster: x, user: u}}]\ncurrent-context: c\n",
            "context",
        ),
        (
            "clusters: [{name: x, cluster: {server: 'https://x'}}]\n"
            "contexts: [{name: c, context: {cluster: x}}]\ncurrent-context: c\n",
            "names no user",
        ),
        (
            "clusters: [{name: x, cluster: {server: 'https://x', certificate-authority: /not/there}}]\n"
            "contexts: [{name: c, context: {cluster: x, user: u}}]\ncurrent-context: c\n"
            "users: [{name: u, user: {token: s3cr3t}}]\n",
            "certificates",
        ),
    ],
)
def test_a_broken_kubeconfig_stops_the_start_without_telling_its_secrets(
    tmp_path: Path, content: str, told: str
) -> None:
    """The message names the setting; the file's content stays in the file."""
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match=told) as error:
        connect(settings(kubeconfig=path), SystemClock())
    assert "s3cr3t" not in str(error.value)


def test_a_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    """So that a person sees which file was meant."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        connect(settings(kubeconfig=tmp_path / "nowhere"), SystemClock())


def test_in_cluster_outside_a_pod_is_named() -> None:
    """The message holds the fix."""
    with pytest.raises(ConfigurationError, match="KUBE_IN_CLUSTER"):
        connect(settings(kube_in_cluster=True), SystemClock())
