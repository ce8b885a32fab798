"""Turns an action into the one JSON patch that carries it out.

Pure; called by writer and rehearsal alike, so that a dry run asks for exactly
what would be done. Every patch begins with the uid and resourceVersion it was
decided on and holds the marker of its intent: promise 2 is kept by the API
server, which refuses the second copy of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from app.agent.actions.spec import CONFIG_MAP
from app.agent.actions.target_parts import on_status, parts_changed
from app.agent.batch.runs import JOB
from app.agent.guardrails import target_token
from app.agent.guardrails.target_token import ABORTED, PAUSED, REPLICAS, TEMPLATE
from app.agent.guardrails.workload_kinds import (
    AUTOSCALER,
    CLUSTER_WIDE,
    NODE,
    POD,
    ROLLOUT,
    WORKLOAD_KINDS,
    kinds_with,
)
from app.agent.ids import IntentId, Json, JsonObject
from app.agent.models import Action, ActionName, Snapshot
from app.agent.workload import ObjectRef, TargetState
from app.connectors.kubernetes.changes import autoscalers, flags, memory, nodes, rollouts
from app.connectors.kubernetes.changes.request import (
    Change,
    ChangeRequest,
    body_of,
    escaped,
    integer,
    put,
)
from app.connectors.kubernetes.fields import (
    condition_of,
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
from app.connectors.kubernetes.views import MARKER, config_data_hash, update_strategy
from app.errors import Conflict, Invalid


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """How an action changes each kind of object that it acts on."""

    changes: Mapping[str, Change]
    uses_revision: bool = False
    """Whether a workload's change needs the template of the parameter `revision`."""
    deletes: bool = False
    """It is no patch: the object is deleted, in exactly the state that was decided on."""
    creates: bool = False
    """It is no patch: another object is created, and this one stays as it is."""


def target_ref(action: Action) -> ObjectRef:
    """The object that an action names; `Invalid` where it is none that the agent may look at."""
    ref = action.target
    if ref is None:
        raise Invalid(f"{action.name} names no object of the cluster")
    if not any(ref.kind in patch.changes for patch in PATCHES.values()):
        raise Invalid(f"{action.name} cannot act on a {ref.kind}")
    placed = ref.namespace == "" if ref.kind in CLUSTER_WIDE else is_namespace_name(ref.namespace)
    if not placed or not is_object_name(ref.name):
        raise Invalid(f"{action.name}: {str(ref)!r} is not a valid name")
    return ref


def writable_ref(action: Action) -> ObjectRef:
    """The object that an action would change; `Invalid` where the two do not go together."""
    ref = target_ref(action)
    if action.name not in PATCHES or ref.kind not in PATCHES[action.name].changes:
        raise Invalid(f"{action.name} does not change a {ref.kind}")
    return ref


def deletes(action: Action) -> bool:
    """Whether the action deletes its object."""
    return action.name in PATCHES and PATCHES[action.name].deletes


def creates(action: Action) -> bool:
    """Whether the action creates another object."""
    return action.name in PATCHES and PATCHES[action.name].creates


def check_deletable(action: Action, current: JsonObject) -> None:
    """`Invalid` for a pod that serves, or whose deletion was requested before."""
    if text(condition_of(current, "Ready"), "status") == "True":
        raise Invalid(f"{action.name.words}: {action.target} is ready")
    if text(current, "metadata", "deletionTimestamp") is not None:
        raise Invalid(f"{action.name.words}: {action.target} is being deleted already")


def revision_wanted(action: Action) -> int | None:
    """The revision of the workload that the change needs the template of."""
    ref = action.target
    if ref is None or ref.kind not in WORKLOAD_KINDS or not PATCHES[action.name].uses_revision:
        return None
    return integer(action, "revision")


def snapshot_body(ref: ObjectRef, current: JsonObject) -> JsonObject:
    """What the object asks for now, in the form that `restore` takes."""
    other = _SNAPSHOTS.get(ref.kind)
    if other is not None:
        return other(current)
    whole: JsonObject = {
        TEMPLATE: template_of(current),
        REPLICAS: number(current, "spec", "replicas"),
        PAUSED: flag(current, "spec", "paused"),
    }
    return {"spec": {part: whole[part] for part in WORKLOAD_KINDS[ref.kind].parts}}


def _data_of(config_map: JsonObject) -> JsonObject:
    return {"data": mapping(config_map, "data"), "binaryData": mapping(config_map, "binaryData")}


