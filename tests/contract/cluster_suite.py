"""The promises of the four cluster ports, written once for every cluster behind them.

A test module of an adapter imports these tests with `*` and defines a fixture
`cluster` that yields a fresh `ClusterHarness`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from app.agent.actions.target_parts import as_left, same_ground
from app.agent.evidence.cluster.blockers import missing_objects
from app.agent.evidence.conditions import workload_conditions
from app.agent.evidence.facts import changed_fields
from app.agent.evidence.trust import TrustRules
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.opt_out import OptOut
from app.agent.ids import (
    IntentId,
    JsonObject,
    JsonScalar,
    ServiceKey,
)
from app.agent.memory import Historian, serves_well_since
from app.agent.models import (
    Action,
    ActionName,
    Observation,
    Risk,
    SliSample,
    Snapshot,
    TelemetryHealth,
)
from app.agent.ports.cluster import ClusterEvent, PodOwner
from app.agent.ports.store import Store
from app.agent.workload import (
    ConfigMapView,
    ObjectRef,
    RevisionHealth,
    TargetState,
    WorkloadView,
)
from app.errors import Conflict, Forbidden, Invalid, NotFound, PermanentError
from app.store import open_store
from tests.contract.cluster_harness import BETTER_IMAGE, CRASHING_IMAGE, GOOD_IMAGE, ClusterHarness
from tests.contract.store_values import SLO

INTENT = IntentId("int_" + "a" * 32)
OTHER_INTENT = IntentId("int_" + "b" * 32)
EVENT_SECONDS = 120.0
"""How long an event of the watch may take before its test fails."""
RETRY_SECONDS = 0.05
SILENCE_SECONDS = 0.7
"""Longer than the watch holds changes back to tell a burst once."""


# ------------------------------------------------------------------ words of the suite


def key_of(cluster: ClusterHarness, service: str = "shop") -> ServiceKey:
    return ServiceKey(environment=cluster.environment, service=service)


def deployment(cluster: ClusterHarness, name: str = "shop") -> ObjectRef:
    return cluster.ref("Deployment", name)


def config_map(cluster: ClusterHarness, name: str = "shop-config") -> ObjectRef:
    return cluster.ref("ConfigMap", name)


def action(name: ActionName, target: ObjectRef | None, **parameters: JsonScalar) -> Action:
    return Action(
        name=name,
        risk=Risk.LOW,
        target=target,
        parameters=parameters,
        expected_effect="as the test expects",
        undo=None,
    )


def restarted(ref: ObjectRef) -> Action:
    return action(ActionName.RESTART, ref)


def rolled_out(view: WorkloadView) -> bool:
    return view.rollout_complete


def runs(image: str) -> Callable[[WorkloadView], bool]:
    """The workload has finished rolling out exactly this image."""
    return lambda view: view.rollout_complete and view.revisions[0].images == (image,)


def crashes(view: WorkloadView) -> bool:
    """The newest revision is the crashing image and one of its pods waits in CrashLoopBackOff."""
    newest = view.revisions[0]
    return newest.images == (CRASHING_IMAGE,) and any(
        pod.waiting_reason == "CrashLoopBackOff" and pod.restarts > 0
        for pod in view.pods
        if pod.template_hash == newest.template_hash
    )


async def deploy_shop(
    cluster: ClusterHarness, *, replicas: int = 2, config: Mapping[str, str] | None = None
) -> WorkloadView:
    """A healthy service `shop`, rolled out."""
    if config is not None:
        await cluster.put_config_map("shop-config", config)
    await cluster.deploy(
        "shop", service="shop", replicas=replicas, config_map=None if config is None else "shop-config"
    )
    return await cluster.until(key_of(cluster), rolled_out)


async def release(cluster: ClusterHarness, image: str) -> WorkloadView:
    await cluster.set_image("shop", image)
    return await cluster.until(key_of(cluster), crashes if image == CRASHING_IMAGE else runs(image))


async def apply(
    cluster: ClusterHarness,
    act: Action,
    *,
    intent_id: IntentId = INTENT,
    snapshot: Snapshot | None = None,
) -> TargetState:
    """Apply on what the object is now, and once more where the cluster itself moved it in between."""
    async with asyncio.timeout(EVENT_SECONDS):
        while True:
            target = await cluster.ports.reader.target(act)
            try:
                return await cluster.ports.writer.apply(act, intent_id, target, snapshot)
            except Conflict:
                await asyncio.sleep(RETRY_SECONDS)


async def asked_for(cluster: ClusterHarness) -> tuple[JsonObject, int, bool]:
    """What `shop` asks for: template, replicas, paused."""
    view = await view_of(cluster)
    return await cluster.template("shop"), view.desired_replicas, view.paused


async def view_of(cluster: ClusterHarness, service: str = "shop") -> WorkloadView:
    view = await cluster.ports.reader.workload(key_of(cluster, service))
    assert view is not None
    return view


# ------------------------------------------------------------------ reading


async def test_a_service_without_pods_is_no_workload(cluster: ClusterHarness) -> None:
    """An unknown service is None, not an error."""
    await deploy_shop(cluster)
    assert await cluster.ports.reader.workload(key_of(cluster, "nobody")) is None


async def test_a_service_name_that_is_no_name_is_no_workload(cluster: ClusterHarness) -> None:
    """A hostile service name reaches no other object."""
    await deploy_shop(cluster)
    for name in ("../shop", "shop/status", "", "shop?watch=1", "a" * 300, "sh\nop"):
        assert await cluster.ports.reader.workload(key_of(cluster, name)) is None


async def test_an_environment_without_pods_is_no_workload(cluster: ClusterHarness) -> None:
    """The same service name in another environment is another service."""
    await deploy_shop(cluster)
    elsewhere = ServiceKey(environment=cluster.environment + "-not", service="shop")
    assert await cluster.ports.reader.workload(elsewhere) is None


async def test_the_label_names_the_service(cluster: ClusterHarness) -> None:
    """`app.kubernetes.io/name` wins over the Deployment's own name."""
    await cluster.deploy("shop-v7", service="shop")
    view = await cluster.until(key_of(cluster), rolled_out)
    assert view.target.ref == deployment(cluster, "shop-v7")
    assert await cluster.ports.reader.workload(key_of(cluster, "shop-v7")) is None


async def test_without_a_label_the_deployment_names_the_service(cluster: ClusterHarness) -> None:
    """A Deployment without the label is the service of its own name."""
    await cluster.deploy("ledger")
    view = await cluster.until(key_of(cluster, "ledger"), rolled_out)
    assert view.target.ref == deployment(cluster, "ledger")


