"""Aborts, retries, promotes and pauses an Argo Rollout, as the published controller takes it. Pure.

All but a pause are changes of the subresource `status`, which ignores everything else in a
request: they carry no marker, and their effect shows in the status itself.
"""

from __future__ import annotations

from app.agent.guardrails.target_token import ABORTED, PAUSED
from app.agent.ids import JsonObject
from app.connectors.kubernetes.changes.request import ChangeRequest, body_of, put
from app.connectors.kubernetes.fields import flag, mapping, objects
from app.connectors.kubernetes.views.progress import update_under_way
from app.errors import Invalid


def snapshot_of(rollout: JsonObject) -> JsonObject:
    """Whether it is paused, and whether its update is aborted."""
    return {PAUSED: flag(rollout, "spec", "paused"), ABORTED: flag(rollout, "status", "abort")}


def abort(request: ChangeRequest) -> list[JsonObject]:
    """The stable template serves again; the specification stays."""
    if not update_under_way(request.current):
        raise Invalid(f"{request.action.name}: no update of {request.ref} is under way")
    if flag(request.current, "status", "abort"):
        raise Invalid(f"{request.action.name}: the update of {request.ref} is aborted already")
    return [put("/status/abort", True)]


def retry(request: ChangeRequest) -> list[JsonObject]:
    """An aborted update begins again."""
    if not flag(request.current, "status", "abort"):
        raise Invalid(f"{request.action.name}: the update of {request.ref} is not aborted")
    return [put("/status/abort", False)]


def promote(request: ChangeRequest) -> list[JsonObject]:
    """One step on: the pause at which it waits is over."""
    if not objects(request.current, "status", "pauseConditions"):
        raise Invalid(f"{request.action.name}: {request.ref} waits at no step")
    return [put("/status/pauseConditions", None)]


def pause(request: ChangeRequest) -> list[JsonObject]:
    """No further step."""
    if flag(request.current, "spec", "paused"):
        raise Invalid(f"{request.action.name}: {request.ref} is paused already")
    return [put("/spec/paused", True)]


def restore(request: ChangeRequest, part: str) -> list[JsonObject]:
    """What the undone action changed, as it was before."""
    before = body_of(request).get(part)
    if not isinstance(before, bool):
        raise Invalid(f"restore: the snapshot of {request.ref} is incomplete")
    if part == PAUSED:
        return [put("/spec/paused", before)]
    there = "status" in mapping(request.current)
    return [put("/status/abort", before)] if there else []
