"""An Application of Argo CD as the agent reads it. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime

from app.agent.gitops.application import (
    Application,
    ApplicationRef,
    Operation,
    OperationPhase,
    SyncedRevision,
)
from app.agent.ids import IntentId, Json, JsonObject
from app.agent.workload import ObjectRef
from app.connectors.argocd.client import TITLE
from app.connectors.text import shorten
from app.errors import PermanentError
from app.redaction import redacted

OWNER = "argocd"
"""What `WorkloadView.managed_by` says of a workload that Argo CD owns."""

MARK = "self-healing-devops-agent/intent"
"""The annotation that names the intent which switched automated sync off."""

_TRACKING = "argocd.argoproj.io/tracking-id"
_INSTANCES = ("argocd.argoproj.io/instance", "app.kubernetes.io/instance")
_PHASES = {
    "Running": OperationPhase.RUNNING,
    "Terminating": OperationPhase.RUNNING,
    "Succeeded": OperationPhase.SUCCEEDED,
    "Failed": OperationPhase.FAILED,
    "Error": OperationPhase.FAILED,
}
_COMMIT = re.compile("[0-9a-f]{40}")


def application_from(body: JsonObject) -> Application:
    """An Application as answered by the API server; `PermanentError` for what is none."""
    metadata, spec, status = _part(body, "metadata"), _part(body, "spec"), _part(body, "status")
    name = _text(metadata, "name")
    if not name or not spec:
        raise PermanentError(f"unexpected response from {TITLE}: not an Application")
    source, automated = _part(spec, "source"), _part(spec, "syncPolicy").get("automated")
    policy = automated if isinstance(automated, dict) else None
    state = _part(status, "operationState")
    operation = _operation(state)
    busy = body.get("operation") is not None or (
        operation is not None and operation.phase is OperationPhase.RUNNING
    )
    ref = ApplicationRef(namespace=_text(metadata, "namespace"), name=name)
    return Application(
        ref=ref,
        controller=TITLE,
        owner=OWNER,
        policy=policy,
        automated=policy is not None and policy.get("enabled") is not False,
        prunes=policy is not None and policy.get("prune") is True,
        health=_text(_part(status, "health"), "status") or "Unknown",
        health_message=redacted(shorten(_text(_part(status, "health"), "message"), 300)),
        sync=_text(_part(status, "sync"), "status") or "Unknown",
        desired=_text(_part(status, "sync"), "revision") or None,
        target_revision=_text(source, "targetRevision") or "HEAD",
        repository=_text(source, "repoURL"),
        path=_text(source, "path"),
        history=_history(status),
        operation=operation,
        busy=busy,
        obstacles=tuple(_obstacles(ref, body, busy=busy)),
        held_by=IntentId(mark) if (mark := _text(_part(metadata, "annotations"), MARK)) else None,
        resources=len(_items(status, "resources")),
    )


def owns(body: JsonObject, target: ObjectRef) -> bool:
    """Whether an Application lists this object among its resources."""
    return any(
        (_text(one, "kind"), _text(one, "namespace"), _text(one, "name"))
        == (target.kind, target.namespace, target.name)
        for one in _items(_part(body, "status"), "resources")
    )


def destined(body: JsonObject, cluster: str, destinations: Mapping[str, str]) -> bool:
    """Whether an Application deploys to that cluster.

    `destinations` has the server or the name of each named cluster; what is destined for
    none of them is in the cluster without a name.
    """
    destination = _part(_part(body, "spec"), "destination")
    given = {_text(destination, "server"), _text(destination, "name")} - {""}
    meant = {name for name, known in destinations.items() if known in given}
    return cluster in meant if cluster else not meant


def images_in(body: JsonObject, target: ObjectRef) -> tuple[str, ...] | None:
    """The images of a workload among rendered manifests, sorted; None where it is not among them."""
    manifests = body.get("manifests")
    for text in manifests if isinstance(manifests, list) else []:
        try:
            item = json.loads(text) if isinstance(text, str) else None
        except (ValueError, RecursionError):
            continue
        if not isinstance(item, dict) or item.get("kind") != target.kind:
            continue
        metadata = _part(item, "metadata")
        if metadata.get("name") != target.name:
            continue
        if _text(metadata, "namespace") not in ("", target.namespace):
            continue
        containers = _items(_part(_part(_part(item, "spec"), "template"), "spec"), "containers")
        return tuple(sorted(_text(one, "image") for one in containers))
    return None


def may_sync(windows: JsonObject) -> bool:
    """Whether sync windows let a sync through that a person or the agent starts."""
    allowed = windows.get("canSync")
    if isinstance(allowed, bool):
        return allowed
    return not windows.get("assignedWindows")


def _obstacles(ref: ApplicationRef, body: JsonObject, *, busy: bool) -> Iterator[str]:
    """Why the agent must not act through this Application."""
    metadata, spec = _part(body, "metadata"), _part(body, "spec")
    which = f"{TITLE} application {ref}"
    for owner in _items(metadata, "ownerReferences"):
        if _text(owner, "kind") == "ApplicationSet":
            yield (
                f"{which} is generated by ApplicationSet {_text(owner, 'name')}, which restores its sync "
                "policy: revert the change in Git"
            )
    parent = _text(_part(metadata, "annotations"), _TRACKING).partition(":")[0]
    parent = parent or next((v for key in _INSTANCES if (v := _text(_part(metadata, "labels"), key))), "")
    if parent:
        yield (
            f"{which} is deployed by application {parent}, which restores its sync policy: "
            "revert the change in Git"
        )
    children = [
        one for one in _items(_part(body, "status"), "resources") if _text(one, "kind") == "Application"
    ]
    if children:
        yield f"{which} deploys other applications: a rollback would change all of them; revert it in Git"
    if _items(spec, "sources"):
        yield f"{which} has several sources, of which a rollback reverts only all: revert the change in Git"
    source = _part(spec, "source")
    if _text(source, "chart") or not _text(source, "repoURL"):
        yield f"{which} takes a packaged chart and no Git path: set its earlier version in Git"
    elif _COMMIT.fullmatch(_text(source, "targetRevision")):
        yield f"{which} follows a fixed commit and no branch: set its earlier commit in Git"
    if metadata.get("deletionTimestamp"):
        yield f"{which} is being deleted"
    if busy:
        yield f"an operation of {which} is in progress: wait for its end, or terminate it"


def _history(status: JsonObject) -> tuple[SyncedRevision, ...]:
    found = []
    for one in _items(status, "history"):
        number, at = one.get("id"), _time(one.get("deployStartedAt")) or _time(one.get("deployedAt"))
        # The field is left out for the first entry, whose id is 0.
        number = 0 if number is None else number
        if isinstance(number, int) and at is not None:
            by = _text(_part(one, "initiatedBy"), "username")
            found.append(
                SyncedRevision(id=number, revision=_text(one, "revision"), at=at, by=shorten(by, 100) or None)
            )
    return tuple(sorted(found, key=lambda one: one.id, reverse=True))


def _operation(state: JsonObject) -> Operation | None:
    phase = _PHASES.get(_text(state, "phase"))
    if phase is None:
        return None
    asked = _text(_part(_part(state, "operation"), "sync"), "revision")
    return Operation(
        phase=phase,
        started_at=_text(state, "startedAt"),
        revision=_text(_part(state, "syncResult"), "revision") or asked or None,
        message=redacted(shorten(_text(state, "message"), 300)),
    )


def _part(body: JsonObject, name: str) -> JsonObject:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _items(body: JsonObject, name: str) -> list[JsonObject]:
    found: Json = body.get(name)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _text(body: JsonObject, name: str) -> str:
    found = body.get(name)
    return found if isinstance(found, str) else ""


def _time(text: Json) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
