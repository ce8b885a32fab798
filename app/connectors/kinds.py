"""What each kind of connector registers in `app.connectors.registry`.

Everything that the composition root, the routes and `heal doctor` need to know of a
vendor: its names, the setting that connects it, and how it is constructed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from starlette.responses import Response

from app.agent.freshness.silences import Silence
from app.agent.notifications.channel import Channel
from app.agent.ports.cluster import ContainerLogs
from app.agent.ports.gitops import GitOps, RepositoryWriter
from app.agent.ports.metrics import MetricSource, SilenceSource
from app.agent.ports.silences import OwnSilences, SilenceWriter
from app.agent.ports.store import Store
from app.clock import Clock
from app.config import Settings
from app.connectors.alerts.delivery import AlertDelivery
from app.connectors.observability import Indicator
from app.errors import ConfigurationError


class ConnectedMetrics(MetricSource, Protocol):
    """A metric source with its connections."""

    async def ping(self) -> None:
        """Raises like every port when queries are not answered."""
        ...

    async def aclose(self) -> None: ...


class AlertSource(Protocol):
    """What holds the alerts that fire now, for those whose delivery was missed."""

    @property
    def every(self) -> timedelta:
        """How often it is polled; an alert is left to its delivery for as long."""
        ...

    async def firing(self, own: Collection[str]) -> AlertDelivery:
        """The alerts that fire, are not suppressed, and go to the agent, as if they were delivered.

        An alert that only the silences with the ids `own` mute, the agent's own, is not
        suppressed. Raises like every port.
        """
        ...

    async def own_silences(self, at: datetime) -> tuple[Silence, ...]:
        """The silences in force that say the agent created them. Raises like every port."""
        ...

    async def listed(self, name: str) -> frozenset[str]:
        """The fingerprints of all alerts of that name that have not ended, muted or not, for any receiver.

        An empty name is any. Raises like every port, also where one of them cannot be read: an
        answer is complete.
        """
        ...


class ConnectedSilences(SilenceSource, OwnSilences, Protocol):
    """A source of silences and of alerts, with its connections."""

    async def active(self, at: datetime) -> tuple[Silence, ...]: ...
    async def firing(self, own: Collection[str]) -> AlertDelivery: ...
    async def own_silences(self, at: datetime) -> tuple[Silence, ...]: ...
    async def listed(self, name: str) -> frozenset[str]: ...
    async def aclose(self) -> None: ...


class ConnectedSilenceWriter(SilenceWriter, Protocol):
    """Writes silences, with its connections."""

    async def aclose(self) -> None: ...


class ConnectedLogs(ContainerLogs, Protocol):
    """A source of logs with its connections."""

    async def ping(self) -> None:
        """Raises like every port when queries are not answered."""
        ...

    async def aclose(self) -> None: ...


class ChatInbound(Protocol):
    """Receives what people press and type in a chat."""

    @property
    def takes_http(self) -> bool:
        """It is called by `POST /webhooks/NAME`."""
        ...

    @property
    def takes_socket(self) -> bool:
        """It keeps a connection of its own."""
        ...

    def genuine(self, body: bytes, headers: Mapping[str, str]) -> bool:
        """Whether the chat signed this body, recently."""
        ...

    async def handle(self, body: bytes, headers: Mapping[str, str]) -> Response:
        """The answer, after it is durable; raises `Invalid` for what cannot be read."""
        ...

    async def keep_connected(self) -> None: ...
    async def aclose(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPace:
    """How a source is polled."""

    window: timedelta
    """The time over which its queries average."""
    every: timedelta
    at_once: int
    """Services that are measured at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSourceKind:
    """A monitoring system that answers for the service level indicators."""

    name: str
    """The value of METRICS_SOURCE, and the check of `heal doctor`."""
    title: str
    settings: tuple[str, ...]
    """The setting with its address first, then those with its credentials."""
    queries: Mapping[Indicator, str]
    """The setting that holds the query of each indicator."""
    configured: Callable[[Settings], bool]
    connect: Callable[[Settings], ConnectedMetrics]
    """Asks nothing yet; raises `ConfigurationError` for settings that cannot work."""
    pace: Callable[[Settings], MetricPace]