def _nothing(item: JsonObject) -> JsonObject:  # noqa: ARG001 - every snapshot has the same signature
    """What is deleted, or has run, cannot be put back."""
    return {}


_SNAPSHOTS: Mapping[str, Callable[[JsonObject], JsonObject]] = MappingProxyType(
    {
        CONFIG_MAP: _data_of,
        ROLLOUT: rollouts.snapshot_of,
        NODE: nodes.snapshot_of,
        AUTOSCALER: autoscalers.snapshot_of,
        POD: _nothing,
        JOB: _nothing,
    }
)
"""What is kept of an object that is no workload."""


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

    `revision` is what keeps the revision of `revision_wanted`, None when the workload
    keeps none of that number.
    """
    request = ChangeRequest(
        action=action,
        ref=writable_ref(action),
        intent_id=intent_id,
        current=current,
        revision=revision,
        snapshot=snapshot,
    )
    marker = _annotate("/metadata", mapping(current, "metadata"), MARKER, intent_id)
    return [
        {"op": "replace", "path": "/metadata/uid", "value": target.uid},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": target.resource_version},
        *(() if on_status(action) else (marker,)),
        *_change(request),
    ]


def _change(request: ChangeRequest) -> list[JsonObject]:
    action, ref = request.action, request.ref
    rolls_out = ref.kind in WORKLOAD_KINDS and TEMPLATE in parts_changed(action)
    if rolls_out and text(update_strategy(request.current), "type") == "OnDelete":
        raise Invalid(f"{action.name}: {ref} takes a new template only when someone deletes its pods")
    if rolls_out and flag(request.current, "spec", "paused"):
        raise Invalid(f"{action.name}: {ref} is paused; resume it first")
    return PATCHES[action.name].changes[ref.kind](request)


# ---------------------------------------------------------------- workloads


def _kept_template(action: Action, revision: JsonObject | None) -> JsonObject:
    if revision is None:
        raise Invalid(
            f"{action.name}: revision {action.parameters.get('revision')} of {action.target} is not kept"
        )
    return template_of(revision)


def _restart(request: ChangeRequest) -> list[JsonObject]:
    """The intent's id: the same for a repeat, another for the next restart."""
    metadata = mapping(request.current, "spec", "template", "metadata")
    return [_annotate("/spec/template/metadata", metadata, RESTARTED_AT, request.intent_id)]


def _roll_back(request: ChangeRequest) -> list[JsonObject]:
    kept = _kept_template(request.action, request.revision)
    return [put("/spec/template", _must_differ(request.action, request.current, kept))]


def _revert_template(request: ChangeRequest) -> list[JsonObject]:
    """The present code with the configuration of the revision."""
    old = _kept_template(request.action, request.revision)
    wanted = with_config_of(template_of(request.current), old)
    return [put("/spec/template", _must_differ(request.action, request.current, wanted))]


def _scale(request: ChangeRequest) -> list[JsonObject]:
    return [put("/spec/replicas", integer(request.action, "replicas"))]


def _pause(request: ChangeRequest) -> list[JsonObject]:  # noqa: ARG001 - every change has the same signature
    return [put("/spec/paused", True)]


def _resume(request: ChangeRequest) -> list[JsonObject]:  # noqa: ARG001 - every change has the same signature
    return [put("/spec/paused", False)]


def _must_differ(action: Action, current: JsonObject, wanted: JsonObject) -> JsonObject:
    if template_hash(wanted) == template_hash(template_of(current)):
        raise Invalid(f"{action.name}: {action.target} already requests exactly this")
    return wanted


def _restore_workload(request: ChangeRequest) -> list[JsonObject]:
    """Only what the undone action changed: what others set meanwhile, such as replicas, stays theirs."""
    ref = request.ref
    spec = mapping(body_of(request), "spec")
    held = WORKLOAD_KINDS[ref.kind].parts
    wanted = {part: spec.get(part) for part in parts_changed(request.action) or held if part in held}
    if not wanted or any(_is_no(part, value) for part, value in wanted.items()):
        raise Invalid(f"restore: the snapshot of {ref} is incomplete")
    return [put(f"/spec/{part}", value) for part, value in wanted.items()]


def _is_no(part: str, value: Json) -> bool:
    """Whether a value cannot be what a snapshot holds of that part."""
    match part:
        case target_token.TEMPLATE:
            return not isinstance(value, dict) or not value
        case target_token.REPLICAS:
            return not isinstance(value, int) or isinstance(value, bool)
        case _:
            return not isinstance(value, bool)


# ---------------------------------------------------------------- ConfigMaps


