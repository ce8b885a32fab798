"""Turns an action into the one JSON patch that carries it out.

Pure; called by writer and rehearsal alike, so that a dry run asks for exactly
what would be done. Every patch begins with the uid and resourceVersion it was
decided on and holds the marker of its intent: promise 2 is kept by the API
server, which refuses the second copy of it.
"""

from __future__ import annotations

from app.agent.guardrails.target_token import (
    PAUSED,
    REPLICAS,
    TEMPLATE,
    parts_changed,
)
from app.agent.ids import IntentId, Json, JsonObject
from app.agent.models import Action, ActionName, Snapshot
from app.agent.workload import ObjectRef, TargetState
from app.connectors.kubernetes.fields import (
    flag,
    mapping,
    number,
    text,
    texts,
)
from app.connectors.kubernetes.mapping import is_namespace_name, is_object_name
from app.connectors.kubernetes.templates import (
    RESTARTED_AT,
    template_hash,
    template_of,
    with_config_of,
)
from app.connectors.kubernetes.views import MARKER, config_data_hash
from app.errors import Conflict, Invalid

_ON_DEPLOYMENT = frozenset(
    {
        ActionName.RESTART,
        ActionName.ROLLBACK,
        ActionName.REVERT_CONFIG,
        ActionName.SCALE,
        ActionName.PAUSE,
        ActionName.RESUME,
        ActionName.RESTORE,
    }
)
_ON_CONFIG_MAP = frozenset({ActionName.REVERT_CONFIG, ActionName.RESTORE})
_NEW_TEMPLATE = frozenset({ActionName.RESTART, ActionName.ROLLBACK, ActionName.REVERT_CONFIG})


def target_ref(action: Action) -> ObjectRef:
    """The object that an action names; `Invalid` where it is none that the agent may look at."""
    ref = action.target
    if ref is None:
        raise Invalid(f"{action.name} names no object of the cluster")
    if ref.kind not in ("Deployment", "ConfigMap"):
        raise Invalid(f"{action.name} cannot act on a {ref.kind}")
    if not is_namespace_name(ref.namespace) or not is_object_name(ref.name):
        raise Invalid(f"{action.name}: {str(ref)!r} is not a valid name")
    return ref


def writable_ref(action: Action) -> ObjectRef:
    """The object that an action would change; `Invalid` where the two do not go together."""
    ref = target_ref(action)
    if action.name not in (_ON_CONFIG_MAP if ref.kind == "ConfigMap" else _ON_DEPLOYMENT):
        raise Invalid(f"{action.name} is no change of a {ref.kind}")
    return ref


def revision_wanted(action: Action) -> int | None:
    """The revision of the Deployment that the change needs the template of."""
    ref = action.target
    if ref is None or ref.kind != "Deployment":
        return None
    if action.name in (ActionName.ROLLBACK, ActionName.REVERT_CONFIG):
        return _integer(action, "revision")
    return None


def snapshot_body(ref: ObjectRef, current: JsonObject) -> JsonObject:
    """What the object asks for now, in the form that `restore` takes."""
    if ref.kind == "ConfigMap":
        return {"data": mapping(current, "data"), "binaryData": mapping(current, "binaryData")}
    return {
        "spec": {
            "template": template_of(current),
            "replicas": number(current, "spec", "replicas"),
            "paused": flag(current, "spec", "paused"),
        }
    }


def check_unmoved(current: JsonObject, target: TargetState, intent_id: IntentId) -> None:
    """`Conflict` when the object is not in the state decided on, or carries the intent already."""
    if (
        text(current, "metadata", "uid") != target.uid
        or text(current, "metadata", "resourceVersion") != target.resource_version
    ):
        raise Conflict(f"{target.ref} changed since the decision")
    if text(current, "metadata", "annotations", MARKER) == intent_id:
        raise Conflict(f"{target.ref} already carries intent {intent_id}")


def patch_for(
    action: Action,
    intent_id: IntentId,
    current: JsonObject,
    *,
    target: TargetState,
    revision: JsonObject | None,
    snapshot: Snapshot | None,
) -> list[JsonObject]:
    """The whole patch: preconditions, marker, change.

    `revision` is the ReplicaSet of `revision_wanted`, None when the Deployment
    keeps none of that number.
    """
    return [
        {"op": "replace", "path": "/metadata/uid", "value": target.uid},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": target.resource_version},
        _annotate("/metadata", mapping(current, "metadata"), MARKER, intent_id),
        *_change(action, intent_id, current, revision=revision, snapshot=snapshot),
    ]


