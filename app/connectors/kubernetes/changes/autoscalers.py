"""Raises the most replicas that an autoscaler sets. Pure."""

from __future__ import annotations

from app.agent.ids import JsonObject
from app.connectors.kubernetes.changes.request import ChangeRequest, body_of, integer, put
from app.connectors.kubernetes.fields import controller, number
from app.errors import Invalid


def snapshot_of(autoscaler: JsonObject) -> JsonObject:
    """The most replicas that it sets."""
    return {"maxReplicas": number(autoscaler, "spec", "maxReplicas")}


def raise_bounds(request: ChangeRequest) -> list[JsonObject]:
    """Never lower than it is, and never of one that another object writes."""
    owner = controller(request.current)
    if owner is not None:
        kind, named = owner
        raise Invalid(
            f"{request.action.name}: {request.ref} is written by {kind} {named}, which sets it again"
        )
    wanted, now = integer(request.action, "maximum"), number(request.current, "spec", "maxReplicas")
    if now is None or wanted <= now:
        raise Invalid(f"{request.action.name}: {request.ref} sets up to {now} replicas already")
    return [put("/spec/maxReplicas", wanted)]


def restore(request: ChangeRequest) -> list[JsonObject]:
    """As it was before."""
    before = body_of(request).get("maxReplicas")
    if not isinstance(before, int) or isinstance(before, bool):
        raise Invalid(f"restore: the snapshot of {request.ref} is incomplete")
    return [put("/spec/maxReplicas", before)]
