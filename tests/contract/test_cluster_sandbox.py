"""The sandbox keeps the promises of the cluster ports, as the real control plane does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from app.agent.batch.repeats import SAFE_TO_REPEAT
from app.agent.batch.runs import RunState
from app.agent.ids import Json, JsonObject, ServiceKey
from app.agent.ports.cluster import ClusterReader
from app.agent.workload import AutoscalerView, ObjectRef, ReleaseRecord, WorkloadView
from app.sandbox.api import Identity, Thing
from app.sandbox.jobs import CronJob
from app.sandbox.objects import WORKLOADS, ConfigMap, Job, Pod, ReplicaSet, template_body
from app.sandbox.routing.objects import PolicyObject
from app.sandbox.world import ContainerLog
from app.testing import Naming, PacedClock, SandboxCluster, Template, Workload, World
from tests.contract.cluster_harness import GOOD_IMAGE, RELEASED_AT, WITHOUT_NAMESPACE, ClusterPorts
from tests.contract.cluster_suite import *  # noqa: F403 - the shared contract
from tests.contract.hands_suite import *  # noqa: F403 - the same for what is no workload
from tests.contract.jobs_suite import *  # noqa: F403 - the same for Jobs
from tests.contract.kinds_suite import *  # noqa: F403 - the same for each kind
from tests.contract.logs_suite import *  # noqa: F403 - the logs of containers
from tests.contract.routes_suite import *  # noqa: F403 - Services and network policies

RESOURCES = (
    "deployment",
    "statefulset",
    "daemonset",
    "replicaset",
    "pod",
    "configmap",
    "namespace",
    "job",
    "cronjob",
)
SPEED = 40.0
"""Seconds of the world in one of the test's."""
DEADLINE_SECONDS = 120.0
STILL_SECONDS = 4.0
"""In the world: longer than any step of a rollout, shorter than the first back-off."""


def _ports(world: World, naming: Naming, identity: Identity) -> ClusterPorts:
    cluster = SandboxCluster.over(world, naming=naming, identity=identity)
    return ClusterPorts(
        reader=cluster.reader,
        rehearsal=cluster.rehearsal,
        writer=cluster.writer(),
        watch=cluster.watch,
        owners=cluster.reader,
        coverage=cluster.reader,
        logs=cluster.logs,
        batches=cluster.batches,
    )