async def test_workloads_that_share_a_service_label_are_all_watched(cluster: ClusterHarness) -> None:
    """Each is the service of its own name, as in charts with components; the shared name is not guessed."""
    await cluster.deploy("r1-web", service="shop")
    await cluster.deploy("r1-db", service="shop", kind="StatefulSet")
    await cluster.deploy("ledger")
    found = [key for key in await cluster.ports.reader.services() if key.environment == cluster.environment]
    assert sorted(found) == [key_of(cluster, service) for service in ("ledger", "r1-db", "r1-web")]
    assert (await view_of(cluster, "r1-web")).target.ref == deployment(cluster, "r1-web")
    assert (await view_of(cluster, "r1-db")).target.ref.kind == "StatefulSet"
    with pytest.raises(Invalid, match=r"r1-db.*r1-web|r1-web.*r1-db"):
        await cluster.ports.reader.workload(key_of(cluster))


async def test_of_several_workloads_the_one_of_that_name_is_the_service(cluster: ClusterHarness) -> None:
    """`shop` beside `shop-worker`: both are watched, each under its own name."""
    await cluster.deploy("shop-worker", service="shop")
    await cluster.deploy("shop")
    found = [key for key in await cluster.ports.reader.services() if key.environment == cluster.environment]
    assert sorted(found) == [key_of(cluster), key_of(cluster, "shop-worker")]
    assert (await view_of(cluster)).target.ref == deployment(cluster)
    assert (await view_of(cluster, "shop-worker")).target.ref == deployment(cluster, "shop-worker")


async def test_a_healthy_workload_shows_its_rollout(cluster: ClusterHarness) -> None:
    """Counts, revision, image and pods of a finished rollout agree with one another."""
    view = await deploy_shop(cluster, replicas=2)
    assert (view.desired_replicas, view.updated_replicas) == (2, 2)
    assert (view.ready_replicas, view.available_replicas) == (2, 2)
    assert not view.paused
    assert not view.progress_deadline_exceeded
    assert not view.opted_out
    assert view.managed_by is None
    assert view.observed_at.tzinfo is not None
    (revision,) = view.revisions
    assert revision.number == view.current_revision == 1
    assert revision.images == (GOOD_IMAGE,)
    assert not revision.irreversible
    assert len(view.pods) == 2
    for pod in view.pods:
        assert pod.ready
        assert pod.phase == "Running"
        assert pod.restarts == 0
        assert pod.waiting_reason is None
        assert pod.node is not None
        assert pod.template_hash == revision.template_hash


async def test_a_crashing_release_shows_beside_the_revision_that_served(cluster: ClusterHarness) -> None:
    """Newest revision first, its pods waiting with a reason, the old one still there to go back to."""
    before = await deploy_shop(cluster)
    view = await release(cluster, CRASHING_IMAGE)
    newest, older = view.revisions
    assert newest.number == view.current_revision == 2
    assert older.number == 1
    assert older.template_hash == before.revisions[0].template_hash
    assert newest.template_hash != older.template_hash
    assert newest.code_hash != older.code_hash
    assert newest.config_hash == older.config_hash
    assert older.ready_replicas > 0
    assert not view.rollout_complete
    (crashed, *_) = (pod for pod in view.pods if pod.waiting_reason == "CrashLoopBackOff")
    assert crashed.failing is not None
    assert crashed.failing.last_ended_at is not None, "so that a crash of now differs from an old one"
    assert crashed.created_at <= crashed.failing.last_ended_at <= view.observed_at
    assert (crashed.evicted, crashed.ends_by) == (None, None)


async def test_a_changed_environment_variable_is_a_change_of_configuration(cluster: ClusterHarness) -> None:
    """The code's hash stays, the configuration's moves."""
    await deploy_shop(cluster)
    await cluster.set_env("shop", {"POOL_SIZE": "0"})
    view = await cluster.until(
        key_of(cluster), lambda seen: seen.rollout_complete and seen.current_revision == 2
    )
    newest, older = view.revisions
    assert newest.code_hash == older.code_hash
    assert newest.config_hash != older.config_hash
    assert newest.template_hash != older.template_hash


async def test_a_field_of_the_pods_spec_is_a_change_of_configuration_and_is_named(
    cluster: ClusterHarness,
) -> None:
    """Nothing in a template is outside both hashes; a config revert puts it back."""
    before = await deploy_shop(cluster)
    await cluster.set_pod_field("shop", "nodeSelector", "linux")
    view = await cluster.until(key_of(cluster), lambda seen: seen.current_revision == 2)
    newest, older = view.revisions
    assert newest.code_hash == older.code_hash
    assert newest.config_hash != older.config_hash
    assert changed_fields(newest, older) == ("nodeSelector",)
    await apply(cluster, action(ActionName.REVERT_CONFIG, deployment(cluster), revision=1))
    view = await cluster.until(
        key_of(cluster), lambda seen: seen.rollout_complete and seen.current_revision == 3
    )
    assert view.revisions[0].template_hash == before.revisions[0].template_hash


async def test_a_label_of_the_pods_comes_with_a_release(cluster: ClusterHarness) -> None:
    """Under a moving tag a build label may be all that differs."""
    await deploy_shop(cluster)
    await cluster.label_pods("shop", {"build": "43"})
    view = await cluster.until(key_of(cluster), lambda seen: seen.current_revision == 2)
    newest, older = view.revisions
    assert newest.code_hash != older.code_hash
    assert newest.config_hash == older.config_hash
    assert changed_fields(newest, older) == ("label build",)


async def test_config_maps_show_keys_and_hash_but_no_value(cluster: ClusterHarness) -> None:
    """Values never leave the connector through a view."""
    view = await deploy_shop(cluster, config={"token": "s3cr3t-value", "mode": "fast"})
    (seen,) = view.config_maps
    assert seen.name == "shop-config"
    assert seen.keys == ("mode", "token")
    assert "s3cr3t-value" not in repr(view)


async def test_a_config_maps_hash_follows_its_data(cluster: ClusterHarness) -> None:
    """Equal data is an equal hash, whatever else happened to the object."""

    async def seen() -> ConfigMapView:
        return (await view_of(cluster)).config_maps[0]

    await deploy_shop(cluster, config={"mode": "fast"})
    first = await seen()
    await cluster.annotate_config_map("shop-config", {"team": "payments"})
    annotated = await seen()
    assert annotated.content_hash == first.content_hash
    assert annotated.resource_version != first.resource_version
    await cluster.put_config_map("shop-config", {"mode": "broken"})
    assert (await seen()).content_hash != first.content_hash
    await cluster.put_config_map("shop-config", {"mode": "fast"})
    assert (await seen()).content_hash == first.content_hash


async def test_config_contents_hold_the_data_for_the_agents_history(cluster: ClusterHarness) -> None:
    """The one place where values are given out, under the same hash as the view's."""
    view = await deploy_shop(cluster, config={"mode": "fast", "level": "9"})
    (record,) = await cluster.ports.reader.config_contents(key_of(cluster))
    assert record.key == key_of(cluster)
    assert record.name == "shop-config"
    assert dict(record.data) == {"mode": "fast", "level": "9"}
    assert record.content_hash == view.config_maps[0].content_hash
    assert record.health is RevisionHealth.UNKNOWN
    assert await cluster.ports.reader.config_contents(key_of(cluster, "nobody")) == ()


