"""API objects as an API server answers them, cut down to what the connector reads."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.ids import Json, JsonObject
from app.agent.workload import ObjectRef, TargetState

REF = ObjectRef(kind="Deployment", namespace="payments", name="shop")
CONFIG_REF = ObjectRef(kind="ConfigMap", namespace="payments", name="shop-config")


def container(name: str = "app", **fields: Json) -> JsonObject:
    return {"name": name, "image": "shop:1", **fields}


def template(*containers: JsonObject, **spec: Json) -> JsonObject:
    return {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": list(containers or (container(),)), **spec},
    }


def deployment(
    *,
    spec: Mapping[str, Json] | None = None,
    status: Mapping[str, Json] | None = None,
    metadata: Mapping[str, Json] | None = None,
    **more: Json,
) -> JsonObject:
    """`metadata` and `more` are both fields of the metadata."""
    return {
        "kind": "Deployment",
        "metadata": {
            "name": "shop",
            "namespace": "payments",
            "uid": "d-1",
            "generation": 3,
            "resourceVersion": "77",
            **(metadata or {}),
            **more,
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": template(),
            **(spec or {}),
        },
        "status": dict(status or {}),
    }


def replica_set(
    revision: int, pod_template: Mapping[str, Json] | None = None, **metadata: Json
) -> JsonObject:
    return {
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"shop-{revision}",
            "namespace": "payments",
            "uid": f"rs-{revision}",
            "creationTimestamp": f"2026-02-20T17:0{revision}:00Z",
            "ownerReferences": [{"controller": True, "uid": "d-1"}],
            "annotations": {"deployment.kubernetes.io/revision": str(revision)},
            **metadata,
        },
        "spec": {"template": dict(pod_template or template())},
        "status": {},
    }


def config_map(**fields: Json) -> JsonObject:
    return {
        "metadata": {"name": "shop-config", "namespace": "payments", "uid": "c-1", "resourceVersion": "9"},
        **fields,
    }


def target(item: JsonObject, ref: ObjectRef = REF) -> TargetState:
    """The state of `item`, as a decision made just now would hold it."""
    metadata = item["metadata"]
    assert isinstance(metadata, dict)
    return TargetState(
        ref=ref,
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        token="t",
    )
