"""A stand-in of Argo CD's API server, from its published API and the refusals of the real one.

Labelled so: it is no Argo CD. It keeps one Application over a real bare repository,
compares, syncs, heals drift and keeps a history as the controller does; the same
contract suite runs over the real servers in `make test-gitops`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.contract.gitops_repository import BRANCH, FOLDER, GitRepository, manifest
from tests.contract.loopback import Answer, Fate, Request

TOKEN = "test-token"


@dataclass
class ArgoStandIn:
    """One Application, and what people and the cluster do around it."""

    repository: GitRepository
    live_image: Callable[[], str | None]
    deploy: Callable[[str], None]
    """Apply an image to the cluster."""
    healthy: Callable[[], bool] = lambda: True
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    name: str = "shop"
    version: str = "v3.5.7+standin"
    rights: set[str] = field(default_factory=lambda: {"get", "update", "sync"})
    can_sync: bool = True
    down: bool = False
    """Every request ends without an answer."""
    operations_end: bool = True
    """False: an operation goes on until this is set."""
    operations_fail: bool = False
    automated: dict[str, Any] | None = field(default_factory=lambda: {"prune": True, "selfHeal": True})
    metadata: dict[str, Any] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    operation: dict[str, Any] | None = None
    operation_state: dict[str, Any] | None = None
    extra_resources: list[dict[str, str]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    """The accepted writes, as the server's log has them."""
    fates: dict[str, Fate | Answer] = field(default_factory=dict)
    """What becomes of the next request whose path ends so, instead of its answer."""
    started: int = 0

    # ------------------------------------------------------------ the controller

    def reconcile(self) -> None:
        """One turn of the application controller."""
        if self.operation is not None:
            self._run_operation()
        desired = self.repository.image(BRANCH)
        if desired is None or not self._is_automated() or self.operation is not None:
            return
        head = self.repository.head()
        synced = bool(self.history) and self.history[-1]["revision"] == head
        heals = self.automated is not None and self.automated.get("selfHeal")
        if (self.live_image() != desired and (heals or not synced)) or not self.history:
            self._start(head, "")
            self._run_operation()

    def _is_automated(self) -> bool:
        return self.automated is not None and self.automated.get("enabled") is not False

    def _start(self, revision: str, username: str) -> None:
        self.started += 1
        self.operation = {"sync": {"revision": revision}, "initiatedBy": {"username": username}}
        self.operation_state = {
            "operation": self.operation,
            "phase": "Running",
            "startedAt": f"{self._stamp()}#{self.started}",
            "syncResult": {"revision": revision},
        }

    def _run_operation(self) -> None:
        assert self.operation is not None
        assert self.operation_state is not None
        if not self.operations_end:
            return
        revision = self.operation["sync"]["revision"]
        image = self.repository.image(revision)
        failed = self.operations_fail or image is None
        if not failed and image is not None and image != self.live_image():
            self.deploy(image)
        self.operation_state |= {
            "phase": "Failed" if failed else "Succeeded",
            "message": "one or more objects failed to apply" if failed else "successfully synced",
        }
        if not failed:
            entry = {"revision": revision, "deployedAt": self._stamp(), "deployStartedAt": self._stamp()}
            entry["initiatedBy"] = {"username": self.operation["initiatedBy"]["username"]}
            number = len(self.history)
            self.history.append(entry if number == 0 else {"id": number, **entry})
        self.operation = None

    def _stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # ------------------------------------------------------------ the API server

    def rule(self, request: Request) -> Fate | Answer:
        """The answer to one request."""
        url = urlsplit(request.target)
        path = unquote(url.path)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        end = path.rpartition("/")[2]
        if self.down:
            return Fate.CLOSE
        self.reconcile()
        fate = self.fates.pop(f"{request.method} {end}", None)
        if fate is not None and fate is not Fate.SWALLOW:
            return fate
        answer = self._answer(request, path, query)
        self.reconcile()
        return Fate.CLOSE if fate is Fate.SWALLOW else answer

    def _answer(self, request: Request, path: str, query: dict[str, str]) -> Answer:
        root = f"/api/v1/applications/{self.name}"
        body = json.loads(request.body or b"{}")
        if path == "/api/version":
            return _ok({"Version": self.version})
        if path == "/api/v1/session/userinfo":
            return _ok({"loggedIn": True, "username": "heal"})
        if path.startswith("/api/v1/account/can-i/applications/"):
            action = path.split("/")[6]
            return _ok({"value": "yes" if action in self.rights else "no"})
        if path == "/api/v1/applications":
            return _ok({"items": [self.body()]})
        if not path.startswith(root) or "get" not in self.rights:
            return refusal(7, "permission denied")
        match request.method, path.removeprefix(root):
            case "GET", "":
                return _ok(self.body())
            case "GET", "/syncwindows":
                return _ok({"canSync": self.can_sync})
            case "GET", "/manifests":
                return self._manifests(query["revision"])
            case "PATCH", "":
                return self._patch(json.loads(body["patch"]))
            case "POST", "/rollback":
                return self._rollback(body)
        return refusal(12, "not implemented")

    def _manifests(self, revision: str) -> Answer:
        image = self.repository.image(revision)
        if image is None:
            return refusal(2, f"{FOLDER}: app path does not exist")
        import yaml

        rendered = yaml.safe_load(manifest(self.repository.namespace, self.repository.name, image))
        return _ok({"manifests": [json.dumps(rendered)], "revision": revision})

    def _patch(self, patch: dict[str, Any]) -> Answer:
        if "update" not in self.rights:
            return refusal(7, "permission denied: applications, update, default/shop")
        marks = {**self.annotations, **patch.get("metadata", {}).get("annotations", {})}
        self.annotations = {key: value for key, value in marks.items() if value is not None}
        policy = patch.get("spec", {}).get("syncPolicy", {})
        if "automated" in policy:
            wanted = policy["automated"]
            if wanted is None:
                self.automated = None
            else:
                merged = {**(self.automated or {}), **wanted}
                if not self.version.startswith(("v3.1", "v3.5")):
                    merged.pop("enabled", None)
                self.automated = {key: value for key, value in merged.items() if value is not None}
        self.writes.append(f"patch {json.dumps(policy, sort_keys=True)}")
        return _ok(self.body())

    def _rollback(self, body: dict[str, Any]) -> Answer:
        if "sync" not in self.rights:
            return refusal(7, "permission denied: applications, sync, default/shop")
        if self._is_automated():
            return refusal(9, "rollback cannot be initiated when auto-sync is enabled")
        if self.operation is not None:
            return refusal(9, "another operation is already in progress")
        wanted = body["id"]
        entry = next((one for one in self.history if one.get("id", 0) == wanted), None)
        if entry is None:
            return refusal(3, f"application shop does not have deployment with id {wanted}")
        self.writes.append(f"rollback {wanted}")
        self._start(entry["revision"], "heal")
        return _ok(self.body())

    def body(self) -> dict[str, Any]:
        """The Application as the API server answers it."""
        desired = self.repository.image(BRANCH)
        synced = desired is not None and desired == self.live_image()
        source = {"repoURL": str(self.repository.bare), "path": FOLDER, "targetRevision": BRANCH}
        spec: dict[str, Any] = {"project": "default", "source": source, **self.spec}
        if self.automated is not None:
            spec["syncPolicy"] = {"automated": self.automated}
        workload = {
            "group": "apps",
            "kind": "Deployment",
            "namespace": self.repository.namespace,
            "name": self.repository.name,
        }
        found: dict[str, Any] = {
            "metadata": {
                "name": self.name,
                "namespace": "argocd",
                "annotations": dict(self.annotations),
                **self.metadata,
            },
            "spec": spec,
            "status": {
                "sync": {
                    "status": "Synced" if synced else "OutOfSync",
                    "revision": self.repository.head(),
                },
                "health": {"status": "Healthy" if self.healthy() else "Degraded"},
                "history": self.history,
                "resources": [workload, *self.extra_resources],
            },
        }
        if self.operation is not None:
            found["operation"] = self.operation
        if self.operation_state is not None:
            found["status"]["operationState"] = self.operation_state
        return found


def refusal(code: int, message: str) -> Answer:
    """An error as Argo CD's gateway words it."""
    statuses = {7: 403, 16: 401, 12: 501, 2: 500, 14: 503}
    body = {"error": message, "code": code, "message": message}
    return Answer(code=statuses.get(code, 400), body=json.dumps(body).encode())


def _ok(body: dict[str, Any]) -> Answer:
    return Answer(code=200, body=json.dumps(body).encode())