async def test_what_a_rollout_may_take_away_follows_from_the_strategy(cluster: ClusterHarness) -> None:
    """A quarter, rounded down, where nothing else is asked for; a ConfigMap has no pods to lose."""
    await deploy_shop(cluster, replicas=5, config={"mode": "fast"})
    restart = action(ActionName.RESTART, deployment(cluster))
    found = await cluster.ports.reader.disruption(restart)
    assert found == Disruption(replicas=5, missing_at_once=1, serving=5)
    revert = action(ActionName.REVERT_CONFIG, config_map(cluster))
    assert await cluster.ports.reader.disruption(revert) is None
    with pytest.raises(NotFound):
        await cluster.ports.reader.disruption(action(ActionName.RESTART, deployment(cluster, "nobody")))
    with pytest.raises(Forbidden):
        await cluster.powerless.reader.disruption(restart)


async def test_a_config_map_that_is_missing_is_left_out(cluster: ClusterHarness) -> None:
    """A reference to nothing is no error: the pods will say what is wrong."""
    await cluster.deploy("shop", service="shop", config_map="never-created")
    view = await cluster.until(key_of(cluster), lambda seen: seen.current_revision == 1)
    assert view.config_maps == ()


async def test_a_pod_that_waits_for_configuration_names_what_is_missing(cluster: ClusterHarness) -> None:
    """The node's own words reach the view, and what the template refers to."""
    await cluster.deploy("shop", service="shop", config_map="never-created")
    view = await cluster.until(
        key_of(cluster),
        lambda seen: any(pod.waiting_reason == "CreateContainerConfigError" for pod in seen.pods),
    )
    waiting = next(pod for pod in view.pods if pod.waiting_reason == "CreateContainerConfigError")
    assert [str(one) for one in missing_objects(waiting)] == ["ConfigMap never-created"]
    assert waiting.failing is not None
    assert waiting.failing.name == "app"
    assert view.revisions[0].references == frozenset({"ConfigMap never-created"})


async def test_a_ready_pod_has_no_failing_container_and_says_since_when(cluster: ClusterHarness) -> None:
    """How long a start usually takes is read from the pods that serve."""
    view = await deploy_shop(cluster)
    for pod in view.pods:
        assert pod.failing is None
        assert not pod.node_lost
        assert pod.ready_changed_at is not None
        assert pod.ready_changed_at >= pod.created_at
    assert workload_conditions(view) == ()


async def test_annotations_say_opted_out_and_irreversible(cluster: ClusterHarness) -> None:
    """What owners wrote on the Deployment reaches policy."""
    await cluster.deploy(
        "shop",
        service="shop",
        annotations={
            "self-healing-devops-agent/enabled": "false",
            "self-healing-devops-agent/irreversible": "true",
        },
    )
    view = await cluster.until(key_of(cluster), rolled_out)
    assert view.opted_out
    assert view.revisions[0].irreversible


async def test_owners_of_object_and_namespace_are_heard(cluster: ClusterHarness) -> None:
    """By label or annotation; what is on the namespace counts for everything in it."""
    enabled = "self-healing-devops-agent/enabled"
    await cluster.deploy("shop", service="shop")
    await cluster.deploy("cart", service="cart", annotations={enabled: "true"})
    shop, cart = (deployment(cluster, name) for name in ("shop", "cart"))
    reader = cluster.ports.reader
    assert await reader.opt_out(restarted(shop), key_of(cluster)) == OptOut()
    assert await reader.opt_out(restarted(cart), key_of(cluster)) == OptOut(given_by=(str(cart),))
    await cluster.mark_namespace({enabled: "false"})
    space = str(cluster.ref("Namespace", cluster.namespace))
    assert await reader.opt_out(restarted(shop), key_of(cluster)) == OptOut(refused_by=(space,))
    assert await reader.opt_out(restarted(cart), key_of(cluster)) == OptOut(
        refused_by=(space,), given_by=(str(cart),)
    )
    gone = cluster.ref("Deployment", "gone")
    with pytest.raises(NotFound):
        await reader.opt_out(restarted(gone), key_of(cluster))
    with pytest.raises(Forbidden):
        await cluster.powerless.reader.opt_out(restarted(shop), key_of(cluster))


async def test_a_gitops_owner_is_named(cluster: ClusterHarness) -> None:
    """Argo CD's tracking annotation makes Argo CD the manager."""
    await cluster.deploy(
        "shop",
        service="shop",
        annotations={"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:prod/shop"},
    )
    view = await cluster.until(key_of(cluster), rolled_out)
    assert view.managed_by == "argocd"


async def test_who_scaled_a_workload_is_named_and_when_it_went_to_zero(cluster: ClusterHarness) -> None:
    """The subresource `scale` keeps no name with 0 replicas; no condition follows from no replicas."""
    await deploy_shop(cluster)
    await cluster.autoscale("shop", 3)
    view = await cluster.until(key_of(cluster), lambda seen: seen.desired_replicas == 3)
    assert view.scaled is not None
    assert view.scaled.by == "autoscaler"
    await cluster.autoscale("shop", 0)
    view = await cluster.until(
        key_of(cluster), lambda seen: seen.desired_replicas == 0 and seen.revisions[0].replicas == 0
    )
    assert view.scaled is not None
    assert view.scaled.by is None
    assert view.scaled.at is not None
    assert view.served_by is None
    assert workload_conditions(view) == ()


async def test_a_status_change_leaves_the_token_alone(cluster: ClusterHarness) -> None:
    """The resourceVersion moves with the status, the token only with what is asked for."""
    await deploy_shop(cluster)
    await cluster.quiet()
    restart = action(ActionName.RESTART, deployment(cluster))
    before = await cluster.ports.reader.target(restart)
    await cluster.touch_status("shop")
    after = await cluster.ports.reader.target(restart)
    assert after.resource_version != before.resource_version
    assert after.token == before.token
    assert after.uid == before.uid
    await cluster.set_replicas("shop", 3)
    assert (await cluster.ports.reader.target(restart)).token != before.token


@pytest.mark.parametrize("name", [ActionName.RESTART, ActionName.ROLLBACK, ActionName.SCALE])
async def test_what_an_action_changed_stays_as_it_left_it_while_others_change_the_rest(
    cluster: ClusterHarness, name: ActionName
) -> None:
    """An autoscaler moves the replicas: that is its change, and touches only an action on replicas."""
    await deploy_shop(cluster)
    await release(cluster, BETTER_IMAGE)
    await cluster.quiet()
    act = action(name, deployment(cluster), revision=1, replicas=4)
    snapshot = await cluster.ports.reader.snapshot(act)
    applied = await apply(cluster, act)
    await cluster.autoscale("shop", 3)
    seen = await cluster.ports.reader.target(act)
    of_replicas = name is ActionName.SCALE
    assert as_left(act, applied.token, seen.token) is not of_replicas
    assert same_ground(act, applied.token, seen.token) is not of_replicas
    assert seen.changed_by == ("autoscaler" if of_replicas else "self-healing-devops-agent")
    assert snapshot.token != seen.token
    undo = action(ActionName.RESTORE, deployment(cluster), undoes=name.value)
    await apply(cluster, undo, intent_id=OTHER_INTENT, snapshot=snapshot)
    view = await cluster.until(key_of(cluster), rolled_out)
    assert view.desired_replicas == (2 if of_replicas else 3)
    assert view.revisions[0].images == (BETTER_IMAGE,)


