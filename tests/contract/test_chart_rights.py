"""Each action as a service account that has the role of the Helm chart, on the real API server.

With the role of its action alone it is read, rehearsed, carried out and undone; with the
role of no action it is forbidden. A verb that is missing in the chart fails here.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.meta_v1 import ObjectMeta

pytest.register_assert_rewrite("tests.contract.hands_suite")

from app.agent.actions import ACTIONS  # noqa: E402 - after the rewrite is registered
from app.agent.actions.spec import CONFIG_MAP  # noqa: E402 - as above
from app.agent.gitops.application import ApplicationRef  # noqa: E402 - as above
from app.agent.guardrails.drains import eviction_of  # noqa: E402 - as above
from app.agent.guardrails.workload_kinds import IN_MONITORING, NODE  # noqa: E402 - as above
from app.agent.models import Action, ActionName, Snapshot  # noqa: E402 - as above
from app.agent.workload import ObjectRef, TargetState  # noqa: E402 - as above
from app.clock import SystemClock  # noqa: E402 - as above
from app.config import Settings  # noqa: E402 - as above
from app.connectors.flux.api import FluxApi, FluxKind  # noqa: E402 - as above
from app.connectors.flux.registration import KIND  # noqa: E402 - as above
from app.connectors.k8s import KubernetesCluster, connect  # noqa: E402 - as above
from app.connectors.kubernetes.config import load_config  # noqa: E402 - as above
from app.connectors.kubernetes.connection import Connection  # noqa: E402 - as above
from app.errors import Conflict, Forbidden, NotFound  # noqa: E402 - as above
from scripts.chart import ENABLED_BY_NAME  # noqa: E402 - as above
from testbed.kubeapi import Api  # noqa: E402 - as above
from testbed.world import TestBed  # noqa: E402 - as above
from tests.contract.cluster_suite import (  # noqa: E402 - as above
    INTENT,
    OTHER_INTENT,
    action,
    config_map,
    deploy_shop,
    key_of,
)
from tests.contract.custom_resources import ROLLOUT_STATUS, define_kind, define_rollouts, roll_out  # noqa: E402 - as above
from tests.contract.hands_suite import ARRANGED  # noqa: E402 - as above
from tests.contract.kubernetes_harness import KubernetesHarness  # noqa: E402 - as above
from tests.contract.manifests import created, of_kind, rendered  # noqa: E402 - as above
from tests.contract.service_account import kubeconfig_of  # noqa: E402 - as above

pytestmark = pytest.mark.real

Arranged = Callable[[KubernetesHarness], Awaitable[Action]]
Account = Callable[..., Awaitable[Settings]]
"""The settings of an agent whose account has the roles of the chart for these actions."""
Identity = Callable[..., Awaitable[KubernetesCluster]]
"""What such an agent is connected to."""
ROLES = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
ON_CONFIG = "revert_config of a ConfigMap"


async def _config(cluster: KubernetesHarness) -> Action:
    await deploy_shop(cluster, config={"mode": "broken"})
    return action(ActionName.REVERT_CONFIG, config_map(cluster))


async def _rollout(cluster: KubernetesHarness, name: ActionName) -> Action:
    await asyncio.to_thread(define_rollouts, cluster.client)
    await cluster.deploy("shop", service="shop", replicas=0)
    await asyncio.to_thread(roll_out, cluster, ROLLOUT_STATUS[name])
    return action(name, ObjectRef(kind="Rollout", namespace=cluster.namespace, name="shop-rollout"))


CASES: dict[str, tuple[ActionName, Arranged]] = {
    ON_CONFIG: (ActionName.REVERT_CONFIG, _config),
    **{name: (name, arranged) for name, arranged in ARRANGED.items()},
    **{name: (name, partial(_rollout, name=name)) for name in ROLLOUT_STATUS},
}


def test_every_action_that_writes_to_the_cluster_is_tried() -> None:
    """A new action needs a case here, unless it changes only the monitoring."""
    writing = {one for one in ENABLED_BY_NAME if ACTIONS[one].kinds - IN_MONITORING}
    assert {name for name, _ in CASES.values()} == writing


@pytest.mark.parametrize("case", CASES)
async def test_an_action_works_with_its_own_role_and_is_forbidden_without(
    case: str, cluster: KubernetesHarness, identity: Identity
) -> None:
    """Everything that the loop asks of the cluster about it, without a warning about rights."""
    name, arranged = CASES[case]
    act = await arranged(cluster)
    able, without = await identity(name), await identity()
    reader = able.reader
    assert act.target is not None
    data = Snapshot(ref=act.target, token="", body={"data": {"mode": "fast"}}) if case == ON_CONFIG else None
    before, snapshot = await reader.target(act), await reader.snapshot(act)
    await _is_read_in_full(able, act, cluster)

    answer = await able.rehearsal.rehearse(act, before, data)
    assert answer.accepted, answer.message
    assert "forbidden" not in answer.message
    refused = await without.rehearsal.rehearse(act, before, data)
    assert not refused.accepted
    assert "forbidden" in refused.message
    assert without.writer is not None
    with pytest.raises(Forbidden):
        await without.writer.apply(act, INTENT, before, data)

    await _applied(able, act, data)
    if ACTIONS[name].undo is not None:
        undo = action(ActionName.RESTORE, act.target, undoes=name.value)
        await _applied(able, undo, snapshot)
        assert (await reader.snapshot(act)).body == snapshot.body


async def _applied(able: KubernetesCluster, act: Action, given: Snapshot | None) -> None:
    """Once more where the cluster itself moved the object in between."""
    assert able.writer is not None
    for left in reversed(range(20)):
        state = await able.reader.target(act)
        intent = OTHER_INTENT if act.name is ActionName.RESTORE else INTENT
        try:
            await able.writer.apply(act, intent, state, given)
        except Conflict:
            if not left:
                raise
        else:
            return


async def _is_read_in_full(able: KubernetesCluster, act: Action, cluster: KubernetesHarness) -> None:
    """What guardrails read before an action; each says itself what it had no right to read."""
    assert act.target is not None
    opt_out = await able.reader.opt_out(act, key_of(cluster))
    assert (opt_out.refused_by, "forbidden" in (opt_out.unread or "")) == ((), False)
    if act.target.kind in (NODE, CONFIG_MAP):
        return
    disruption = await able.reader.disruption(act)
    assert disruption is None or disruption.unread is None
    view = await able.reader.workload(key_of(cluster))
    assert [one for one in (view.warnings if view else ()) if "forbidden" in one] == []


async def test_a_drain_evicts_with_its_own_role_alone(cluster: KubernetesHarness, identity: Identity) -> None:
    """It reads the pods of the node in every namespace, and what the other nodes have left."""
    drain = await ARRANGED[ActionName.DRAIN_NODE](cluster)
    node = drain.target
    assert node is not None
    await cluster.run_on(node.name)
    able, cordons, without = (
        await identity(ActionName.DRAIN_NODE),
        await identity(ActionName.CORDON),
        await identity(),
    )
    load = await able.reader.load(node, rooms=True)
    assert load.unread is None
    assert load.rooms is not None
    (pod,) = (one for one in load.to_evict if one.ref.namespace == cluster.namespace)
    assert (await able.reader.cordons(node)).unread is None
    assert (await without.reader.cordons(node)).unread is not None
    evict = eviction_of(drain, pod)
    state = TargetState(ref=pod.ref, uid=pod.uid, resource_version="", token=pod.uid)
    for one in (cordons, without):
        assert one.writer is not None
        with pytest.raises(Forbidden):
            await one.writer.apply(evict, INTENT, state, None)
    assert able.writer is not None
    await able.writer.apply(evict, INTENT, state, None)


async def test_a_rollout_is_read_with_the_role_of_no_action(
    cluster: KubernetesHarness, identity: Identity
) -> None:
    """An incident of a service that a Rollout runs needs its evidence, whichever actions are on."""
    await _rollout(cluster, ActionName.ABORT_ROLLOUT)
    await cluster.until(key_of(cluster), lambda seen: seen.target.ref.kind == "Rollout")
    without = await identity()
    view = await without.reader.workload(key_of(cluster))
    assert view is not None
    assert view.target.ref.kind == "Rollout"
    assert [one for one in view.warnings if "forbidden" in one] == []


async def test_a_failed_job_is_read_with_the_role_of_its_repetition(
    cluster: KubernetesHarness, identity: Identity
) -> None:
    """Where it is off, `settings.WATCH_JOBS` alone gives the right to read, and none to create."""
    rerun = await ARRANGED[ActionName.RERUN_JOB](cluster)
    able = await identity(ActionName.RERUN_JOB)
    watching = await identity("--set-string", "settings.WATCH_JOBS=true")
    for one in (able, watching):
        assert one.batches is not None
        assert [str(batch.key.service) for batch in await one.batches.batches()] == ["cronjob:report"]
    without = await identity()
    assert without.batches is not None
    with pytest.raises(Forbidden):
        await without.batches.batches()
    assert watching.writer is not None
    with pytest.raises(Forbidden):
        await watching.writer.apply(rerun, INTENT, await able.reader.target(rerun), None)


FLUX = (
    ("kustomize.toolkit.fluxcd.io", "v1", "Kustomization", "kustomizations"),
    ("source.toolkit.fluxcd.io", "v1", "GitRepository", "gitrepositories"),
    ("helm.toolkit.fluxcd.io", "v2", "HelmRelease", "helmreleases"),
)


async def test_flux_is_read_and_written_with_the_rights_of_its_setting(
    cluster: KubernetesHarness, account: Account
) -> None:
    """By the connector, on objects of a namespace that is not watched; without the setting neither."""
    for definition in FLUX:
        await asyncio.to_thread(define_kind, cluster.client, *definition)
    elsewhere = await asyncio.to_thread(cluster.bed.create_namespace)
    ref = ApplicationRef(namespace=elsewhere, name="shop")
    source = {"kind": "GitRepository", "name": "shop"}
    for definition, spec in (
        (FLUX[0], {"path": "./shop", "sourceRef": source}),
        (FLUX[1], {"url": "https://git.example.com/shop.git", "ref": {"branch": "main"}}),
    ):
        made = create_namespaced_resource(*definition)
        metadata = ObjectMeta(name="shop", namespace=elsewhere)
        await asyncio.to_thread(cluster.client.create, made(metadata=metadata, spec=spec))
    allowed = await account("--set-string", "settings.FLUX_ENABLED=true")
    able, without = (KIND.connect(one, None) for one in (allowed, await account()))
    release_reader = FluxApi(_connection(allowed))
    try:
        assert await able.ping() == "with 1 Kustomization"
        with pytest.raises(NotFound):  # allowed, and there is none
            await release_reader.get(FluxKind.HELM_RELEASE, elsewhere, "shop")
        assert able.ports.writer is not None
        assert without.ports.writer is not None
        await able.ports.writer.switch_off(ref, INTENT)
        assert (await able.ports.reader.application(ref)).held_by == INTENT
        with pytest.raises(Forbidden):
            await without.ping()
        with pytest.raises(Forbidden):
            await without.ports.writer.switch_off(ref, OTHER_INTENT)
    finally:
        await release_reader.aclose()
        for one in (able, without):
            await one.close()
        await asyncio.to_thread(cluster.bed.delete_namespace, elsewhere)


def _connection(settings: Settings) -> Connection:
    config = load_config(settings)
    assert config is not None
    return Connection(config, timeout_seconds=settings.kube_timeout_seconds, dry_run=True)


@pytest.fixture
async def cluster(testbed_world: TestBed, namespace: str) -> AsyncIterator[KubernetesHarness]:
    """A fresh namespace, arranged by an administrator."""
    harness = KubernetesHarness(testbed_world, namespace)
    yield harness
    await harness.close()


@pytest.fixture
async def account(api: Api, testbed_world: TestBed, namespace: str, tmp_path: Path) -> AsyncIterator[Account]:
    """Installs the roles of the chart for actions and options of Helm; each call makes a new account."""
    wide: list[str] = []
    releases = itertools.count()

    async def settings_of(*given: str) -> Settings:
        actions = [one for one in given if isinstance(one, ActionName)]
        objects = rendered(
            *("--set", f"environmentNamespaces.prod={namespace}"),
            *("--set-json", f"enabledActions={json.dumps([one.value for one in actions])}"),
            *(one for one in given if not isinstance(one, ActionName)),
            namespace=namespace,
            release=f"{namespace}-{next(releases)}",
        )
        for one in of_kind(objects, "ServiceAccount", *ROLES):
            await created(api, one, namespace)
            if one["kind"].startswith("Cluster"):
                wide.append(f"{one['kind'].lower()}s/{one['metadata']['name']}")
        (service_account,) = of_kind(objects, "ServiceAccount")
        name = service_account["metadata"]["name"]
        return Settings(
            _env_file=None,
            dry_run=False,
            kubeconfig=await kubeconfig_of(name, namespace, api, testbed_world, tmp_path),
            environment_namespaces={"prod": namespace},
            watch_jobs=True,
            enabled_actions=frozenset(actions),
        )

    yield settings_of
    for path in wide:
        await api.request("DELETE", f"/apis/rbac.authorization.k8s.io/v1/{path}")


@pytest.fixture
async def identity(account: Account) -> AsyncIterator[Identity]:
    """Connects as such an account."""
    made: list[KubernetesCluster] = []

    async def connected(*given: str) -> KubernetesCluster:
        cluster = connect(await account(*given), SystemClock())
        assert cluster is not None
        made.append(cluster)
        return cluster

    yield connected
    for one in made:
        await one.close()
