"""A stand-in of Flux on an API server, from its published resources and what the real controllers do.

Labelled so: it is no Flux and no Kubernetes. It keeps one Kustomization and its
GitRepository over a real bare repository, fetches, applies, corrects drift and keeps a
history as the two controllers do; the same contract suite runs over the real ones in
`make test-gitops`. A HelmRelease is an object here, which nothing reconciles: the
helm-controller was run nowhere.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests.contract.gitops_repository import BRANCH, FOLDER, GitRepository
from tests.contract.loopback import Answer, Fate, Request, status

SPACE, NAME = "flux-system", "shop"
SOURCE = f"gitrepositories/{SPACE}/{NAME}"
KUSTOMIZATION = f"kustomizations/{SPACE}/{NAME}"
_KINDS = {
    "kustomizations": ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
    "gitrepositories": ("source.toolkit.fluxcd.io/v1", "GitRepository"),
    "helmreleases": ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
}


@dataclass
class FluxStandIn:
    """The objects of Flux, and what people and the cluster do around them."""

    repository: GitRepository
    live_image: Callable[[], str | None]
    deploy: Callable[[str], None]
    """Apply an image to the cluster."""
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    rights: set[str] = field(default_factory=lambda: {"get", "list", "patch"})
    down: bool = False
    """Every request ends without an answer."""
    applies_fail: bool = False
    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By plural, namespace and name."""
    writes: list[str] = field(default_factory=list)
    """The accepted writes, as an audit log has them."""
    fates: dict[str, Fate | Answer] = field(default_factory=dict)
    """What becomes of the next request of a method, instead of its answer."""
    version: int = 1

    def __post_init__(self) -> None:
        if not self.objects:
            reference = {"kind": "GitRepository", "name": NAME}
            self.add(
                KUSTOMIZATION,
                {"path": f"./{FOLDER}", "prune": True, "interval": "5s", "sourceRef": reference},
            )
            self.add(SOURCE, {"url": str(self.repository.bare), "ref": {"branch": BRANCH}, "interval": "5s"})

    def add(self, place: str, spec: dict[str, Any], **state: Any) -> None:
        """An object that people made."""
        plural, namespace, name = place.split("/")
        version, kind = _KINDS[plural]
        self.version += 1
        self.objects[place] = {
            "apiVersion": version,
            "kind": kind,
            "metadata": {
                "name": name,
                "namespace": namespace,
                "generation": 1,
                "resourceVersion": str(self.version),
            },
            "spec": spec,
            "status": state,
        }

    def change(self, place: str, spec: dict[str, Any]) -> None:
        """A person changes a specification."""
        found = self.objects[place]
        found["spec"] = _merged(found["spec"], spec)
        found["metadata"]["generation"] += 1
        self._touch(found)

    @property
    def source(self) -> dict[str, Any]:
        return self.objects[SOURCE]

    @property
    def kustomization(self) -> dict[str, Any]:
        return self.objects[KUSTOMIZATION]

    @property
    def automated(self) -> bool:
        """The source follows its branch."""
        spec = self.source["spec"]
        return not spec.get("suspend") and "commit" not in spec.get("ref", {})

    # ------------------------------------------------------------ the controllers

    def reconcile(self) -> None:
        """One turn of both controllers."""
        self._fetch()
        self._apply()

    def _fetch(self) -> None:
        source = self.source
        if source["spec"].get("suspend"):
            return
        pinned = source["spec"].get("ref", {}).get("commit")
        head = pinned or self.repository.head()
        revision = f"{BRANCH}@sha1:{head}"
        state = source["status"]
        if state.get("artifact", {}).get("revision") == revision:
            if state.get("observedGeneration") != source["metadata"]["generation"]:
                state["observedGeneration"] = source["metadata"]["generation"]
                self._touch(source)
            return
        state["artifact"] = {"revision": revision, "lastUpdateTime": self._stamp()}
        state["observedGeneration"] = source["metadata"]["generation"]
        state["conditions"] = [self._ready("True", "Succeeded", source)]
        self._touch(source)

    def _apply(self) -> None:
        kustomization, revision = (
            self.kustomization,
            self.source["status"].get("artifact", {}).get("revision"),
        )
        if kustomization["spec"].get("suspend") or revision is None:
            return
        commit = revision.rpartition(":")[2]
        image = self.repository.image(commit)
        state = kustomization["status"]
        failed = self.applies_fail or image is None
        settled = state.get("lastAppliedRevision") == revision and self.live_image() == image
        if settled or (failed and state.get("lastAttemptedRevision") == revision):
            return
        state["lastAttemptedRevision"] = revision
        state["observedGeneration"] = kustomization["metadata"]["generation"]
        if image is not None and not failed and image != self.live_image():
            self.deploy(image)
        if failed:
            reason, said = "ReconciliationFailed", "one or more objects failed to apply"
        else:
            reason, said = "ReconciliationSucceeded", f"Applied revision: {revision}"
            state["lastAppliedRevision"] = revision
            workload = f"{self.repository.namespace}_{self.repository.name}_apps_Deployment"
            state["inventory"] = {"entries": [{"id": workload, "v": "v1"}]}
        state["conditions"] = [self._ready("False" if failed else "True", reason, kustomization, said)]
        if image is not None:
            self._record(state, image, revision, reason)
        self._touch(kustomization)

    def _record(self, state: dict[str, Any], content: str, revision: str, reason: str) -> None:
        """One entry for the same content with the same end, however often, the newest first."""
        digest = f"sha256:{hashlib.sha256(content.encode()).hexdigest()}"
        history: list[dict[str, Any]] = state.setdefault("history", [])
        known = next(
            (one for one in history if (one["digest"], one["lastReconciledStatus"]) == (digest, reason)), None
        )
        entry = known or {"digest": digest, "firstReconciled": self._stamp(), "lastReconciledStatus": reason}
        entry |= {"lastReconciled": self._stamp(), "metadata": {"revision": revision}}
        state["history"] = [entry, *(one for one in history if one is not known)][:5]

    def _ready(self, state: str, reason: str, item: dict[str, Any], said: str = "") -> dict[str, Any]:
        return {
            "type": "Ready",
            "status": state,
            "reason": reason,
            "message": said,
            "lastTransitionTime": self._stamp(),
            "observedGeneration": item["metadata"]["generation"],
        }

    def _touch(self, item: dict[str, Any]) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)

    def _stamp(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # ------------------------------------------------------------ the API server

    def rule(self, request: Request) -> Fate | Answer:
        """The answer to one request."""
        if self.down:
            return Fate.CLOSE
        self.reconcile()
        fate = self.fates.pop(request.method, None)
        if fate is not None and fate is not Fate.SWALLOW:
            return fate
        answer = self._answer(request)
        self.reconcile()
        return Fate.CLOSE if fate is Fate.SWALLOW else answer

    def _answer(self, request: Request) -> Answer:
        url = urlsplit(request.target)
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        parts = url.path.strip("/").split("/")[3:]
        if parts[0] == "namespaces":
            verb, place = (
                ("patch" if request.method == "PATCH" else "get"),
                "/".join((parts[2], parts[1], parts[3])),
            )
        else:
            verb, place = "list", parts[0]
        if verb not in self.rights:
            return status(403, f'User "agent" cannot {verb} resource "{place}"')
        if verb == "list":
            items = [one for key, one in self.objects.items() if key.startswith(f"{place}/")]
            return Answer(code=200, body=json.dumps({"items": items}).encode())
        found = self.objects.get(place)
        if found is None:
            return status(404, f"{place} not found")
        if verb == "get":
            return Answer(code=200, body=json.dumps(found).encode())
        if request.headers.get("content-type") != "application/merge-patch+json":
            return status(415, "the body of the request was in an unknown format")
        return self._patch(place, found, json.loads(request.body), dry=query.get("dryRun") == "All")

    def _patch(self, place: str, found: dict[str, Any], body: dict[str, Any], *, dry: bool) -> Answer:
        version = body.get("metadata", {}).pop("resourceVersion", None)
        if version not in (None, found["metadata"]["resourceVersion"]):
            return status(
                409, "the object has been modified; please apply your changes to the latest version"
            )
        changed = _merged(copy.deepcopy(found), body)
        if changed["spec"] != found["spec"]:
            changed["metadata"]["generation"] += 1
        if not dry:
            self.objects[place] = changed
            self._touch(changed)
            self.writes.append(json.dumps(body.get("spec", {}), sort_keys=True))
        return Answer(code=200, body=json.dumps(changed).encode())


def _merged(held: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """An RFC 7396 merge."""
    found = dict(held)
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            known = found.get(key)
            found[key] = _merged(known if isinstance(known, dict) else {}, value)
        else:
            found[key] = value
    return found


def kubeconfig_of(url: str, folder: Path) -> Path:
    """A kubeconfig whose only context is the stand-in."""
    path = folder / f"kubeconfig-{url.rpartition(':')[2]}"
    body = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "standin",
        "clusters": [{"name": "standin", "cluster": {"server": url}}],
        "users": [{"name": "agent", "user": {"token": "test-token"}}],
        "contexts": [{"name": "standin", "context": {"cluster": "standin", "user": "agent"}}],
    }
    path.write_text(yaml.safe_dump(body))
    return path
