"""A simulated world whose cluster is a namespace of a real control plane.

What people and pipelines do is sent to the API server; what the API server says of
Deployments, pods and ConfigMaps is mirrored, and the traffic follows the mirror. What
controllers and the agent write is seen in the same way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from app.agent.ids import JsonObject
from app.clock import Clock
from app.sandbox.objects import NODE_SELECTOR, ConfigMap, Deployment, Meta, Pod, Template
from app.sandbox.world import PIPELINE, Workload, World
from testbed import kubeapi
from testbed.behaviour import SERVICE_LABEL
from testbed.kubeapi import Api, Gone, Listed
from testbed.scenarios.manifests import deployment, pod_template, template_of
from testbed.scenarios.nodes import ScenarioNodes

AUTOSCALER_MANAGER = "kube-controller-manager"
_OWNER_LABEL = "sandbox/deployment"
_APPS = "/apis/apps/v1"


class ControlPlaneWorld(World):
    """One namespace of a control plane, the nodes of its own, and the traffic on it."""

    def __init__(
        self,
        clock: Clock,
        seed: int,
        nodes: tuple[str, ...],
        *,
        api: Api,
        namespace: str,
        speed: float,
        refuse: Callable[[str | None], Awaitable[None]],
    ) -> None:
        """`refuse` has an admission policy refuse the namespace's pods, for the reason given."""
        super().__init__(clock, seed, nodes, controlled=False)
        self.remote = api
        self.namespace = namespace
        self._speed = speed
        self._refuse = refuse
        self.real_nodes = {node: f"{namespace}-{node}" for node in nodes}
        self._short = {real: node for node, real in self.real_nodes.items()}
        self._due: list[Callable[[], Awaitable[None]]] = []
        self._pods: dict[str, Pod] = {}
        self._shown: dict[str, int] = {}
        """What each autoscaler was last said to want."""
        self.node_agents = ScenarioNodes(
            self.engine,
            self.api,
            self.surroundings,
            api=api,
            clock=clock,
            scenario=namespace,
            nodes=self.real_nodes,
        )
        self.kubelet = self.node_agents

    # ------------------------------------------------------------ people and pipelines

    async def show_autoscalers(self) -> None:
        """Have the API server say what the autoscalers want."""
        for (_, name), view in self.autoscalers.items():
            if view.wanted is None or self._shown.get(name) == view.wanted:
                continue
            self._shown[name] = view.wanted
            home = f"/apis/autoscaling/v2/namespaces/{self.namespace}/horizontalpodautoscalers"
            present = self.api.get(Deployment, self.namespace, name).status.replicas
            status: JsonObject = {"desiredReplicas": view.wanted, "currentReplicas": present}
            await self.remote.request(
                "PATCH", f"{home}/{name}/status", {"status": status}, merge="merge-patch"
            )

    async def settle(self) -> None:
        """Send what is due to the API server, in order."""
        while self._due:
            await self._due.pop(0)()

    def deploy(self, workload: Workload) -> None:
        body = deployment(workload, self.real_nodes, self._speed)
        if workload.model is not None:
            self.surroundings.models[(workload.namespace, workload.name)] = workload.model
        self._send("POST", f"{_APPS}/namespaces/{self.namespace}/deployments", body)
        self.traffic.serve(workload.namespace, workload.name, workload.requests_per_second)

    def set_template(self, namespace: str, name: str, template: Template) -> None:
        self._patch(namespace, name, {"template": pod_template(template, self.real_nodes)})

    def set_env(self, namespace: str, name: str, env: Mapping[str, str]) -> None:
        self._retemplate(namespace, name, lambda old: replace(old, env=tuple(sorted(env.items()))))

    def set_memory_limit(self, namespace: str, name: str, limit: str | None) -> None:
        self._retemplate(namespace, name, lambda old: replace(old, memory_limit=limit))

    def set_pod_field(self, namespace: str, name: str, field: str, value: str) -> None:
        if field != NODE_SELECTOR:
            raise ValueError(f"only {NODE_SELECTOR} can be set, not {field}")

        def changed(old: Template) -> Template:
            kept = tuple(pair for pair in old.pod_fields if pair[0] != field)
            return replace(old, pod_fields=(*kept, (field, value)))

        self._retemplate(namespace, name, changed)

    def set_paused(self, namespace: str, name: str, *, paused: bool) -> None:
        self._patch(namespace, name, {"paused": paused})

    def set_replicas(self, namespace: str, name: str, replicas: int) -> None:
        self._patch(namespace, name, {"replicas": replicas})

    def autoscale(self, namespace: str, name: str, replicas: int) -> None:
        path = f"{self._path(namespace, name)}/scale?fieldManager={AUTOSCALER_MANAGER}"
        self._send("PATCH", path, {"spec": {"replicas": replicas}})

    def refuse_pods(self, namespace: str, why: str | None) -> None:  # noqa: ARG002 - there is one
        self._due.append(lambda: self._refuse(why))

    def put_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        home = f"/api/v1/namespaces/{namespace}/configmaps"
        there = {config.meta.name for config in self.api.list(ConfigMap, namespace)}
        body: JsonObject = {"metadata": {"name": name}, "data": dict(data)}
        if name in there:
            self._send("PATCH", f"{home}/{name}?fieldManager={PIPELINE}", body)
        else:
            self._send("POST", f"{home}?fieldManager={PIPELINE}", body)

    def _retemplate(self, namespace: str, name: str, change: Callable[[Template], Template]) -> None:
        old = self.api.get(Deployment, namespace, name).template
        self.set_template(namespace, name, change(old))

    def _patch(self, namespace: str, name: str, spec: JsonObject) -> None:
        self._send("PATCH", f"{self._path(namespace, name)}?fieldManager={PIPELINE}", {"spec": spec})

    def _path(self, namespace: str, name: str) -> str:
        return f"{_APPS}/namespaces/{namespace}/deployments/{name}"

    def _send(self, method: str, path: str, body: JsonObject) -> None:
        async def send() -> None:
            answer = await self.remote.request(method, path, body, merge="merge-patch")
            if answer.status_code >= 400:
                raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text}")

        self._due.append(send)

    # ------------------------------------------------------------ the mirror

    async def follow(self) -> None:
        """Keep the mirror without end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_deployments())
            group.create_task(self._follow_config_maps())
            group.create_task(self._follow_pods())
            group.create_task(self.node_agents.keep_leases())

    async def _follow_deployments(self) -> None:
        path = f"{_APPS}/namespaces/{self.namespace}/deployments"
        async for change in self.remote.follow(path, kubeapi.Deployment):
            for found in change.objects if isinstance(change, Listed) else (change.object,):
                self.catch_up()
                self._mirror_deployment(found)

    def _mirror_deployment(self, found: kubeapi.Deployment) -> None:
        spec = found.spec
        template = template_of(spec.template.spec, spec.template.metadata.annotations, self._short)
        there = [d for d in self.api.list(Deployment, self.namespace) if d.meta.name == found.metadata.name]
        if not there:
            meta = self._meta(found.metadata)
            there = [self.api.create(Deployment(meta=meta, template=template, replicas=spec.replicas))]
        mirrored = there[0]
        mirrored.template, mirrored.replicas, mirrored.paused = template, spec.replicas, spec.paused
        mirrored.status.ready = found.status.ready_replicas
        mirrored.status.updated = found.status.updated_replicas
        mirrored.status.available = found.status.available_replicas
        mirrored.status.replicas = found.status.replicas
        mirrored.status.observed_generation = found.status.observed_generation
        mirrored.meta.generation = found.metadata.generation
        self.api.bump(mirrored)

    async def _follow_config_maps(self) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        async for change in self.remote.follow(path, kubeapi.ConfigMap):
            for found in change.objects if isinstance(change, Listed) else (change.object,):
                self.catch_up()
                there = [
                    c for c in self.api.list(ConfigMap, self.namespace) if c.meta.name == found.metadata.name
                ]
                if isinstance(change, Gone):
                    for config in there:
                        self.api.delete(config)
                elif there:
                    there[0].data = dict(found.data)
                    self.api.bump(there[0])
                else:
                    self.api.create(ConfigMap(meta=self._meta(found.metadata), data=dict(found.data)))

    async def _follow_pods(self) -> None:
        async for change in self.remote.follow(f"/api/v1/namespaces/{self.namespace}/pods", kubeapi.Pod):
            self.catch_up()
            if isinstance(change, Gone):
                self._pod_gone(change.object)
                continue
            for found in change.objects if isinstance(change, Listed) else (change.object,):
                self._mirror_pod(found)

    def _mirror_pod(self, found: kubeapi.Pod) -> None:
        uid = found.metadata.uid
        mirrored = self._pods.get(uid)
        if mirrored is None:
            template = template_of(found.spec, found.metadata.annotations, self._short)
            template = replace(template, annotations=())
            mirrored = self.api.create(Pod(meta=self._meta(found.metadata), owner_uid="", template=template))
            self._pods[uid] = mirrored
        mirrored.node = self._short.get(found.spec.node_name)
        mirrored.phase = found.status.phase
        mirrored.set_ready(found.ready, self.engine.now)
        self.node_agents.seen(found, mirrored)
        self.api.bump(mirrored)

    def _pod_gone(self, found: kubeapi.Pod) -> None:
        self.node_agents.gone(found.metadata.uid)
        mirrored = self._pods.pop(found.metadata.uid, None)
        if mirrored is not None:
            self.api.delete(mirrored)

    def _meta(self, found: kubeapi.Meta) -> Meta:
        labels = dict(found.labels)
        if SERVICE_LABEL in labels:
            labels[_OWNER_LABEL] = labels[SERVICE_LABEL]
        return Meta(
            namespace=found.namespace,
            name=found.name,
            uid=found.uid,
            created_at=self.engine.now,
            labels=labels,
        )

    @property
    def mirrored(self) -> set[str]:
        """The names of the Deployments that are known."""
        return {one.meta.name for one in self.api.list(Deployment, self.namespace)}

    def unsettled(self) -> str:
        """The Deployments whose rollout is not complete, for messages."""
        found = self.api.list(Deployment, self.namespace)
        return ", ".join(f"{one.meta.name} {one.status.available}/{one.replicas}" for one in found)

    @property
    def settled(self) -> bool:
        """Whether every rollout is complete, as far as is mirrored."""
        return all(
            one.status.observed_generation >= one.meta.generation
            and one.replicas == one.status.replicas == one.status.updated == one.status.available
            for one in self.api.list(Deployment, self.namespace)
        )
