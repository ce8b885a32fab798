"""The nodes of one scenario on a real control plane, and what becomes of the containers on them.

A stand-in kubelet: it reports what `app.sandbox.kubelet` says that a container does,
on the clock of the scenario.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Mapping

from app.bounds.backoff import Backoff
from app.clock import Clock
from app.sandbox.api import ApiServer
from app.sandbox.engine import Engine
from app.sandbox.kubelet import (
    CRASH_AFTER_SECONDS,
    FIRST_BACK_OFF_SECONDS,
    LOST_AFTER_SECONDS,
    START_SECONDS,
    Fate,
    Kubelet,
)
from app.sandbox.objects import PROBE
from app.sandbox.objects import Pod as Mirrored
from app.sandbox.services import Surroundings
from testbed.kubeapi import Api, Pod
from testbed.kubelet import PodWorker, node_status, now_text

SCENARIO_LABEL = "testbed/scenario"
_BACKOFF = Backoff.of_seconds(FIRST_BACK_OFF_SECONDS, 300.0)
_RENEW_SECONDS = 10.0
_KILLED, _FAILED = ("OOMKilled", 137, ""), ("Error", 1, "panic: cannot start")


class ScenarioNodes(Kubelet):
    """Registers the nodes, runs the pods that are bound to them, and loses nodes."""

    def __init__(
        self,
        engine: Engine,
        mirror: ApiServer,
        around: Surroundings,
        *,
        api: Api,
        clock: Clock,
        scenario: str,
        nodes: Mapping[str, str],
    ) -> None:
        """`nodes`: the real name of each node of the scenario."""
        super().__init__(engine, mirror, tuple(nodes), around)
        self.api, self.clock, self.around = api, clock, around
        self._scenario = scenario
        self._real = dict(nodes)
        self._short = {real: short for short, real in nodes.items()}
        self._pods: dict[str, Pod] = {}
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, Pod] = {}
        self._reports: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ nodes

    async def register(self, pods_per_node: int) -> None:
        """Make the node objects and report them ready; the scheduler takes them from there."""
        for real in self._real.values():
            labels = {
                "kubernetes.io/hostname": real,
                "kubernetes.io/os": "linux",
                SCENARIO_LABEL: self._scenario,
            }
            await self.api.request("POST", "/api/v1/nodes", {"metadata": {"name": real, "labels": labels}})
            await self._report_node(real, "True", pods_per_node)

    async def keep_leases(self) -> None:
        """Renew the lease of every node without end: a lost node is reported as such instead."""
        base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            for real in self._real.values():
                renewed = now_text(micro=True)
                spec = {"holderIdentity": real, "leaseDurationSeconds": 40, "renewTime": renewed}
                answer = await self.api.request("PATCH", f"{base}/{real}", {"spec": spec})
                if answer.status_code == 404:
                    await self.api.request("POST", base, {"metadata": {"name": real}, "spec": spec})
            await asyncio.sleep(_RENEW_SECONDS)

    def lose(self, node: str) -> None:
        """A node stops answering; the control plane notices after `LOST_AFTER_SECONDS`."""
        self.around.change_node(node).lost = True
        self._spawn(self._mark_unknown(node))

    def regain(self, node: str) -> None:
        """A lost node answers again: its pods report themselves, and those that were deleted go."""
        self.around.change_node(node).lost = False
        self._spawn(self._report_node(self._real[node], "True", self.around.pods_per_node))
        for pod in [one for one in self._leaving.values() if self._short.get(one.spec.node_name) == node]:
            self._finalise(pod)
        for mirrored in self._on(node):
            running = self._pods.get(mirrored.meta.uid)
            if running is not None:
                self._workers.pop(mirrored.meta.uid).cancel()
                self._run(running, mirrored)

    async def _mark_unknown(self, node: str) -> None:
        await self.clock.sleep(LOST_AFTER_SECONDS)
        if self.around.node(node).lost:
            await self._report_node(self._real[node], "Unknown", self.around.pods_per_node)

    async def _report_node(self, real: str, ready: str, pods: int) -> None:
        await self.api.request(
            "PATCH", f"/api/v1/nodes/{real}/status", {"status": node_status(real, ready, pods=pods)}
        )

    async def remove(self) -> None:
        """Take the nodes away."""
        for real in self._real.values():
            await self.api.request("DELETE", f"/api/v1/nodes/{real}")

    # ------------------------------------------------------------ pods

    def seen(self, pod: Pod, mirrored: Mirrored) -> None:
        """A pod exists, or changed."""
        key, node = pod.metadata.uid, self._short.get(pod.spec.node_name)
        if node is None:
            return
        if pod.metadata.deletion_timestamp is not None:
            if key in self._leaving:
                return
            self.gone(key)
            self._leaving[key] = pod
            if not self.around.node(node).lost:
                self._finalise(pod)
        elif key not in self._workers:
            self._pods[key] = pod
            self._run(pod, mirrored)

    def gone(self, uid: str) -> None:
        """A pod is no more."""
        self._leaving.pop(uid, None)
        self._pods.pop(uid, None)
        worker = self._workers.pop(uid, None)
        if worker is not None:
            worker.cancel()

    async def stop(self) -> None:
        """End every task."""
        tasks = [*self._workers.values(), *self._reports]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _run(self, pod: Pod, mirrored: Mirrored) -> None:
        worker = _Container(self, pod, mirrored)
        task = asyncio.create_task(worker.run())
        task.add_done_callback(_raise)
        self._workers[pod.metadata.uid] = task

    def _finalise(self, pod: Pod) -> None:
        self._spawn(PodWorker(self.api, pod, "").finalise())

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._reports.add(task)
        task.add_done_callback(self._reports.discard)
        task.add_done_callback(_raise)

    # ------------------------------------------------------------ what a container finds

    def pulls(self, pod: Mirrored) -> bool:
        """Whether the node has the image of a pod, or the registry answers."""
        image = (pod.node or "", pod.template.image)
        if self.around.registry_down and image not in self._pulled:
            return False
        self._pulled.add(image)
        return True

    def answers_probe(self, pod: Mirrored) -> bool:
        """Whether the readiness probe asks for the path that the service has."""
        model = self._model(pod)
        return model is None or dict(pod.template.pod_fields).get(PROBE, model.probe) == model.probe

    def seconds_to_full(self, pod: Mirrored) -> float | None:
        """How long until a container that starts now has used up its memory; None: it does not."""
        behaviour, limit = self.around.behaviour(pod.template.image), pod.template.memory_bytes
        if behaviour.leak_mib_per_minute <= 0 or limit is None:
            return None
        minutes = (limit / 2**20 - behaviour.memory_mib) / behaviour.leak_mib_per_minute
        return 60 * minutes * self._engine.random.uniform(0.9, 1.1)


class _Container(PodWorker):
    """The container of one pod, from its start on."""

    def __init__(self, nodes: ScenarioNodes, pod: Pod, mirrored: Mirrored) -> None:
        super().__init__(nodes.api, pod, _address(pod))
        self._nodes, self._mirrored, self._sleep = nodes, mirrored, nodes.clock.sleep
        self._failures = 0

    async def run(self) -> None:
        """Until it serves, or for ever while it does not."""
        await self._sleep(random.uniform(*START_SECONDS))  # noqa: S311 - no secret
        while not await self._attempt():
            pass

    async def _attempt(self) -> bool:
        """One attempt to start it; whether that was the last."""
        pod, nodes = self._mirrored, self._nodes
        fate, missing = nodes.fate(pod), nodes.missing_config(pod)
        if nodes.around.node(pod.node).lost:
            return True
        if missing is not None:
            await self._mount_fails(missing)
        elif fate is Fate.IMAGE_MISSING:
            await self._pull_fails(f"manifest for {pod.template.image} not found")
        elif not nodes.pulls(pod):
            await self._pull_fails("i/o timeout")
        elif fate is Fate.SERVES:
            return await self._serves()
        else:
            await self._report("Running", {"running": {"startedAt": now_text()}})
            await self._sleep(CRASH_AFTER_SECONDS)
            await self._crashes(_KILLED if fate is Fate.OUT_OF_MEMORY else _FAILED)
        return False

    async def _serves(self) -> bool:
        ready = self._nodes.answers_probe(self._mirrored)
        self._mirrored.started_at = self._nodes.clock.now()
        await self._report("Running", {"running": {"startedAt": now_text()}}, ready=ready)
        if not ready:
            await self._event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")
        seconds = self._nodes.seconds_to_full(self._mirrored)
        if seconds is None:
            return True
        await self._sleep(seconds)
        self._failures = 0
        await self._crashes(_KILLED)
        return False

    async def _mount_fails(self, config_map: str) -> None:
        waiting = {"waiting": {"reason": "ContainerCreating"}}
        await self._report("Pending", waiting)
        said = f'MountVolume.SetUp failed for volume "{config_map}" : configmap "{config_map}" not found'
        await self._event("FailedMount", said)
        await self._sleep(FIRST_BACK_OFF_SECONDS)

    async def _pull_fails(self, why: str) -> None:
        image = self._mirrored.template.image
        self._failures += 1
        said = f'Failed to pull image "{image}": {why}'
        await self._report("Pending", {"waiting": {"reason": "ErrImagePull", "message": said}})
        await self._event("Failed", said)
        await self._sleep(FIRST_BACK_OFF_SECONDS / 5)
        said = f'Back-off pulling image "{image}": ErrImagePull: {why}'
        await self._report("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": said}})
        await self._event("BackOff", said)
        await self._sleep(_BACKOFF.seconds_after(self._failures))

    async def _crashes(self, how: tuple[str, int, str]) -> None:
        reason, code, message = how
        self._failures += 1
        seconds = _BACKOFF.seconds_after(self._failures)
        name = self._pod.spec.containers[0].name
        ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": now_text()}
        last = {"terminated": {**ended, "startedAt": now_text(), "containerID": self._container_id()}}
        said = f"back-off {seconds:.0f}s restarting failed container={name} pod={self._pod.metadata.name}"
        self._restarts += 1
        await self._report("Running", {"waiting": {"reason": "CrashLoopBackOff", "message": said}}, last=last)
        await self._event("BackOff", f"Back-off restarting failed container {name} ({reason})")
        await self._sleep(seconds)


def _address(pod: Pod) -> str:
    """An address that a pod keeps for life; the API server accepts no second one."""
    drawn = random.Random(pod.metadata.uid)  # noqa: S311 - no secret
    return f"10.244.{drawn.randint(0, 250)}.{drawn.randint(1, 250)}"


def _raise(task: asyncio.Task[None]) -> None:
    """The log says why a pod is left alone."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        print(f"a pod is left alone: {type(error).__name__}: {error}", flush=True)
