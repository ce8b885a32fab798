"""The pod that a change of a Deployment would have made, for a dry run of its creation. Pure."""

from __future__ import annotations

from app.agent.ids import JsonObject
from app.connectors.kubernetes.fields import (
    mapping,
    name,
    text,
    uid,
)
from app.connectors.kubernetes.templates import template_of


def trial_pod(deployment: JsonObject, replica_set: JsonObject | None) -> JsonObject:
    """A pod of the Deployment's template, owned as its pods are, so that policies judge it as one of them."""
    template = template_of(deployment)
    metadata = dict(mapping(template, "metadata"))
    metadata.pop("creationTimestamp", None)
    metadata["generateName"] = f"{name(deployment)[:50]}-rehearsal-"
    metadata["namespace"] = text(deployment, "metadata", "namespace") or ""
    if replica_set is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": name(replica_set),
                "uid": uid(replica_set),
                "controller": True,
            }
        ]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": mapping(template, "spec")}
