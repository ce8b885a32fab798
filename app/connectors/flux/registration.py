"""What the agent needs to know of Flux besides its objects."""

from __future__ import annotations

from app.agent.ports.gitops import GitOps, RepositoryWriter
from app.config import Settings
from app.connectors.flux.answers import OWNER, TITLE
from app.connectors.flux.api import FluxApi
from app.connectors.flux.reader import FluxReader
from app.connectors.flux.writer import FluxWriter
from app.connectors.git.connect import connect_contents
from app.connectors.kinds import ConnectedGitOps, GitOpsKind
from app.connectors.kubernetes.config import load_config
from app.connectors.kubernetes.connection import Connection
from app.errors import ConfigurationError


def _connect(settings: Settings, repository: RepositoryWriter | None) -> ConnectedGitOps:
    config = load_config(settings)
    if config is None:
        raise ConfigurationError("FLUX_ENABLED needs a cluster: set KUBECONFIG or KUBE_IN_CLUSTER")

    def opened(*, dry_run: bool) -> FluxApi:
        seconds = settings.kube_timeout_seconds
        return FluxApi(Connection(config, timeout_seconds=seconds, dry_run=dry_run))

    reading = opened(dry_run=True)
    writing = None if settings.dry_run else opened(dry_run=False)
    reader = FluxReader(reading, connect_contents(settings))

    async def close() -> None:
        for api in (reading, writing):
            if api is not None:
                await api.aclose()

    ports = GitOps(
        reader=reader,
        rehearsal=reader,
        writer=None if writing is None else FluxWriter(writing),
        repository=repository,
    )
    return ConnectedGitOps(ports=ports, ping=reader.ping, close=close)


KIND = GitOpsKind(
    name=OWNER,
    title=TITLE,
    settings=("FLUX_ENABLED", "KUBECONFIG"),
    configured=lambda settings: settings.flux_enabled,
    connect=_connect,
)
