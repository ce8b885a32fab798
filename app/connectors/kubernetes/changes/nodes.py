"""Cordons a node, and removes the agent's own cordon. Pure.

A cordon is the agent's own only while the node has the agent's label and the agent alone
holds the field: the label stays when a person uncordons and cordons the node again.
"""

from __future__ import annotations

from app.agent.ids import JsonObject
from app.connectors.kubernetes.changes.request import ChangeRequest, body_of, escaped, put, remove
from app.connectors.kubernetes.connection import FIELD_MANAGER
from app.connectors.kubernetes.fields import flag, mapping, texts
from app.connectors.kubernetes.templates import PREFIX
from app.connectors.kubernetes.views.plain import cordon_managers
from app.errors import Invalid

CORDONED = PREFIX + "cordoned"
"""The label of a node that the agent cordoned."""
OWN_CORDONS = f"{CORDONED}=true"
"""The selector of those nodes."""


def snapshot_of(node: JsonObject) -> JsonObject:
    """Whether it was cordoned, and whether by the agent."""
    return {"unschedulable": _cordoned(node), "own": own_cordon(node)}


def cordon(request: ChangeRequest) -> list[JsonObject]:
    """No new pods; those that run there stay."""
    if _cordoned(request.current):
        raise Invalid(f"{request.action.name.words}: {request.ref} is cordoned already")
    return _set(request.current, cordoned=True, own=True)


def uncordon(request: ChangeRequest) -> list[JsonObject]:
    """Only what the agent itself cordoned."""
    if not _cordoned(request.current):
        raise Invalid(f"uncordon: {request.ref} is not cordoned")
    if not own_cordon(request.current):
        raise Invalid(f"uncordon: {request.ref} was not cordoned by the agent, so a person must uncordon it")
    return _set(request.current, cordoned=False, own=False)


def restore(request: ChangeRequest) -> list[JsonObject]:
    """As it was before."""
    body = body_of(request)
    cordoned, own = body.get("unschedulable"), body.get("own")
    if not isinstance(cordoned, bool) or not isinstance(own, bool):
        raise Invalid(f"restore: the snapshot of {request.ref} is incomplete")
    if not cordoned and _cordoned(request.current) and not own_cordon(request.current):
        raise Invalid(f"restore: {request.ref} was cordoned by someone else since; a person must uncordon it")
    return _set(request.current, cordoned=cordoned, own=own)


def _set(node: JsonObject, *, cordoned: bool, own: bool) -> list[JsonObject]:
    found = [put("/spec/unschedulable", cordoned)]
    if own and not _labelled(node):
        labelled = "labels" in mapping(node, "metadata")
        label = put(f"/metadata/labels/{escaped(CORDONED)}", "true")
        found.append(label if labelled else put("/metadata/labels", {CORDONED: "true"}))
    if not own and CORDONED in texts(node, "metadata", "labels"):
        found.append(remove(f"/metadata/labels/{escaped(CORDONED)}"))
    return found


def _cordoned(node: JsonObject) -> bool:
    return flag(node, "spec", "unschedulable")


def own_cordon(node: JsonObject) -> bool:
    """Whether the node is cordoned, by the agent alone."""
    return _labelled(node) and cordon_managers(node) == {FIELD_MANAGER}


def _labelled(node: JsonObject) -> bool:
    return texts(node, "metadata", "labels").get(CORDONED) == "true"
