"""Rehearsing a change, and writing it."""

from __future__ import annotations

from dataclasses import replace

from app.agent.actions.target_parts import same_ground
from app.agent.guardrails.drains import drains_node, is_eviction
from app.agent.guardrails.field_diff import in_words
from app.agent.guardrails.target_token import makes_pods
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Action, ActionName, Rehearsal, Snapshot
from app.agent.workload import TargetState
from app.errors import Conflict, Forbidden, Invalid, PermanentError
from app.sandbox.api import Precondition
from app.sandbox.cluster.access import WorldAccess
from app.sandbox.cluster.batches import repeat
from app.sandbox.cluster.drains import evict, load_of
from app.sandbox.cluster.views import target_of
from app.sandbox.objects import ConfigMap, Deployment, Pod
from app.sandbox.operations import (
    FIELD_MANAGER,
    change_other,
    change_workload,
    check_deletable,
    mark,
    removed_token,
    snapshot_body,
)


class _Changes:
    """One request to change an object, rehearsed or real."""

    def __init__(self, access: WorldAccess) -> None:
        self._access = access

    def change(
        self,
        action: Action,
        target: TargetState,
        snapshot: Snapshot | None,
        *,
        intent_id: IntentId | None,
    ) -> tuple[TargetState, str]:
        """The state after it, and what changed, field by field; without an intent it is a dry run."""
        dry = intent_id is None
        if is_eviction(action):
            self._access.ask("create", "Pod/eviction")
            evict(self._access.world, target.ref, target.uid, manager=FIELD_MANAGER, dry_run=dry)
            return replace(target, token=target.uid), ""
        if action.name is ActionName.RERUN_JOB:
            state, name = repeat(self._access, action, target, intent_id)
            return state, f"Job {name} is created"
        found = self._access.find(action, "patch")
        world = self._access.world
        if action.target != target.ref:
            raise Invalid(f"decided on {target.ref}, asked for {action.target}")
        before: JsonObject = {"spec": snapshot_body(found)}
        only_if = Precondition(uid=target.uid, resource_version=target.resource_version)
        if isinstance(found, Deployment):
            owned = world.controller.replica_sets(found)
            moment = world.engine.now.isoformat()
            change = change_workload(action, owned, snapshot, moment)

            def mutate(deployment: Deployment) -> None:
                change(deployment)
                if intent_id is not None:
                    mark(deployment.meta.annotations, intent_id)

            workload = world.api.change(found, mutate, manager=FIELD_MANAGER, only_if=only_if, dry_run=dry)
            return target_of(workload, action), in_words(before, {"spec": snapshot_body(workload)})
        if isinstance(found, Pod):
            check_deletable(action, found)
            world.api.remove(found, manager=FIELD_MANAGER, only_if=only_if, dry_run=dry)
            return replace(target, token=removed_token(found)), ""
        put = change_other(action, snapshot, intent_id)
        thing = world.api.change(found, put, manager=FIELD_MANAGER, only_if=only_if, dry_run=dry)
        return target_of(thing, action), in_words(before, {"spec": snapshot_body(thing)})


class SandboxRehearsal:
    """A `ClusterRehearsal` over a `World`; holds no way to persist a change."""

    def __init__(self, access: WorldAccess) -> None:
        self._access = access
        self._changes = _Changes(access)

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        try:
            if action.name is ActionName.RERUN_JOB:
                _, name = repeat(self._access, action, target, None)
                return Rehearsal(accepted=True, message=f"Job {name} would be created (simulated API server)")
            now = target_of(self._access.find(action, "patch"))
            if same_ground(action, target.token, now.token):
                # Only the status moved since it was decided on.
                target = replace(target, resource_version=now.resource_version)
            after, changed = self._changes.change(action, target, snapshot, intent_id=None)
            if drains_node(action):
                self._evictions(action)
            pods = self._with_a_pod(now, after)
            if pods and action.name is not ActionName.RESTORE:
                self._with_references(action)
        except (PermanentError, Conflict) as error:
            return Rehearsal(accepted=False, message=str(error))
        message = f"{action.target} would be changed (simulated API server){pods}"
        return Rehearsal(accepted=True, message=f"{message}: {changed}" if changed else message)

    def _evictions(self, action: Action) -> None:
        """Evict each pod of the node in a dry run."""
        world = self._access.world
        for pod in load_of(world, action.target.name if action.target else "", rooms=False).to_evict:
            self._access.ask("create", "Pod/eviction")
            if pod.obstacle is None:
                evict(world, pod.ref, pod.uid, manager=FIELD_MANAGER, dry_run=True)

    def _with_references(self, action: Action) -> None:
        """`Invalid` where a ConfigMap that the new pods need does not exist."""
        found = self._access.find(action, "get")
        if not isinstance(found, Deployment):
            return
        wanted = action.parameters.get("revision")
        owned = self._access.world.controller.replica_sets(found)
        template = next((one.template for one in owned if one.revision == wanted), found.template)
        there = {one.meta.name for one in self._access.world.api.list(ConfigMap, found.meta.namespace)}
        for name in template.config_maps:
            if name not in there:
                raise Invalid(f"new pods would not start: ConfigMap {name} does not exist")

    def _with_a_pod(self, before: TargetState, after: TargetState) -> str:
        """Have one of the pods judged that would be made; how that ended, as the end of a sentence."""
        world, ref = self._access.world, after.ref
        if ref.kind not in WORKLOAD_KINDS or not makes_pods(before.token, after.token):
            return ""
        try:
            self._access.ask("create", "Pod")
        except Forbidden:
            return "; whether new pods would be admitted is not known: the agent has no right to create pods"
        try:
            world.api.admit_pod(ref.namespace, f"{ref.name}-rehearsal")
        except Forbidden as error:
            raise Invalid(f"new pods would be refused: {error}") from error
        return ", and a new pod from its template would be admitted"


class SandboxWriter:
    """A `ClusterWriter` over a `World`."""

    def __init__(self, access: WorldAccess) -> None:
        self._changes = _Changes(access)

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        after, _ = self._changes.change(action, target, snapshot, intent_id=intent_id)
        return after
