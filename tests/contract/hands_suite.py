"""The promises of every action, for every cluster behind it; those on Rollouts are in `test_cluster_k8s`.

A test module of an adapter imports these tests with `*`, beside those of `cluster_suite`.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from app.agent.actions import ACTIONS
from app.agent.actions.target_parts import as_left
from app.agent.guardrails.drains import eviction_of
from app.agent.guardrails.opt_out import KEY, OptOut
from app.agent.guardrails.target_token import removed
from app.agent.ids import JsonObject, JsonScalar
from app.agent.models import Action, ActionName
from app.agent.workload import TargetState
from app.errors import Conflict, Forbidden, Invalid, NotFound
from tests.contract.cluster_harness import BETTER_IMAGE, CRASHING_IMAGE, GOOD_IMAGE, ClusterHarness
from tests.contract.cluster_suite import (
    INTENT,
    OTHER_INTENT,
    action,
    apply,
    crashes,
    deploy_shop,
    deployment,
    key_of,
    release,
)

FLAGS = "self-healing-devops-agent/flags"
Arranged = Callable[[ClusterHarness], Awaitable[Action]]


async def _on_shop(cluster: ClusterHarness, name: ActionName, **parameters: int) -> Action:
    await deploy_shop(cluster)
    return action(name, deployment(cluster), **parameters)


async def _resume(cluster: ClusterHarness) -> Action:
    await deploy_shop(cluster)
    await cluster.set_paused("shop", paused=True)
    return action(ActionName.RESUME, deployment(cluster))


async def _roll_back(cluster: ClusterHarness) -> Action:
    await deploy_shop(cluster)
    await release(cluster, BETTER_IMAGE)
    return action(ActionName.ROLLBACK, deployment(cluster), revision=1)


async def _revert_config(cluster: ClusterHarness) -> Action:
    await deploy_shop(cluster)
    await cluster.set_env("shop", {"POOL_SIZE": "0"})
    await cluster.until(key_of(cluster), lambda view: view.rollout_complete and view.current_revision == 2)
    return action(ActionName.REVERT_CONFIG, deployment(cluster), revision=1)


async def _cordon(cluster: ClusterHarness) -> Action:
    return action(ActionName.CORDON, cluster.ref("Node", await cluster.spare_node()))


async def _uncordon(cluster: ClusterHarness) -> Action:
    cordon = await _cordon(cluster)
    await apply(cluster, cordon, intent_id=OTHER_INTENT)
    return action(ActionName.UNCORDON, cordon.target)


async def _raise_bounds(cluster: ClusterHarness) -> Action:
    await deploy_shop(cluster)
    await cluster.add_autoscaler("shop", maximum=3)
    ref = cluster.ref("HorizontalPodAutoscaler", "shop")
    return action(ActionName.RAISE_AUTOSCALER_BOUNDS, ref, maximum=5)


async def _raise_memory(cluster: ClusterHarness) -> Action:
    await deploy_shop(cluster)
    await cluster.set_memory_limit("shop", "64Mi")
    await cluster.until(
        key_of(cluster), lambda view: view.rollout_complete and bool(view.revisions[0].memory_limits)
    )
    parameters: dict[str, JsonScalar] = {"container": "app", "memory_mib": 96}
    return action(ActionName.RAISE_MEMORY_LIMIT, deployment(cluster), **parameters)


async def _disable_flag(cluster: ClusterHarness) -> Action:
    flag: JsonObject = {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on"}
    await cluster.put_config_map("shop-flags", {"flags.json": json.dumps({"flags": {"new-cart": flag}})})
    await cluster.deploy("shop", service="shop", annotations={FLAGS: "shop-flags, other"})
    view = await cluster.until(key_of(cluster), lambda found: bool(found.config_maps))
    assert [one.name for one in view.config_maps] == ["shop-flags"]
    assert [one.name for one in await cluster.ports.reader.config_contents(key_of(cluster))] == ["shop-flags"]
    ref = cluster.ref("ConfigMap", "shop-flags")
    parameters: dict[str, JsonScalar] = {
        "key": "flags.json",
        "flag": "new-cart",
        "field": "state",
        "value": "DISABLED",
    }
    return action(ActionName.DISABLE_FLAG, ref, **parameters)


async def _delete_pod(cluster: ClusterHarness) -> Action:
    await deploy_shop(cluster)
    await cluster.set_image("shop", CRASHING_IMAGE)
    view = await cluster.until(key_of(cluster), crashes)
    stuck = next(pod for pod in view.pods if pod.waiting_reason == "CrashLoopBackOff")
    return action(
        ActionName.DELETE_STUCK_POD,
        cluster.ref("Pod", stuck.name),
    )


async def _rerun(cluster: ClusterHarness) -> Action:
    await cluster.put_cron_job("report")
    await cluster.start_job("report-1", cron_job="report")
    await cluster.end_job("report-1", complete=False)
    return action(ActionName.RERUN_JOB, cluster.ref("Job", "report-1"))


async def _drain(cluster: ClusterHarness) -> Action:
    return action(ActionName.DRAIN_NODE, (await _cordon(cluster)).target)


ARRANGED: dict[ActionName, Arranged] = {
    ActionName.RESTART: partial(_on_shop, name=ActionName.RESTART),
    ActionName.ROLLBACK: _roll_back,
    ActionName.REVERT_CONFIG: _revert_config,
    ActionName.SCALE: partial(_on_shop, name=ActionName.SCALE, replicas=3),
    ActionName.PAUSE: partial(_on_shop, name=ActionName.PAUSE),
    ActionName.RESUME: _resume,
    ActionName.CORDON: _cordon,
    ActionName.UNCORDON: _uncordon,
    ActionName.DRAIN_NODE: _drain,
    ActionName.RAISE_AUTOSCALER_BOUNDS: _raise_bounds,
    ActionName.RAISE_MEMORY_LIMIT: _raise_memory,
    ActionName.DISABLE_FLAG: _disable_flag,
    ActionName.DELETE_STUCK_POD: _delete_pod,
    ActionName.RERUN_JOB: _rerun,
}


CHANGED = {
    ActionName.RESTART: "restartedAt",
    ActionName.ROLLBACK: f" {BETTER_IMAGE} -> {GOOD_IMAGE}",
    ActionName.REVERT_CONFIG: "POOL_SIZE",
    ActionName.SCALE: " 2 -> 3",
    ActionName.PAUSE: "spec.paused",
    ActionName.RESUME: "spec.paused true -> ",
    ActionName.CORDON: "nschedulable",
    ActionName.UNCORDON: "nschedulable true -> ",
    ActionName.DRAIN_NODE: "nschedulable",
    ActionName.RAISE_AUTOSCALER_BOUNDS: " 3 -> 5",
    ActionName.RAISE_MEMORY_LIMIT: " 64Mi -> 96Mi",
    ActionName.DISABLE_FLAG: ".flags.new-cart.state ENABLED -> DISABLED",
    ActionName.DELETE_STUCK_POD: "would be changed",
    ActionName.RERUN_JOB: "would be created",
}
"""What a rehearsal says that an action changes, whichever cluster answers."""


@pytest.mark.parametrize("name", ARRANGED)
async def test_an_action_is_rehearsed_applied_once_recognised_and_undone(
    cluster: ClusterHarness, name: ActionName
) -> None:
    """A rehearsal writes nothing; without its verb it is forbidden; after a crash its effect shows."""
    act, reader = await ARRANGED[name](cluster), cluster.ports.reader
    before, snapshot = await reader.target(act), await reader.snapshot(act)
    answer = await cluster.ports.rehearsal.rehearse(act, before, None)
    while "was modified" in answer.message:  # by its controller, which still reports the arrangement
        before, snapshot = await reader.target(act), await reader.snapshot(act)
        answer = await cluster.ports.rehearsal.rehearse(act, before, None)
    assert answer.accepted, answer.message
    assert CHANGED[name] in answer.message, answer.message
    rehearsed = await reader.target(act)
    assert (rehearsed.token, rehearsed.marker) == (before.token, before.marker)
    assert not (await reader.opt_out(act, key_of(cluster))).refused_by

    refused = await cluster.powerless.rehearsal.rehearse(act, before, None)
    assert not refused.accepted
    assert "forbidden" in refused.message
    with pytest.raises(Forbidden):
        await cluster.powerless.writer.apply(act, INTENT, before, None)
    assert (await reader.target(act)).token == before.token

    applied = await apply(cluster, act)
    with pytest.raises((Conflict, NotFound, Invalid)):
        await cluster.ports.writer.apply(act, INTENT, before, None)
    if ACTIONS[name].removes:
        assert removed(before.token, applied.token)
        with suppress(NotFound):
            assert removed(before.token, (await reader.target(act)).token)
        return
    found = await reader.target(act)
    assert (found.marker, found.token) == (INTENT, applied.token)
    assert applied.token != before.token
    if ACTIONS[name].undo is None:
        return

    undo = action(ActionName.RESTORE, act.target, undoes=name.value)
    put_back = await apply(cluster, undo, intent_id=OTHER_INTENT, snapshot=snapshot)
    assert put_back.token.partition(",")[2] == before.token.partition(",")[2]
    assert (await reader.snapshot(act)).body == snapshot.body


@pytest.mark.parametrize("name", [ActionName.CORDON, ActionName.DELETE_STUCK_POD])
async def test_owners_of_the_service_are_heard_whatever_the_target_is(
    cluster: ClusterHarness, name: ActionName
) -> None:
    """A node or a pod carries no word of the service's owners; their workload and namespace do."""
    view = await deploy_shop(cluster)
    node, reader = await cluster.spare_node(), cluster.ports.reader
    act = action(
        name,
        cluster.ref("Node", node) if name is ActionName.CORDON else cluster.ref("Pod", view.pods[0].name),
    )
    space = str(cluster.ref("Namespace", cluster.namespace))
    await cluster.mark_namespace({KEY: "true"})
    given = await reader.opt_out(act, key_of(cluster))
    assert given == OptOut(given_by=() if name is ActionName.CORDON else (space,))
    await cluster.mark_namespace({KEY: "false"})
    assert (await reader.opt_out(act, key_of(cluster))).refused_by == (space,)
    await cluster.deploy("cart", service="cart", annotations={KEY: "false"})
    refused = await reader.opt_out(act, key_of(cluster, "cart"))
    assert refused.refused_by == (str(deployment(cluster, "cart")), space)