async def test_a_template_that_a_person_changed_is_not_as_the_action_left_it(cluster: ClusterHarness) -> None:
    """The author of the change is named, and a pause holds back the undo of a template as well."""
    await deploy_shop(cluster)
    await release(cluster, BETTER_IMAGE)
    act = action(ActionName.ROLLBACK, deployment(cluster), revision=1)
    applied = await apply(cluster, act)
    await cluster.set_paused("shop", paused=True)
    assert not as_left(act, applied.token, (await cluster.ports.reader.target(act)).token)
    await cluster.set_paused("shop", paused=False)
    assert as_left(act, applied.token, (await cluster.ports.reader.target(act)).token)
    await cluster.set_env("shop", {"POOL_SIZE": "1"})
    seen = await cluster.ports.reader.target(act)
    assert not as_left(act, applied.token, seen.token)
    assert not same_ground(act, applied.token, seen.token)
    assert seen.changed_by not in (None, "self-healing-devops-agent")


async def test_a_config_maps_token_follows_its_data(cluster: ClusterHarness) -> None:
    """An annotation does not move the token of a ConfigMap; data does."""
    await cluster.put_config_map("shop-config", {"mode": "fast"})
    revert = action(ActionName.REVERT_CONFIG, config_map(cluster))
    before = await cluster.ports.reader.target(revert)
    assert before.marker is None
    await cluster.annotate_config_map("shop-config", {"team": "payments"})
    assert (await cluster.ports.reader.target(revert)).token == before.token
    await cluster.put_config_map("shop-config", {"mode": "slow"})
    assert (await cluster.ports.reader.target(revert)).token != before.token


async def test_the_target_of_the_view_is_the_target_of_an_action(cluster: ClusterHarness) -> None:
    """A decision made on a view holds for the object that the action names."""
    await deploy_shop(cluster)
    await cluster.quiet()
    view = await view_of(cluster)
    assert await cluster.ports.reader.target(action(ActionName.PAUSE, deployment(cluster))) == view.target


async def test_a_target_that_is_gone_is_not_found(cluster: ClusterHarness) -> None:
    """Nothing to act on is said as such, for target and snapshot."""
    gone = action(ActionName.RESTART, deployment(cluster, "gone"))
    with pytest.raises(NotFound, match="gone"):
        await cluster.ports.reader.target(gone)
    with pytest.raises(NotFound, match="gone"):
        await cluster.ports.reader.snapshot(gone)


async def test_an_action_without_a_target_is_invalid(cluster: ClusterHarness) -> None:
    """Notify touches no object, and kinds the agent does not know are refused."""
    with pytest.raises(Invalid):
        await cluster.ports.reader.target(action(ActionName.NOTIFY, None))
    secret = cluster.ref("Secret", "shop")
    with pytest.raises(Invalid, match="Secret"):
        await cluster.ports.reader.target(action(ActionName.RESTORE, secret))


async def test_without_rights_reading_is_forbidden(cluster: ClusterHarness) -> None:
    """The message names what was asked for."""
    await deploy_shop(cluster)
    with pytest.raises(Forbidden, match="deployments"):
        await cluster.powerless.reader.workload(key_of(cluster))
    with pytest.raises(Forbidden, match="deployments"):
        await cluster.powerless.reader.target(action(ActionName.RESTART, deployment(cluster)))


# ------------------------------------------------------------------ what served well


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A metric source that counts so many requests a second, of which so many fail."""

    rate: float
    errors: float = 0.001

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        return SliSample(at=at, error_rate=self.errors, p95_latency_ms=90.0, request_rate=self.rate)

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        count = int((end - start) / step) + 1
        return tuple([await self.sli(key, start + step * index) for index in range(count)])

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        return TelemetryHealth(known_services=len(keys), silent_services=0, source_reachable=True)


async def trusted(
    cluster: ClusterHarness,
    store: Store,
    source: Counted,
    least: int,
    *,
    minutes: float = 2,
    window: timedelta = timedelta(0),
) -> bool:
    """Whether the historian records what runs as having served well, so many minutes from now."""
    historian = Historian(
        store=store,
        reader=cluster.ports.reader,
        metrics=source,
        slo=SLO,
        rules=TrustRules(after=timedelta(minutes=1), min_requests=least, window=window),
    )
    view = await view_of(cluster)
    # The level of this moment is well in every case: it is the period that is judged.
    well = await Counted(rate=1.0).sli(key_of(cluster), view.observed_at)
    later = view.observed_at + timedelta(minutes=minutes)
    return await historian.note(key_of(cluster), Observation(at=later, sli=well, workload=view))


async def test_what_had_no_requests_and_what_failed_its_calls_has_not_served_well(
    cluster: ClusterHarness, tmp_path: Path
) -> None:
    """Trust needs requests over the period; owners of a workload without any say so on it."""
    await deploy_shop(cluster)
    await cluster.deploy(
        "worker", service="worker", annotations={"self-healing-devops-agent/trust-without-traffic": "true"}
    )
    await cluster.until(key_of(cluster, "worker"), rolled_out)
    store = await open_store(f"sqlite:///{tmp_path / 'heal.db'}")
    try:
        assert not await trusted(cluster, store, Counted(rate=0.0), 100)
        assert not await trusted(cluster, store, Counted(rate=50.0, errors=0.5), 100)
        assert await store.history.revisions(key_of(cluster)) == ()
        assert await trusted(cluster, store, Counted(rate=50.0), 100)
        [known] = await store.history.revisions(key_of(cluster))
        assert known.health is RevisionHealth.SERVED_WELL
        assert not (await view_of(cluster)).trusted_without_traffic
        assert (await view_of(cluster, "worker")).trusted_without_traffic
    finally:
        await store.close()


async def test_what_a_measurement_has_not_covered_has_not_served_well(
    cluster: ClusterHarness, tmp_path: Path
) -> None:
    """Where the metrics look back longer than a version serves, they show the version before it."""
    await deploy_shop(cluster)
    store = await open_store(f"sqlite:///{tmp_path / 'heal.db'}")
    window = timedelta(minutes=5)
    try:
        assert not await trusted(cluster, store, Counted(rate=50.0), 0, minutes=2, window=window)
        assert await store.history.revisions(key_of(cluster)) == ()
        assert await trusted(cluster, store, Counted(rate=50.0), 0, minutes=6, window=window)
    finally:
        await store.close()


async def test_a_version_serves_from_the_time_its_pods_became_ready(cluster: ClusterHarness) -> None:
    """A pod that waited long for its image has not served in that time."""
    await deploy_shop(cluster)
    view = await view_of(cluster)
    late = view.observed_at + timedelta(minutes=3)
    first, *others = view.pods
    waited = replace(view, pods=(replace(first, ready_changed_at=late), *others))
    seen = Observation(at=late, sli=None, workload=waited)
    assert serves_well_since(seen, SLO) == late


# ------------------------------------------------------------------ rehearsing


async def test_a_rehearsal_changes_nothing(cluster: ClusterHarness) -> None:
    """Every action is answered, and no object's resourceVersion moves."""
    await deploy_shop(cluster, config={"mode": "fast"})
    await release(cluster, BETTER_IMAGE)
    await cluster.set_env("shop", {"POOL_SIZE": "0"})
    await cluster.until(key_of(cluster), lambda view: view.rollout_complete and view.current_revision == 3)
    await cluster.quiet()
    target = deployment(cluster)
    reader = cluster.ports.reader
    snapshot = await reader.snapshot(action(ActionName.RESTART, target))
    config_ref = config_map(cluster)
    wanted = Snapshot(ref=config_ref, token="", body={"data": {"mode": "slow"}})
    before = await cluster.versions()
    for act, given in (
        (action(ActionName.RESTART, target), None),
        (action(ActionName.ROLLBACK, target, revision=1), None),
        (action(ActionName.REVERT_CONFIG, target, revision=2), None),
        (action(ActionName.REVERT_CONFIG, config_ref), wanted),
        (action(ActionName.SCALE, target, replicas=4), None),
        (action(ActionName.PAUSE, target), None),
        (action(ActionName.RESUME, target), None),
        (action(ActionName.RESTORE, target), snapshot),
    ):
        answer = await cluster.ports.rehearsal.rehearse(act, await reader.target(act), given)
        assert answer.accepted, (act.name, answer.message)
        assert answer.message
    await cluster.quiet()
    assert await cluster.versions() == before


