"""An application of the real Argo CD over a fresh namespace and repository of the bed."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
from lightkube.core.exceptions import ApiError
from lightkube.resources.apps_v1 import Deployment

from app.agent.gitops.application import ApplicationRef
from app.agent.ids import ServiceKey
from app.agent.ports.gitops import GitOps
from app.agent.workload import WorkloadView
from app.config import Settings
from app.connectors.argocd.registration import KIND
from app.connectors.git.connect import connect_repositories
from testbed.argocd import NAMESPACE, ArgoCd
from testbed.git_http import GitHttpServer
from testbed.rbac import AGENT
from testbed.world import TestBed
from tests.contract.eventually import eventually
from tests.contract.gitops_repository import BRANCH, FOLDER, GitRepository, git
from tests.contract.gitops_suite import ARGO_CD, GitOpsWorld
from tests.contract.kubernetes_harness import cluster_for

SERVICE = "shop"
POLICY: dict[str, Any] = {"prune": True, "selfHeal": True}


class RealApplication:
    """One namespace, repository, project and application."""

    def __init__(self, bed: TestBed, argocd: ArgoCd, server: GitHttpServer, root: Any) -> None:
        self.bed, self.argocd, self.server = bed, argocd, server
        self.namespace = bed.create_namespace()
        folder = root / self.namespace
        folder.mkdir()
        self.repository = GitRepository.create(folder, self.namespace, SERVICE)
        git(self.repository.bare, "config", "http.receivepack", "true")
        self.address = f"{server.url}/{self.namespace}/shop.git"
        self.ref = ApplicationRef(namespace=NAMESPACE, name=self.namespace)
        self._admin = httpx2.Client(
            base_url=f"{argocd.url}/api/v1",
            headers={"Authorization": f"Bearer {argocd.token('admin')}"},
            timeout=60,
        )
        self.cluster = cluster_for(bed, self.namespace, AGENT)

    def create(self) -> None:
        """With shop:1 on the branch, and automated sync with self-heal."""
        self.repository.release("shop:1")
        self._project({})
        destination = {"server": "https://kubernetes.default.svc", "namespace": self.namespace}
        source = {"repoURL": self.address, "path": FOLDER, "targetRevision": BRANCH}
        spec = {
            "project": self.namespace,
            "source": source,
            "destination": destination,
            "syncPolicy": {"automated": POLICY},
        }
        self._send("POST", "/applications", {"metadata": {"name": self.namespace}, "spec": spec})

    def close_window(self) -> None:
        window = {"kind": "deny", "schedule": "* * * * *", "duration": "24h", "applications": ["*"]}
        self._project({"syncWindows": [window]})

    def application(self) -> Any:
        """The Application as an administrator reads it."""
        return self._send("GET", f"/applications/{self.namespace}", None)

    def _project(self, more: dict[str, Any]) -> None:
        everywhere = [{"server": "*", "namespace": "*"}]
        project = {
            "metadata": {"name": self.namespace},
            "spec": {"sourceRepos": ["*"], "destinations": everywhere, **more},
        }
        if more:
            known = self._send("GET", f"/projects/{self.namespace}", None)
            project = {**known, "spec": {**known["spec"], **more}}
            self._send("PUT", f"/projects/{self.namespace}", {"project": project})
        else:
            self._send("POST", "/projects", {"project": project})

    def _send(self, method: str, path: str, body: dict[str, Any] | None) -> Any:
        answer = self._admin.request(method, path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def settings(self, account: str) -> Settings:
        return Settings(
            _env_file=None,
            dry_run=False,
            argocd_url=self.argocd.url,
            argocd_token=self.argocd.token(account),
            argocd_timeout_seconds=100,
            git_revert="branch",
            git_repositories=[self.server.url],
            git_timeout_seconds=100,
        )

    def ports(self, account: str) -> GitOps:
        settings = self.settings(account)
        return KIND.connect(settings, connect_repositories(settings)).ports

    async def view(self) -> WorkloadView:
        key = ServiceKey(environment="prod", service=SERVICE)
        found = await self.cluster.reader.workload(key)
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

    async def change_behind(self, image: str) -> None:
        await asyncio.to_thread(self.bed.set_image, self.namespace, SERVICE, image)

    async def world(self) -> GitOpsWorld:
        """Once the first release is synced."""

        async def close_window() -> None:
            await asyncio.to_thread(self.close_window)

        made = GitOpsWorld(
            ports=self.ports("heal"),
            limited=self.ports("limited"),
            ref=self.ref,
            repository=self.repository,
            address=self.address,
            view=self.view,
            image=self.image,
            change_behind=self.change_behind,
            close_window=close_window,
            refusals=ARGO_CD,
        )
        await made.until(lambda a: a.sync == "Synced" and not a.busy and bool(a.history), "the first sync")

        async def there() -> bool:
            return await self.image() == "shop:1"

        await eventually(there, "the Deployment")
        return made

    async def close(self) -> None:
        await self.cluster.close()
        await asyncio.to_thread(
            self._admin.delete, f"/applications/{self.namespace}", params={"cascade": "false"}
        )
        self._admin.close()
        await asyncio.to_thread(self.bed.delete_namespace, self.namespace)
