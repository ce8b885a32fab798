"""What each of the agent's actions means to an object of the simulated cluster.

One table for rehearsal and writing, so that a dry run is asked about exactly
the change that would be made. Raises `Invalid` for an action that the cluster
cannot mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from app.agent.actions import ACTIONS
from app.agent.actions.disable_flag import FIELD, FLAG, KEY, VALUE
from app.agent.actions.spec import CONFIG_MAP
from app.agent.actions.target_parts import parts_changed
from app.agent.evidence.cluster.flags import with_field
from app.agent.guardrails.target_token import (
    CORDONED_BY,
    MAXIMUM,
    PAUSED,
    READY,
    REPLICAS,
    TEMPLATE,
    TERMINATING,
    UNSCHEDULABLE,
    managers_word,
    object_token,
)
from app.agent.guardrails.workload_kinds import WORKLOAD_KINDS
from app.agent.ids import IntentId, JsonObject
from app.agent.models import Action, ActionName, Snapshot
from app.errors import Invalid
from app.sandbox.objects import (
    RESTARTED_AT,
    ClusterNode,
    ConfigMap,
    Deployment,
    HorizontalPodAutoscaler,
    Pod,
    ReplicaSet,
    is_noise,
    template_body,
    template_from,
)

FIELD_MANAGER = "self-healing-devops-agent"
MARKER = "self-healing-devops-agent/intent"
CORDONED = "self-healing-devops-agent/cordoned"
"""The label of a node that the agent cordoned."""

Other: TypeAlias = ConfigMap | ClusterNode | HorizontalPodAutoscaler
"""What is changed and is no workload."""
Target: TypeAlias = Deployment | Other | Pod
"""Everything that an action may be on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _WantedChange:
    """An action with what its change needs."""

    action: Action
    owned: Sequence[ReplicaSet]
    snapshot: Snapshot | None
    moment: str


WorkloadChange = Callable[[Deployment], None]


def workload_snapshot(deployment: Deployment) -> JsonObject:
    """What a workload asks for, as far as actions change it."""
    whole: JsonObject = {
        REPLICAS: deployment.replicas,
        PAUSED: deployment.paused,
        TEMPLATE: template_body(deployment.template),
    }
    return {part: value for part, value in whole.items() if part in WORKLOAD_KINDS[deployment.kind].parts}


def change_workload(
    action: Action, owned: Sequence[ReplicaSet], snapshot: Snapshot | None, moment: str
) -> WorkloadChange:
    """The change of a workload that an action asks for."""
    change = ON_WORKLOAD.get(action.name)
    kind = action.target.kind if action.target is not None else "Deployment"
    if change is None or kind not in ACTIONS[action.name].kinds:
        raise Invalid(f"{action.name} does not change a {kind}")
    asked = _WantedChange(action=action, owned=owned, snapshot=snapshot, moment=moment)
    return lambda deployment: change(deployment, asked)


def change_other(
    action: Action, snapshot: Snapshot | None, intent_id: IntentId | None
) -> Callable[[Other], None]:
    """The change of an object that is not a workload; without an intent a dry run that leaves no marker."""
    kind = action.target.kind if action.target is not None else CONFIG_MAP
    if kind not in ACTIONS[action.name].kinds:
        raise Invalid(f"{action.name} does not change a {kind}")

    def change(thing: Other) -> None:
        if isinstance(thing, ConfigMap):
            flagged = action.name is ActionName.DISABLE_FLAG
            thing.data = _with_flag(thing, action) if flagged else _wanted_data(action, snapshot)
        elif isinstance(thing, ClusterNode):
            _change_node(thing, action, snapshot)
        else:
            _change_bounds(thing, action, snapshot)
        if intent_id is not None:
            mark(thing.meta.annotations, intent_id)

    return change


def _wanted_data(action: Action, snapshot: Snapshot | None) -> dict[str, str]:
    data = _own_body(action, snapshot).get("data")
    if not isinstance(data, dict):
        raise Invalid("the snapshot holds no data of a ConfigMap")
    wanted = {key: value for key, value in data.items() if isinstance(value, str)}
    if len(wanted) != len(data):
        raise Invalid("the values of a ConfigMap are text")
    return wanted