async def test_only_the_agents_own_cordon_is_undone(cluster: ClusterHarness) -> None:
    """A person who cordoned a node had a reason that the agent does not know."""
    uncordon = action(ActionName.UNCORDON, cluster.ref("Node", await cluster.spare_node()))
    await cluster.cordon(uncordon.target.name if uncordon.target else "")
    with pytest.raises(Invalid, match="was not cordoned by the agent"):
        await apply(cluster, uncordon)


async def test_the_cordons_of_the_agent_are_counted_in_the_cluster(cluster: ClusterHarness) -> None:
    """One that a person took over is cordoned and not the agent's; without the right nothing is counted."""
    cordon, reader = await _cordon(cluster), cluster.ports.reader
    node = cordon.target.name if cordon.target else ""
    before = await reader.cordons(cluster.ref("Node", node))
    assert before.nodes >= 1
    assert node not in {*before.cordoned, *before.own}
    await apply(cluster, cordon)
    held = await reader.cordons(cluster.ref("Node", node))
    assert node in held.cordoned
    assert node in held.own
    await cluster.cordon(node, cordoned=False)
    await cluster.cordon(node)
    taken_over = await reader.cordons(cluster.ref("Node", node))
    assert node in taken_over.cordoned
    assert node not in taken_over.own
    assert (await cluster.powerless.reader.cordons(cluster.ref("Node", node))).unread is not None