@dataclass(frozen=True, slots=True, kw_only=True)
class SilenceSourceKind:
    """A monitoring system that holds silences."""

    title: str
    settings: tuple[str, ...]
    """The setting with its address first, then those with its credentials."""
    configured: Callable[[Settings], bool]
    connect: Callable[[Settings], ConnectedSilences]
    """Asks nothing yet; raises `ConfigurationError` for settings that cannot work."""
    connect_writer: Callable[[Settings], ConnectedSilenceWriter]
    """The same for the writing side, which a dry run does not construct."""
    polling: str
    """The setting that has its alerts polled."""
    polled_every: Callable[[Settings], timedelta | None]
    """How often its alerts are polled for those whose delivery was missed; None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSourceKind:
    """A store of the logs of containers, read in place of what the nodes keep of them."""

    name: str
    title: str
    settings: tuple[str, ...]
    """The setting with its address first, then those with its credentials."""
    configured: Callable[[Settings], bool]
    connect: Callable[[Settings, Clock], ConnectedLogs]
    """Asks nothing yet; raises `ConfigurationError` for settings that cannot work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectedGitOps:
    """A GitOps controller with its connections."""

    ports: GitOps
    ping: Callable[[], Awaitable[str]]
    """What answers, in words; raises like every port when it does not, or not with the agent's account."""
    close: Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOpsKind:
    """A controller that takes the specification of workloads from a repository."""

    name: str
    """Its name as the owner of a workload, and the check of `heal doctor`."""
    title: str
    settings: tuple[str, ...]
    """The setting with its address first, then those with its credentials."""
    configured: Callable[[Settings], bool]
    connect: Callable[[Settings, RepositoryWriter | None], ConnectedGitOps]
    """Asks nothing yet; raises `ConfigurationError` for settings that cannot work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InboundKind:
    """The other direction of a chat: buttons and commands."""

    setting: str
    """The setting with the key of its signatures."""
    media_types: tuple[str, ...]
    connect: Callable[[Settings, Store, Clock], ChatInbound | None]
    """None where it is not configured; raises `ConfigurationError` for settings that cannot work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelKind:
    """A chat or webhook that shows incidents to people."""

    name: str
    """The `name` of its channel, and of its route where it receives."""
    title: str
    setting: str
    """The setting that connects it."""
    configured: Callable[[Settings], bool]
    connect: Callable[[Settings], Channel]
    """Connects on first use; raises `ConfigurationError` for settings that cannot work."""
    unusable: Callable[[Settings], str | None] = lambda _: None
    """What is wrong with a value among its settings, without it, for a dry run that constructs no channel."""
    inbound: InboundKind | None = None


def chosen_metrics(kinds: Sequence[MetricSourceKind], settings: Settings) -> MetricSourceKind | None:
    """The source that METRICS_SOURCE names, else the configured one; None without one.

    Raises `ConfigurationError` where the settings do not name exactly one.
    """
    configured = [kind for kind in kinds if kind.configured(settings)]
    if settings.metrics_source is None:
        if len(configured) > 1:
            names = " or ".join(kind.name for kind in configured)
            raise ConfigurationError(f"several metric sources are configured: set METRICS_SOURCE to {names}")
        return configured[0] if configured else None
    for kind in kinds:
        if kind.name == settings.metrics_source:
            if kind in configured:
                return kind
            raise ConfigurationError(f"METRICS_SOURCE={kind.name} needs {kind.settings[0]}")
    known = ", ".join(kind.name for kind in kinds)
    raise ConfigurationError(f"METRICS_SOURCE={settings.metrics_source} is unknown; use one of: {known}")


SourceT = TypeVar("SourceT", SilenceSourceKind, LogSourceKind)


def first_configured(kinds: Sequence[SourceT], settings: Settings) -> SourceT | None:
    """The configured source of silences or logs; the first of several."""
    return next((kind for kind in kinds if kind.configured(settings)), None)


def configured_gitops(kinds: Sequence[GitOpsKind], settings: Settings) -> GitOpsKind | None:
    """The configured GitOps controller; raises `ConfigurationError` for several."""
    configured = [kind for kind in kinds if kind.configured(settings)]
    if len(configured) > 1:
        named = " and ".join(kind.settings[0] for kind in configured)
        raise ConfigurationError(
            f"{named} are set, and the agent works with one GitOps controller: unset one"
        )
    return configured[0] if configured else None


def constructed_channels(kinds: Sequence[ChannelKind], settings: Settings) -> tuple[Channel, ...]:
    """The configured channels; none in a dry run (promise 5).

    They connect on first use. Raises `ConfigurationError` for one that cannot work.
    """
    if settings.dry_run:
        return ()
    return tuple(kind.connect(settings) for kind in kinds if kind.configured(settings))