class SandboxHarness:
    """A `ClusterHarness` over a world of its own, in which time runs fast."""

    environment = "prod"
    namespace = "payments"
    cluster = ""

    def __init__(self) -> None:
        self.world = World(PacedClock(SPEED), seed=7)
        naming = Naming(namespaces={self.environment: self.namespace})
        self.ports = _ports(self.world, naming, Identity(name="self-healing-devops-agent"))
        may = frozenset(f"{verb} {kind}s" for verb in ("get", "list", "patch", "watch") for kind in RESOURCES)
        self.without_pods = _ports(self.world, naming, Identity(name="no-pods", rights=may))
        self.powerless = _ports(self.world, naming, Identity(name="nobody", rights=frozenset()))

    def ref(self, kind: str, name: str) -> ObjectRef:
        return ObjectRef(
            kind=kind,
            namespace="" if kind in WITHOUT_NAMESPACE else self.namespace,
            name=name,
            cluster=self.cluster,
        )

    async def deploy(
        self,
        name: str,
        *,
        service: str | None = None,
        image: str = GOOD_IMAGE,
        replicas: int = 2,
        config_map: str | None = None,
        annotations: Mapping[str, str] | None = None,
        kind: str = "Deployment",
        ordered: bool = False,
    ) -> None:
        self.world.deploy(
            Workload(
                kind=next(one for one in WORKLOADS if one.__name__ == kind),
                namespace=self.namespace,
                name=name,
                service=service,
                template=Template(image=image, config_maps=(config_map,) if config_map else ()),
                replicas=replicas,
                annotations=annotations,
                ordered=ordered,
            )
        )

    async def set_image(self, name: str, image: str) -> None:
        self.world.release(self.namespace, name, image)

    async def set_env(self, name: str, env: Mapping[str, str]) -> None:
        self.world.set_env(self.namespace, name, env)

    async def set_pod_field(self, name: str, field: str, value: str) -> None:
        self.world.set_pod_field(self.namespace, name, field, value)

    async def label_pods(self, name: str, labels: Mapping[str, str]) -> None:
        self.world.label_pods(self.namespace, name, labels)

    async def autoscale(self, name: str, replicas: int) -> None:
        self.world.autoscale(self.namespace, name, replicas)

    async def refuse_pods(self, why: str) -> None:
        self.world.refuse_pods(self.namespace, why)

    async def set_memory_limit(self, name: str, limit: str) -> None:
        self.world.set_memory_limit(self.namespace, name, limit)

    async def add_autoscaler(self, name: str, *, maximum: int) -> None:
        view = AutoscalerView(kind="HorizontalPodAutoscaler", name=name, minimum=1, maximum=maximum)
        self.world.autoscalers[self.namespace, name] = view

    async def put_service(self, name: str, app: str, *, by: str) -> None:
        self.world.catch_up()
        spec = replace(self.world.routes.service(self.namespace, name), selector=f"app={app}")
        self.world.routes.put_service(self.namespace, name, spec, by=by)

    async def label_service(self, name: str, labels: Mapping[str, str], *, by: str) -> None:
        """The world keeps no labels of a Service: nothing depends on them."""

    async def put_policy(self, name: str, app: str, *, by: str) -> None:
        self.world.catch_up()
        policy = PolicyObject(service=app, allowed="nothing")
        self.world.routes.put_policy(self.namespace, name, policy, cuts=True, by=by)

    async def without_routes(self) -> ClusterReader:
        return self.without_pods.reader

    async def put_cron_job(
        self, name: str, *, safe: bool = True, suspended: bool = False, concurrency: str = "Allow"
    ) -> None:
        marks = {SAFE_TO_REPEAT: "true"} if safe else {}
        self.world.jobs.cron_jobs[self.namespace, name] = CronJob(
            name=name, annotations=marks, suspended=suspended, concurrency=concurrency
        )

    async def start_job(self, name: str, *, cron_job: str | None = None, safe: bool = False) -> None:
        self.world.catch_up()
        job = Job(
            meta=self.world.api.new_meta(self.namespace, name),
            template=Template(image=GOOD_IMAGE),
            cron_job=cron_job,
        )
        job.meta.annotations.update({SAFE_TO_REPEAT: "true"} if safe else {})
        self.world.api.create(job)

    async def end_job(self, name: str, *, complete: bool) -> None:
        self.world.catch_up()
        job = self.world.api.get(Job, self.namespace, name)
        self.world.jobs.end(job, RunState.COMPLETE if complete else RunState.FAILED)

    async def job(self, name: str) -> JsonObject:
        job = self.world.api.get(Job, self.namespace, name)
        owners: list[Json] = [["CronJob", job.cron_job, False]] if job.cron_job else []
        return {
            "labels": {**job.meta.labels},
            "annotations": {**job.meta.annotations},
            "owners": owners,
            "images": [job.template.image],
        }

    async def spare_node(self) -> str:
        return self.world.nodes[0]

    async def run_on(self, node: str, *, held: bool = False) -> None:
        await self.deploy("shop", service="shop")
        await self.until(
            ServiceKey(environment=self.environment, service="shop"),
            lambda seen: seen.rollout_complete and any(pod.node == node for pod in seen.pods),
        )
        if held:
            self.world.held_pods.add((self.namespace, "shop"))

    async def cordon(self, node: str, *, cordoned: bool = True) -> None:
        self.world.cordon(node, cordoned=cordoned, manager="kubectl-cordon")

    async def logged(self, current: Sequence[str], previous: Sequence[str] | None = None) -> str:
        await self.deploy("shop", service="shop")
        log = ContainerLog(current=tuple(current), previous=None if previous is None else tuple(previous))
        self.world.container_logs[self.namespace, "shop"] = log
        view = await self.until(
            ServiceKey(environment=self.environment, service="shop"), lambda seen: bool(seen.pods)
        )
        return view.pods[0].name

    async def record_release(self, release: str, revision: int, status: str) -> None:
        at = datetime.fromtimestamp(RELEASED_AT + revision, tz=UTC)
        record = ReleaseRecord(revision=revision, status=status, begun_at=self.world.clock.now(), at=at)
        known = self.world.release_records.get((self.namespace, release), ())
        self.world.release_records[self.namespace, release] = (record, *known)

    async def set_paused(self, name: str, *, paused: bool) -> None:
        self.world.set_paused(self.namespace, name, paused=paused)

    async def set_replicas(self, name: str, replicas: int) -> None:
        self.world.set_replicas(self.namespace, name, replicas)

    async def put_config_map(self, name: str, data: Mapping[str, str]) -> None:
        self.world.put_config_map(self.namespace, name, data)

    async def annotate_config_map(self, name: str, annotations: Mapping[str, str]) -> None:
        self.world.annotate_config_map(self.namespace, name, annotations)

    async def mark_namespace(self, marks: Mapping[str, str]) -> None:
        self.world.namespaces.setdefault(self.namespace, {}).update(marks)

    async def touch_status(self, name: str) -> None:
        self.world.touch_status(self.namespace, name)

    async def delete_deployment(self, name: str) -> None:
        self.world.delete_deployment(self.namespace, name)

    async def template(self, name: str) -> JsonObject:
        return template_body(self.world.api.workload(self.namespace, name).template)

    async def config_data(self, name: str) -> Mapping[str, str]:
        return dict(self.world.api.get(ConfigMap, self.namespace, name).data)

    async def versions(self) -> Mapping[str, str]:
        self.world.catch_up()
        api = self.world.api
        things: list[Thing] = [
            *api.workloads(),
            *api.list(ReplicaSet),
            *api.list(Pod),
            *api.list(ConfigMap),
        ]
        return {f"{t.kind}/{t.meta.name}": str(t.meta.resource_version) for t in things}

    async def until(self, key: ServiceKey, holds: Callable[[WorkloadView], bool]) -> WorkloadView:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                view = await self.ports.reader.workload(key)
                if view is not None and holds(view):
                    return view
                await self.world.clock.sleep(0.2)

    async def quiet(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                before = await self.versions()
                await self.world.clock.sleep(STILL_SECONDS)
                if await self.versions() == before:
                    return


@pytest.fixture
async def cluster() -> SandboxHarness:
    return SandboxHarness()