def _with_flag(config: ConfigMap, action: Action) -> dict[str, str]:
    key, flag, field, value = (str(action.parameters.get(name)) for name in (KEY, FLAG, FIELD, VALUE))
    wanted = with_field(config.data.get(key, ""), flag, field, value)
    if wanted is None or wanted == config.data[key]:
        raise Invalid(f"{action.name}: {action.target} holds no flag {flag} in {key} with another {field}")
    return {**config.data, key: wanted}


def _change_node(node: ClusterNode, action: Action, snapshot: Snapshot | None) -> None:
    match action.name:
        case ActionName.CORDON | ActionName.DRAIN_NODE:
            if node.unschedulable:
                raise Invalid(f"{action.name.words}: {action.target} is cordoned already")
            wanted, own = True, True
        case ActionName.UNCORDON:
            if not (node.unschedulable and own_cordon(node)):
                raise Invalid(f"uncordon: {action.target} was not cordoned by the agent")
            wanted, own = False, False
        case _:
            body = _own_body(action, snapshot)
            wanted, own = body.get("unschedulable") is True, body.get("own") is True
            if node.unschedulable and not wanted and not own_cordon(node):
                raise Invalid(f"restore: {action.target} was cordoned by someone else since")
    node.unschedulable = wanted
    node.meta.labels.pop(CORDONED, None)
    if own:
        node.meta.labels[CORDONED] = "true"


def own_cordon(node: ClusterNode) -> bool:
    """Whether the node is cordoned, by the agent alone."""
    return CORDONED in node.meta.labels and _cordon_managers(node) == {FIELD_MANAGER}


def _cordon_managers(node: ClusterNode) -> set[str]:
    by = node.meta.changers.get(UNSCHEDULABLE)
    return {by} if by is not None and node.unschedulable else set()


def _change_bounds(bounds: HorizontalPodAutoscaler, action: Action, snapshot: Snapshot | None) -> None:
    undo = action.name is ActionName.RESTORE
    wanted = _own_body(action, snapshot).get("maximum") if undo else action.parameters.get("maximum")
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        raise Invalid(f"{action.name} needs a maximum, a whole number, not {wanted!r}")
    if not undo and wanted <= bounds.maximum:
        raise Invalid(f"{action.target} sets up to {bounds.maximum} replicas already")
    bounds.maximum = wanted


def check_deletable(action: Action, pod: Pod) -> None:
    """`Invalid` for a pod that serves."""
    if not ACTIONS[action.name].removes:
        raise Invalid(f"{action.name} does not change a Pod")
    if pod.ready:
        raise Invalid(f"{action.name.words}: {action.target} is ready")


def snapshot_body(thing: Target) -> JsonObject:
    """What an object asks for, as far as an undo puts it back."""
    match thing:
        case Deployment():
            return workload_snapshot(thing)
        case ConfigMap():
            return {"data": {**thing.data}}
        case ClusterNode():
            return {"unschedulable": thing.unschedulable, "own": own_cordon(thing)}
        case HorizontalPodAutoscaler():
            return {"maximum": thing.maximum}
        case _:
            return {}


def token_of(thing: Other | Pod) -> str:
    """The token of an object that is no workload."""
    match thing:
        case ConfigMap():
            return f"{thing.meta.uid}/{thing.content_hash}"
        case ClusterNode():
            return object_token(
                thing.meta.uid,
                {
                    UNSCHEDULABLE: str(thing.unschedulable).lower(),
                    CORDONED_BY: managers_word(_cordon_managers(thing)),
                },
            )
        case HorizontalPodAutoscaler():
            return object_token(thing.meta.uid, {MAXIMUM: str(thing.maximum)})
        case Pod():
            return object_token(thing.meta.uid, {READY: str(thing.ready).lower(), TERMINATING: "false"})


def removed_token(pod: Pod) -> str:
    """The token of a pod whose deletion was requested."""
    return object_token(pod.meta.uid, {READY: "false", TERMINATING: "true"})


def mark(annotations: dict[str, str], intent_id: IntentId) -> None:
    """Say on the object whose effect it carries."""
    annotations[MARKER] = intent_id


def _restart(deployment: Deployment, asked: _WantedChange) -> None:
    if deployment.paused:
        raise Invalid(f"{deployment.meta.name} is paused: a restart would not begin")
    kept = tuple(pair for pair in deployment.template.annotations if pair[0] != RESTARTED_AT)
    deployment.template = replace(deployment.template, annotations=(*kept, (RESTARTED_AT, asked.moment)))


