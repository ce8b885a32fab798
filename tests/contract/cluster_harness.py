"""How the cluster contract suite arranges a cluster, whichever is behind the ports.

`cluster_suite` drives the four cluster ports through this protocol; the real
control plane and the sandbox each implement it. The arranging side plays the
people and pipelines that change a cluster beside the agent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.agent.ids import JsonObject, ServiceKey
from app.agent.ports.cluster import (
    BatchReader,
    ClusterCoverage,
    ClusterReader,
    ClusterRehearsal,
    ClusterWatch,
    ClusterWriter,
    ContainerLogs,
    PodOwners,
)
from app.agent.workload import ObjectRef, WorkloadView

GOOD_IMAGE = "registry.example/shop:1.14.0"
BETTER_IMAGE = "registry.example/shop:1.14.1"
WITHOUT_NAMESPACE = frozenset({"Node", "Namespace"})
"""Kinds of objects of the whole cluster."""
RELEASED_AT = 1_772_000_000
"""When revision 0 of a release was recorded, in seconds since 1970; each revision is one second later."""
CRASHING_IMAGE = "registry.example/shop:1.15.0-crash"
"""Pods of this image end in CrashLoopBackOff; by the convention that "crash" in an image's name crashes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPorts:
    """The ports as one identity sees them."""

    reader: ClusterReader
    rehearsal: ClusterRehearsal
    writer: ClusterWriter
    watch: ClusterWatch
    owners: PodOwners
    coverage: ClusterCoverage
    logs: ContainerLogs
    batches: BatchReader


class ClusterHarness(Protocol):
    """One empty environment of a cluster, and someone with every right to change it."""

    environment: str
    """The environment; nothing else in the cluster belongs to it."""
    namespace: str
    """The namespace it maps to."""
    ports: ClusterPorts
    """Ports of an agent that has the rights it needs."""
    powerless: ClusterPorts
    """Ports of an agent whose identity has no right at all."""
    without_pods: ClusterPorts
    """Ports of an agent that may do what it needs but create a pod, in a dry run either."""

    def ref(self, kind: str, name: str) -> ObjectRef:
        """An object of the namespace, or a node, with the name that the cluster has behind the ports."""
        ...

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
        """Create a workload called `name`: a Deployment, a StatefulSet or a DaemonSet.

        A DaemonSet has a pod on each node, whatever `replicas` says. The pods of a
        StatefulSet are made and replaced in parallel as far as its strategy allows,
        or with `ordered` one after another (`podManagementPolicy: OrderedReady`).

        `service` sets the label `app.kubernetes.io/name` on it; without, it has
        no such label. Its one container is called `app`. `config_map` is referred
        to by the container's envFrom. `annotations` go on the workload itself.
        """
        ...

    async def set_image(self, name: str, image: str) -> None:
        """Release another image."""
        ...

    async def set_env(self, name: str, env: Mapping[str, str]) -> None:
        """Replace the container's environment."""
        ...

    async def set_pod_field(self, name: str, field: str, value: str) -> None:
        """Set `nodeSelector`, `serviceAccountName` or another field of the pod's spec to a value of ours."""
        ...

    async def label_pods(self, name: str, labels: Mapping[str, str]) -> None:
        """Set labels in the pod template."""
        ...

    async def autoscale(self, name: str, replicas: int) -> None:
        """Ask for another number of replicas as an autoscaler does: through the subresource `scale`."""
        ...

    async def refuse_pods(self, why: str) -> None:
        """From now on an admission policy refuses every new pod of the namespace; in force on return."""
        ...

    async def set_memory_limit(self, name: str, limit: str) -> None:
        """Set the memory limit of the container."""
        ...

    async def add_autoscaler(self, name: str, *, maximum: int) -> None:
        """A HorizontalPodAutoscaler `name` for the Deployment of that name."""
        ...

    async def put_service(self, name: str, app: str, *, by: str) -> None:
        """Create a Service for the pods of the workload `app`, or change its selector."""
        ...

    async def label_service(self, name: str, labels: Mapping[str, str], *, by: str) -> None:
        """Add labels to a Service itself."""
        ...

    async def put_policy(self, name: str, app: str, *, by: str) -> None:
        """Create a NetworkPolicy that lets nothing through to the pods of the workload `app`."""
        ...

    async def without_routes(self) -> ClusterReader:
        """The reader of an agent that may read workloads, and no Service, Ingress or NetworkPolicy."""
        ...

    async def put_cron_job(
        self, name: str, *, safe: bool = True, suspended: bool = False, concurrency: str = "Allow"
    ) -> None:
        """A CronJob that starts no run during the test; `safe`: its failed runs may be repeated."""
        ...

    async def start_job(self, name: str, *, cron_job: str | None = None, safe: bool = False) -> None:
        """A Job of its own, or a run of a CronJob, that does not end by itself."""
        ...

    async def end_job(self, name: str, *, complete: bool) -> None:
        """The Job completes or fails now, as its controller says it."""
        ...

    async def job(self, name: str) -> JsonObject:
        """`labels`, `annotations`, `owners` (kind, name, whether it controls) and `images` of a Job."""
        ...

    async def spare_node(self) -> str:
        """The name of a node that no other test uses, and that is not cordoned."""
        ...

    async def run_on(self, node: str, *, held: bool = False) -> None:
        """A pod of a controller runs, ready, on that node; `held`: a disruption budget allows no eviction."""
        ...

    async def cordon(self, node: str, *, cordoned: bool = True) -> None:
        """Cordon or uncordon a node as a person does."""
        ...

    async def logged(self, current: Sequence[str], previous: Sequence[str] | None = None) -> str:
        """The name of a pod whose container `app` wrote these lines; `previous`: before it was restarted."""
        ...

    async def record_release(self, release: str, revision: int, status: str) -> None:
        """Record a revision of a release as Helm does."""
        ...

    async def set_paused(self, name: str, *, paused: bool) -> None:
        """Pause or resume the rollout."""
        ...

    async def set_replicas(self, name: str, replicas: int) -> None:
        """Ask for another number of replicas."""
        ...

    async def put_config_map(self, name: str, data: Mapping[str, str]) -> None:
        """Create a ConfigMap or replace its data."""
        ...

    async def annotate_config_map(self, name: str, annotations: Mapping[str, str]) -> None:
        """Add annotations to a ConfigMap and leave its data alone."""
        ...

    async def mark_namespace(self, marks: Mapping[str, str]) -> None:
        """Add annotations to the namespace."""
        ...

    async def touch_status(self, name: str) -> None:
        """Change something in the Deployment's status and nothing in its spec."""
        ...

    async def delete_deployment(self, name: str) -> None:
        """Delete a Deployment; gone when this returns."""
        ...

    async def template(self, name: str) -> JsonObject:
        """The Deployment's pod template as the cluster holds it now."""
        ...

    async def config_data(self, name: str) -> Mapping[str, str]:
        """The data of a ConfigMap as the cluster holds it now."""
        ...

    async def versions(self) -> Mapping[str, str]:
        """`resourceVersion` of every Deployment, ReplicaSet, Pod and ConfigMap, by kind and name."""
        ...

    async def until(self, key: ServiceKey, holds: Callable[[WorkloadView], bool]) -> WorkloadView:
        """Let the cluster work until its view of `key` fulfils `holds`; fails at a deadline."""
        ...

    async def quiet(self) -> None:
        """Let the cluster work until no object of the environment changes by itself any more."""
        ...
