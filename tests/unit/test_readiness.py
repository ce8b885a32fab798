"""What readiness says of a source that cannot be used: which one, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from app.bootstrap import Adapters, assemble
from app.connectors.alerts.silences import AlertmanagerSilences
from app.connectors.policy.opa import OpaPolicy
from app.connectors.prometheus.source import PrometheusSource
from app.errors import AgentError
from app.store import open_store
from app.testing import SandboxCluster, Template, VirtualClock, Workload, World
from tests.stories import settings_for
from tests.unit.loopback import Behaviour, loopback, reply

Checks = dict[str, Callable[[], Awaitable[str | None]]]


@asynccontextmanager
async def checks(folder: Path, behaviour: Behaviour) -> AsyncIterator[Checks]:
    """The checks of an agent whose Prometheus and OPA both answer like that."""
    async with loopback(behaviour) as server:
        settings = settings_for(folder, prometheus_url=server.url, alertmanager_url=server.url)
        store = await open_store(settings.database_url.get_secret_value())
        metrics = PrometheusSource.from_settings(settings)
        silences = AlertmanagerSilences.from_settings(settings)
        engine = OpaPolicy(server.url, timeout_seconds=10)
        try:
            container = assemble(
                settings,
                clock=VirtualClock(),
                store=store,
                world=Adapters(metrics=metrics, silences=silences, policy_engine=engine),
            )
            yield dict(container.checks)
        finally:
            await metrics.aclose()
            await silences.aclose()
            await engine.aclose()
            await store.close()


@pytest.mark.parametrize(
    ("behaviour", "why"),
    [
        (reply(403, "no"), "403"),
        (reply(302, Location="/login"), "redirects are not followed"),
        (reply(200, "<html>"), ""),
        (reply(200, b"\x1f\x8b", Content_Encoding="gzip"), "compressed"),
    ],
    ids=["forbidden", "redirect", "html", "gzip"],
)
async def test_readiness_names_the_source_and_the_reason(
    tmp_path: Path, behaviour: Behaviour, why: str
) -> None:
    """The metric source, the silences and the policy engine alike; the store has nothing to do with it."""
    async with checks(tmp_path, behaviour) as found:
        named = (("metrics", "Prometheus"), ("silences", "Alertmanager"), ("policy", "policy engine"))
        for name, words in named:
            with pytest.raises(AgentError) as caught:
                await found[name]()
            assert words in str(caught.value)
            assert why in str(caught.value)
        await found["store"]()


async def test_readiness_names_the_workloads_that_are_not_watched(tmp_path: Path) -> None:
    """They are no fault of the agent: it is ready, and the message says what a person should do."""
    world = World(VirtualClock(), seed=1)
    cluster = SandboxCluster.over(world)
    settings = settings_for(tmp_path)
    store = await open_store(settings.database_url.get_secret_value())
    try:
        adapters = Adapters(reader=cluster.reader, coverage=cluster.reader)
        found = dict(assemble(settings, clock=world.clock, store=store, world=adapters).checks)
        for name, service in (("basket", "shop"), ("cart", "shop"), ("till", "basket")):
            template = Template(image="shop:1")
            world.deploy(Workload(namespace="prod", name=name, service=service, template=template))
            said = await found["cluster"]()
            assert bool(said) is (name == "till")
        assert "not watched: Deployment prod/basket" in (said or "")
    finally:
        await store.close()