def _roll_back(deployment: Deployment, asked: _WantedChange) -> None:
    if deployment.paused:
        raise Invalid(f"{deployment.meta.name} is paused: resume it before rolling back")
    found = _revision(asked.action, asked.owned)
    if found.template == deployment.template:
        raise Invalid(f"revision {found.revision} is what {deployment.meta.name} asks for already")
    deployment.template = found.template


def _revert_template(deployment: Deployment, asked: _WantedChange) -> None:
    old = _revision(asked.action, asked.owned).template
    if old.config == deployment.template.config:
        raise Invalid("that revision had the same configuration")
    present = deployment.template
    restarts = tuple(pair for pair in present.annotations if is_noise(pair[0]))
    deployment.template = replace(
        old,
        image=present.image,
        command=present.command,
        labels=present.labels,
        annotations=(*(pair for pair in old.annotations if not is_noise(pair[0])), *restarts),
    )


def _scale(deployment: Deployment, asked: _WantedChange) -> None:
    replicas = asked.action.parameters.get("replicas")
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        raise Invalid(f"scale needs replicas, a whole number of zero or more, not {replicas!r}")
    deployment.replicas = replicas


def _raise_memory_limit(deployment: Deployment, asked: _WantedChange) -> None:
    wanted, now = asked.action.parameters.get("memory_mib"), deployment.template.memory_bytes
    if not isinstance(wanted, int) or isinstance(wanted, bool):
        raise Invalid(f"raise_memory_limit needs memory_mib, a whole number, not {wanted!r}")
    if asked.action.parameters.get("container") != "app" or now is None or wanted * 2**20 <= now:
        raise Invalid(f"{deployment.meta.name} has no container with a lower memory limit of that name")
    deployment.template = replace(deployment.template, memory_limit=f"{wanted}Mi")


def _pause(deployment: Deployment, asked: _WantedChange) -> None:  # noqa: ARG001 - every change has the same signature
    deployment.paused = True


def _resume(deployment: Deployment, asked: _WantedChange) -> None:  # noqa: ARG001 - every change has the same signature
    deployment.paused = False


def _restore(deployment: Deployment, asked: _WantedChange) -> None:
    body = _own_body(asked.action, asked.snapshot)
    replicas, paused, template = body.get(REPLICAS), body.get(PAUSED), body.get(TEMPLATE)
    held = WORKLOAD_KINDS[deployment.kind].parts
    parts = [part for part in parts_changed(asked.action) or held if part in held]
    if TEMPLATE in parts and deployment.paused and PAUSED not in parts:
        raise Invalid(f"{deployment.meta.name} is paused: resume it before putting its template back")
    if not (
        (isinstance(replicas, int) or REPLICAS not in held)
        and (isinstance(paused, bool) or PAUSED not in held)
        and isinstance(template, dict)
    ):
        raise Invalid(f"the snapshot is not one of a {deployment.kind}")
    if TEMPLATE in parts:
        deployment.template = template_from(template)
    if REPLICAS in parts and isinstance(replicas, int):
        deployment.replicas = replicas
    if PAUSED in parts and isinstance(paused, bool):
        deployment.paused = paused


def _own_body(action: Action, snapshot: Snapshot | None) -> JsonObject:
    if snapshot is None:
        raise Invalid(f"{action.name} needs the snapshot to put back")
    if snapshot.ref != action.target:
        raise Invalid(f"the snapshot is of {snapshot.ref}, not of {action.target}")
    return snapshot.body


def _revision(action: Action, owned: Sequence[ReplicaSet]) -> ReplicaSet:
    number = action.parameters.get("revision")
    if isinstance(number, int) and not isinstance(number, bool):
        for replica_set in owned:
            if replica_set.revision == number:
                return replica_set
    raise Invalid(f"{action.target} has no revision {number!r}; it keeps {[r.revision for r in owned]}")


ON_WORKLOAD: Mapping[ActionName, Callable[[Deployment, _WantedChange], None]] = {
    ActionName.RESTART: _restart,
    ActionName.ROLLBACK: _roll_back,
    ActionName.REVERT_CONFIG: _revert_template,
    ActionName.SCALE: _scale,
    ActionName.PAUSE: _pause,
    ActionName.RESUME: _resume,
    ActionName.RAISE_MEMORY_LIMIT: _raise_memory_limit,
    ActionName.RESTORE: _restore,
}
