"""One table of answers, run over every connector that the agent measures or decides by.

Whatever is not a fresh, well-formed answer is an error with the same meaning
everywhere, and never a value. A new connector is one more line in `CONNECTORS`.
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

import pytest

from app.agent.ids import ServiceKey
from app.agent.models import DecisionKind
from app.clock import SystemClock
from app.config import Settings
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.answers import error_for, meaning_of, retry_after
from app.connectors.k8s import connect
from app.connectors.policy.answers import FAULT
from app.connectors.policy.opa import OpaPolicy
from app.connectors.prometheus.source import PrometheusSource
from app.connectors.streams.schema_registry import SchemaRegistry
from app.errors import AgentError, Forbidden, Invalid, NotFound, PermanentError, TransientError
from tests.contract.loopback import kubeconfig_for
from tests.unit.loopback import Behaviour, drip, flood, hang, loopback, raw, reply

AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
KEY = ServiceKey(environment="prod", service="payments-api")
TIMEOUT_SECONDS = 2.0

Ask: TypeAlias = Callable[[], Awaitable[object]]
"""Asks one question; a value is what the agent would go on with."""


def settings(**values: object) -> Settings:
    return Settings(_env_file=None, **values)  # type: ignore[arg-type]  # pydantic checks the values


@asynccontextmanager
async def _metrics(url: str, folder: Path) -> AsyncIterator[Ask]:
    source = PrometheusSource.from_settings(
        settings(prometheus_url=url, prometheus_timeout_seconds=TIMEOUT_SECONDS)
    )
    yield lambda: source.sli(KEY, AT)
    await source.aclose()


@asynccontextmanager
async def _metric_history(url: str, folder: Path) -> AsyncIterator[Ask]:
    source = PrometheusSource.from_settings(
        settings(prometheus_url=url, prometheus_timeout_seconds=TIMEOUT_SECONDS)
    )
    yield lambda: source.sli_range(KEY, AT - timedelta(minutes=1), AT, timedelta(seconds=15))
    await source.aclose()


@asynccontextmanager
async def _cluster(url: str, folder: Path) -> AsyncIterator[Ask]:
    cluster = connect(
        settings(kubeconfig=kubeconfig_for(url, folder), kube_timeout_seconds=TIMEOUT_SECONDS), SystemClock()
    )
    assert cluster is not None
    yield cluster.reader.services
    await cluster.close()


@asynccontextmanager
async def _workload(url: str, folder: Path) -> AsyncIterator[Ask]:
    made = settings(
        kubeconfig=kubeconfig_for(url, folder),
        kube_timeout_seconds=TIMEOUT_SECONDS,
        service_workloads={"prod/payments-api": "payments/payments-api"},
    )
    cluster = connect(made, SystemClock())
    assert cluster is not None
    yield lambda: cluster.reader.config_contents(KEY)
    await cluster.close()


@asynccontextmanager
async def _policy(url: str, folder: Path) -> AsyncIterator[Ask]:
    policy = OpaPolicy(url, timeout_seconds=TIMEOUT_SECONDS)

    async def decided() -> object:
        answer = await policy.decide({"action": {"name": "rollback"}})
        if answer.rules == FAULT:
            assert answer.kind is DecisionKind.DENY
            raise AgentError("; ".join(answer.reasons))
        return answer

    yield decided
    await policy.aclose()


@asynccontextmanager
async def _silences(url: str, folder: Path) -> AsyncIterator[Ask]:
    source = AlertmanagerSilences.from_settings(
        settings(alertmanager_url=url, alertmanager_timeout_seconds=TIMEOUT_SECONDS)
    )
    yield lambda: source.concerning(KEY, AT)
    await source.aclose()


@asynccontextmanager
async def _schemas(url: str, folder: Path) -> AsyncIterator[Ask]:
    registry = SchemaRegistry(url=url, timeout_seconds=TIMEOUT_SECONDS)
    yield lambda: registry.schema(7)
    await registry.aclose()


CONNECTORS = {
    "metrics": _metrics,
    "metric history": _metric_history,
    "cluster": _cluster,
    "one workload": _workload,
    "silences": _silences,
    "policy engine": _policy,
    "schema registry": _schemas,
}

TRANSLATES = ("metrics", "metric history", "cluster", "silences")
"""Connectors whose question leaves the status as it is; the others fold every fault into one answer."""

MEANINGS: dict[int, type[AgentError]] = {
    301: PermanentError,
    302: PermanentError,
    307: PermanentError,
    400: Invalid,
    401: Forbidden,
    403: Forbidden,
    404: NotFound,
    405: Invalid,
    408: TransientError,
    413: Invalid,
    422: Invalid,
    425: TransientError,
    429: TransientError,
    451: Invalid,
    499: TransientError,
    500: TransientError,
    502: TransientError,
    503: TransientError,
    504: TransientError,
}

BODIES: dict[str, Behaviour] = {
    "html": reply(200, "<html><title>Sign in</title></html>", Content_Type="text/html"),
    "empty": reply(200, b""),
    "no content": reply(204, b""),
    "null": reply(200, "null"),
    "a list": reply(200, []),
    "a text": reply(200, '"ok"'),
    "a number": reply(200, "12"),
    "an empty object": reply(200, {}),
    "another object": reply(200, {"status": "ok", "version": "1.2.3"}),
    "no JSON number": reply(200, '{"status": NaN}'),
    "cut off": reply(200, '{"status":"success","data":{"resultType":"vec'),
    "cut off by the connection": raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{"),
    "gzip": reply(200, gzip.compress(b"{}"), Content_Encoding="gzip"),
    "gzip garbage": reply(200, b"\x1f\x8b garbage", Content_Encoding="gzip"),
    "binary": reply(200, b"\xff\xfe\x00\x01"),
    "deep": reply(200, "[" * 100_000),
    "without end": flood,
    "dripping": drip,
    "silent": hang,
    "hung up": raw(b""),
    "no HTTP": raw(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
}


@pytest.mark.parametrize("status", MEANINGS)
def test_a_status_has_one_meaning(status: int) -> None:
    """The table itself, and the wait that an answer names."""
    wait = retry_after({"Retry-After": "7"})
    error = error_for(status, "said", wait)
    assert type(error) is meaning_of(status) is MEANINGS[status]
    assert getattr(error, "retry_after", wait) == timedelta(seconds=7)


@pytest.mark.parametrize("connector", TRANSLATES)
@pytest.mark.parametrize("status", MEANINGS)
async def test_every_connector_reads_a_status_alike(connector: str, status: int, tmp_path: Path) -> None:
    """401 is 401 from any server; the message gives the status or the server's own words."""
    async with (
        loopback(reply(status, {"message": f"HTTP {status}"}, Location="/elsewhere")) as server,
        CONNECTORS[connector](server.url, tmp_path) as ask,
    ):
        with pytest.raises(AgentError) as caught:
            await ask()
    assert type(caught.value) is MEANINGS[status]
    assert str(status) in str(caught.value)


@pytest.mark.parametrize("connector", [name for name in CONNECTORS if name not in TRANSLATES])
@pytest.mark.parametrize("status", MEANINGS)
async def test_no_status_but_success_is_a_value(connector: str, status: int, tmp_path: Path) -> None:
    """In every form of the fault."""
    async with loopback(reply(status, {})) as server, CONNECTORS[connector](server.url, tmp_path) as ask:
        with pytest.raises(AgentError):
            await ask()


@pytest.mark.parametrize("connector", CONNECTORS)
@pytest.mark.parametrize("body", BODIES)
async def test_no_malformed_answer_is_a_value(connector: str, body: str, tmp_path: Path) -> None:
    """Nothing is read into it: not zero, not an empty cluster, not an allow."""
    if (connector, body) == ("silences", "a list"):
        return  # an empty list is how Alertmanager says that there is no silence
    async with loopback(BODIES[body]) as server, CONNECTORS[connector](server.url, tmp_path) as ask:
        with pytest.raises(AgentError):
            await ask()
