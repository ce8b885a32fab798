"""Changes to a cluster by people and pipelines: deploy, change, break, and wait for the result.

Tests and the demo drive the bed through this; it needs nothing but a kubeconfig,
so it works as well on a bed that another process brought up.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightkube
from lightkube import Client, KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.models.apps_v1 import DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment
from lightkube.models.core_v1 import (
    ConfigMapEnvSource,
    ConfigMapVolumeSource,
    Container,
    EnvFromSource,
    EnvVar,
    HTTPGetAction,
    PodSpec,
    PodTemplateSpec,
    Probe,
    ResourceRequirements,
    Volume,
    VolumeMount,
)
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.resources.apps_v1 import DaemonSet, Deployment, ReplicaSet, StatefulSet
from lightkube.resources.core_v1 import ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount
from lightkube.types import PatchType

from testbed import rbac
from testbed.behaviour import SERVICE_LABEL
from testbed.waiting import NotYet, wait_for

CONTAINER = "app"
_KINDS: tuple[type[Any], ...] = (
    Deployment,
    ReplicaSet,
    Pod,
    ConfigMap,
    Secret,
    Service,
    ServiceAccount,
    StatefulSet,
    DaemonSet,
)
T = TypeVar("T")


def config_map_name(name: str) -> str:
    """The ConfigMap that `deploy(config_map=...)` makes and refers to."""
    return f"{name}-config"


class Workloads:
    """Acts as a deployer would, under the field manager `testbed`."""

    def __init__(self, client: Client) -> None:
        self.client = client

    @classmethod
    def connect(cls, kubeconfig: Path) -> Workloads:
        """To a bed (or any cluster) that runs already."""
        return cls(lightkube.Client(config=KubeConfig.from_file(kubeconfig), field_manager="testbed"))

    # -------------------------------------------------------------- namespaces

    def create_namespace(self, name: str | None = None) -> str:
        """A namespace in which pods can be created; without a name, a fresh one."""
        namespace = name or f"test-{secrets.token_hex(4)}"
        self.client.create(Namespace(metadata=ObjectMeta(name=namespace)))
        # What controllers add on their own comes first, so that it disturbs no later comparison.
        self._wait_exists(ServiceAccount, "default", namespace)
        self._wait_exists(ConfigMap, "kube-root-ca.crt", namespace)
        return namespace

    def delete_namespace(self, namespace: str, *, wait: bool = False) -> None:
        """With everything in it; returns at once, or after everything is gone."""
        self.client.delete(Namespace, namespace)

        def check() -> bool | NotYet:
            try:
                found = self.client.get(Namespace, namespace)
            except ApiError as error:
                if error.status.code == 404:
                    return True
                raise
            conditions = found.status.conditions if found.status and found.status.conditions else []
            return NotYet("; ".join(f"{c.reason}: {c.message}" for c in conditions) or "still terminating")

        if wait:
            wait_for(f"namespace {namespace} to be gone", check, timeout_seconds=60)

    def _wait_exists(self, kind: type[ServiceAccount | ConfigMap], name: str, namespace: str) -> None:
        def check() -> bool | NotYet:
            try:
                self.client.get(kind, name, namespace=namespace)
            except ApiError as error:
                if error.status.code != 404:
                    raise
                return NotYet("nothing")
            return True

        wait_for(f"{name} in namespace {namespace}", check, timeout_seconds=30, interval_seconds=0.05)

    # -------------------------------------------------------------- changes

    def deploy(
        self,
        namespace: str,
        name: str,
        image: str,
        *,
        replicas: int = 3,
        env: Mapping[str, str] | None = None,
        config_map: Mapping[str, str] | None = None,
        memory_limit: str = "128Mi",
        command: Sequence[str] | None = None,
        progress_deadline_seconds: int = 600,
        annotations: Mapping[str, str] | None = None,
        pod_annotations: Mapping[str, str] | None = None,
        mount_config_map: bool = False,
        rolling: tuple[str, int] | None = None,
    ) -> None:
        """Create a Deployment; what its pods do follows from these values (`testbed.behaviour`).

        `config_map` becomes the ConfigMap `<name>-config`. Pods read it through envFrom:
        as on any cluster, running pods do not see later changes to it. With
        `mount_config_map` they have it as a volume instead, and do see them.
        `rolling` is maxUnavailable and maxSurge.
        """
        if config_map is not None:
            content = ConfigMap(
                metadata=ObjectMeta(name=config_map_name(name), namespace=namespace), data=dict(config_map)
            )
            self.client.create(content)
        labels = {SERVICE_LABEL: name}
        container = Container(
            name=CONTAINER,
            image=image,
            command=list(command) if command else None,
            env=[EnvVar(name=key, value=value) for key, value in (env or {}).items()],
            resources=ResourceRequirements(
                limits={"memory": memory_limit}, requests={"cpu": "10m", "memory": "8Mi"}
            ),
            readinessProbe=Probe(httpGet=HTTPGetAction(path="/ready", port=8080)),
        )
        pod = PodSpec(containers=[container])
        if config_map is not None and mount_config_map:
            source = ConfigMapVolumeSource(name=config_map_name(name))
            pod.volumes = [Volume(name="config", configMap=source)]
            container.volumeMounts = [VolumeMount(name="config", mountPath="/config")]
        elif config_map is not None:
            reference = ConfigMapEnvSource(name=config_map_name(name))
            container.envFrom = [EnvFromSource(configMapRef=reference)]
        template = PodTemplateSpec(
            metadata=ObjectMeta(labels=labels, annotations=dict(pod_annotations or {})), spec=pod
        )
        spec = DeploymentSpec(
            replicas=replicas,
            selector=LabelSelector(matchLabels=labels),
            template=template,
            progressDeadlineSeconds=progress_deadline_seconds,
        )
        if rolling is not None:
            unavailable, surge = rolling
            update = RollingUpdateDeployment(maxUnavailable=unavailable, maxSurge=surge)
            spec.strategy = DeploymentStrategy(type="RollingUpdate", rollingUpdate=update)
        metadata = ObjectMeta(
            name=name, namespace=namespace, labels=labels, annotations=dict(annotations or {})
        )
        self.client.create(Deployment(metadata=metadata, spec=spec))

    def set_image(self, namespace: str, name: str, image: str) -> None:
        """A release."""
        self._patch_container(namespace, name, {"image": image})

    def set_command(self, namespace: str, name: str, command: Sequence[str]) -> None:
        self._patch_container(namespace, name, {"command": list(command)})

    def set_env(self, namespace: str, name: str, env: Mapping[str, str]) -> None:
        """Set some variables and leave the others."""
        self._patch_container(namespace, name, {"env": [{"name": k, "value": v} for k, v in env.items()]})

    def set_memory_limit(self, namespace: str, name: str, limit: str) -> None:
        """Below 32Mi the container is killed for memory."""
        self._patch_container(namespace, name, {"resources": {"limits": {"memory": limit}}})

    def set_readiness_path(self, namespace: str, name: str, path: str) -> None:
        """`/broken` never succeeds."""
        self._patch_container(namespace, name, {"readinessProbe": {"httpGet": {"path": path}}})

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        self._patch(namespace, name, {"spec": {"replicas": replicas}})

    def annotate(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations on the Deployment itself; None removes one."""
        self._patch(namespace, name, {"metadata": {"annotations": dict(annotations)}})

    def annotate_pods(self, namespace: str, name: str, annotations: Mapping[str, str | None]) -> None:
        """Set annotations in the pod template: new pods follow."""
        metadata = {"annotations": dict(annotations)}
        self._patch(namespace, name, {"spec": {"template": {"metadata": metadata}}})

    def restart(self, namespace: str, name: str) -> None:
        """As `kubectl rollout restart` does it: new pods read their configuration again."""
        stamp = {"kubectl.kubernetes.io/restartedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        self._patch(namespace, name, {"spec": {"template": {"metadata": {"annotations": stamp}}}})

    def update_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Set some keys of a ConfigMap and leave the others."""
        self.client.patch(
            ConfigMap, name, {"data": dict(data)}, namespace=namespace, patch_type=PatchType.MERGE
        )

    def _patch_container(self, namespace: str, name: str, change: Mapping[str, object]) -> None:
        containers = [{"name": CONTAINER, **change}]
        self._patch(namespace, name, {"spec": {"template": {"spec": {"containers": containers}}}})

    def _patch(self, namespace: str, name: str, body: dict[str, object]) -> None:
        self.client.patch(Deployment, name, body, namespace=namespace)

    def refuse_pods(self, namespace: str, why: str) -> None:
        """An admission policy refuses every new pod from now on; in force on return."""
        rbac.refuse_pods(self.client, namespace, why)
        container = Container(name=CONTAINER, image="probe:1")
        probe = Pod(
            metadata=ObjectMeta(name="probe", namespace=namespace), spec=PodSpec(containers=[container])
        )

        def check() -> bool | NotYet:
            try:
                self.client.create(probe, dry_run=True)
            except ApiError as error:
                return True if why in (error.status.message or "") else NotYet(str(error))
            return NotYet("a pod is admitted still")

        wait_for("the policy to refuse pods", check, timeout_seconds=30)

    def admit_pods(self, namespace: str) -> None:
        """Take `refuse_pods` back."""
        rbac.admit_pods(self.client, namespace)

    # -------------------------------------------------------------- observations

    def deployment(self, namespace: str, name: str) -> Deployment:
        return self.client.get(Deployment, name, namespace=namespace)

    def pods(self, namespace: str, name: str) -> tuple[Pod, ...]:
        """The pods of a Deployment, of all its revisions."""
        return tuple(self.client.list(Pod, namespace=namespace, labels={SERVICE_LABEL: name}))

    def image(self, namespace: str, name: str) -> str:
        """What the Deployment asks for now."""
        spec = self.deployment(namespace, name).spec
        pod_spec = spec.template.spec if spec else None
        return (pod_spec.containers[0].image or "") if pod_spec else ""

    def resource_versions(self, namespace: str) -> dict[str, str]:
        """`Kind/name` to resourceVersion of every object there (but events): equal means nothing changed."""
        found: dict[str, str] = {}
        for kind in _KINDS:
            for item in self.client.list(kind, namespace=namespace):
                metadata: ObjectMeta = item.metadata
                found[f"{kind.__name__}/{metadata.name}"] = metadata.resourceVersion or ""
        return found

    # -------------------------------------------------------------- waits

    def wait_rolled_out(self, namespace: str, name: str, *, timeout_seconds: float = 60) -> None:
        """Until the newest spec alone runs, all of it available."""

        def check() -> bool | NotYet:
            found = self.deployment(namespace, name)
            spec, status, metadata = found.spec, found.status, found.metadata
            if spec is None or status is None or metadata is None:
                return NotYet("no status yet")
            counts = (status.replicas or 0, status.updatedReplicas or 0, status.availableReplicas or 0)
            seen = (status.observedGeneration or 0) >= (metadata.generation or 0)
            if seen and counts == (spec.replicas,) * 3:
                return True
            text = "total {}, updated {}, available {}".format(*counts)
            return NotYet(
                f"{spec.replicas} wanted; {text}; spec seen: {seen}; {self._pod_summary(namespace, name)}"
            )

        wait_for(f"the rollout of {namespace}/{name}", check, timeout_seconds=timeout_seconds)

    def wait_pods(
        self,
        namespace: str,
        name: str,
        condition: Callable[[tuple[Pod, ...]], bool],
        *,
        what: str,
        timeout_seconds: float = 60,
    ) -> tuple[Pod, ...]:
        """Until `condition` holds for the pods of a Deployment; `what` says it in words."""

        def check() -> tuple[Pod, ...] | NotYet:
            pods = self.pods(namespace, name)
            return pods if condition(pods) else NotYet(describe_pods(pods))

        return wait_for(f"{what} of {namespace}/{name}", check, timeout_seconds=timeout_seconds)

    def wait_waiting(
        self, namespace: str, name: str, reason: str, *, timeout_seconds: float = 60
    ) -> tuple[Pod, ...]:
        """Until a container of the Deployment waits for that reason, such as `CrashLoopBackOff`."""
        return self.wait_pods(
            namespace,
            name,
            lambda pods: any(reason in waiting_reasons(pod) for pod in pods),
            what=f"{reason} among the pods",
            timeout_seconds=timeout_seconds,
        )

    def wait_condition(
        self, namespace: str, name: str, kind: str, reason: str, *, timeout_seconds: float = 60
    ) -> None:
        """Until the Deployment's condition `kind` has that reason."""

        def check() -> bool | NotYet:
            status = self.deployment(namespace, name).status
            reasons = {c.type: c.reason for c in (status.conditions if status else None) or ()}
            return True if reasons.get(kind) == reason else NotYet(f"conditions {reasons}")

        wait_for(f"{kind}={reason} of {namespace}/{name}", check, timeout_seconds=timeout_seconds)

    def wait_settled(
        self, namespace: str, *, quiet_seconds: float = 2, timeout_seconds: float = 60
    ) -> dict[str, str]:
        """Until no object there has changed for a while; answers `resource_versions`."""
        last, since = self.resource_versions(namespace), time.monotonic()

        def check() -> dict[str, str] | NotYet:
            nonlocal last, since
            now = self.resource_versions(namespace)
            if now != last:
                changed = sorted(key for key in now.keys() | last.keys() if now.get(key) != last.get(key))
                last, since = now, time.monotonic()
                return NotYet(f"{', '.join(changed)} changed")
            quiet = time.monotonic() - since
            return now if quiet >= quiet_seconds else NotYet(f"quiet for {quiet:.1f} s")

        return wait_for(f"namespace {namespace} to settle", check, timeout_seconds=timeout_seconds)

    def _pod_summary(self, namespace: str, name: str) -> str:
        return describe_pods(self.pods(namespace, name))


def waiting_reasons(pod: Pod) -> frozenset[str]:
    """Why containers of a pod do not run."""
    statuses = (pod.status.containerStatuses if pod.status else None) or ()
    return frozenset(
        s.state.waiting.reason for s in statuses if s.state and s.state.waiting and s.state.waiting.reason
    )


def restarts(pod: Pod) -> int:
    """How often containers of a pod were started again."""
    return sum(s.restartCount for s in (pod.status.containerStatuses if pod.status else None) or ())


def describe_pods(pods: Sequence[Pod]) -> str:
    """Phase, reasons and restarts of each, for messages."""
    parts = [
        f"{pod.metadata.name if pod.metadata else '?'} {pod.status.phase if pod.status else '?'}"
        f" {'/'.join(sorted(waiting_reasons(pod)))} restarts={restarts(pod)}"
        for pod in pods
    ]
    return "pods: " + ("; ".join(parts) or "none")
