"""What the view keeps of an object: the fields that are read, and no contents of ConfigMaps. Pure.

A view of a workload made from pruned objects equals the one made from whole objects.
Of a ConfigMap only names of keys and a hash of the data are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from app.agent.ids import Json, JsonObject
from app.connectors.kubernetes.api import Kind
from app.connectors.kubernetes.fields import digest, flag, mapping, objects, text
from app.connectors.kubernetes.releases.migrations import MIGRATES, is_migration, migrates
from app.connectors.kubernetes.routes.effects import TOO_LONG
from app.connectors.kubernetes.views.targets import CONTENT_HASH, config_data_hash

_IDENTITY = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_OWNER = ("kind", "name", "uid", "controller")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
"""A second copy of the whole object, contents of ConfigMaps included."""
_LONGEST_ANNOTATION = 1_024
"""Characters; the annotations that are read are names, numbers and flags."""
_NO_ROUTE = frozenset({"clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "tls"})
"""Fields of a Service or Ingress that the cluster fills in, or that name a Secret."""
_LONGEST_FIELD = 16_384
"""Bytes of one field of a Service, Ingress or NetworkPolicy."""
_CONTAINER_STATUS = ("name", "ready", "restartCount", "imageID", "state", "lastState")
_CONDITION = ("type", "status", "reason", "message", "lastTransitionTime")


def pruned(kind: Kind, item: JsonObject) -> JsonObject:
    """What is kept of an object of that kind."""
    return {"kind": kind.value, **_BY_KIND.get(kind, _workload)(item)}


def _workload(item: JsonObject) -> JsonObject:
    """Specification and status whole, and what a ControllerRevision holds: hashes are made over all of it."""
    return {
        "metadata": {
            **_identity(item),
            **_present(mapping(item, "metadata"), ("generation", "labels")),
            "annotations": _annotations(item),
            "managedFields": _writers(item),
        },
        **_present(item, ("spec", "status", "data", "revision")),
    }


def _pod(item: JsonObject) -> JsonObject:
    migration = is_migration(item)
    kept = ("name", "restartPolicy", "image") if migration else ("name", "restartPolicy")
    specified: dict[str, Json] = {
        field: [
            {**_present(one, kept), **({MIGRATES: True} if migrates(one) else {})}
            for one in objects(item, "spec", field)
        ]
        for field in ("initContainers", *(("containers",) if migration else ()))
    }
    status = mapping(item, "status")
    lists: dict[str, Json] = {
        field: [_present(one, _CONTAINER_STATUS) for one in objects(status, field)]
        for field in ("initContainerStatuses", "containerStatuses")
        if field in status
    }
    conditions: list[Json] = [_present(one, _CONDITION) for one in objects(status, "conditions")]
    return {
        "metadata": {**_identity(item), **_present(mapping(item, "metadata"), ("labels",))},
        "spec": {**_present(mapping(item, "spec"), ("nodeName",)), **specified},
        "status": {**_present(status, ("phase", "reason", "message")), "conditions": conditions, **lists},
    }


def _config_map(item: JsonObject) -> JsonObject:
    """Names of keys, the hash of the data, and who wrote it last; never a value."""
    names: dict[str, Json] = dict.fromkeys((*mapping(item, "data"), *mapping(item, "binaryData")))
    return {
        "metadata": {**_identity(item), "managedFields": _writers(item)},
        CONTENT_HASH: config_data_hash(item),
        "data": names,
    }


def _route(item: JsonObject) -> JsonObject:
    """The specification whole, but for what no request depends on."""
    return {
        "metadata": {**_identity(item), "managedFields": _writers(item)},
        "spec": _bounded({k: v for k, v in mapping(item, "spec").items() if k not in _NO_ROUTE}),
    }


def _bounded(spec: JsonObject) -> JsonObject:
    """A field that is longer than anyone can read is kept as a digest, by which a change is seen."""
    return {
        field: value
        if len(msgspec.json.encode(value)) <= _LONGEST_FIELD
        else [{TOO_LONG: digest(value)}]
        if isinstance(value, list)
        else {TOO_LONG: digest(value)}
        for field, value in spec.items()
    }


def _event(item: JsonObject) -> JsonObject:
    return {**item, "metadata": _identity(item)}


_BY_KIND: Mapping[Kind, Callable[[JsonObject], JsonObject]] = {
    Kind.POD: _pod,
    Kind.CONFIG_MAP: _config_map,
    Kind.EVENT: _event,
    Kind.SERVICE: _route,
    Kind.INGRESS: _route,
    Kind.NETWORK_POLICY: _route,
}


def _identity(item: JsonObject) -> JsonObject:
    metadata = mapping(item, "metadata")
    owners: list[Json] = [
        _present(one, _OWNER) for one in objects(metadata, "ownerReferences") if flag(one, "controller")
    ]
    return {**_present(metadata, _IDENTITY), **({"ownerReferences": owners} if owners else {})}


def _annotations(item: JsonObject) -> JsonObject:
    return {
        name: value
        for name, value in mapping(item, "metadata", "annotations").items()
        if name != _LAST_APPLIED and isinstance(value, str) and len(value) <= _LONGEST_ANNOTATION
    }


def _writers(item: JsonObject) -> list[Json]:
    """Who wrote which part of the object, two levels deep: further down nothing is read."""
    return [
        {
            **_present(entry, ("manager", "operation", "subresource", "time")),
            "fieldsV1": {
                part: {} if part == "f:data" else {field: {} for field in mapping(entry, "fieldsV1", part)}
                for part in mapping(entry, "fieldsV1")
                if part not in ("f:metadata", "f:status")
            },
        }
        for entry in objects(item, "metadata", "managedFields")
        if text(entry, "subresource") != "status"
    ]


def _present(item: JsonObject, names: tuple[str, ...]) -> JsonObject:
    return {name: item[name] for name in names if name in item}
