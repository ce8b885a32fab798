"""The logs of containers in Loki: the contract of every source of logs, over a stand-in of its API."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from pydantic import SecretStr, ValidationError

from app.agent.workload import LogTail, ObjectRef
from app.bootstrap.outside import connect_world
from app.clock import SystemClock
from app.config import Settings
from app.connectors.loki.logs import LokiLogs
from app.errors import AgentError, Forbidden, NotFound, PermanentError, TransientError
from tests.contract.logs_suite import (
    test_long_lines_are_bounded as test_long_lines_are_bounded,
)
from tests.contract.logs_suite import (
    test_the_last_lines_of_a_container_are_read_within_bounds as test_the_last_lines_of_a_container_are_read_within_bounds,  # noqa: E501 - the name of a test
)
from tests.contract.loki_standin import LokiStandIn
from tests.contract.loopback import Answer, Fate, Loopback, loopback

NAMESPACE, TOKEN = "payments", "a-token-of-the-stand-in"
POD = ObjectRef(kind="Pod", namespace=NAMESPACE, name="shop-1")


@dataclass
class LokiHarness:
    """What the suite needs of a cluster: a pod that wrote lines, and readers with and without the right."""

    server: Loopback
    store: LokiStandIn
    ports: SimpleNamespace
    powerless: SimpleNamespace

    def ref(self, kind: str, name: str) -> ObjectRef:
        return ObjectRef(kind=kind, namespace=NAMESPACE, name=name)

    async def logged(self, current: Sequence[str], previous: Sequence[str] | None = None) -> str:
        assert previous is None
        self.wrote("shop-1", current)
        return "shop-1"

    def wrote(self, pod: str, lines: Sequence[str], *, ago: timedelta = timedelta(0), **labels: str) -> None:
        """The last of the lines was written so long ago, and each a microsecond after the one before."""
        last = int((datetime.now(UTC) - ago).timestamp()) * 1_000_000_000
        times = [last - 1_000 * (len(lines) - number) for number in range(len(lines))]
        own = {"namespace": NAMESPACE, "pod": pod, "container": "app", **labels}
        self.store.streams.append((own, list(zip(times, lines, strict=True))))


def settings_for(server: Loopback, token: str | None = TOKEN, **more: object) -> Settings:
    secret = None if token is None else SecretStr(token)
    return Settings(_env_file=None, loki_url=server.url, loki_token=secret, **more)  # type: ignore[arg-type] # pydantic checks the values


@pytest.fixture
async def cluster() -> AsyncIterator[LokiHarness]:
    store = LokiStandIn(token=TOKEN)
    async with loopback(store) as server:
        readers = [
            LokiLogs.from_settings(settings_for(server, token), SystemClock()) for token in (TOKEN, "none")
        ]
        own, other = (SimpleNamespace(logs=reader) for reader in readers)
        yield LokiHarness(server=server, store=store, ports=own, powerless=other)
        for reader in readers:
            await reader.aclose()


async def test_the_lines_of_all_streams_of_the_container_are_one_log(cluster: LokiHarness) -> None:
    """By time, whatever their other labels are; nothing of another container, or from hours ago."""
    cluster.wrote("shop-1", ["second"], ago=timedelta(seconds=60), stream="stderr")
    cluster.wrote("shop-1", ["first"], ago=timedelta(seconds=120), stream="stdout")
    cluster.wrote("shop-1", ["of the sidecar"], container="proxy")
    cluster.wrote("shop-1", ["of yesterday"], ago=timedelta(hours=20))
    cluster.wrote("shop-1", ["elsewhere"], namespace="other")
    read = await cluster.ports.logs.tail(POD, "app", previous=True)
    assert read == LogTail(lines=("first", "second"), previous=False)


async def test_a_query_names_the_labels_of_the_settings_and_quotes_what_it_is_given(
    cluster: LokiHarness,
) -> None:
    """A name cannot end its quotes; text is as it stands, and the tenant is sent."""
    labels = {"k8s_pod": "{{pod}}", "cluster": "{{cluster}}", "region": "eu-1"}
    settings = settings_for(cluster.server, loki_labels=labels, loki_tenant="team-a")
    reader = LokiLogs.from_settings(settings, SystemClock())
    hostile = ObjectRef(kind="Pod", namespace=NAMESPACE, name='a"} or {b="', cluster="west")
    try:
        with pytest.raises(NotFound):
            await reader.tail(hostile, "app", previous=False)
    finally:
        await reader.aclose()
    asked = cluster.store.queries[-1]["query"]
    assert asked == '{k8s_pod="a\\"} or {b=\\"", cluster="west", region="eu-1"}'
    assert cluster.server.requests[-1].headers["x-scope-orgid"] == "team-a"


async def test_an_answer_that_is_too_long_is_asked_for_again_in_fewer_lines(cluster: LokiHarness) -> None:
    """The last ones, which say most."""
    cluster.wrote("shop-1", [f"{number} " + "x" * 5_000 for number in range(200)])
    read = await cluster.ports.logs.tail(POD, "app", previous=False)
    assert [one["limit"] for one in cluster.store.queries] == ["200", "20"]
    assert read.lines[-1].startswith("199 x")


def _answer(code: int, body: object) -> Answer:
    return Answer(code=code, body=body if isinstance(body, bytes) else json.dumps(body).encode())


@pytest.mark.parametrize(
    ("instead", "error"),
    [
        (_answer(200, b"<html>sign in</html>"), PermanentError),
        (_answer(200, {"status": "success", "data": {"resultType": "matrix", "result": []}}), PermanentError),
        (
            _answer(200, {"status": "success", "data": {"resultType": "streams", "result": [{"values": 1}]}}),
            PermanentError,
        ),
        (_answer(200, b"[" * 400_000), PermanentError),
        (_answer(500, b"INFO order of Jane Doe refused"), TransientError),
        (_answer(429, b"too many outstanding requests"), TransientError),
        (_answer(302, b""), PermanentError),
        (Fate.CLOSE, TransientError),
        (Fate.HANG, TransientError),
    ],
)
async def test_an_answer_that_is_none_is_an_error_without_the_words_of_the_answer(
    cluster: LokiHarness, instead: Answer | Fate, error: type[AgentError]
) -> None:
    """Never an empty log; a store that hangs delays the diagnosis by two seconds."""
    cluster.store.instead = instead
    with pytest.raises(error) as raised:
        await cluster.ports.logs.tail(POD, "app", previous=False)
    assert "Jane" not in str(raised.value)
    assert cluster.server.url not in str(raised.value)


async def test_the_store_takes_the_place_of_the_nodes(cluster: LokiHarness) -> None:
    """LOG_EVIDENCE is not needed; without LOKI_URL nothing reads lines."""
    for settings, expected in (
        (settings_for(cluster.server), LokiLogs),
        (Settings(_env_file=None), type(None)),
    ):
        adapters, close = connect_world(settings, SystemClock())
        assert isinstance(adapters.logs, expected)
        await close()


async def test_a_check_reports_a_store_that_refuses(cluster: LokiHarness) -> None:
    """With and without the right token."""
    await cluster.ports.logs.ping()
    with pytest.raises(Forbidden):
        await cluster.powerless.logs.ping()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loki_labels": {"namespace": "{{namespace}}"}}, "no label has the value {{pod}}"),
        ({"loki_labels": {"pod": "{{pod}}", "a-b": "c"}}, "is not a label name"),
        ({"loki_labels": {"pod": "{{pod}}", "ns": "{{nmespace}}"}}, "is none of"),
        ({"loki_url": None, "loki_tenant": "team-a"}, "LOKI_TENANT needs LOKI_URL"),
        ({"loki_tenant": "a\r\nb"}, "loki_tenant"),
    ],
)
def test_labels_that_would_read_the_lines_of_others_are_refused(
    changes: dict[str, object], words: str
) -> None:
    """At the start, with the name of the setting."""
    with pytest.raises(ValidationError, match=words.replace("{", r"\{")):
        Settings.model_validate({"loki_url": "http://127.0.0.1:9", **changes})