async def test_a_rehearsal_reports_a_rejection_as_a_value(cluster: ClusterHarness) -> None:
    """An impossible change is an answer, not an exception."""
    await deploy_shop(cluster)
    await cluster.quiet()
    for act in (
        action(ActionName.SCALE, deployment(cluster), replicas=-1),
        action(ActionName.SCALE, deployment(cluster)),
        action(ActionName.ROLLBACK, deployment(cluster), revision=99),
    ):
        target = await cluster.ports.reader.target(act)
        answer = await cluster.ports.rehearsal.rehearse(act, target, None)
        assert not answer.accepted
        assert answer.message


async def test_a_rehearsal_on_a_state_that_is_past_is_rejected(cluster: ClusterHarness) -> None:
    """The dry run has the same preconditions as the real thing."""
    await deploy_shop(cluster)
    act = action(ActionName.SCALE, deployment(cluster), replicas=3)
    stale = await cluster.ports.reader.target(act)
    await cluster.set_env("shop", {"POOL_SIZE": "1"})
    answer = await cluster.ports.rehearsal.rehearse(act, stale, None)
    assert not answer.accepted


async def test_a_status_that_moves_is_no_reason_to_reject_a_rehearsal(cluster: ClusterHarness) -> None:
    """In the middle of a rollout the status moves all the time; what is asked for does not."""
    await deploy_shop(cluster)
    act = action(ActionName.RESTART, deployment(cluster))
    target = await cluster.ports.reader.target(act)
    await cluster.touch_status("shop")
    answer = await cluster.ports.rehearsal.rehearse(act, target, None)
    assert answer.accepted, answer.message


async def test_an_action_whose_new_pods_would_be_refused_is_rejected(cluster: ClusterHarness) -> None:
    """The Deployment is accepted; its pods are what a policy judges. What makes no pods is no matter."""
    await deploy_shop(cluster, config={"mode": "fast"})
    await release(cluster, BETTER_IMAGE)
    await cluster.set_env("shop", {"POOL_SIZE": "0"})
    await cluster.until(key_of(cluster), lambda view: view.rollout_complete and view.current_revision == 3)
    await cluster.quiet()
    target, reader = deployment(cluster), cluster.ports.reader
    rolled_back = action(ActionName.ROLLBACK, target, revision=1)
    snapshot = await reader.snapshot(rolled_back)
    await apply(cluster, rolled_back)
    await cluster.quiet()
    await cluster.refuse_pods("no more pods today")
    for act, given in (
        (action(ActionName.RESTART, target), None),
        (action(ActionName.ROLLBACK, target, revision=2), None),
        (action(ActionName.REVERT_CONFIG, target, revision=3), None),
        (action(ActionName.SCALE, target, replicas=4), None),
        (action(ActionName.RESTORE, target, undoes="rollback"), snapshot),
    ):
        answer = await cluster.ports.rehearsal.rehearse(act, await reader.target(act), given)
        assert not answer.accepted, act.name
        assert "new pods would be refused" in answer.message
        assert "no more pods today" in answer.message
    for act in (action(ActionName.SCALE, target, replicas=1), action(ActionName.PAUSE, target)):
        answer = await cluster.ports.rehearsal.rehearse(act, await reader.target(act), None)
        assert answer.accepted, (act.name, answer.message)


async def test_an_action_whose_new_pods_would_lack_a_config_map_is_rejected(cluster: ClusterHarness) -> None:
    """The API server accepts the template, and no pod of it would start."""
    await cluster.deploy("shop", service="shop", config_map="never-created")
    await cluster.until(key_of(cluster), lambda view: bool(view.pods))
    await cluster.quiet()
    restart = action(ActionName.RESTART, deployment(cluster))
    target = await cluster.ports.reader.target(restart)
    answer = await cluster.ports.rehearsal.rehearse(restart, target, None)
    assert not answer.accepted
    assert "ConfigMap never-created does not exist" in answer.message
    await cluster.put_config_map("never-created", {"mode": "fast"})
    target = await cluster.ports.reader.target(restart)
    assert (await cluster.ports.rehearsal.rehearse(restart, target, None)).accepted


async def test_without_the_right_to_try_a_pod_a_rehearsal_says_so(cluster: ClusterHarness) -> None:
    """The rest is answered as ever, and the sentence names what is not known."""
    await deploy_shop(cluster)
    await cluster.quiet()
    act = action(ActionName.RESTART, deployment(cluster))
    target = await cluster.without_pods.reader.target(act)
    answer = await cluster.without_pods.rehearsal.rehearse(act, target, None)
    assert answer.accepted, answer.message
    assert "whether new pods would be admitted is not known" in answer.message
    told = await cluster.ports.rehearsal.rehearse(act, target, None)
    assert "and a new pod from its template would be admitted" in told.message


async def test_pods_that_cannot_be_made_show_in_the_workload(cluster: ClusterHarness) -> None:
    """The view says why, from the Deployment's own condition, and it is the first warning."""
    await deploy_shop(cluster)
    assert (await view_of(cluster)).replica_failure is None
    await cluster.refuse_pods("no more pods today")
    await cluster.set_image("shop", BETTER_IMAGE)
    view = await cluster.until(key_of(cluster), lambda seen: seen.replica_failure is not None)
    assert view.replica_failure is not None
    assert view.replica_failure.startswith("FailedCreate: ")
    assert "no more pods today" in view.replica_failure
    assert any("no more pods today" in warning for warning in view.warnings)
    assert not view.rollout_complete