async def test_a_cordon_of_a_person_stays_on_a_node_that_the_agent_cordoned_before(
    cluster: ClusterHarness,
) -> None:
    """The agent's label outlives the person's uncordon; neither action nor undo takes the new cordon away."""
    cordon = await _cordon(cluster)
    node, reader = cordon.target.name if cordon.target else "", cluster.ports.reader
    before = await reader.snapshot(cordon)
    applied = await apply(cluster, cordon)
    assert (await reader.snapshot(cordon)).body == {"unschedulable": True, "own": True}

    await cluster.cordon(node, cordoned=False)
    await cluster.cordon(node)
    assert (await reader.snapshot(cordon)).body == {"unschedulable": True, "own": False}
    now = await reader.target(cordon)
    assert not as_left(cordon, applied.token, now.token)
    with pytest.raises(Invalid, match="was not cordoned by the agent"):
        await apply(cluster, action(ActionName.UNCORDON, cordon.target), intent_id=OTHER_INTENT)
    undo = action(ActionName.RESTORE, cordon.target, undoes=ActionName.CORDON.value)
    with pytest.raises(Invalid, match="by someone else since"):
        await apply(cluster, undo, intent_id=OTHER_INTENT, snapshot=before)


async def test_a_drain_evicts_exactly_the_pod_that_it_saw(cluster: ClusterHarness) -> None:
    """A rehearsal and a missing right evict nothing; an eviction is bound to the uid of its pod."""
    drain, reader = await _drain(cluster), cluster.ports.reader
    node = drain.target.name if drain.target else ""
    await cluster.run_on(node)
    before = await reader.load(cluster.ref("Node", node), rooms=True)
    assert before.rooms is not None
    assert node not in {room.name for room in before.rooms}
    mine = [pod for pod in before.to_evict if pod.ref.namespace == cluster.namespace]
    pod = mine[0]
    assert pod.obstacle is None
    assert (await cluster.powerless.reader.load(cluster.ref("Node", node), rooms=False)).unread is not None

    answer = await cluster.ports.rehearsal.rehearse(drain, await reader.target(drain), None)
    assert answer.accepted, answer.message
    assert [p.uid for p in (await reader.load(cluster.ref("Node", node), rooms=False)).to_evict] == [
        p.uid for p in before.to_evict
    ]

    evict = eviction_of(drain, pod)
    state = TargetState(ref=pod.ref, uid=pod.uid, resource_version="", token=pod.uid)
    with pytest.raises(Forbidden):
        await cluster.powerless.writer.apply(evict, INTENT, state, None)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(evict, INTENT, replace(state, uid="another"), None)
    await cluster.ports.writer.apply(evict, INTENT, state, None)
    assert pod.uid not in {
        p.uid for p in (await reader.load(cluster.ref("Node", node), rooms=False)).to_evict
    }
    with suppress(NotFound):  # one that is going may be evicted again: nothing more happens
        await cluster.ports.writer.apply(evict, INTENT, state, None)


