"""The readiness checks of what a process is connected to.

Each asks one question that a part can answer only while it works, and raises an
`AgentError` when it does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.agent.freshness.watchdog import WatchdogState, WatchdogTerms, missing_words, watchdog_state
from app.agent.guardrails.limits.clusters import in_words
from app.agent.ids import ServiceKey
from app.agent.models import ALERTS_SOURCE
from app.agent.ports.cluster import ClusterCoverage, ClusterReader
from app.agent.ports.metrics import MetricSource, SilenceSource
from app.agent.ports.policy import PolicyEngine
from app.agent.ports.store.signals import SignalRepository
from app.bounds.deadline import deadline
from app.clock import Clock
from app.connectors.policy.answers import FAULT
from app.connectors.streams.open import OpenStream
from app.errors import AgentError, TransientError
from app.settings.services import WatchedServices
from app.terms.live import LiveSettings

ReadinessCheck = tuple[str, Callable[[], Awaitable[str | None]]]
"""A name, and a question; its answer may hold what a person should know although the part works."""

_MOST_NAMED = 10
_CLUSTER_SECONDS = 4.0
"""How long one of several clusters may take: less than a check may take."""
_STORE_SECONDS = 2.0
"""How long a remark may wait for the store, which deliveries may keep busy: less than a check may take."""
_NO_SERVICE = ServiceKey(environment="none", service="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedCluster:
    """One of several clusters, as readiness asks about it."""

    reader: ClusterReader
    coverage: ClusterCoverage


def cluster_ready(reader: ClusterReader, coverage: ClusterCoverage | None = None) -> ReadinessCheck:
    """The cluster lists its services; workloads that are none are named, and are no fault."""

    async def check() -> str | None:
        return await _listed(reader, coverage)

    return "cluster", check


def clusters_ready(clusters: Mapping[str, ConnectedCluster]) -> Iterator[ReadinessCheck]:
    """A check for each of several clusters: one that does not answer is a fault where no other answers."""
    answering = dict.fromkeys(clusters, False)

    def check_of(name: str, cluster: ConnectedCluster) -> Callable[[], Awaitable[str | None]]:
        async def check() -> str | None:
            try:
                async with deadline(_CLUSTER_SECONDS, lambda: TransientError("no answer in time")):
                    remark = await _listed(cluster.reader, cluster.coverage)
            except AgentError as error:
                answering[name] = False
                if not any(answering.values()):
                    raise
                return f"unreachable, and its services are not looked after; the others are: {error}"
            answering[name] = True
            return remark

        return check

    for name, cluster in clusters.items():
        yield in_words(name), check_of(name, cluster)


async def _listed(reader: ClusterReader, coverage: ClusterCoverage | None) -> str | None:
    await reader.services()
    unwatched = await coverage.unwatched() if coverage is not None else ()
    if not unwatched:
        return None
    return f"answers; not watched: {'; '.join(str(one) for one in unwatched[:_MOST_NAMED])}"


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


def settings_read(live: LiveSettings | None) -> tuple[ReadinessCheck, ...]:
    """The newest content of CONFIG_FILE is in force, as far as it may change while the agent runs."""

    async def check() -> str | None:
        assert live is not None  # noqa: S101 - no check is made without a file
        if live.problem is not None:
            return f"invalid, the last valid content stays in force: {live.problem}"
        if live.needs_restart:
            return f"changed settings that need a restart: {', '.join(live.needs_restart)}"
        return None

    return () if live is None else (("configuration file", check),)


def _store_is_busy() -> TransientError:
    return TransientError(f"the store did not respond within {_STORE_SECONDS:g} s")


async def watchdog_now(signals: SignalRepository, terms: WatchdogTerms, clock: Clock) -> WatchdogState:
    """Whether the watchdog alert arrives; raises like every port."""
    levels = await signals.levels(ALERTS_SOURCE)
    return watchdog_state(terms, None if levels is None else levels.watchdog_at, clock.now())


def alerts_arrive(signals: SignalRepository, terms: WatchdogTerms, clock: Clock) -> ReadinessCheck:
    """Names a watchdog alert that stays away; the process stays ready, as it has to take deliveries."""

    async def check() -> str | None:
        try:
            async with deadline(_STORE_SECONDS, _store_is_busy):
                state = await watchdog_now(signals, terms, clock)
        except AgentError as error:  # the check of the store reports whether it works
            return f"unknown: {error}"
        if state.missing:
            return missing_words(terms, state)
        return None if state.since is not None else f"the alert {terms.alert} was not delivered yet"

    return "alerts", check


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
            raise TransientError(f"blocked since {since} UTC: {progress.error}")

    return stream.address, check