async def test_a_rehearsal_without_rights_says_forbidden(cluster: ClusterHarness) -> None:
    """Missing rights show in the dry run already."""
    await deploy_shop(cluster)
    act = action(ActionName.SCALE, deployment(cluster), replicas=3)
    target = await cluster.ports.reader.target(act)
    answer = await cluster.powerless.rehearsal.rehearse(act, target, None)
    assert not answer.accepted
    assert "forbidden" in answer.message.lower()


# ------------------------------------------------------------------ writing


async def test_restart_replaces_every_pod(cluster: ClusterHarness) -> None:
    """A restart is a rollout of the same code and configuration."""
    before = await deploy_shop(cluster)
    state = await apply(cluster, action(ActionName.RESTART, deployment(cluster)))
    view = await cluster.until(
        key_of(cluster), lambda seen: seen.rollout_complete and seen.current_revision == 2
    )
    assert view.target.token == state.token
    assert not {pod.name for pod in view.pods} & {pod.name for pod in before.pods}
    assert view.revisions[0].code_hash == before.revisions[0].code_hash
    assert view.revisions[0].config_hash == before.revisions[0].config_hash


async def test_rollback_restores_the_template_exactly(cluster: ClusterHarness) -> None:
    """What runs after a rollback is what the revision held, to the last field."""
    before = await deploy_shop(cluster)
    wanted = await cluster.template("shop")
    await release(cluster, CRASHING_IMAGE)
    await apply(cluster, action(ActionName.ROLLBACK, deployment(cluster), revision=1))
    view = await cluster.until(key_of(cluster), runs(GOOD_IMAGE))
    assert await cluster.template("shop") == wanted
    assert view.revisions[0].template_hash == before.revisions[0].template_hash
    assert view.current_revision == 3


def older_than_a_second(view: WorkloadView) -> bool:
    """So that times in whole seconds tell the next revision from this one."""
    return view.observed_at - view.revisions[0].created_at > timedelta(seconds=1)


async def test_a_rollback_to_what_is_not_there_is_invalid(cluster: ClusterHarness) -> None:
    """A revision that is not kept, is the present one, or belongs to another workload is refused."""
    await deploy_shop(cluster)
    await release(cluster, BETTER_IMAGE)
    await cluster.quiet()
    wanted = await cluster.template("shop")
    for revision in (99, 0, -1, 2, "1; rm", True, None):
        with pytest.raises(Invalid):
            await apply(cluster, action(ActionName.ROLLBACK, deployment(cluster), revision=revision))
    with pytest.raises(Invalid):
        await apply(cluster, action(ActionName.ROLLBACK, deployment(cluster)))
    assert await cluster.template("shop") == wanted


async def test_a_paused_rollout_is_not_rolled_back(cluster: ClusterHarness) -> None:
    """Someone paused it on purpose; writing and rehearsing both say so."""
    await deploy_shop(cluster)
    await release(cluster, BETTER_IMAGE)
    await cluster.set_paused("shop", paused=True)
    await cluster.quiet()
    act = action(ActionName.ROLLBACK, deployment(cluster), revision=1)
    target = await cluster.ports.reader.target(act)
    with pytest.raises(Invalid, match="paused"):
        await cluster.ports.writer.apply(act, INTENT, target, None)
    answer = await cluster.ports.rehearsal.rehearse(act, target, None)
    assert not answer.accepted
    assert "paused" in answer.message
    assert (await view_of(cluster)).target.token == target.token


async def test_revert_config_keeps_the_image(cluster: ClusterHarness) -> None:
    """Environment goes back to the revision's; the release that came later stays."""
    before = await deploy_shop(cluster)
    await cluster.set_env("shop", {"POOL_SIZE": "0"})
    await cluster.until(key_of(cluster), lambda view: view.rollout_complete and view.current_revision == 2)
    await release(cluster, BETTER_IMAGE)
    await apply(cluster, action(ActionName.REVERT_CONFIG, deployment(cluster), revision=1))
    view = await cluster.until(
        key_of(cluster), lambda seen: seen.rollout_complete and seen.current_revision == 4
    )
    assert view.revisions[0].images == (BETTER_IMAGE,)
    assert view.revisions[0].config_hash == before.revisions[0].config_hash
    assert view.revisions[0].code_hash == view.revisions[1].code_hash


async def test_revert_config_puts_a_config_map_back(cluster: ClusterHarness) -> None:
    """The data becomes exactly what the given snapshot holds: keys added since go."""
    await deploy_shop(cluster, config={"mode": "broken", "extra": "1"})
    ref = config_map(cluster)
    wanted = Snapshot(ref=ref, token="", body={"data": {"mode": "fast"}})
    act = action(ActionName.REVERT_CONFIG, ref)
    state = await apply(cluster, act, snapshot=wanted)
    assert await cluster.config_data("shop-config") == {"mode": "fast"}
    assert state.marker == INTENT
    assert await cluster.ports.reader.target(act) == state


async def test_revert_config_of_a_config_map_wants_its_data(cluster: ClusterHarness) -> None:
    """Without data, or with another object's, nothing is written."""
    await cluster.put_config_map("shop-config", {"mode": "broken"})
    ref = config_map(cluster)
    act = action(ActionName.REVERT_CONFIG, ref)
    for given in (
        None,
        Snapshot(ref=ref, token="", body={}),
        Snapshot(ref=ref, token="", body={"data": {"mode": 7}}),
        Snapshot(ref=config_map(cluster, "other"), token="", body={"data": {"mode": "fast"}}),
    ):
        with pytest.raises(Invalid):
            await apply(cluster, act, snapshot=given)
    assert await cluster.config_data("shop-config") == {"mode": "broken"}


async def test_scale_sets_the_replicas(cluster: ClusterHarness) -> None:
    """Bounds are the policy's; the number asked for is the number set."""
    await deploy_shop(cluster, replicas=1)
    await apply(cluster, action(ActionName.SCALE, deployment(cluster), replicas=3))
    view = await cluster.until(key_of(cluster), lambda seen: seen.ready_replicas == 3)
    assert view.desired_replicas == 3
    assert view.current_revision == 1


async def test_pause_and_resume_hold_and_release_a_rollout(cluster: ClusterHarness) -> None:
    """A paused workload keeps running what it runs."""
    await deploy_shop(cluster)
    await apply(cluster, action(ActionName.PAUSE, deployment(cluster)))
    assert (await view_of(cluster)).paused
    await cluster.set_image("shop", BETTER_IMAGE)
    await cluster.quiet()
    held = await view_of(cluster)
    assert held.revisions[0].images == (GOOD_IMAGE,)
    assert not held.rollout_complete
    await apply(cluster, action(ActionName.RESUME, deployment(cluster)), intent_id=OTHER_INTENT)
    view = await cluster.until(key_of(cluster), runs(BETTER_IMAGE))
    assert not view.paused


