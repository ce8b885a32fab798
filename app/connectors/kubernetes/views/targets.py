"""What a decision on a workload or ConfigMap is bound to, and who changed it last. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from app.agent.actions.target_parts import parts_held
from app.agent.guardrails import target_token
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Action
from app.agent.workload import ConfigMapView, ObjectRef, TargetState
from app.connectors.kubernetes.fields import digest, flag, mapping, moment, name, number, objects, text, uid
from app.connectors.kubernetes.templates import PREFIX, template_hash, template_of
from app.connectors.kubernetes.views.plain import PLAIN_PARTS
from app.connectors.kubernetes.views.progress import rollout_parts

MARKER = PREFIX + "intent"
CONTENT_HASH = PREFIX + "content-hash"
"""Where a ConfigMap that is kept without its values holds their hash."""

_SPEC = (("f:spec",),)
_DATA = (("f:data",), ("f:binaryData",))
TEMPLATE = (("f:spec", "f:template"),)
"""Where `managedFields` says who wrote the template of a workload."""
_PARTS = {
    target_token.TEMPLATE: TEMPLATE,
    target_token.PAUSED: (("f:spec", "f:paused"),),
    target_token.REPLICAS: (("f:spec", "f:replicas"),),
    target_token.DATA: _DATA,
    target_token.UNSCHEDULABLE: (("f:spec", "f:unschedulable"),),
    target_token.CORDONED_BY: (("f:spec", "f:unschedulable"),),
    target_token.MAXIMUM: (("f:spec", "f:maxReplicas"),),
    target_token.READY: (),
    target_token.TERMINATING: (),
    target_token.ABORTED: (),
    target_token.ABORTED_AT: (),
    target_token.STEP: (),
    target_token.RUN: (),
    target_token.REPEATED_AS: (),
}
"""Where `managedFields` says who owns each part of a token."""
_OWN_PARTS = frozenset({"template", "replicas", "paused"})
"""The fields of a workload's spec that the token names one by one."""
_TOKEN_DIGITS = 16


def config_data_hash(config_map: JsonObject) -> str:
    """Over the data alone; binary data joins in where there is some."""
    kept = text(config_map, CONTENT_HASH)
    if kept is not None:
        return kept
    data = mapping(config_map, "data")
    binary = mapping(config_map, "binaryData")
    return digest({"data": data, "binaryData": binary} if binary else data)


def target_state(ref: ObjectRef, item: JsonObject, action: Action | None = None) -> TargetState:
    """What a decision on this object is bound to; with an action, `changed_by` is about what it changes."""
    held = () if action is None else parts_held(action)
    paths = [path for part in held for path in _PARTS[part]] or (_DATA if ref.kind == "ConfigMap" else _SPEC)
    marker = text(item, "metadata", "annotations", MARKER)
    return TargetState(
        ref=ref,
        uid=uid(item),
        resource_version=text(item, "metadata", "resourceVersion") or "",
        token=_token(ref, item),
        marker=IntentId(marker) if marker is not None else None,
        changed_by=text(last_change(item, paths), "manager"),
    )


def _token(ref: ObjectRef, item: JsonObject) -> str:
    if ref.kind == "ConfigMap":
        return f"{uid(item)}/{config_data_hash(item)}"
    if ref.kind in PLAIN_PARTS:
        return target_token.object_token(uid(item), PLAIN_PARTS[ref.kind](item))
    rest = {field: value for field, value in mapping(item, "spec").items() if field not in _OWN_PARTS}
    token = target_token.workload_token(
        uid(item),
        generation=number(item, "metadata", "generation") or 0,
        template=template_hash(template_of(item))[:_TOKEN_DIGITS],
        paused=flag(item, "spec", "paused"),
        replicas=desired_replicas(item),
        rest=digest(rest)[:_TOKEN_DIGITS],
    )
    return target_token.with_parts(token, rollout_parts(item)) if ref.kind == ROLLOUT else token


def last_change(item: JsonObject, paths: Sequence[tuple[str, ...]]) -> JsonObject:
    """The entry of `managedFields` that touched one of `paths` last; empty where none says so.

    Entries of the subresource `scale` carry no time. The writer of a field takes it
    from the others, so an entry without a time that still holds one wrote it last.
    """
    last: JsonObject = {}
    at: datetime | None = None
    whole = ("f:spec",) in paths
    for entry in objects(item, "metadata", "managedFields"):
        if text(entry, "subresource") == "status":
            continue
        fields = mapping(entry, "fieldsV1")
        if not any(path[-1] in mapping(fields, *path[:-1]) for path in paths):
            continue
        time = moment(entry, "time")
        if time is None and not whole:
            return entry
        if not last or (time is not None and (at is None or time >= at)):
            last, at = entry, time
    return last


def desired_replicas(workload: JsonObject) -> int:
    """The replicas that a workload asks for; 1 where it does not say."""
    replicas = number(workload, "spec", "replicas")
    return 1 if replicas is None else replicas


def update_strategy(workload: JsonObject) -> JsonObject:
    """How its controller replaces pods: a Deployment says `strategy`, the others `updateStrategy`."""
    return mapping(workload, "spec", "updateStrategy") or mapping(workload, "spec", "strategy")


def config_map_view(config_map: JsonObject, read_at_start: frozenset[str]) -> ConfigMapView:
    """A ConfigMap without its values; `read_at_start` names those that go into an environment."""
    changed = last_change(config_map, _DATA)
    return ConfigMapView(
        name=name(config_map),
        content_hash=config_data_hash(config_map),
        resource_version=text(config_map, "metadata", "resourceVersion") or "",
        keys=tuple(sorted({*mapping(config_map, "data"), *mapping(config_map, "binaryData")})),
        changed_at=moment(changed, "time") or moment(config_map, "metadata", "creationTimestamp"),
        read_at_start=name(config_map) in read_at_start,
    )
