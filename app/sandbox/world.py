"""The simulated world: one cluster, the traffic on it, and the people who change it.

`app.sandbox.cluster` and `app.sandbox.metrics` put the agent's ports over it;
the demo, scenarios and tests use the methods here to play pipelines and
operators. Everything that happens follows from the clock, the seed and these
calls. It is a simulation: nothing in it is evidence about a real cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TypeAlias

from app.agent.workload import AutoscalerView, ReleaseRecord
from app.clock import Clock
from app.errors import NotFound
from app.sandbox.api import ApiServer, Thing
from app.sandbox.controllers import DeploymentController
from app.sandbox.engine import Engine
from app.sandbox.jobs import Jobs
from app.sandbox.kubelet import Kubelet
from app.sandbox.objects import (
    NAME_LABEL,
    ClusterNode,
    ConfigMap,
    DaemonSet,
    Deployment,
    HorizontalPodAutoscaler,
    Job,
    Meta,
    Pod,
    ReplicaSet,
    StatefulSet,
    Template,
    config_maps_of,
)
from app.sandbox.picture import service_of
from app.sandbox.routing.objects import WorldRoutes
from app.sandbox.services import ServiceModel, Surroundings
from app.sandbox.traffic import Outage, Traffic

NODES = ("sandbox-node-1", "sandbox-node-2")
PIPELINE = "pipeline"
"""The field manager that releases and operators write as."""
AUTOSCALER = "autoscaler"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A service to be: its workload and the load on it."""

    namespace: str
    name: str
    template: Template
    kind: type[Deployment] = Deployment
    ordered: bool = False
    """These four as `StatefulSet` and `DaemonSet` have them; a Deployment ignores them."""
    on_delete: bool = False
    partition: int = 0
    on_nodes: tuple[str, ...] | None = None
    """The nodes of a DaemonSet; None: every node."""
    service: str | None = None
    """Sets the name label; without it the workload's name is the service."""
    replicas: int = 3
    annotations: Mapping[str, str] | None = None
    progress_deadline_seconds: float = 600.0
    max_surge: float = 0.25
    max_unavailable: float = 0.25
    requests_per_second: float = 50.0
    model: ServiceModel | None = None
    """How it behaves, where the words in its image cannot express it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLog:
    """What the container of a workload wrote, oldest first."""

    current: tuple[str, ...] = ()
    previous: tuple[str, ...] | None = None
    """Of the one that ended; None where nothing is left of it."""


class World:
    """Cluster, traffic and time of one simulation."""

    def __init__(
        self, clock: Clock, seed: int = 0, nodes: tuple[str, ...] = NODES, *, controlled: bool = True
    ) -> None:
        """`controlled`: false where the objects mirror a control plane that has controllers of its own."""
        self.clock = clock
        self.engine = Engine(clock, seed)
        self.api = ApiServer(self.engine)
        self.surroundings = Surroundings()
        self.nodes = nodes
        self.kubelet = Kubelet(self.engine, self.api, nodes, self.surroundings)
        self.controller = DeploymentController(self.engine, self.api, self.kubelet)
        if controlled:
            self.controller.start()
        self.traffic = Traffic(self.engine, self.api, seed, self.surroundings)
        self.jobs = Jobs(self.engine, self.api)
        self.namespaces: dict[str, dict[str, str]] = {}
        """Labels and annotations of namespaces, by name; those without any are not listed."""
        self.container_logs: dict[tuple[str, str], ContainerLog] = {}
        """The lines of the containers of a workload, by namespace and name."""
        self.release_records: dict[tuple[str, str], tuple[ReleaseRecord, ...]] = {}
        """The revisions of releases, newest first, by namespace and name."""
        self.held_pods: set[tuple[str, str]] = set()
        """The workloads, by namespace and name, whose disruption budget allows no eviction."""
        self.autoscalers: dict[tuple[str, str], AutoscalerView] = {}
        """What scales a Deployment by itself, by namespace and name."""
        self.routes = WorldRoutes(self.engine, self.surroundings)
        self.api.changed.append(self._follow)

    def catch_up(self) -> datetime:
        """Let everything happen that is due."""
        return self.engine.catch_up()

    # -------------------------------------------------------------- people and pipelines

    def deploy(self, workload: Workload) -> None:
        """Create a workload and send its service load; a DaemonSet has a pod on each node."""
        self.catch_up()
        labels = {} if workload.service is None else {NAME_LABEL: workload.service}
        meta = self.api.new_meta(workload.namespace, workload.name, labels)
        meta.annotations = dict(workload.annotations or {})
        meta.changed_by, meta.changed_at = PIPELINE, self.engine.now
        if workload.model is not None:
            self.surroundings.models[(workload.namespace, workload.service or workload.name)] = workload.model
        made = workload.kind(
            meta=meta,
            template=workload.template,
            replicas=workload.replicas,
            progress_deadline_seconds=workload.progress_deadline_seconds,
            max_surge=workload.max_surge,
            max_unavailable=workload.max_unavailable,
        )
        if isinstance(made, StatefulSet):
            made.ordered, made.on_delete = workload.ordered, workload.on_delete
            made.partition = workload.partition
        if isinstance(made, DaemonSet):
            made.nodes = self.nodes if workload.on_nodes is None else workload.on_nodes
            made.replicas = len(made.nodes)
        created = self.api.create(made)
        self.traffic.serve(workload.namespace, service_of(created), workload.requests_per_second)

    def release(self, namespace: str, name: str, image: str) -> None:
        """Roll out another image."""
        self._change(namespace, name, lambda d: _with_template(d, replace(d.template, image=image)))

    def set_env(self, namespace: str, name: str, env: Mapping[str, str]) -> None:
        """Replace the container's environment."""
        wanted = tuple(sorted(env.items()))
        self._change(namespace, name, lambda d: _with_template(d, replace(d.template, env=wanted)))

    def set_template(self, namespace: str, name: str, template: Template) -> None:
        """Roll out another template, whatever differs in it."""
        self._change(namespace, name, lambda d: _with_template(d, template))

    def set_memory_limit(self, namespace: str, name: str, limit: str | None) -> None:
        """Change the container's memory limit."""
        self._change(namespace, name, lambda d: _with_template(d, replace(d.template, memory_limit=limit)))

    def set_paused(self, namespace: str, name: str, *, paused: bool) -> None:
        """Pause or resume the rollout."""

        def pause(deployment: Deployment) -> None:
            deployment.paused = paused

        self._change(namespace, name, pause)

    def set_replicas(self, namespace: str, name: str, replicas: int) -> None:
        """Ask for another number of replicas."""

        def scale(deployment: Deployment) -> None:
            deployment.replicas = replicas

        self._change(namespace, name, scale)

    def autoscale(self, namespace: str, name: str, replicas: int) -> None:
        """An autoscaler, which writes the subresource scale, asks for another number of replicas."""

        def scale(deployment: Deployment) -> None:
            deployment.replicas = replicas

        self._change(namespace, name, scale, manager=AUTOSCALER)

    def refuse_pods(self, namespace: str, why: str | None) -> None:
        """From now on an admission policy refuses every new pod of a namespace; None lifts it."""
        self.catch_up()
        if why is None:
            self.api.refused_pods.pop(namespace, None)
        else:
            self.api.refused_pods[namespace] = why

    def set_pod_field(self, namespace: str, name: str, field: str, value: str) -> None:
        """Change a field of the pod's spec, such as `nodeSelector`."""

        def change(deployment: Deployment) -> None:
            kept = tuple(pair for pair in deployment.template.pod_fields if pair[0] != field)
            _with_template(deployment, replace(deployment.template, pod_fields=(*kept, (field, value))))

        self._change(namespace, name, change)

    def label_pods(self, namespace: str, name: str, labels: Mapping[str, str]) -> None:
        """Change labels in the pod template."""

        def change(deployment: Deployment) -> None:
            wanted = {**dict(deployment.template.labels), **labels}
            _with_template(deployment, replace(deployment.template, labels=tuple(sorted(wanted.items()))))

        self._change(namespace, name, change)

    def put_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Create a ConfigMap, or replace its data."""
        self.catch_up()
        found = next((c for c in self.api.list(ConfigMap, namespace) if c.meta.name == name), None)
        if found is None:
            meta = self.api.new_meta(namespace, name)
            meta.changed_by, meta.changed_at = PIPELINE, self.engine.now
            self.api.create(ConfigMap(meta=meta, data=dict(data)))
            return

        def put(config: ConfigMap) -> None:
            config.data = dict(data)

        self.api.change(found, put, manager=PIPELINE)

    def annotate_config_map(self, namespace: str, name: str, annotations: Mapping[str, str]) -> None:
        """Add annotations to a ConfigMap and leave its data alone."""
        self.catch_up()
        config = self.api.get(ConfigMap, namespace, name)
        self.api.change(config, lambda c: c.meta.annotations.update(annotations), manager=PIPELINE)

    def delete_config_map(self, namespace: str, name: str) -> None:
        """Delete a ConfigMap; containers that run keep what they read."""
        self.catch_up()
        self.api.delete(self.api.get(ConfigMap, namespace, name))

    def evict(self, namespace: str, name: str) -> str:
        """Delete the oldest pod of a Deployment, as a drain does; its name. Another takes its place."""
        self.catch_up()
        deployment = self.api.workload(namespace, name)
        running = [
            pod for owner in self.controller.replica_sets(deployment) for pod in self.controller.pods(owner)
        ]
        oldest = min(running, key=lambda pod: (pod.meta.created_at, pod.meta.name))
        self.api.delete(oldest)
        return oldest.meta.name

    def delete_pod(self, namespace: str, name: str, place: int) -> None:
        """Delete one pod by its place in the order of names, where there is one; another replaces it."""
        self.catch_up()
        workload = self.api.workload(namespace, name)
        pods = [
            pod for owner in self.controller.replica_sets(workload) for pod in self.controller.pods(owner)
        ]
        for pod in sorted(pods, key=lambda pod: (len(pod.meta.name), pod.meta.name))[place : place + 1]:
            self.api.delete(pod)

    def set_registry(self, *, answers: bool) -> None:
        """Whether the image registry answers from now on; running containers continue."""
        self.catch_up()
        self.surroundings.registry_down = not answers

    def delete_deployment(self, namespace: str, name: str) -> None:
        """Delete a Deployment, or a workload of another kind, with its revisions and pods, at once."""
        self.catch_up()
        deployment = self.api.workload(namespace, name)
        for replica_set in self.controller.replica_sets(deployment):
            for pod in self.controller.pods(replica_set):
                self.api.delete(pod)
            self.api.delete(replica_set)
        self.api.delete(deployment)

    def touch_status(self, namespace: str, name: str) -> None:
        """A status update that says nothing new about the spec, as controllers write all the time."""
        self.catch_up()
        self.api.bump(self.api.workload(namespace, name))

    # -------------------------------------------------------------- telemetry

    def lose_telemetry(self, *services: tuple[str, str]) -> None:
        """From now on the monitoring receives no series of these (namespace, service), or of any service."""
        self.traffic.outages.append(Outage(since=self.catch_up(), until=None, services=frozenset(services)))

    def restore_telemetry(self) -> None:
        """Every outage ends now."""
        now = self.catch_up()
        self.traffic.outages = [
            replace(outage, until=now) if outage.until is None else outage for outage in self.traffic.outages
        ]

    # -------------------------------------------------------------- looking

    def labelled(self, namespace: str, service: str) -> list[Deployment]:
        """The workloads that claim a service by label or name."""
        return [w for w in self.api.workloads(namespace) if service_of(w) == service]

    def deployments(self, namespace: str, service: str) -> list[Deployment]:
        """The Deployments among them."""
        return [w for w in self.labelled(namespace, service) if type(w) is Deployment]

    def named(self, namespace: str | None = None) -> list[tuple[Deployment, str]]:
        """Each workload with the service that it is; of several with one label each has its own name.

        One whose own name is the service of another by label is none.
        """
        there = self.api.workloads(namespace)
        claims = Counter((workload.meta.namespace, service_of(workload)) for workload in there)
        found: list[tuple[Deployment, str]] = []
        for workload in there:
            home, own, claimed = workload.meta.namespace, workload.meta.name, service_of(workload)
            if claims[home, claimed] == 1:
                found.append((workload, claimed))
            elif claimed == own or claims[home, own] != 1:
                found.append((workload, own))
        return found

    def service_of(self, workload: Deployment) -> str | None:
        """The service that a workload is."""
        named = self.named(workload.meta.namespace)
        return next((service for one, service in named if one is workload), None)

    def workload(self, namespace: str, service: str) -> Deployment | None:
        """The workload that a service is."""
        return next((one for one, named in self.named(namespace) if named == service), None)

    def services(self) -> list[tuple[str, str]]:
        """Every (namespace, service) that a workload is, once, in order."""
        return sorted({(workload.meta.namespace, service) for workload, service in self.named()})

    def node(self, name: str) -> ClusterNode:
        """A node as an object, as schedulable as it is now; `NotFound` for a name that none has."""
        if name not in self.nodes:
            raise NotFound(f"Node {name} does not exist")
        state = self.surroundings.node(name).cordoned
        found = next((one for one in self.api.list(ClusterNode) if one.meta.name == name), None)
        if found is None:
            meta = Meta(namespace="", name=name, uid=f"node-{name}", created_at=self.engine.now)
            return self.api.create(ClusterNode(meta=meta, unschedulable=state))
        found.unschedulable = state
        return found

    def cordon(self, name: str, *, cordoned: bool, manager: str) -> None:
        """Cordon or uncordon a node, under the name of a field manager."""

        def change(node: ClusterNode) -> None:
            node.unschedulable = cordoned

        self.api.change(self.node(name), change, manager=manager)

    def bounds(self, namespace: str, name: str) -> HorizontalPodAutoscaler:
        """An autoscaler as an object; `NotFound` for a name that none has."""
        there = (view for (home, _), view in self.autoscalers.items() if home == namespace)
        view = next((one for one in there if one.name == name), None)
        if view is None or view.maximum is None:
            raise NotFound(f"HorizontalPodAutoscaler {namespace}/{name} does not exist")
        held = self.api.list(HorizontalPodAutoscaler, namespace)
        found = next((one for one in held if one.meta.name == name), None)
        if found is None:
            uid = f"autoscaler-{namespace}-{name}"
            meta = Meta(namespace=namespace, name=name, uid=uid, created_at=self.engine.now)
            return self.api.create(HorizontalPodAutoscaler(meta=meta, maximum=view.maximum))
        found.maximum = view.maximum
        return found

    def _follow(self, thing: Thing) -> None:
        """Let nodes and autoscalers do what their objects ask for."""
        if isinstance(thing, ClusterNode):
            self.surroundings.change_node(thing.meta.name).cordoned = thing.unschedulable
        if isinstance(thing, HorizontalPodAutoscaler):
            for place, view in self.autoscalers.items():
                if (place[0], view.name) == (thing.meta.namespace, thing.meta.name):
                    self.autoscalers[place] = replace(view, maximum=thing.maximum)

    def affected(self, thing: Thing) -> set[tuple[str, str]]:
        """The (namespace, service)s whose workload an object belongs to."""
        namespace = thing.meta.namespace
        if isinstance(thing, ClusterNode | HorizontalPodAutoscaler | Job):
            return set()
        if isinstance(thing, Deployment):
            users = [thing, *self.labelled(namespace, service_of(thing))]
        elif isinstance(thing, ConfigMap):
            users = [w for w in self.api.workloads(namespace) if thing.meta.name in config_maps_of(w)]
        else:
            owner = thing.owner_uid
            if isinstance(thing, Pod):
                owner = next(
                    (r.owner_uid for r in self.api.list(ReplicaSet, namespace) if r.meta.uid == owner), ""
                )
            users = [w for w in self.api.workloads(namespace) if w.meta.uid == owner]
        used = {workload.meta.uid for workload in users}
        return {(namespace, name) for workload, name in self.named(namespace) if workload.meta.uid in used}

    def _change(
        self, namespace: str, name: str, mutate: Callable[[Deployment], None], *, manager: str = PIPELINE
    ) -> None:
        self.catch_up()
        self.api.change(self.api.workload(namespace, name), mutate, manager=manager)


def _with_template(deployment: Deployment, template: Template) -> None:
    deployment.template = template


WorldSource: TypeAlias = Callable[[], World]
"""Returns the world of this moment: the sandbox plays one after the other."""
DEFAULT_WINDOW = timedelta(seconds=30)
