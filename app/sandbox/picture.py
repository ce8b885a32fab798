"""The picture of a moment: which pods answer for each modelled service, and how well each of them can.

Read from the objects of the simulated API server and from the surroundings, for
`app.sandbox.flow` to compute with.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from urllib.parse import urlsplit

from app.sandbox.api import ApiServer
from app.sandbox.flow import Group, Node
from app.sandbox.kubelet import service_name
from app.sandbox.objects import NAME_LABEL, PORT, ConfigMap, Deployment, Pod, Template
from app.sandbox.services import COLD_SHARE, Behaviour, Call, ServiceModel, Surroundings

_PORTS = frozenset({None, 80, 443, 5432, 6379, 8080, 9092})
"""Where services and external systems listen; any other port is a wrong address."""
_REFUSED_MS = 20.0

ServiceName = tuple[str, str]


def service_of(deployment: Deployment) -> str:
    """The service a Deployment runs: its name label, else its name."""
    return deployment.meta.labels.get(NAME_LABEL) or deployment.meta.name


def flat(name: ServiceName) -> str:
    """Namespace and service in one word, as the flow names it: services call by their short name."""
    return name[1]


def picture(
    api: ApiServer, around: Surroundings, offered: Callable[[ServiceName], float], now: datetime
) -> tuple[dict[str, Node], float | None]:
    """Every modelled service with its pods, and in how many seconds the first cold pod is warm."""
    ready: dict[ServiceName, list[Pod]] = {name: [] for name in around.models}
    for pod in api.list(Pod):
        name = (pod.meta.namespace, service_name(pod))
        if pod.ready and name in ready:
            ready[name].append(pod)
    configs = {(c.meta.namespace, c.meta.name): c for c in api.list(ConfigMap)}
    nodes: dict[str, Node] = {}
    warm_in: list[float] = []
    for name, model in around.models.items():
        counted = Counter(_traits(pod, model, around, now, warm_in) for pod in ready[name])
        groups = tuple(_group(pods, traits, name, model, around, configs) for traits, pods in counted.items())
        nodes[flat(name)] = Node(
            offered=offered(name), groups=groups, calls=model.calls, selected=name not in around.unselected
        )
    return nodes, min(warm_in, default=None)


_Traits = tuple[Template, str, bool, frozenset[str]]
"""Template, the node where it is not as it should be, whether it is cold, what refuses its credentials."""


def _traits(
    pod: Pod, model: ServiceModel, around: Surroundings, now: datetime, warm_in: list[float]
) -> _Traits:
    cold = False
    since = pod.ready_changed_at if pod.ready else None
    if since is not None and (around.began_at is None or since > around.began_at):
        left = model.warm_up_seconds - (now - since).total_seconds()
        cold = left > 0
        if cold:
            warm_in.append(left)
    refusing = refused_by(pod, model, around)
    return pod.template, pod.node if pod.node in around.nodes and pod.node else "", cold, refusing


def refused_by(pod: Pod, model: ServiceModel, around: Surroundings) -> frozenset[str]:
    """The systems outside that it calls and that refuse its credentials: they changed after its start."""
    return frozenset(
        call.to
        for call in model.calls
        if (external := around.externals.get(call.to)) is not None
        and external.credentials_changed_at is not None
        and pod.started_at is not None
        and pod.started_at < external.credentials_changed_at
    )


def _group(
    pods: int,
    traits: _Traits,
    name: ServiceName,
    model: ServiceModel,
    around: Surroundings,
    configs: Mapping[tuple[str, str], ConfigMap],
) -> Group:
    template, node_name, cold, refusing = traits
    node = around.node(node_name or None)
    at_work: tuple[Behaviour, ...] = (
        around.behaviour(template.image),
        *around.flag_behaviours(name[1]),
    )
    settings = _settings(name[0], template, configs)
    succeeds = (1 - node.errors) * (1 - ratio(settings.get("FAIL_RATIO")))
    capacity, latency, calls = model.capacity, model.latency_ms, 1.0
    for behaviour in at_work:
        succeeds *= 1 - behaviour.errors
        capacity *= behaviour.capacity_factor
        latency *= behaviour.latency_factor
        calls *= behaviour.calls_factor
    if node.lost or at_work[0].schema < around.schemas.get(name, 1):
        succeeds = 0.0
    if dict(template.pod_fields).get(PORT, model.port) != model.port:
        succeeds, latency = 0.0, _REFUSED_MS
    return Group(
        pods=pods,
        capacity=capacity * node.capacity_factor * (COLD_SHARE if cold else 1.0),
        concurrency=model.concurrency,
        latency_ms=latency * node.latency_factor,
        errors=1 - succeeds,
        calls_factor=calls,
        unreachable=frozenset(
            call.to for call in model.calls if call.to in refusing or _misses(call, settings)
        ),
    )


def _misses(call: Call, settings: Mapping[str, str]) -> bool:
    """Whether a pod with these settings has no valid address of a dependency."""
    if call.setting is None:
        return False
    address = settings.get(call.setting, "")
    try:
        parts = urlsplit(address if "//" in address else f"//{address}")
        host, port = (parts.hostname or "").split(".")[0], parts.port
    except ValueError:
        return True
    return host != call.to or port not in _PORTS


def _settings(
    namespace: str, template: Template, configs: Mapping[tuple[str, str], ConfigMap]
) -> Mapping[str, str]:
    """What the container reads: its ConfigMaps, overridden by its environment."""
    merged: dict[str, str] = {}
    for config_map in template.config_maps:
        config = configs.get((namespace, config_map))
        if config is not None:
            merged.update(config.data)
    merged.update(template.env)
    return merged


def ratio(text: str | None) -> float:
    """A share 0..1 as a service would read it; None if it is not readable."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0.0
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 0.0