def _change(
    action: Action,
    intent_id: IntentId,
    current: JsonObject,
    *,
    revision: JsonObject | None,
    snapshot: Snapshot | None,
) -> list[JsonObject]:
    ref = writable_ref(action)
    if ref.kind == "ConfigMap":
        return _config_map_change(action, current, _body_of(action, ref, snapshot))
    if action.name in _NEW_TEMPLATE and flag(current, "spec", "paused"):
        raise Invalid(f"{action.name}: {ref} is paused; resume it first")
    match action.name:
        case ActionName.RESTART:
            # The intent's id: the same for a repeat, another for the next restart.
            metadata = mapping(current, "spec", "template", "metadata")
            return [_annotate("/spec/template/metadata", metadata, RESTARTED_AT, intent_id)]
        case ActionName.ROLLBACK:
            return [_set("/spec/template", _template_to_return_to(action, current, revision))]
        case ActionName.REVERT_CONFIG:
            return [_set("/spec/template", _template_with_config(action, current, revision))]
        case ActionName.SCALE:
            return [_set("/spec/replicas", _integer(action, "replicas"))]
        case ActionName.PAUSE:
            return [_set("/spec/paused", True)]
        case ActionName.RESUME:
            return [_set("/spec/paused", False)]
        case _:
            return _deployment_restore(action, ref, current, _body_of(action, ref, snapshot))


# ---------------------------------------------------------------- Deployments


def _kept_template(action: Action, revision: JsonObject | None) -> JsonObject:
    if revision is None:
        raise Invalid(
            f"{action.name}: revision {action.parameters.get('revision')} of {action.target} is not kept"
        )
    return template_of(revision)


def _template_to_return_to(action: Action, current: JsonObject, revision: JsonObject | None) -> JsonObject:
    return _must_differ(action, current, _kept_template(action, revision))


def _template_with_config(action: Action, current: JsonObject, revision: JsonObject | None) -> JsonObject:
    """The present code with the configuration of the revision."""
    old = _kept_template(action, revision)
    return _must_differ(action, current, with_config_of(template_of(current), old))


def _must_differ(action: Action, current: JsonObject, wanted: JsonObject) -> JsonObject:
    if template_hash(wanted) == template_hash(template_of(current)):
        raise Invalid(f"{action.name}: {action.target} already requests exactly this")
    return wanted


def _deployment_restore(
    action: Action, ref: ObjectRef, current: JsonObject, body: JsonObject
) -> list[JsonObject]:
    """Only what the undone action changed: what others set meanwhile, such as replicas, stays theirs."""
    parts = parts_changed(action)
    if TEMPLATE in parts and flag(current, "spec", "paused"):
        raise Invalid(f"{action.name}: {ref} is paused; resume it first")
    spec = mapping(body, "spec")
    template, replicas, paused = spec.get("template"), number(spec, "replicas"), spec.get("paused")
    if not isinstance(template, dict) or not template or replicas is None or not isinstance(paused, bool):
        raise Invalid(f"restore: the snapshot of {ref} is incomplete")
    wanted: dict[str, Json] = {TEMPLATE: template, REPLICAS: replicas, PAUSED: paused}
    return [_set(f"/spec/{part}", value) for part, value in wanted.items() if not parts or part in parts]


# ---------------------------------------------------------------- ConfigMaps


def _config_map_change(action: Action, current: JsonObject, body: JsonObject) -> list[JsonObject]:
    wanted = body.get("data")
    if not isinstance(wanted, dict) or len(texts(body, "data")) != len(wanted):
        raise Invalid(f"{action.name}: the wanted data of {action.target} is missing or no text")
    binary = body.get("binaryData", mapping(current, "binaryData"))
    if not isinstance(binary, dict) or any(not isinstance(item, str) for item in binary.values()):
        raise Invalid(f"{action.name}: the wanted binary data of {action.target} is no text")
    if action.name is ActionName.REVERT_CONFIG and config_data_hash(
        {"data": wanted, "binaryData": binary}
    ) == config_data_hash(current):
        raise Invalid(f"{action.name}: {action.target} already holds exactly this")
    return [_set("/data", wanted), _set("/binaryData", binary)]


# ---------------------------------------------------------------- parts


def _body_of(action: Action, ref: ObjectRef, snapshot: Snapshot | None) -> JsonObject:
    if snapshot is None:
        raise Invalid(f"{action.name} of {ref} needs a snapshot")
    if snapshot.ref != ref:
        raise Invalid(f"{action.name}: the snapshot is of {snapshot.ref}, not of {ref}")
    return snapshot.body


def _integer(action: Action, parameter: str) -> int:
    value = action.parameters.get(parameter)
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(f"{action.name}: parameter {parameter} must be a whole number, not {value!r}")
    return value


def _set(path: str, value: Json) -> JsonObject:
    return {"op": "add", "path": path, "value": value}


def _annotate(path: str, metadata: JsonObject, annotation: str, value: str) -> JsonObject:
    if isinstance(metadata.get("annotations"), dict):
        escaped = annotation.replace("~", "~0").replace("/", "~1")
        return _set(f"{path}/annotations/{escaped}", value)
    return _set(f"{path}/annotations", {annotation: value})