def _revert_data(request: ChangeRequest) -> list[JsonObject]:
    data, binary = _wanted_data(request)
    if config_data_hash({"data": data, "binaryData": binary}) == config_data_hash(request.current):
        raise Invalid(f"{request.action.name}: {request.ref} already holds exactly this")
    return _put_data(data, binary)


def _restore_data(request: ChangeRequest) -> list[JsonObject]:
    return _put_data(*_wanted_data(request))


def _put_data(data: JsonObject, binary: JsonObject) -> list[JsonObject]:
    return [put("/data", data), put("/binaryData", binary)]


def _wanted_data(request: ChangeRequest) -> tuple[JsonObject, JsonObject]:
    action, body = request.action, body_of(request)
    wanted = body.get("data")
    if not isinstance(wanted, dict) or len(texts(body, "data")) != len(wanted):
        raise Invalid(f"{action.name}: the wanted data of {action.target} is missing or no text")
    binary = body.get("binaryData", mapping(request.current, "binaryData"))
    if not isinstance(binary, dict) or any(not isinstance(item, str) for item in binary.values()):
        raise Invalid(f"{action.name}: the wanted binary data of {action.target} is not text")
    return wanted, binary


def _restore_rollout(request: ChangeRequest) -> list[JsonObject]:
    return rollouts.restore(request, PAUSED if PAUSED in parts_changed(request.action) else ABORTED)


def _unmarked(request: ChangeRequest) -> list[JsonObject]:  # noqa: ARG001 - every change has the same signature
    """A deletion and a creation change no field of the object."""
    return []


def _on_workloads(part: str, change: Change) -> dict[str, Change]:
    """The change for each kind of workload of which the agent may change that part."""
    return dict.fromkeys(kinds_with(part), change)


PATCHES: Mapping[ActionName, Patch] = MappingProxyType(
    {
        ActionName.RESTART: Patch(changes=_on_workloads(TEMPLATE, _restart)),
        ActionName.ROLLBACK: Patch(changes=_on_workloads(TEMPLATE, _roll_back), uses_revision=True),
        ActionName.REVERT_CONFIG: Patch(
            changes={**_on_workloads(TEMPLATE, _revert_template), CONFIG_MAP: _revert_data},
            uses_revision=True,
        ),
        ActionName.SCALE: Patch(changes=_on_workloads(REPLICAS, _scale)),
        ActionName.PAUSE: Patch(changes=_on_workloads(PAUSED, _pause)),
        ActionName.RESUME: Patch(changes=_on_workloads(PAUSED, _resume)),
        ActionName.CORDON: Patch(changes={NODE: nodes.cordon}),
        ActionName.UNCORDON: Patch(changes={NODE: nodes.uncordon}),
        ActionName.DRAIN_NODE: Patch(changes={NODE: nodes.cordon, POD: _unmarked}),
        ActionName.DELETE_STUCK_POD: Patch(changes={POD: _unmarked}, deletes=True),
        ActionName.RAISE_AUTOSCALER_BOUNDS: Patch(changes={AUTOSCALER: autoscalers.raise_bounds}),
        ActionName.RAISE_MEMORY_LIMIT: Patch(changes=_on_workloads(TEMPLATE, memory.raise_limit)),
        ActionName.DISABLE_FLAG: Patch(changes={CONFIG_MAP: flags.set_flag}),
        ActionName.RERUN_JOB: Patch(changes={JOB: _unmarked}, creates=True),
        ActionName.ABORT_ROLLOUT: Patch(changes={ROLLOUT: rollouts.abort}),
        ActionName.RETRY_ROLLOUT: Patch(changes={ROLLOUT: rollouts.retry}),
        ActionName.PROMOTE_ROLLOUT: Patch(changes={ROLLOUT: rollouts.promote}),
        ActionName.PAUSE_ROLLOUT: Patch(changes={ROLLOUT: rollouts.pause}),
        ActionName.RESTORE: Patch(
            changes={
                ROLLOUT: _restore_rollout,
                **_on_workloads(TEMPLATE, _restore_workload),
                CONFIG_MAP: _restore_data,
                NODE: nodes.restore,
                AUTOSCALER: autoscalers.restore,
            }
        ),
    }
)
"""One entry for each action that acts on an object of the cluster."""


# ---------------------------------------------------------------- parts


def _annotate(path: str, metadata: JsonObject, annotation: str, value: str) -> JsonObject:
    if isinstance(metadata.get("annotations"), dict):
        return put(f"{path}/annotations/{escaped(annotation)}", value)
    return put(f"{path}/annotations", {annotation: value})
