"""Services as objects of a real API server, without controllers: what is measured is the reading alone.

Each service is a Deployment with a ReplicaSet, a ready pod and a ConfigMap, which the
template refers to, all with the fields that controllers and nodes write.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import yaml

NAMESPACE = "prod"
AT_ONCE = 24
IMAGE = "registry.example/team/service:1.14.0"
_APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}"
_CORE = f"/api/v1/namespaces/{NAMESPACE}"
_SINCE = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%SZ")

Body = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Objects:
    """The administrator of the benched cluster."""

    http: httpx2.AsyncClient

    async def prepare(self) -> None:
        """The namespace, and the account that pods run as."""
        await self._send("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        await self._send("POST", f"{_CORE}/serviceaccounts", {"metadata": {"name": "default"}})

    async def add(self, first: int, last: int) -> None:
        """Services number `first` to `last`, the last one excluded."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(number: int) -> None:
            async with gate:
                await self._service(service_name(number))

        async with asyncio.TaskGroup() as group:
            for number in range(first, last):
                group.create_task(one(number))

    async def crash(self, number: int) -> None:
        """The node reports that the pod's container ended and is not started again for a while."""
        ended = {"reason": "Error", "exitCode": 1, "startedAt": _now(), "finishedAt": _now()}
        waiting = {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}
        await self._pod_status(
            service_name(number),
            ready=False,
            container={
                "state": {"waiting": waiting},
                "lastState": {"terminated": ended},
                "restartCount": 5,
            },
        )

    async def heal(self, number: int) -> None:
        """The node reports the container as ready again."""
        running = {"state": {"running": {"startedAt": _now()}}, "lastState": {}, "restartCount": 5}
        await self._pod_status(service_name(number), ready=True, container=running)

    async def _service(self, name: str) -> None:
        labels = {"app.kubernetes.io/name": name}
        template = {"metadata": {"labels": labels}, "spec": _pod_spec(name)}
        spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
        revision = {"deployment.kubernetes.io/revision": "1"}
        config = {"LOG_LEVEL": "info", "UPSTREAM": "http://payments.prod.svc", "POOL_SIZE": "20"}
        await self._send("POST", f"{_CORE}/configmaps", {"metadata": {"name": name}, "data": config})
        metadata = {"name": name, "labels": labels, "annotations": revision}
        deployment = await self._send("POST", f"{_APPS}/deployments", {"metadata": metadata, "spec": spec})
        counts = {"replicas": 1, "readyReplicas": 1, "availableReplicas": 1}
        replica_set = await self._send(
            "POST",
            f"{_APPS}/replicasets",
            {
                "metadata": {
                    "name": f"{name}-1",
                    "labels": labels,
                    "annotations": revision,
                    "ownerReferences": [_owner("apps/v1", "Deployment", deployment)],
                },
                "spec": spec,
            },
        )
        await self._send(
            "POST",
            f"{_CORE}/pods",
            {
                "metadata": {
                    "name": f"{name}-1-a",
                    "labels": labels,
                    "ownerReferences": [_owner("apps/v1", "ReplicaSet", replica_set)],
                },
                "spec": {**_pod_spec(name), "nodeName": "node-1"},
            },
        )
        rolled_out = {**counts, "updatedReplicas": 1, "observedGeneration": 1}
        await self._patch(f"{_APPS}/deployments/{name}/status", {"status": rolled_out})
        observed = {**counts, "observedGeneration": 1}
        await self._patch(f"{_APPS}/replicasets/{name}-1/status", {"status": observed})
        await self._pod_status(name, ready=True, container={"state": {"running": {"startedAt": _SINCE}}})

    async def _pod_status(self, name: str, *, ready: bool, container: Body) -> None:
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": _SINCE if ready else _now()}
        status = {"name": "app", "ready": ready, "image": IMAGE, "restartCount": 0, **container}
        status["imageID"] = f"registry.example/team/service@sha256:{'ab' * 32}"
        body = {"phase": "Running", "conditions": [condition], "containerStatuses": [status]}
        await self._patch(f"{_CORE}/pods/{name}-1-a/status", {"status": body})

    async def _patch(self, path: str, body: Body) -> None:
        await self._send("PATCH", path, body)

    async def _send(self, method: str, path: str, body: Body) -> Mapping[str, object]:
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = await self.http.request(method, path, json=body, headers={"Content-Type": kind})
        if not answer.is_success:
            raise RuntimeError(f"{method} {path} was answered {answer.status_code}: {answer.text[:300]}")
        found: Mapping[str, object] = answer.json()
        return found


@asynccontextmanager
async def administrator(kubeconfig: Path) -> AsyncIterator[Objects]:
    """Connected to the API server of a kubeconfig with a token."""
    content = _content(kubeconfig)
    cluster = content["clusters"][0]["cluster"]
    ca = base64.b64decode(cluster["certificate-authority-data"]).decode()
    async with httpx2.AsyncClient(
        base_url=cluster["server"],
        verify=ssl.create_default_context(cadata=ca),
        headers={"Authorization": f"Bearer {content['users'][0]['user']['token']}"},
        limits=httpx2.Limits(max_connections=AT_ONCE),
        timeout=httpx2.Timeout(120, pool=None),
        trust_env=False,
    ) as http:
        yield Objects(http=http)


def _content(kubeconfig: Path) -> Any:
    return yaml.safe_load(kubeconfig.read_text())


def service_name(number: int) -> str:
    """The service, and everything that belongs to it, by number."""
    return f"service-{number:05d}"


def _owner(version: str, kind: str, owner: Mapping[str, object]) -> Body:
    metadata = owner["metadata"]
    if not isinstance(metadata, dict):
        raise TypeError("an object without metadata")
    return {
        "apiVersion": version,
        "kind": kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }


def _pod_spec(name: str) -> Body:
    return {
        "containers": [
            {
                "name": "app",
                "image": IMAGE,
                "envFrom": [{"configMapRef": {"name": name}}],
                "env": [{"name": f"SETTING_{number}", "value": f"value-{number}"} for number in range(10)],
                "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
                "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}},
            }
        ]
    }


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
