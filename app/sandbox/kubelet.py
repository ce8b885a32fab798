"""What nodes do with pods: schedule, start, kill and restart them, and lose them.

The kubelet makes pods do what their image and limits say, see `fate_of`, and what the
model of their service says where it has one (`app.sandbox.services`).
"""

from __future__ import annotations

from collections import deque
from datetime import datetime
from enum import StrEnum

from app.bounds.backoff import Backoff
from app.sandbox.api import ApiServer
from app.sandbox.engine import Engine
from app.sandbox.objects import NODE_SELECTOR, PROBE, ConfigMap, Pod, Template, WarningEvent
from app.sandbox.services import Call, ServiceModel, Surroundings

SCHEDULE_SECONDS = 0.1
START_SECONDS = (0.8, 1.6)
CRASH_AFTER_SECONDS = 0.5
FIRST_BACK_OFF_SECONDS = 10.0
_BACKOFF = Backoff.of_seconds(FIRST_BACK_OFF_SECONDS, 300.0)
FORGIVEN_AFTER_SECONDS = 600.0
"""A container that ran for at least this time is restarted without delay."""
CREATE_AGAIN_SECONDS = 10.0
LOST_AFTER_SECONDS = 40.0
EVICT_AFTER_SECONDS = 300.0
LEAST_MEMORY_BYTES = 32 * 2**20
"""A container limited to less is killed for want of memory."""
OWNER_LABEL = "sandbox/deployment"


class Fate(StrEnum):
    """What becomes of a container when the kubelet starts it."""

    SERVES = "serves"
    IMAGE_MISSING = "image_missing"
    CRASHES = "crashes"
    OUT_OF_MEMORY = "out_of_memory"


def fate_of(template: Template) -> Fate:
    """By words in the image tag (`missing`, `crash`), or a memory limit under 32Mi."""
    if "missing" in template.image:
        return Fate.IMAGE_MISSING
    limit = template.memory_bytes
    if limit is not None and limit < LEAST_MEMORY_BYTES:
        return Fate.OUT_OF_MEMORY
    return Fate.CRASHES if "crash" in template.image else Fate.SERVES