async def test_a_disruption_budget_holds_a_drain(cluster: ClusterHarness) -> None:
    """The rehearsal is refused, and the eviction is a conflict: nothing happened."""
    drain, reader = await _drain(cluster), cluster.ports.reader
    node = drain.target.name if drain.target else ""
    await cluster.run_on(node, held=True)
    answer = await cluster.ports.rehearsal.rehearse(drain, await reader.target(drain), None)
    assert not answer.accepted
    assert "disruption budget" in answer.message
    found = (await reader.load(cluster.ref("Node", node), rooms=False)).to_evict
    held = next(pod for pod in found if pod.ref.namespace == cluster.namespace)
    state = TargetState(ref=held.ref, uid=held.uid, resource_version="", token=held.uid)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(eviction_of(drain, held), INTENT, state, None)
    assert held.uid in {
        pod.uid for pod in (await reader.load(cluster.ref("Node", node), rooms=False)).to_evict
    }


async def test_a_pod_that_serves_is_not_deleted(cluster: ClusterHarness) -> None:
    """It may have become ready since the decision."""
    view = await deploy_shop(cluster)
    serving = cluster.ref("Pod", view.pods[0].name)
    delete = action(ActionName.DELETE_STUCK_POD, serving)
    target = await cluster.ports.reader.target(delete)
    answer = await cluster.ports.rehearsal.rehearse(delete, target, None)
    assert not answer.accepted
    assert "is ready" in answer.message
