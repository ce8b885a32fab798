"""Pod templates of the simulated world as manifests, and back."""

from __future__ import annotations

from collections.abc import Mapping

from app.agent.ids import Json, JsonObject
from app.sandbox.objects import NODE_SELECTOR, PORT, PROBE, Template
from app.sandbox.world import Workload
from testbed.behaviour import SERVICE_LABEL
from testbed.kubeapi import PodSpec
from testbed.scenarios.lens import DEADLINE

CONTAINER = "app"
HOSTNAME = "kubernetes.io/hostname"
_PORT = "8080"


def deployment(workload: Workload, nodes: Mapping[str, str], speed: float) -> JsonObject:
    """A Deployment; `nodes` are the real names of the nodes of the scenario."""
    labels: JsonObject = {SERVICE_LABEL: workload.name}
    template = pod_template(workload.template, nodes)
    metadata: JsonObject = {"name": workload.name, "namespace": workload.namespace, "labels": labels}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**metadata, "annotations": dict(workload.annotations or {})},
        "spec": {
            "replicas": workload.replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels, "annotations": dict(workload.template.annotations)},
                "spec": {name: value for name, value in _object(template, "spec").items() if value},
            },
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {
                    "maxSurge": _percent(workload.max_surge),
                    "maxUnavailable": _percent(workload.max_unavailable),
                },
            },
            DEADLINE: max(1, round(workload.progress_deadline_seconds / speed)),
        },
    }


def pod_template(template: Template, nodes: Mapping[str, str]) -> JsonObject:
    """A pod template as a JSON merge patch: lists replace what is there, null removes it."""
    fields = dict(template.pod_fields)
    wanted = fields.get(NODE_SELECTOR)
    env: list[Json] = [{"name": name, "value": value} for name, value in template.env]
    memory: JsonObject = {} if template.memory_limit is None else {"memory": template.memory_limit}
    container: JsonObject = {
        "name": CONTAINER,
        "image": template.image,
        "env": env,
        "ports": [{"containerPort": int(fields.get(PORT, _PORT))}],
        "readinessProbe": {"httpGet": {"path": fields.get(PROBE, "/healthz"), "port": int(_PORT)}},
        "resources": {"requests": {"cpu": "10m", "memory": "8Mi"}, "limits": memory},
        "volumeMounts": [{"name": name, "mountPath": f"/config/{name}"} for name in template.config_maps],
    }
    volumes: list[Json] = [{"name": name, "configMap": {"name": name}} for name in template.config_maps]
    selector: JsonObject = {HOSTNAME: None if wanted is None else nodes.get(wanted, wanted)}
    return {
        "metadata": {"annotations": dict(template.annotations)},
        "spec": {
            "containers": [container],
            "volumes": volumes or None,
            "nodeSelector": None if wanted is None else selector,
        },
    }


def template_of(spec: PodSpec, annotations: Mapping[str, str], short: Mapping[str, str]) -> Template:
    """What a pod spec asks for; `short` are the scenario's names of the nodes, by real name."""
    container = spec.containers[0]
    fields: list[tuple[str, str]] = []
    if container.ports and str(container.ports[0].container_port) != _PORT:
        fields.append((PORT, str(container.ports[0].container_port)))
    if container.readiness_probe is not None and container.readiness_probe.http_get is not None:
        fields.append((PROBE, container.readiness_probe.http_get.path))
    if HOSTNAME in spec.node_selector:
        wanted = spec.node_selector[HOSTNAME]
        fields.append((NODE_SELECTOR, short.get(wanted, wanted)))
    return Template(
        image=container.image,
        env=tuple(sorted((one.name, one.value) for one in container.env)),
        config_maps=tuple(volume.config_map.name for volume in spec.volumes if volume.config_map is not None),
        memory_limit=container.resources.limits.get("memory"),
        annotations=tuple(sorted(annotations.items())),
        pod_fields=tuple(sorted(fields)),
    )


def autoscaler(namespace: str, name: str, least: int, most: int, target: float) -> JsonObject:
    """A HorizontalPodAutoscaler on CPU."""
    metric: JsonObject = {
        "name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": round(100 * target)},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": least,
            "maxReplicas": most,
            "metrics": [{"type": "Resource", "resource": metric}],
        },
    }


def _object(value: JsonObject, name: str) -> JsonObject:
    found = value[name]
    return found if isinstance(found, dict) else {}


def _percent(share: float) -> str:
    return f"{round(100 * share)}%"