class Kubelet:
    """Schedules and starts pods, and restarts crashed containers with growing delays."""

    def __init__(
        self, engine: Engine, api: ApiServer, nodes: tuple[str, ...], surroundings: Surroundings
    ) -> None:
        self._engine = engine
        self._api = api
        self._nodes = nodes
        self._around = surroundings
        self._pulled: set[tuple[str, str]] = set()
        """Node and image: it is pulled once."""
        self.events: deque[WarningEvent] = deque(maxlen=1000)

    def admit(self, pod: Pod) -> None:
        """A new pod: schedule it, then start its container."""
        self._engine.after(SCHEDULE_SECONDS, lambda: self._schedule(pod))

    def lose(self, node: str) -> None:
        """A node stops answering: its pods are marked after `LOST_AFTER_SECONDS`, and replaced later."""
        self._around.change_node(node).lost = True
        self._engine.after(LOST_AFTER_SECONDS, lambda: self._mark_lost(node))
        self._engine.after(LOST_AFTER_SECONDS + EVICT_AFTER_SECONDS, lambda: self._evict(node))

    def regain(self, node: str) -> None:
        """A lost node answers again; what still runs there is ready again."""
        self._around.change_node(node).lost = False
        for pod in self._on(node):
            if pod.phase == "Unknown":
                self._start(pod)

    def _on(self, node: str) -> list[Pod]:
        return [pod for pod in self._api.list(Pod) if pod.node == node]

    def _mark_lost(self, node: str) -> None:
        for pod in self._on(node):
            if self._around.node(node).lost:
                pod.phase, pod.waiting_reason = "Unknown", "NodeLost"
                pod.set_ready(False, self._engine.now)
                self._warn(pod, "NodeNotReady", f"Node {node} is not ready")
                self._bump(pod)

    def _evict(self, node: str) -> None:
        for pod in self._on(node):
            if self._around.node(node).lost and not pod.stays:
                self._api.delete(pod)

    def _schedule(self, pod: Pod) -> None:
        if not self._exists(pod):
            return
        load = dict.fromkeys(self._usable(pod), 0)
        for other in self._api.list(Pod):
            if other.node in load:
                load[other.node] += 1
        room = [node for node, pods in load.items() if pods < self._around.pods_per_node]
        if not room:
            pod.waiting_reason = None
            self._warn(pod, "FailedScheduling", f"0/{len(self._nodes)} nodes are available")
            self._bump(pod)
            self._engine.after(CREATE_AGAIN_SECONDS, lambda: self._schedule(pod))
            return
        pod.node, pod.waiting_reason = min(room, key=lambda node: load[node]), "ContainerCreating"
        self._bump(pod)
        self._engine.after(self._engine.random.uniform(*START_SECONDS), lambda: self._start(pod))

    def _usable(self, pod: Pod) -> list[str]:
        """The nodes that may take a pod; that of a DaemonSet ignores cordons."""
        if pod.bound_to is not None:
            return [] if self._around.node(pod.bound_to).lost else [pod.bound_to]
        wanted = dict(pod.template.pod_fields).get(NODE_SELECTOR)
        bound = self._model(pod) is not None and wanted is not None
        states = ((node, self._around.node(node)) for node in self._nodes)
        return [
            node
            for node, state in states
            if not (state.lost or state.cordoned) and (not bound or wanted == node)
        ]

    def _start(self, pod: Pod) -> None:
        if not self._exists(pod) or self._around.node(pod.node).lost:
            return
        fate = self.fate(pod)
        missing = self.missing_config(pod)
        if missing is not None:
            self._wait(pod, "CreateContainerConfigError", f'configmap "{missing}" not found')
            self._engine.after(FIRST_BACK_OFF_SECONDS, lambda: self._start(pod))
        elif fate is Fate.IMAGE_MISSING:
            self._wait(pod, "ErrImagePull", f"manifest for {pod.template.image} not found")
            self._engine.after(FIRST_BACK_OFF_SECONDS / 5, lambda: self._back_off_pull(pod))
        elif self._around.registry_down and (pod.node or "", pod.template.image) not in self._pulled:
            self._pull_later(pod)
        elif fate is Fate.SERVES:
            self._serve(pod)
        else:
            pod.phase, pod.waiting_reason, pod.waiting_message = "Running", None, ""
            pod.set_ready(False, self._engine.now)
            pod.started_at = self._engine.now
            self._bump(pod)
            self._engine.after(CRASH_AFTER_SECONDS, lambda: self._crash(pod, fate))

    def _serve(self, pod: Pod) -> None:
        now, model = self._engine.now, self._model(pod)
        self._pulled.add((pod.node or "", pod.template.image))
        pod.phase, pod.waiting_reason, pod.waiting_message = "Running", None, ""
        pod.started_at = now
        probed = model is None or dict(pod.template.pod_fields).get(PROBE, model.probe) == model.probe
        pod.set_ready(probed, now)
        if not pod.ready:
            self._warn(pod, "Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")
        self._bump(pod)
        behaviour, limit = self._around.behaviour(pod.template.image), pod.template.memory_bytes
        if behaviour.leak_mib_per_minute > 0 and limit is not None:
            minutes = (limit / 2**20 - behaviour.memory_mib) / behaviour.leak_mib_per_minute
            seconds = 60 * minutes * self._engine.random.uniform(0.9, 1.1)
            self._engine.after(seconds, lambda: self._run_full(pod, now))

    def _run_full(self, pod: Pod, since: datetime) -> None:
        """Its memory is used up, unless it was restarted since."""
        if pod.started_at == since:
            self._crash(pod, Fate.OUT_OF_MEMORY)

    def fate(self, pod: Pod) -> Fate:
        """What becomes of its container if it is started now."""
        model, behaviour = self._model(pod), self._around.behaviour(pod.template.image)
        if model is None:
            return fate_of(pod.template)
        limit = pod.template.memory_bytes
        if behaviour.image_missing:
            return Fate.IMAGE_MISSING
        if limit is not None and limit < behaviour.memory_mib * 2**20:
            return Fate.OUT_OF_MEMORY
        lacking = any(call.at_start and not self._reaches(pod, call) for call in model.calls)
        return Fate.CRASHES if behaviour.crashes or lacking else fate_of(pod.template)

    def _reaches(self, pod: Pod, call: Call) -> bool:
        """Whether a container that starts now finds a dependency."""
        external = self._around.externals.get(call.to)
        cut = (service_name(pod), call.to) in self._around.blocked
        return not cut and (external is None or external.up)

    def _model(self, pod: Pod) -> ServiceModel | None:
        return self._around.models.get((pod.meta.namespace, service_name(pod)))

    def _crash(self, pod: Pod, fate: Fate) -> None:
        if not self._exists(pod):
            return
        killed = fate is Fate.OUT_OF_MEMORY
        pod.last_termination_reason, pod.exit_code = ("OOMKilled", 137) if killed else ("Error", 1)
        pod.last_ended_at = self._engine.now
        pod.restarts += 1
        ran = self._engine.now - (pod.started_at or self._engine.now)
        pod.back_offs = 1 if ran.total_seconds() >= FORGIVEN_AFTER_SECONDS else pod.back_offs + 1
        back_off = _BACKOFF.seconds_after(pod.back_offs)
        self._wait(pod, "CrashLoopBackOff", f"back-off {back_off:.0f}s restarting failed container")
        self._engine.after(back_off, lambda: self._start(pod))

    def _back_off_pull(self, pod: Pod) -> None:
        if self._exists(pod):
            image = pod.template.image
            said = f'Back-off pulling image "{image}": ErrImagePull: manifest for {image} not found'
            self._wait(pod, "ImagePullBackOff", said)

    def _pull_later(self, pod: Pod) -> None:
        """The registry does not answer: the pull is retried with growing delays."""
        pod.back_offs += 1
        reason = "ErrImagePull" if pod.back_offs == 1 else "ImagePullBackOff"
        self._wait(pod, reason, f'Failed to pull image "{pod.template.image}": i/o timeout')
        again = _BACKOFF.seconds_after(pod.back_offs)
        self._engine.after(again, lambda: self._start(pod))

    def _wait(self, pod: Pod, reason: str, message: str) -> None:
        pod.set_ready(False, self._engine.now)
        pod.waiting_reason, pod.waiting_message = reason, message
        if reason != "CrashLoopBackOff":
            pod.phase = "Pending"
        self._warn(pod, "BackOff" if reason.endswith("BackOff") else "Failed", message)
        self._bump(pod)

    def _warn(self, pod: Pod, reason: str, message: str) -> None:
        self.events.append(
            WarningEvent(
                at=self._engine.now,
                namespace=pod.meta.namespace,
                owner=pod.meta.labels[OWNER_LABEL],
                reason=reason,
                message=f"{message} ({pod.meta.name})",
            )
        )

    def missing_config(self, pod: Pod) -> str | None:
        """The first ConfigMap that the container needs and that does not exist."""
        there = {config.meta.name for config in self._api.list(ConfigMap, pod.meta.namespace)}
        return next((name for name in pod.template.config_maps if name not in there), None)

    def _exists(self, pod: Pod) -> bool:
        return self._api.holds(pod)

    def _bump(self, pod: Pod) -> None:
        if self._exists(pod):
            self._api.bump(pod)


def service_name(pod: Pod) -> str:
    """The Deployment that a pod belongs to: modelled services are named after theirs."""
    return pod.meta.labels[OWNER_LABEL]
