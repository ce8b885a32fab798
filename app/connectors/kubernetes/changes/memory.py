"""Raises the memory limit of one container in the pod template. Pure."""

from __future__ import annotations

from app.agent.ids import JsonObject
from app.connectors.kubernetes.changes.request import ChangeRequest, integer, put
from app.connectors.kubernetes.fields import mapping, objects, text
from app.connectors.kubernetes.views.quantities import as_bytes
from app.errors import Invalid

MIB = 1024 * 1024


def raise_limit(request: ChangeRequest) -> list[JsonObject]:
    """The limit alone: the request, by which pods are scheduled, stays."""
    action = request.action
    wanted, named = integer(action, "memory_mib"), action.parameters.get("container")
    containers = objects(request.current, "spec", "template", "spec", "containers")
    place = next((at for at, one in enumerate(containers) if text(one, "name") == named), None)
    if place is None:
        raise Invalid(f"{action.name}: {request.ref} has no container {named!r}")
    limits = mapping(containers[place], "resources", "limits")
    now = as_bytes(text(limits, "memory"))
    if now is None:
        raise Invalid(f"{action.name}: container {named} of {request.ref} has no memory limit")
    if wanted * MIB <= now:
        raise Invalid(f"{action.name}: container {named} of {request.ref} may use {wanted} MiB already")
    return [put(f"/spec/template/spec/containers/{place}/resources/limits/memory", f"{wanted}Mi")]