async def test_the_marker_is_readable_after_the_write(cluster: ClusterHarness) -> None:
    """After a crash the next worker can see whose effect the object carries."""
    await deploy_shop(cluster)
    await cluster.quiet()
    act = action(ActionName.SCALE, deployment(cluster), replicas=3)
    before = await cluster.ports.reader.target(act)
    assert before.marker is None
    state = await cluster.ports.writer.apply(act, INTENT, before, None)
    assert state.marker == INTENT
    assert state.uid == before.uid
    assert state.token != before.token
    seen = await cluster.ports.reader.target(act)
    assert seen.marker == INTENT
    assert seen.token == state.token
    assert seen.changed_by == "self-healing-devops-agent"


async def test_the_same_write_twice_has_one_effect(cluster: ClusterHarness) -> None:
    """The second copy of a request meets its own effect and is a conflict."""
    await deploy_shop(cluster)
    await cluster.quiet()
    act = action(ActionName.RESTART, deployment(cluster))
    target = await cluster.ports.reader.target(act)
    state = await cluster.ports.writer.apply(act, INTENT, target, None)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(act, INTENT, target, None)
    assert (await cluster.ports.reader.target(act)).token == state.token


async def test_of_two_writers_one_wins(cluster: ClusterHarness) -> None:
    """Two writes decided on one state, at the same time, have one effect."""
    await deploy_shop(cluster)
    await cluster.quiet()
    up = action(ActionName.SCALE, deployment(cluster), replicas=5)
    down = action(ActionName.SCALE, deployment(cluster), replicas=1)
    target = await cluster.ports.reader.target(up)
    writer = cluster.ports.writer
    answers = await asyncio.gather(
        writer.apply(up, INTENT, target, None),
        writer.apply(down, OTHER_INTENT, target, None),
        return_exceptions=True,
    )
    assert sum(isinstance(answer, Conflict) for answer in answers) == 1
    assert sum(isinstance(answer, TargetState) for answer in answers) == 1
    winner = INTENT if isinstance(answers[0], TargetState) else OTHER_INTENT
    assert (await cluster.ports.reader.target(up)).marker == winner
    assert (await view_of(cluster)).desired_replicas == (5 if winner == INTENT else 1)


async def test_a_write_on_a_state_that_is_past_changes_nothing(cluster: ClusterHarness) -> None:
    """Someone else was faster: conflict, and their change stands."""
    await deploy_shop(cluster, config={"mode": "fast"})
    await cluster.quiet()
    act = action(ActionName.SCALE, deployment(cluster), replicas=5)
    stale = await cluster.ports.reader.target(act)
    await cluster.set_replicas("shop", 3)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(act, INTENT, stale, None)
    view = await view_of(cluster)
    assert view.desired_replicas == 3
    assert view.target.marker is None
    revert = action(ActionName.REVERT_CONFIG, config_map(cluster))
    stale = await cluster.ports.reader.target(revert)
    await cluster.put_config_map("shop-config", {"mode": "slow"})
    wanted = Snapshot(ref=config_map(cluster), token="", body={"data": {"mode": "reverted"}})
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(revert, INTENT, stale, wanted)
    assert await cluster.config_data("shop-config") == {"mode": "slow"}


async def test_a_namesake_is_not_the_target(cluster: ClusterHarness) -> None:
    """A Deployment deleted and created again under its name is another object."""
    await deploy_shop(cluster)
    act = action(ActionName.SCALE, deployment(cluster), replicas=5)
    target = await cluster.ports.reader.target(act)
    await cluster.delete_deployment("shop")
    with pytest.raises(NotFound):
        await cluster.ports.writer.apply(act, INTENT, target, None)
    await deploy_shop(cluster)
    with pytest.raises(Conflict):
        await cluster.ports.writer.apply(act, INTENT, target, None)
    assert (await view_of(cluster)).desired_replicas == 2


UNDOABLE: tuple[tuple[ActionName, dict[str, JsonScalar]], ...] = (
    (ActionName.RESTART, {}),
    (ActionName.ROLLBACK, {"revision": 1}),
    (ActionName.REVERT_CONFIG, {"revision": 1}),
    (ActionName.SCALE, {"replicas": 4}),
    (ActionName.PAUSE, {}),
)


@pytest.mark.parametrize(("name", "parameters"), UNDOABLE, ids=[name.value for name, _ in UNDOABLE])
async def test_restore_undoes_an_action_exactly(
    cluster: ClusterHarness, name: ActionName, parameters: dict[str, JsonScalar]
) -> None:
    """After the undo the Deployment asks for what it asked for before."""
    await deploy_shop(cluster)
    await cluster.set_env("shop", {"POOL_SIZE": "2"})
    await cluster.until(key_of(cluster), lambda view: view.rollout_complete and view.current_revision == 2)
    await release(cluster, BETTER_IMAGE)
    before = await asked_for(cluster)
    act = action(name, deployment(cluster), **parameters)
    snapshot = await cluster.ports.reader.snapshot(act)
    assert snapshot.ref == act.target
    assert snapshot.token == (await cluster.ports.reader.target(act)).token
    await apply(cluster, act)
    assert await asked_for(cluster) != before
    state = await apply(
        cluster,
        action(ActionName.RESTORE, deployment(cluster)),
        intent_id=OTHER_INTENT,
        snapshot=snapshot,
    )
    assert state.marker == OTHER_INTENT
    assert await asked_for(cluster) == before
    await cluster.until(key_of(cluster), runs(BETTER_IMAGE))


async def test_restore_undoes_a_resume(cluster: ClusterHarness) -> None:
    """A rollout that was paused before is paused again."""
    await deploy_shop(cluster)
    await cluster.set_paused("shop", paused=True)
    await cluster.quiet()
    resume = action(ActionName.RESUME, deployment(cluster))
    snapshot = await cluster.ports.reader.snapshot(resume)
    await apply(cluster, resume)
    assert not (await view_of(cluster)).paused
    restore = action(ActionName.RESTORE, deployment(cluster))
    await apply(cluster, restore, intent_id=OTHER_INTENT, snapshot=snapshot)
    assert (await view_of(cluster)).paused


async def test_restore_undoes_a_reverted_config_map(cluster: ClusterHarness) -> None:
    """The snapshot of a ConfigMap brings back every key and no other."""
    await cluster.put_config_map("shop-config", {"mode": "broken", "only-before": "1"})
    ref = config_map(cluster)
    revert = action(ActionName.REVERT_CONFIG, ref)
    before = await cluster.ports.reader.snapshot(revert)
    wanted = Snapshot(ref=ref, token="", body={"data": {"mode": "fast", "only-after": "1"}})
    await apply(cluster, revert, snapshot=wanted)
    restore = action(ActionName.RESTORE, ref)
    await apply(cluster, restore, intent_id=OTHER_INTENT, snapshot=before)
    assert await cluster.config_data("shop-config") == {"mode": "broken", "only-before": "1"}
    assert (await cluster.ports.reader.target(restore)).token == before.token


