"""The readiness checks of what a process is connected to.

Each asks one question that a part can answer only while it works, and raises an
`AgentError` when it does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from app.agent.ids import ServiceKey
from app.agent.ports.cluster import ClusterCoverage, ClusterReader
from app.agent.ports.metrics import MetricSource, SilenceSource
from app.agent.ports.policy import PolicyEngine
from app.clock import Clock
from app.connectors.policy.answers import FAULT
from app.connectors.streams.open import OpenStream
from app.errors import TransientError
from app.settings.services import WatchedServices

ReadinessCheck = tuple[str, Callable[[], Awaitable[str | None]]]
"""A name, and a question; its answer may hold what a person should know although the part works."""

_MOST_NAMED = 10
_NO_SERVICE = ServiceKey(environment="none", service="none")


def cluster_ready(reader: ClusterReader, coverage: ClusterCoverage | None = None) -> ReadinessCheck:
    """The cluster lists its services; workloads that are none are named, and are no fault."""

    async def check() -> str | None:
        await reader.services()
        unwatched = await coverage.unwatched() if coverage is not None else ()
        if not unwatched:
            return None
        return f"answers; not watched: {'; '.join(str(one) for one in unwatched[:_MOST_NAMED])}"

    return "cluster", check


def metrics_ready(source: MetricSource, clock: Clock) -> ReadinessCheck:
    """The metric source answers for a service that does not exist."""

    async def check() -> None:
        await source.sli(_NO_SERVICE, clock.now())

    return "metrics", check


def silences_ready(source: SilenceSource, clock: Clock) -> ReadinessCheck:
    """The silences can be read."""

    async def check() -> None:
        await source.concerning(_NO_SERVICE, clock.now())

    return "silences", check


def services_read(services: WatchedServices | None) -> tuple[ReadinessCheck, ...]:
    """The newest content of the services file is in force; the agent works without it, and says so."""

    async def check() -> str | None:
        assert services is not None  # noqa: S101 - no check is made without a file
        services.reload()
        if services.problem is None:
            return None
        return f"invalid, the last valid content stays in force: {services.problem}"

    return () if services is None else (("services file", check),)


def policy_ready(engine: PolicyEngine) -> ReadinessCheck:
    """The policy engine decides, whatever it decides."""

    async def check() -> None:
        answer = await engine.decide({})
        if answer.rules == FAULT:
            raise TransientError("; ".join(answer.reasons))

    return "policy", check


def streams_ready(streams: Sequence[OpenStream]) -> list[ReadinessCheck]:
    """No stream is blocked."""
    return [_moving(one) for one in streams]


def _moving(stream: OpenStream) -> ReadinessCheck:
    async def check() -> None:
        progress = stream.progress
        if progress.blocked_since is not None:
            since = f"{progress.blocked_since:%Y-%m-%d %H:%M:%S}"
            raise TransientError(f"blocked since {since} UTC: {progress.trouble}")

    return stream.address, check
