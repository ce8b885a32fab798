"""A Kustomization of the real Flux over a fresh namespace and repository of the bed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment
from lightkube.types import PatchType

from app.agent.gitops.application import Application, ApplicationRef
from app.agent.ids import ServiceKey
from app.agent.ports.gitops import GitOps
from app.agent.workload import WorkloadView
from app.config import Settings
from app.connectors.flux.registration import KIND
from app.connectors.git.connect import connect_repositories
from testbed.git_http import GitHttpServer
from testbed.rbac import AGENT, READONLY
from testbed.world import TestBed
from tests.contract.eventually import eventually
from tests.contract.gitops_repository import BRANCH, FOLDER, GitRepository, git
from tests.contract.gitops_suite import FLUX, GitOpsWorld
from tests.contract.kubernetes_harness import cluster_for

SERVICE = "shop"
KUSTOMIZATION = create_namespaced_resource(
    "kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations"
)
GIT_REPOSITORY = create_namespaced_resource(
    "source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories"
)


APART = timedelta(seconds=8)
"""Whose images an apply deployed is not known while another release follows within seconds."""


def _over(application: Application) -> bool:
    return datetime.now(UTC) - application.history[0].at > APART


class RealKustomization:
    """One namespace, repository, GitRepository and Kustomization."""

    def __init__(self, bed: TestBed, server: GitHttpServer, root: Any) -> None:
        self.bed, self.server = bed, server
        self.namespace = bed.create_namespace()
        folder = root / self.namespace
        folder.mkdir()
        self.repository = GitRepository.create(folder, self.namespace, SERVICE)
        git(self.repository.bare, "config", "http.receivepack", "true")
        self.address = f"{server.url}/{self.namespace}/shop.git"
        self.ref = ApplicationRef(namespace=self.namespace, name=SERVICE)
        self.cluster = cluster_for(bed, self.namespace, AGENT)
        self._connected: list[Any] = []

    def create(self) -> None:
        """With shop:1 on the branch."""
        self.repository.release("shop:1")
        meta = ObjectMeta(name=SERVICE, namespace=self.namespace)
        source = {"url": self.address, "ref": {"branch": BRANCH}, "interval": "2s"}
        reference = {"kind": "GitRepository", "name": SERVICE}
        kustomization = {"path": f"./{FOLDER}", "prune": True, "interval": "5s", "sourceRef": reference}
        self.bed.client.create(GIT_REPOSITORY(metadata=meta, spec=source))
        self.bed.client.create(KUSTOMIZATION(metadata=meta, spec=kustomization))

    def source(self) -> Any:
        """The GitRepository as an administrator reads it."""
        return self.bed.client.get(GIT_REPOSITORY, SERVICE, namespace=self.namespace)

    def suspend(self) -> None:
        """A person suspends the Kustomization."""
        change = {"spec": {"suspend": True}}
        self.bed.client.patch(
            KUSTOMIZATION, SERVICE, change, namespace=self.namespace, patch_type=PatchType.MERGE
        )

    def settings(self, user: str) -> Settings:
        return Settings(
            _env_file=None,
            dry_run=False,
            flux_enabled=True,
            kubeconfig=self.bed.control_plane.kubeconfig(user),
            kube_timeout_seconds=100,
            git_revert="branch",
            git_repositories=[self.server.url],
            git_timeout_seconds=100,
        )

    def ports(self, user: str) -> GitOps:
        settings = self.settings(user)
        connected = KIND.connect(settings, connect_repositories(settings))
        self._connected.append(connected)
        return connected.ports

    async def view(self) -> WorkloadView:
        found = await self.cluster.reader.workload(ServiceKey(environment="prod", service=SERVICE))
        assert found is not None
        return found

    async def image(self) -> str | None:
        try:
            found = await asyncio.to_thread(
                self.bed.client.get, Deployment, SERVICE, namespace=self.namespace
            )
        except ApiError:
            return None
        assert found.spec is not None
        assert found.spec.template.spec is not None
        return found.spec.template.spec.containers[0].image

    async def world(self) -> GitOpsWorld:
        """Once the first release is applied."""

        async def close_window() -> None:
            await asyncio.to_thread(self.suspend)

        async def change_behind(image: str) -> None:
            await asyncio.to_thread(self.bed.set_image, self.namespace, SERVICE, image)

        made = GitOpsWorld(
            ports=self.ports(AGENT),
            limited=self.ports(READONLY),
            ref=self.ref,
            repository=self.repository,
            address=self.address,
            view=self.view,
            image=self.image,
            change_behind=change_behind,
            close_window=close_window,
            refusals=FLUX,
        )
        await made.until(lambda a: a.sync == "Synced" and bool(a.history), "the first apply")
        await made.until(_over, "the first apply to be over for long enough")

        async def there() -> bool:
            return await self.image() == "shop:1"

        await eventually(there, "the Deployment")
        return made

    async def close(self) -> None:
        for one in self._connected:
            await one.close()
        await self.cluster.close()
        for kind in (KUSTOMIZATION, GIT_REPOSITORY):
            await asyncio.to_thread(self.bed.client.delete, kind, SERVICE, namespace=self.namespace)
        await asyncio.to_thread(self.bed.delete_namespace, self.namespace)
