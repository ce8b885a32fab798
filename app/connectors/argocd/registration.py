"""What the agent needs to know of Argo CD besides its answers."""

from __future__ import annotations

from app.agent.ports.gitops import GitOps, RepositoryWriter
from app.config import Settings
from app.connectors.argocd.answers import OWNER
from app.connectors.argocd.client import TITLE, ArgoClient
from app.connectors.argocd.reader import ArgoReader
from app.connectors.argocd.writer import ArgoWriter
from app.connectors.kinds import ConnectedGitOps, GitOpsKind


def _connect(settings: Settings, repository: RepositoryWriter | None) -> ConnectedGitOps:
    client = ArgoClient.from_settings(settings)
    destinations = {
        name: one.argocd_destination
        for name, one in settings.clusters.items()
        if one.argocd_destination is not None
    }
    reader = ArgoReader(client, settings.argocd_applications, destinations)
    ports = GitOps(
        reader=reader,
        rehearsal=reader,
        writer=None if settings.dry_run else ArgoWriter(client),
        repository=repository,
    )
    return ConnectedGitOps(ports=ports, ping=reader.ping, close=client.aclose)


KIND = GitOpsKind(
    name=OWNER,
    title=TITLE,
    settings=("ARGOCD_URL", "ARGOCD_TOKEN"),
    configured=lambda settings: settings.argocd_url is not None,
    connect=_connect,
)
