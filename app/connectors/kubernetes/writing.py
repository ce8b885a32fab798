"""The two ports that send changes: rehearsal (`dryRun=All`) and writer.

Both build the same patch on the state that was decided on. A change that has new
pods made is rehearsed with one of them as well: admission policies, quota and Pod
Security answer to the pod, not to the workload.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from app.agent.actions.target_parts import on_status, same_ground
from app.agent.guardrails.drains import MOST_EVICTIONS, drains_node, is_eviction
from app.agent.guardrails.field_diff import in_words, parts_shown
from app.agent.guardrails.target_token import READY, TERMINATING, makes_pods, object_token
from app.agent.guardrails.workload_kinds import ROLLOUT
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Action, ActionName, Rehearsal, Snapshot
from app.agent.workload import ObjectRef, TargetState
from app.connectors.kubernetes.api import (
    DryRunApi,
    Kind,
    PatchApi,
    ReadApi,
)
from app.connectors.kubernetes.changes.repeating import repeat
from app.connectors.kubernetes.fields import (
    controller_uid,
    kind_of,
    mapping,
    text,
    uid,
)
from app.connectors.kubernetes.index import selector_query
from app.connectors.kubernetes.mapping import WORKLOADS
from app.connectors.kubernetes.patches import (
    check_deletable,
    check_unmoved,
    creates,
    deletes,
    patch_for,
    revision_wanted,
    target_ref,
    writable_ref,
)
from app.connectors.kubernetes.reading.nodes import read_load
from app.connectors.kubernetes.templates import template_of
from app.connectors.kubernetes.views import revision_number, target_state
from app.connectors.kubernetes.views.references import references
from app.connectors.kubernetes.views.trial_pod import trial_pod
from app.errors import Conflict, Forbidden, Invalid, NotFound, PermanentError

REHEARSAL_INTENT = IntentId("rehearsal")
"""Marker of a dry run, which nothing keeps."""

_ATTEMPTS = 5
"""A status that moves between look and dry run is no change: the object is read again."""

_NO_RIGHT = 'cannot create resource "pods"'
"""Part of the API server's answer where RBAC, and not an admission plugin, refuses."""


class KubernetesRehearsal:
    """`ClusterRehearsal`: sends the patch of the writer, and a pod of its template, with `dryRun=All`."""

    def __init__(self, api: ReadApi, patches: PatchApi) -> None:
        """`patches` must come from a dry-run connection."""
        if not patches.dry_run:
            raise ValueError("a rehearsal over a connection that persists")
        self._api = api
        self._patches = patches
        self._pods = DryRunApi(patches.connection)

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        try:
            if creates(action):
                _, created = await repeat(self._api, self._patches, action, REHEARSAL_INTENT, target)
                return Rehearsal(accepted=True, message=f"Job {created} would be created")
            before, after = await self._patched(action, target, snapshot)
            if drains_node(action):
                await self._evictions(action)
            ref = target.ref
            message, status = f"{ref} would be changed", on_status(action)
            shown = [parts_shown(one, status=status) for one in (before, after)]
            changed = in_words(*shown)
            if (
                ref.kind in WORKLOADS
                and ref.kind != ROLLOUT
                and makes_pods(target_state(ref, before).token, target_state(ref, after).token)
            ):
                message += await self._with_a_pod(after)
                if action.name is not ActionName.RESTORE:
                    await self._with_references(after)
        except (Conflict, PermanentError) as error:
            return Rehearsal(accepted=False, message=str(error))
        return Rehearsal(accepted=True, message=f"{message}: {changed}" if changed else message)

    async def _patched(
        self, action: Action, target: TargetState, snapshot: Snapshot | None
    ) -> tuple[JsonObject, JsonObject]:
        """The object before and after the change."""
        for attempt in range(1, _ATTEMPTS + 1):
            ref = writable_ref(action)
            current = await get_object(self._api, ref)
            now = target_state(ref, current)
            if same_ground(action, target.token, now.token):
                target = replace(target, resource_version=now.resource_version)
            try:
                if deletes(action):
                    await _delete(self._api, self._patches, action, target)
                    return current, current
                ref, patch = await _decided_patch(self._api, action, REHEARSAL_INTENT, target, snapshot)
                return current, await self._patches.patch(ref, patch, status=on_status(action))
            except Conflict:
                if attempt == _ATTEMPTS or not same_ground(action, target.token, now.token):
                    raise
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def _evictions(self, action: Action) -> None:
        """Evict each pod of the node in a dry run; `Conflict` where a disruption budget holds one."""
        load = await read_load(self._api, target_ref(action).name, rooms=False)
        if load.unread is not None:
            raise Forbidden(load.unread)
        for pod in load.to_evict[:MOST_EVICTIONS]:
            if pod.obstacle is None:
                await self._patches.evict(pod.ref, uid=pod.uid)

    async def _with_a_pod(self, workload: JsonObject) -> str:
        """Ask for one of the pods that would be made; how that ended, as the end of a sentence."""
        owner: JsonObject | None = workload
        if REVISIONS[Kind(kind_of(workload))] is Kind.REPLICA_SET:
            kept = await revisions_kept(self._api, workload)
            owner = max(kept, key=lambda item: revision_number(item) or 0, default=None)
        namespace = text(workload, "metadata", "namespace") or ""
        try:
            await self._pods.create(Kind.POD, namespace, trial_pod(workload, owner))
        except Forbidden as error:
            if _NO_RIGHT not in str(error):
                raise Invalid(f"new pods would be refused: {error}") from error
            return (
                "; whether new pods would be admitted is not known: the agent has no right to create pods "
                "in a dry run (docs/kubernetes.md)"
            )
        except PermanentError as error:
            raise Invalid(f"new pods would be refused: {error}") from error
        return ", and a new pod from its template would be admitted"

    async def _with_references(self, deployment: JsonObject) -> None:
        """Look up the ConfigMaps that the template needs; `Invalid` where no new pod would start without one.

        Secrets and volume claims are not looked up: the agent has no right to read them.
        """
        namespace = text(deployment, "metadata", "namespace") or ""
        for reference in sorted(references(template_of(deployment))):
            kind, _, name = reference.partition(" ")
            if kind != Kind.CONFIG_MAP:
                continue
            try:
                await self._api.get(Kind.CONFIG_MAP, namespace, name)
            except NotFound:
                raise Invalid(f"new pods would not start: {reference} does not exist") from None
            except Forbidden:
                return


