"""When each action on nodes, pods, autoscalers, limits and Rollouts may be planned, and why not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from app.agent.actions import ACTIONS, Resolved, Unmet
from app.agent.guardrails.limits import namespace_of
from app.agent.ids import JsonObject, JsonScalar
from app.agent.models import Action, ActionName, Evidence, Risk
from app.agent.workload import AutoscalerView, FailingContainer, ObjectRef, PodView, RolloutProgress
from app.connectors.kubernetes.changes.nodes import CORDONED, own_cordon
from app.connectors.kubernetes.views import target_state
from tests.unit.scenes import LIMITS, OLD, at, evidence, pods, workload

GIB = 2**30
LIMITED = replace(OLD, memory_limits=(("app", GIB),))
READY = pods(OLD, 3)
CANARY = RolloutProgress(stable=False)
WAITING = RolloutProgress(stable=False, waits="CanaryPauseStep")
SCALER = AutoscalerView(kind="HorizontalPodAutoscaler", name="checkout", minimum=2, maximum=8, wanted=8)


def sick(pod: PodView, **changes: Any) -> PodView:
    """A pod that has not been ready for ten minutes."""
    return replace(pod, ready=False, ready_changed_at=at(-10), **changes)


ON_ONE_NODE = (sick(replace(READY[0], node="node-9")), sick(replace(READY[1], node="node-9")), READY[2])
ONE_STUCK = (sick(READY[0]), *READY[1:])
KILLED = tuple(
    sick(pod, restarts=3, last_termination_reason="OOMKilled", failing=FailingContainer(name="app"))
    for pod in READY
)


def seen(running: tuple[PodView, ...], **changes: Any) -> Evidence:
    view = workload([LIMITED], running, **changes)
    if view.progress is not None:
        ref = structs.replace(view.target.ref, kind="Rollout")
        view = replace(view, target=replace(view.target, ref=ref))
    return evidence(workload=view)


CASES: list[tuple[ActionName, Mapping[str, JsonScalar], Evidence, str]] = [
    (ActionName.CORDON, {}, seen(ON_ONE_NODE), "Node node-9"),
    (ActionName.CORDON, {}, seen(ONE_STUCK), "not alone on one node"),
    (ActionName.CORDON, {}, seen((sick(READY[0], node_lost=True), *READY[1:])), "no longer reports"),
    (ActionName.CORDON, {}, seen(ON_ONE_NODE, opted_out=True), "opted out"),
    (
        ActionName.UNCORDON,
        {},
        seen((replace(sick(READY[0]), unschedulable="0/3 nodes"),), own_cordons=("node-9",)),
        "Node node-9",
    ),
    (ActionName.UNCORDON, {}, seen(READY, own_cordons=("node-9",)), "has a node"),
    (
        ActionName.UNCORDON,
        {},
        seen((replace(sick(READY[0]), unschedulable="0/3 nodes"),)),
        "cordoned no node",
    ),
    (ActionName.DELETE_STUCK_POD, {}, seen(ONE_STUCK), f"Pod prod/{READY[0].name}"),
    (ActionName.DELETE_STUCK_POD, {}, seen(ON_ONE_NODE), "2 pods"),
    (ActionName.DELETE_STUCK_POD, {}, seen((sick(READY[0]),)), "no pod with the template"),
    (ActionName.DELETE_STUCK_POD, {}, seen((sick(READY[0], node_lost=True), *READY[1:])), "may still run"),
    (
        ActionName.DELETE_STUCK_POD,
        {},
        seen((replace(sick(READY[0]), ready_changed_at=at(-0.5)), *READY[1:])),
        "may still recover",
    ),
    (ActionName.RAISE_AUTOSCALER_BOUNDS, {"by": 1}, seen(READY, autoscalers=(SCALER,)), "maximum 9"),
    (ActionName.RAISE_AUTOSCALER_BOUNDS, {"by": 50}, seen(READY, autoscalers=(SCALER,)), "maximum 10"),
    (
        ActionName.RAISE_AUTOSCALER_BOUNDS,
        {"by": 1},
        seen(READY, autoscalers=(replace(SCALER, wanted=4),)),
        "not at its maximum",
    ),
    (
        ActionName.RAISE_AUTOSCALER_BOUNDS,
        {"by": 1},
        seen(READY, autoscalers=(replace(SCALER, kind="ScaledObject"),)),
        "where it is defined",
    ),
    (ActionName.RAISE_AUTOSCALER_BOUNDS, {"by": 1}, seen(READY), "no autoscaler"),
    (ActionName.RAISE_MEMORY_LIMIT, {"by_percent": 50}, seen(KILLED), "memory 1536 MiB"),
    (ActionName.RAISE_MEMORY_LIMIT, {"by_percent": 50}, seen(READY), "none is"),
    (
        ActionName.RAISE_MEMORY_LIMIT,
        {"by_percent": 50},
        evidence(workload=workload([replace(OLD, memory_limits=(("app", 4 * GIB),))], KILLED)),
        "MEMORY_LIMIT_MAX_MIB",
    ),
    (
        ActionName.RAISE_MEMORY_LIMIT,
        {"by_percent": 50},
        evidence(workload=workload([OLD], KILLED)),
        "no memory limit",
    ),
    (ActionName.RAISE_MEMORY_LIMIT, {"by_percent": 50}, seen(KILLED, managed_by="argocd"), "in Git"),
    (ActionName.ABORT_ROLLOUT, {}, seen(READY, progress=CANARY, managed_by="argocd"), "aborted"),
    (ActionName.ABORT_ROLLOUT, {}, seen(READY), "not an Argo Rollout"),
    (
        ActionName.ABORT_ROLLOUT,
        {},
        seen(READY, progress=RolloutProgress(stable=True)),
        "no update",
    ),
    (ActionName.RETRY_ROLLOUT, {}, seen(READY, progress=replace(CANARY, aborted=True)), "updating"),
    (ActionName.RETRY_ROLLOUT, {}, seen(READY, progress=CANARY), "is not aborted"),
    (ActionName.PROMOTE_ROLLOUT, {}, seen(READY, progress=WAITING), "CanaryPauseStep"),
    (ActionName.PROMOTE_ROLLOUT, {}, seen(READY, progress=CANARY), "waits at no step"),
    (
        ActionName.PROMOTE_ROLLOUT,
        {},
        seen(READY, progress=replace(WAITING, analysis="AnalysisRun errors Failed")),
        "failed: AnalysisRun errors Failed",
    ),
    (ActionName.PAUSE_ROLLOUT, {}, seen(READY, progress=CANARY), "paused"),
    (ActionName.PAUSE_ROLLOUT, {}, seen(READY, progress=CANARY, managed_by="argocd"), "in Git"),
]
REFUSED = (
    "not alone on one node",
    "no longer reports",
    "opted out",
    "has a node",
    "cordoned no node",
    "2 pods",
    "no pod with",
    "may still",
    "not at its maximum",
    "where it is defined",
    "no autoscaler",
    "none is",
    "MEMORY_LIMIT_MAX_MIB",
    "no memory limit",
    "in Git",
    "not an Argo Rollout",
    "no update",
    "is not aborted",
    "waits at no step",
    "failed: ",
)


@pytest.mark.parametrize(("name", "parameters", "given", "said"), CASES)
def test_an_action_is_planned_only_where_its_precondition_holds(
    name: ActionName, parameters: Mapping[str, JsonScalar], given: Evidence, said: str
) -> None:
    """The target or the state that it reaches, or the reason against it."""
    found = ACTIONS[name].resolve(parameters, given, LIMITS)
    if said.startswith(REFUSED):
        assert isinstance(found, Unmet), found
        assert said in found.reason
        return
    assert isinstance(found, Resolved), found
    assert found.target is not None
    assert found.target.kind in ACTIONS[name].kinds
    assert said in f"{found.target} {found.change.reaches} {found.expected_effect}"


@pytest.mark.parametrize(
    ("managers", "own", "by"),
    [
        (["self-healing-devops-agent"], True, "self-healing-devops-agent"),
        (["kubectl-cordon"], False, "kubectl-cordon"),
        (["self-healing-devops-agent", "a,b=c"], False, "a_b_c+self-healing-devops-agent"),
        ([], False, ""),
    ],
)
def test_a_cordon_is_the_agents_own_only_while_the_agent_alone_holds_it(
    managers: list[str], own: bool, by: str
) -> None:
    """The label is not enough: it stays when a person uncordons and cordons the node again."""
    node: JsonObject = {
        "metadata": {
            "uid": "u",
            "labels": {CORDONED: "true"},
            "managedFields": [
                {"manager": one, "fieldsV1": {"f:spec": {"f:unschedulable": {}}}} for one in managers
            ],
        },
        "spec": {"unschedulable": True},
    }
    ref = ObjectRef(kind="Node", namespace="", name="node-9")
    assert own_cordon(node) is own
    assert target_state(ref, node).token == f"u/unschedulable=true,cordoned_by={by}"
    assert not own_cordon({**node, "spec": {}})
    assert target_state(ref, {**node, "spec": {}}).token == "u/unschedulable=false,cordoned_by="


@pytest.mark.parametrize("name", [ActionName.CORDON, ActionName.UNCORDON])
def test_an_action_on_a_node_spends_the_budget_of_the_namespace_it_serves(name: ActionName) -> None:
    """A node has no namespace: without the workload's, all namespaces would share one budget."""
    waiting = (replace(sick(READY[0]), unschedulable="0/3 nodes"),)
    given = seen(ON_ONE_NODE) if name is ActionName.CORDON else seen(waiting, own_cordons=("node-9",))
    found = ACTIONS[name].resolve({}, given, LIMITS)
    assert isinstance(found, Resolved), found
    planned = Action(
        name=name,
        risk=Risk.MEDIUM,
        target=found.target,
        parameters=found.parameters,
        expected_effect=found.expected_effect,
        undo=None,
    )
    assert namespace_of(planned) == "prod"
