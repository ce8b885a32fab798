"""The simulated world as the agent's adapters, its observers at work, and what a pipeline posts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import Payload
from app.agent.ports.policy import PolicyEngine
from app.bootstrap import Adapters, Container
from app.config import Settings
from app.connectors.kinds import MetricPace
from app.sandbox.cluster import SandboxCluster
from app.sandbox.metrics import SandboxMetrics
from app.sandbox.world import DEFAULT_WINDOW
from app.workers import watching

PACE = MetricPace(window=DEFAULT_WINDOW, every=timedelta(seconds=5), at_once=8)
"""How metrics are polled where a person watches."""
WATCHED_SECONDS: Mapping[str, float] = {
    "breach_for_seconds": 20.0,
    "incident_settle_seconds": 10.0,
    "trust_revision_after_seconds": 30.0,
    "verify_soak_seconds": 30.0,
    "verify_timeout_seconds": 120.0,
}
"""Shorter times, for a simulation that a person watches."""
LEASE_SECONDS = 3600.0
"""Simulated time may pass fast: a claim must not expire while its holder works."""


def simulated(
    cluster: SandboxCluster,
    metrics: SandboxMetrics,
    settings: Settings,
    *,
    policy: PolicyEngine,
    pace: MetricPace = PACE,
) -> Adapters:
    """A simulated cluster and its metrics as everything that the agent reads and writes.

    In a dry run no writer is constructed (promise 5).
    """
    return Adapters(
        reader=cluster.reader,
        owners=cluster.reader,
        logs=cluster.logs if settings.log_evidence else None,
        rehearsal=cluster.rehearsal,
        writer=None if settings.dry_run else cluster.writer(),
        watch=cluster.watch,
        metrics=metrics,
        pace=pace,
        policy_engine=policy,
    )


def watched_settings(settings: Settings, *, dry_run: bool) -> Settings:
    """The settings with `WATCHED_SECONDS`, and high-risk actions allowed: no real system is changed."""
    return settings.model_copy(
        update={
            **WATCHED_SECONDS,
            "dry_run": dry_run,
            "allow_high_risk_actions": True,
            "claim_lease_seconds": LEASE_SECONDS,
            # Each run has an environment of its own: so many services of a cluster that none of them has.
            "max_fleet_share": 1.0,
        }
    )


@asynccontextmanager
async def observing(container: Container, *, recheck_every: timedelta | None = None) -> AsyncIterator[None]:
    """The watcher and the poller of the product at work until the context ends."""
    work = watching(container, recheck_every=recheck_every)
    if {name for name, _ in work} != {"watcher", "recheck", "poller"}:
        raise RuntimeError("the simulated world is incomplete")
    tasks = [asyncio.ensure_future(run()) for _, run in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def report(container: Container, reported: Sequence[tuple[ServiceKey, Payload]], source: str) -> None:
    """Accept what the pipeline of the simulation posts now."""
    now = container.clock.now()
    for key, payload in reported:
        signal = new_signal(
            key=key,
            source=source,
            observed_at=now,
            received_at=now,
            payload=payload,
            stale_after=container.stale_after,
        )
        await container.intake.accept([signal])