class KubernetesWriter:
    """`ClusterWriter`: constructed only when `DRY_RUN=false`."""

    def __init__(self, api: ReadApi, patches: PatchApi) -> None:
        self._api = api
        self._patches = patches

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        if deletes(action):
            return await _delete(self._api, self._patches, action, target)
        if creates(action):
            repeated, _ = await repeat(self._api, self._patches, action, intent_id, target)
            return repeated
        if is_eviction(action):
            await self._patches.evict(writable_ref(action), uid=target.uid)
            return replace(target, token=object_token(target.uid, {READY: "false", TERMINATING: "true"}))
        ref, patch = await _decided_patch(self._api, action, intent_id, target, snapshot)
        after = await self._patches.patch(ref, patch, status=on_status(action))
        return target_state(ref, after, action)


async def _delete(api: ReadApi, patches: PatchApi, action: Action, target: TargetState) -> TargetState:
    """Delete the object in the state that was decided on; how it is left."""
    ref = writable_ref(action)
    if target.ref != ref:
        raise Invalid(f"{action.name} of {ref} was decided on {target.ref}")
    current = await get_object(api, ref)
    if text(current, "metadata", "uid") != target.uid:
        raise Conflict(f"{ref} is another object since the decision")
    check_deletable(action, current)
    await patches.delete(ref, uid=target.uid, version=target.resource_version)
    return replace(target, token=object_token(target.uid, {READY: "false", TERMINATING: "true"}))


async def get_object(api: ReadApi, ref: ObjectRef) -> JsonObject:
    """The object of that name; `NotFound` when it is not there."""
    return {**await api.get(Kind(ref.kind), ref.namespace, ref.name), "kind": ref.kind}


async def owned(
    api: ReadApi, kind: Kind, namespace: str, selector: str, owners: set[str]
) -> tuple[JsonObject, ...]:
    """The objects that match a selector and are controlled by one of `owners`."""
    if not owners or not selector:
        return ()
    listing = await api.list(kind, namespace, labels=selector)
    return tuple(item for item in listing.items if controller_uid(item) in owners)


REVISIONS: Mapping[Kind, Kind] = MappingProxyType(
    {
        Kind.DEPLOYMENT: Kind.REPLICA_SET,
        Kind.ROLLOUT: Kind.REPLICA_SET,
        Kind.STATEFUL_SET: Kind.CONTROLLER_REVISION,
        Kind.DAEMON_SET: Kind.CONTROLLER_REVISION,
    }
)
"""What keeps the revisions of each kind of workload."""


async def revisions_kept(api: ReadApi, workload: JsonObject) -> tuple[JsonObject, ...]:
    """The ReplicaSets or ControllerRevisions that a workload controls, each with its kind."""
    selector = selector_query(mapping(workload, "spec", "selector"))
    namespace = text(workload, "metadata", "namespace") or ""
    return await owned(api, REVISIONS[Kind(kind_of(workload))], namespace, selector, {uid(workload)})


def owners_of_pods(workload: JsonObject, revisions: Iterable[JsonObject]) -> set[str]:
    """The uids of what controls the pods of a workload: its ReplicaSets, else the workload itself."""
    by_revision = REVISIONS[Kind(kind_of(workload))] is Kind.REPLICA_SET
    return {uid(item) for item in revisions} if by_revision else {uid(workload)}


async def _decided_patch(
    api: ReadApi, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
) -> tuple[ObjectRef, list[JsonObject]]:
    """The patch for an action on the object state it was decided on; `Conflict` when that is past."""
    ref = writable_ref(action)
    if target.ref != ref:
        raise Invalid(f"{action.name} of {ref} was decided on {target.ref}")
    current = await get_object(api, ref)
    check_unmoved(current, target, intent_id)
    wanted = revision_wanted(action)
    revision = None if wanted is None else await _revision(api, current, wanted)
    patch = patch_for(action, intent_id, current, target=target, revision=revision, snapshot=snapshot)
    return ref, patch


async def _revision(api: ReadApi, workload: JsonObject, number: int) -> JsonObject | None:
    """The object that holds a revision of a workload."""
    kept = await revisions_kept(api, workload)
    return next((item for item in kept if revision_number(item) == number), None)
