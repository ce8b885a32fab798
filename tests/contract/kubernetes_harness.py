"""A `ClusterHarness` over one namespace of the test bed's real control plane."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TypeAlias, cast

import msgspec
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DaemonSetSpec, DeploymentSpec, StatefulSetSpec
from lightkube.models.autoscaling_v2 import CrossVersionObjectReference, HorizontalPodAutoscalerSpec
from lightkube.models.batch_v1 import CronJobSpec, JobSpec, JobTemplateSpec
from lightkube.models.core_v1 import (
    ConfigMapEnvSource,
    Container,
    EnvFromSource,
    NodeSpec,
    PodSpec,
    PodTemplateSpec,
    ServicePort,
    ServiceSpec,
    Taint,
)
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta, OwnerReference
from lightkube.models.networking_v1 import NetworkPolicySpec
from lightkube.models.policy_v1 import PodDisruptionBudgetSpec
from lightkube.models.rbac_v1 import PolicyRule, RoleRef, Subject
from lightkube.resources.apps_v1 import DaemonSet, Deployment, StatefulSet
from lightkube.resources.autoscaling_v2 import HorizontalPodAutoscaler
from lightkube.resources.batch_v1 import CronJob, Job
from lightkube.resources.core_v1 import ConfigMap, Namespace, Node, Pod, Secret, Service
from lightkube.resources.networking_v1 import NetworkPolicy
from lightkube.resources.policy_v1 import PodDisruptionBudget
from lightkube.resources.rbac_authorization_v1 import Role, RoleBinding
from lightkube.types import PatchType

from app.agent.batch.repeats import SAFE_TO_REPEAT
from app.agent.ids import Json, JsonObject, ServiceKey
from app.agent.ports.cluster import ClusterReader
from app.agent.workload import ObjectRef, WorkloadView
from app.clock import SystemClock
from app.config import Settings
from app.connectors.k8s import KubernetesCluster, connect
from testbed.rbac import AGENT, NO_PODS, NOBODY
from testbed.world import TestBed
from tests.contract.cluster_harness import GOOD_IMAGE, RELEASED_AT, WITHOUT_NAMESPACE, ClusterPorts
from tests.contract.log_kubelet import LogKubelet

_Workload: TypeAlias = Deployment | StatefulSet | DaemonSet
DEADLINE_SECONDS = 300.0
POLL_SECONDS = 0.05
QUIET_SECONDS = 0.6
AUTOSCALER = "autoscaler"
_READ = ["get", "list", "watch"]


def settings_for(bed: TestBed, namespace: str, user: str, **more: object) -> Settings:
    """Settings of an agent whose one environment is `prod` in that namespace; `.env` is not read."""
    values: dict[str, object] = {
        "dry_run": False,
        "kubeconfig": bed.control_plane.kubeconfig(user),
        "environment_namespaces": {"prod": namespace},
        "helm_releases": True,
        "log_evidence": True,
        "watch_jobs": True,
        **more,
    }
    return Settings(_env_file=None, **values)  # type: ignore[arg-type] # pydantic checks the values


def cluster_for(bed: TestBed, namespace: str, user: str, **more: object) -> KubernetesCluster:
    """What `connect` builds for such an agent."""
    cluster = connect(settings_for(bed, namespace, user, **more), SystemClock())
    assert cluster is not None
    return cluster


def ports_of(cluster: KubernetesCluster) -> ClusterPorts:
    assert cluster.writer is not None
    assert cluster.logs is not None
    assert cluster.batches is not None
    return ClusterPorts(
        reader=cluster.reader,
        rehearsal=cluster.rehearsal,
        writer=cluster.writer,
        watch=cluster.watch,
        owners=cluster.reader,
        coverage=cluster.reader,
        logs=cluster.logs,
        batches=cluster.batches,
    )


class KubernetesHarness:
    """One namespace, arranged by an administrator, seen by the agent and by a user without rights."""

    environment = "prod"

    def __init__(self, bed: TestBed, namespace: str) -> None:
        self.bed = bed
        self.namespace = namespace
        self.client = bed.client
        self._kinds: dict[str, type[_Workload]] = {}
        """The kinds of what was deployed, by name."""
        self.kubelet: LogKubelet | None = None
        """Of the node of `logged`."""
        self._nodes: list[str] = []
        """The nodes that were made for this test."""
        self._clusters = tuple(cluster_for(bed, namespace, user) for user in (AGENT, NOBODY, NO_PODS))
        self.ports, self.powerless, self.without_pods = (ports_of(cluster) for cluster in self._clusters)

    def ref(self, kind: str, name: str) -> ObjectRef:
        return ObjectRef(kind=kind, namespace="" if kind in WITHOUT_NAMESPACE else self.namespace, name=name)

    async def close(self) -> None:
        if self.kubelet is not None:
            await self.kubelet.stop()
        for node in self._nodes:
            await asyncio.to_thread(self.client.delete, Node, node)
        for cluster in self._clusters:
            await cluster.close()

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
        source = EnvFromSource(configMapRef=ConfigMapEnvSource(name=config_map))
        container = Container(name="app", image=image, envFrom=[source] if config_map else None)
        selector = LabelSelector(matchLabels={"app": name})
        template = PodTemplateSpec(
            metadata=ObjectMeta(labels={"app": name}), spec=PodSpec(containers=[container])
        )
        metadata = ObjectMeta(
            name=name,
            namespace=self.namespace,
            labels={"app.kubernetes.io/name": service} if service is not None else None,
            annotations=dict(annotations) if annotations is not None else None,
        )
        workload: _Workload
        match kind:
            case "StatefulSet":
                stateful = StatefulSetSpec(
                    replicas=replicas,
                    selector=selector,
                    template=template,
                    serviceName=name,
                    podManagementPolicy="OrderedReady" if ordered else "Parallel",
                )
                workload = StatefulSet(metadata=metadata, spec=stateful)
            case "DaemonSet":
                workload = DaemonSet(
                    metadata=metadata, spec=DaemonSetSpec(selector=selector, template=template)
                )
            case _:
                spec = DeploymentSpec(replicas=replicas, selector=selector, template=template)
                workload = Deployment(metadata=metadata, spec=spec)
        self._kinds[name] = type(workload)
        await asyncio.to_thread(self.client.create, workload)

    async def set_image(self, name: str, image: str) -> None:
        await self._replace(name, "/spec/template/spec/containers/0/image", image)

    async def set_env(self, name: str, env: Mapping[str, str]) -> None:
        variables = [{"name": variable, "value": value} for variable, value in env.items()]
        await self._replace(name, "/spec/template/spec/containers/0/env", variables)

    async def set_pod_field(self, name: str, field: str, value: str) -> None:
        whole: object = {"kubernetes.io/os": value} if field == "nodeSelector" else value
        await self._replace(name, f"/spec/template/spec/{field}", whole)

    async def label_pods(self, name: str, labels: Mapping[str, str]) -> None:
        for label, value in labels.items():
            await self._replace(name, f"/spec/template/metadata/labels/{label}", value)

    async def autoscale(self, name: str, replicas: int) -> None:
        await asyncio.to_thread(
            self.client.patch,
            Deployment.Scale,
            name,
            {"spec": {"replicas": replicas}},
            namespace=self.namespace,
            field_manager=AUTOSCALER,
        )

    async def refuse_pods(self, why: str) -> None:
        await asyncio.to_thread(self.bed.refuse_pods, self.namespace, why)

    async def set_memory_limit(self, name: str, limit: str) -> None:
        resources = {"limits": {"memory": limit}}
        await self._replace(name, "/spec/template/spec/containers/0/resources", resources)

    async def add_autoscaler(self, name: str, *, maximum: int) -> None:
        aim = CrossVersionObjectReference(apiVersion="apps/v1", kind="Deployment", name=name)
        autoscaler = HorizontalPodAutoscaler(
            metadata=ObjectMeta(name=name, namespace=self.namespace),
            spec=HorizontalPodAutoscalerSpec(scaleTargetRef=aim, minReplicas=1, maxReplicas=maximum),
        )
        await asyncio.to_thread(self.client.create, autoscaler)

    async def put_service(self, name: str, app: str, *, by: str) -> None:
        spec = ServiceSpec(selector={"app": app}, ports=[ServicePort(port=80, targetPort=8080)])
        service = Service(metadata=ObjectMeta(name=name, namespace=self.namespace), spec=spec)
        await asyncio.to_thread(self.client.apply, service, field_manager=by)

    async def label_service(self, name: str, labels: Mapping[str, str], *, by: str) -> None:
        await asyncio.to_thread(
            self.client.patch,
            Service,
            name,
            {"metadata": {"labels": dict(labels)}},
            namespace=self.namespace,
            field_manager=by,
        )

    async def put_policy(self, name: str, app: str, *, by: str) -> None:
        selector = LabelSelector(matchLabels={"app": app})
        policy = NetworkPolicy(
            metadata=ObjectMeta(name=name, namespace=self.namespace),
            spec=NetworkPolicySpec(podSelector=selector, policyTypes=["Ingress"]),
        )
        await asyncio.to_thread(self.client.apply, policy, field_manager=by)

    async def without_routes(self) -> ClusterReader:
        """Over the identity without rights, which is given those to read workloads in this namespace."""
        core = PolicyRule(apiGroups=[""], resources=["pods", "configmaps", "events"], verbs=_READ)
        kinds = ["deployments", "statefulsets", "daemonsets", "replicasets", "controllerrevisions"]
        rules = [core, PolicyRule(apiGroups=["apps"], resources=kinds, verbs=_READ)]
        metadata = ObjectMeta(name="without-routes", namespace=self.namespace)
        group = "rbac.authorization.k8s.io"
        binding = RoleBinding(
            metadata=metadata,
            roleRef=RoleRef(apiGroup=group, kind="Role", name="without-routes"),
            subjects=[Subject(apiGroup=group, kind="User", name=NOBODY)],
        )
        for item in (Role(metadata=metadata, rules=rules), binding):
            await asyncio.to_thread(self.client.create, item)
        return self.powerless.reader

    async def put_cron_job(
        self, name: str, *, safe: bool = True, suspended: bool = False, concurrency: str = "Allow"
    ) -> None:
        """Due once a year: the real controller starts no run of it meanwhile."""
        metadata = ObjectMeta(
            name=name,
            namespace=self.namespace,
            annotations={SAFE_TO_REPEAT: "true"} if safe else None,
        )
        cron_job = CronJob(
            metadata=metadata,
            spec=CronJobSpec(
                schedule="0 0 29 2 *",
                suspend=suspended,
                concurrencyPolicy=concurrency,
                jobTemplate=JobTemplateSpec(spec=_job_spec()),
            ),
        )
        await asyncio.to_thread(self.client.create, cron_job)

    async def start_job(self, name: str, *, cron_job: str | None = None, safe: bool = False) -> None:
        owners = None
        if cron_job is not None:
            owner = await self._cron_job(cron_job)
            owners = [
                OwnerReference(
                    apiVersion="batch/v1", kind="CronJob", name=cron_job, uid=owner, controller=True
                )
            ]
        metadata = ObjectMeta(
            name=name,
            namespace=self.namespace,
            annotations={SAFE_TO_REPEAT: "true"} if safe else None,
            ownerReferences=owners,
        )
        await asyncio.to_thread(self.client.create, Job(metadata=metadata, spec=_job_spec()))

    async def _cron_job(self, name: str) -> str:
        """The uid of a CronJob."""
        found = await asyncio.to_thread(self.client.get, CronJob, name, namespace=self.namespace)
        assert found.metadata is not None
        return found.metadata.uid or ""

    async def end_job(self, name: str, *, complete: bool) -> None:
        """Its pod ends, as a kubelet says it; the real controller of Jobs draws the conclusion."""
        ended = {"exitCode": 0 if complete else 1, "reason": "Completed" if complete else "Error"}
        container = {"name": "app", "image": GOOD_IMAGE, "imageID": "", "ready": False, "restartCount": 0}
        status = {
            "phase": "Succeeded" if complete else "Failed",
            "containerStatuses": [{**container, "state": {"terminated": ended}}],
        }
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not await asyncio.to_thread(self._ended, name):
                pods = await asyncio.to_thread(self._pods_of, name)
                for pod in pods:
                    assert pod.metadata is not None
                    with suppress(ApiError):  # it may be gone, or deleted by its controller
                        await asyncio.to_thread(
                            self.client.patch,
                            Pod.Status,
                            pod.metadata.name or "",
                            {"status": status},
                            namespace=self.namespace,
                        )
                await asyncio.sleep(POLL_SECONDS)

    def _pods_of(self, job: str) -> list[Pod]:
        return list(
            self.client.list(Pod, namespace=self.namespace, labels={"batch.kubernetes.io/job-name": job})
        )

    def _ended(self, name: str) -> bool:
        job = self.client.get(Job, name, namespace=self.namespace)
        conditions = (job.status.conditions if job.status else None) or ()
        return any(one.type in ("Complete", "Failed") and one.status == "True" for one in conditions)

    async def job(self, name: str) -> JsonObject:
        found = await asyncio.to_thread(self.client.get, Job, name, namespace=self.namespace)
        assert found.metadata is not None
        assert found.spec is not None
        assert found.spec.template.spec is not None
        owners: list[Json] = [
            [one.kind, one.name, bool(one.controller)] for one in found.metadata.ownerReferences or ()
        ]
        return {
            "labels": {**(found.metadata.labels or {})},
            "annotations": {**(found.metadata.annotations or {})},
            "owners": owners,
            "images": [one.image for one in found.spec.template.spec.containers],
        }

    async def spare_node(self) -> str:
        name = f"spare-{self.namespace}"
        taint = Taint(key="contract", value="spare", effect="NoSchedule")
        node = Node(metadata=ObjectMeta(name=name), spec=NodeSpec(taints=[taint]))
        await asyncio.to_thread(self.client.create, node)
        self._nodes.append(name)
        return name

    async def run_on(self, node: str, *, held: bool = False) -> None:
        """The pod is bound to the node by name, owned by a ConfigMap, and its status says that it runs."""
        await self.put_config_map("owner", {})
        await asyncio.to_thread(self._run_on, node)
        if held:
            budget = PodDisruptionBudget(
                metadata=ObjectMeta(name="moving", namespace=self.namespace),
                spec=PodDisruptionBudgetSpec(
                    minAvailable=1, selector=LabelSelector(matchLabels={"moving": "true"})
                ),
            )
            await asyncio.to_thread(self.client.create, budget)
            await self._budget_counted()

    def _run_on(self, node: str) -> None:
        owner = self.client.get(ConfigMap, "owner", namespace=self.namespace).metadata
        assert owner is not None
        assert owner.uid is not None
        reference = OwnerReference(
            apiVersion="v1", kind="ConfigMap", name="owner", uid=owner.uid, controller=True
        )
        metadata = ObjectMeta(
            name="moving", namespace=self.namespace, labels={"moving": "true"}, ownerReferences=[reference]
        )
        container = Container(name="app", image=GOOD_IMAGE)
        spec = PodSpec(containers=[container], nodeName=node, terminationGracePeriodSeconds=600)
        self.client.create(Pod(metadata=metadata, spec=spec))
        status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
        self.client.patch(Pod.Status, "moving", {"status": status}, namespace=self.namespace)

    async def _budget_counted(self) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while True:
                found = await asyncio.to_thread(
                    self.client.get, PodDisruptionBudget, "moving", namespace=self.namespace
                )
                if found.status is not None and found.status.currentHealthy == 1:
                    return
                await asyncio.sleep(POLL_SECONDS)

    async def cordon(self, node: str, *, cordoned: bool = True) -> None:
        body = {"spec": {"unschedulable": cordoned}}
        await asyncio.to_thread(self.client.patch, Node, node, body)

    async def logged(self, current: Sequence[str], previous: Sequence[str] | None = None) -> str:
        """On a node of its own, whose kubelet answers with these lines."""
        node, pki = await self.spare_node(), self.bed.control_plane.folder / "pki"
        self.kubelet = LogKubelet(tuple(current), None if previous is None else tuple(previous))
        port = await self.kubelet.start(pki / "apiserver.crt", pki / "apiserver.key")
        status = {
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        }
        await asyncio.to_thread(self.client.patch, Node.Status, node, {"status": status})
        container = Container(name="app", image=GOOD_IMAGE)
        pod = Pod(
            metadata=ObjectMeta(name="logged", namespace=self.namespace),
            spec=PodSpec(containers=[container], nodeName=node),
        )
        await asyncio.to_thread(self.client.create, pod)
        return "logged"

    async def record_release(self, release: str, revision: int, status: str) -> None:
        labels = {
            "owner": "helm",
            "name": release,
            "status": status,
            "version": str(revision),
            "modifiedAt": str(RELEASED_AT + revision),
        }
        metadata = ObjectMeta(
            name=f"sh.helm.release.v1.{release}.v{revision}", namespace=self.namespace, labels=labels
        )
        secret = Secret(metadata=metadata, type="helm.sh/release.v1", stringData={"release": "H4sIsecret"})
        await asyncio.to_thread(self.client.create, secret)

    async def set_paused(self, name: str, *, paused: bool) -> None:
        await self._replace(name, "/spec/paused", paused)

    async def set_replicas(self, name: str, replicas: int) -> None:
        await self._replace(name, "/spec/replicas", replicas)

    async def put_config_map(self, name: str, data: Mapping[str, str]) -> None:
        await asyncio.to_thread(self._put_config_map, name, dict(data))

    def _put_config_map(self, name: str, data: dict[str, str]) -> None:
        metadata = ObjectMeta(name=name, namespace=self.namespace)
        try:
            self.client.create(ConfigMap(metadata=metadata, data=data))
        except ApiError as error:
            if error.status.code != 409:
                raise
            self.patch(ConfigMap, name, [{"op": "add", "path": "/data", "value": data}])

    async def annotate_config_map(self, name: str, annotations: Mapping[str, str]) -> None:
        await asyncio.to_thread(
            self.client.set, ConfigMap, name, namespace=self.namespace, annotations=dict(annotations)
        )

    async def mark_namespace(self, marks: Mapping[str, str]) -> None:
        body = {"metadata": {"annotations": dict(marks)}}
        await asyncio.to_thread(self.client.patch, Namespace, self.namespace, body)

    async def touch_status(self, name: str) -> None:
        condition = {"type": "Probed", "status": "True", "reason": "Contract", "message": str(time.time())}
        body = {"status": {"conditions": [condition]}}
        await asyncio.to_thread(self.client.patch, Deployment.Status, name, body, namespace=self.namespace)

    async def delete_deployment(self, name: str) -> None:
        await asyncio.to_thread(self.client.delete, Deployment, name, namespace=self.namespace)

    async def template(self, name: str) -> JsonObject:
        found = await asyncio.to_thread(self.client.get, self._kinds[name], name, namespace=self.namespace)
        assert found.spec is not None
        return cast("JsonObject", msgspec.to_builtins(found.spec.template))

    async def config_data(self, name: str) -> Mapping[str, str]:
        found = await asyncio.to_thread(self.client.get, ConfigMap, name, namespace=self.namespace)
        return found.data or {}

    async def versions(self) -> Mapping[str, str]:
        return await asyncio.to_thread(self.bed.resource_versions, self.namespace)

    async def until(self, key: ServiceKey, holds: Callable[[WorkloadView], bool]) -> WorkloadView:
        view = None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                while view is None or not holds(view):
                    await asyncio.sleep(POLL_SECONDS)
                    view = await self.ports.reader.workload(key)
        except TimeoutError as error:
            raise AssertionError(f"{key} did not come to be as wanted; seen last: {view}") from error
        return view

    async def quiet(self) -> None:
        await asyncio.to_thread(self.bed.wait_settled, self.namespace, quiet_seconds=QUIET_SECONDS)

    def patch(
        self, kind: type[_Workload] | type[ConfigMap], name: str, operations: list[dict[str, object]]
    ) -> None:
        self.client.patch(kind, name, operations, namespace=self.namespace, patch_type=PatchType.JSON)

    async def _replace(self, name: str, path: str, value: object) -> None:
        operations: list[dict[str, object]] = [{"op": "add", "path": path, "value": value}]
        await asyncio.to_thread(self.patch, self._kinds[name], name, operations)


def _job_spec() -> JobSpec:
    """One attempt of one pod; it runs until its test says how it ends."""
    pod = PodSpec(containers=[Container(name="app", image=GOOD_IMAGE)], restartPolicy="Never")
    return JobSpec(backoffLimit=0, template=PodTemplateSpec(spec=pod))