async def test_restore_wants_the_snapshot_of_its_own_object(cluster: ClusterHarness) -> None:
    """No snapshot, another object's, or a mangled one: nothing is written."""
    await deploy_shop(cluster)
    await cluster.deploy("ledger")
    await cluster.quiet()
    restore = action(ActionName.RESTORE, deployment(cluster))
    other = await cluster.ports.reader.snapshot(action(ActionName.RESTORE, deployment(cluster, "ledger")))
    before = await asked_for(cluster)
    for given in (None, other, Snapshot(ref=deployment(cluster), token="", body={"spec": "all of it"})):
        with pytest.raises(Invalid):
            await apply(cluster, restore, snapshot=given)
    assert await asked_for(cluster) == before


async def test_wrong_parameters_are_invalid(cluster: ClusterHarness) -> None:
    """An action the cluster cannot mean is refused before or by the server, without effect."""
    await deploy_shop(cluster)
    await cluster.quiet()
    before = await cluster.versions()
    target = deployment(cluster)
    for act in (
        action(ActionName.SCALE, target),
        action(ActionName.SCALE, target, replicas="three"),
        action(ActionName.SCALE, target, replicas=True),
        action(ActionName.SCALE, target, replicas=-1),
        action(ActionName.REVERT_CONFIG, target),
        action(ActionName.REVERT_CONFIG, target, revision=99),
    ):
        state = await cluster.ports.reader.target(act)
        with pytest.raises(PermanentError):
            await cluster.ports.writer.apply(act, INTENT, state, None)
    assert await cluster.versions() == before


async def test_an_action_on_the_wrong_kind_is_invalid(cluster: ClusterHarness) -> None:
    """A ConfigMap has no replicas, and notify is no write."""
    await cluster.put_config_map("shop-config", {"mode": "fast"})
    act = action(ActionName.SCALE, config_map(cluster), replicas=2)
    state = await cluster.ports.reader.target(act)
    with pytest.raises(Invalid):
        await cluster.ports.writer.apply(act, INTENT, state, None)
    with pytest.raises(Invalid):
        await cluster.ports.writer.apply(action(ActionName.NOTIFY, None), INTENT, state, None)


async def test_without_rights_writing_is_forbidden(cluster: ClusterHarness) -> None:
    """The error names verb and object, and nothing changed."""
    await deploy_shop(cluster)
    await cluster.quiet()
    act = action(ActionName.SCALE, deployment(cluster), replicas=5)
    target = await cluster.ports.reader.target(act)
    before = await cluster.versions()
    with pytest.raises(Forbidden, match="deployments"):
        await cluster.powerless.writer.apply(act, INTENT, target, None)
    assert await cluster.versions() == before


# ------------------------------------------------------------------ watching


class Listening:
    """One subscription to the watch, read in the background so that it never holds the cluster up."""

    def __init__(self, events: AsyncIterator[ClusterEvent]) -> None:
        self._told: asyncio.Queue[ServiceKey] = asyncio.Queue()
        self.task = asyncio.create_task(self._listen(events))

    async def _listen(self, events: AsyncIterator[ClusterEvent]) -> None:
        async for event in events:
            self._told.put_nowait(event.key)

    async def until(self, *wanted: ServiceKey) -> None:
        """Return once every key in `wanted` has been reported at least once from here on."""
        missing = set(wanted)
        async with asyncio.timeout(EVENT_SECONDS):
            while missing:
                missing.discard(await self._told.get())

    async def silence(self) -> int:
        """Return once no report arrived for a while; how many had arrived until then."""
        told = 0
        async with asyncio.timeout(EVENT_SECONDS):
            while True:
                try:
                    await asyncio.wait_for(self._told.get(), SILENCE_SECONDS)
                except TimeoutError:
                    return told
                told += 1


@pytest.fixture
async def listening(cluster: ClusterHarness) -> AsyncIterator[Callable[[], Listening]]:
    """Subscribe when called; ended when the test ends."""
    streams: list[Listening] = []

    def listen() -> Listening:
        streams.append(Listening(cluster.ports.watch.events()))
        return streams[-1]

    yield listen
    for stream in streams:
        stream.task.cancel()
    await asyncio.gather(*(stream.task for stream in streams), return_exceptions=True)


async def test_a_pod_belongs_to_the_deployment_behind_it(cluster: ClusterHarness) -> None:
    """Through its ReplicaSet, whatever the pod is called; with the service that the Deployment is."""
    view = await deploy_shop(cluster)
    for pod in view.pods:
        owner = await cluster.ports.owners.owner(cluster.ref("Pod", pod.name))
        assert owner == PodOwner(kind="Deployment", name="shop", key=key_of(cluster))


@pytest.mark.parametrize("pod", ["gone-7d9c5b8f6d-x2x4z", "No Name", "", "../../deployments"])
async def test_a_pod_that_is_not_there_has_no_owner(cluster: ClusterHarness, pod: str) -> None:
    """Nor has what cannot be the name of one."""
    assert await cluster.ports.owners.owner(cluster.ref("Pod", pod)) is None


async def test_owners_are_not_reported_without_the_right(cluster: ClusterHarness) -> None:
    """A missing right reaches the caller, who must not take it for a pod that is gone."""
    view = await deploy_shop(cluster)
    with pytest.raises(Forbidden):
        await cluster.powerless.owners.owner(cluster.ref("Pod", view.pods[0].name))


async def test_the_watch_begins_with_every_known_service(
    cluster: ClusterHarness, listening: Callable[[], Listening]
) -> None:
    """What was there before the agent is looked at too."""
    await deploy_shop(cluster)
    await cluster.deploy("ledger")
    await listening().until(key_of(cluster), key_of(cluster, "ledger"))


async def test_the_watch_reports_every_kind_of_change(
    cluster: ClusterHarness, listening: Callable[[], Listening]
) -> None:
    """A change of a Deployment, pod or ConfigMap is reported as the service it belongs to."""
    await deploy_shop(cluster, config={"mode": "fast"})
    stream = listening()
    await stream.until(key_of(cluster))
    await cluster.quiet()
    await stream.silence()
    await cluster.put_config_map("shop-config", {"mode": "broken"})
    await stream.until(key_of(cluster))
    await stream.silence()
    await cluster.set_image("shop", CRASHING_IMAGE)
    await stream.until(key_of(cluster))
    async with asyncio.timeout(EVENT_SECONDS):
        while not crashes(await view_of(cluster)):
            await stream.until(key_of(cluster))
    await cluster.deploy("ledger")
    await stream.until(key_of(cluster, "ledger"))
    await cluster.delete_deployment("ledger")
    await stream.until(key_of(cluster, "ledger"))


async def test_a_watch_without_rights_fails_aloud(cluster: ClusterHarness) -> None:
    """Missing rights reach the caller; they are not retried in silence."""
    with pytest.raises(Forbidden):
        async with asyncio.timeout(EVENT_SECONDS):
            await anext(cluster.powerless.watch.events())
