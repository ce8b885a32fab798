"""The pod that a change of a workload would have made, for a dry run of its creation. Pure."""

from __future__ import annotations

from app.agent.ids import JsonObject
from app.connectors.kubernetes.fields import (
    kind_of,
    mapping,
    name,
    objects,
    text,
    uid,
)
from app.connectors.kubernetes.templates import template_of


def trial_pod(workload: JsonObject, owner: JsonObject | None) -> JsonObject:
    """A pod of the workload's template, owned as its pods are, so that policies judge it as one of them.

    It names the claims of a StatefulSet's first pod; a dry run makes none.
    """
    template = template_of(workload)
    metadata = dict(mapping(template, "metadata"))
    metadata.pop("creationTimestamp", None)
    metadata["generateName"] = f"{name(workload)[:50]}-rehearsal-"
    metadata["namespace"] = text(workload, "metadata", "namespace") or ""
    if owner is not None:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "apps/v1",
                "kind": kind_of(owner),
                "name": name(owner),
                "uid": uid(owner),
                "controller": True,
            }
        ]
    spec = dict(mapping(template, "spec"))
    claims = [name(claim) for claim in objects(workload, "spec", "volumeClaimTemplates")]
    if claims:
        own = [volume for volume in objects(spec, "volumes") if text(volume, "name") not in claims]
        spec["volumes"] = [*own, *(_claimed(claim, f"{claim}-{name(workload)}-0") for claim in claims)]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _claimed(volume: str, claim: str) -> JsonObject:
    return {"name": volume, "persistentVolumeClaim": {"claimName": claim}}
