"""A stand-in kubelet: registers nodes, keeps their leases, and drives pod status as `testbed.behaviour` says.

Runs as a process of its own (`python -m testbed.kubelet`), started by
`testbed.world`. It starts nothing: what a pod serves is the sample fleet's part.
A node annotated `testbed/ready: "false"` is reported NotReady.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from testbed.behaviour import Behaviour, behaviour_of
from testbed.environment import ConfigurationMissing, noted, read_environment
from testbed.kubeapi import RETRY_SECONDS, Api, Gone, Listed, Node, Pod

NODE_READY_ANNOTATION = "testbed/ready"
LEASE_SECONDS = 40
START_SECONDS = 0.3
RUN_SECONDS = 0.3
LEAK_SECONDS = 20.0
FIRST_BACK_OFF_SECONDS = 1.0
LONGEST_BACK_OFF_SECONDS = 8.0
_RENEW_SECONDS = 10.0
_CRASHES = {
    Behaviour.CRASH: ("Error", 1, "panic: cannot start"),
    Behaviour.OOM: ("OOMKilled", 137, ""),
    Behaviour.LEAK: ("OOMKilled", 137, ""),
    Behaviour.BAD_COMMAND: ("StartError", 128, "exec: no such file or directory"),
}


def now_text(*, micro: bool = False) -> str:
    """The time as the API server writes it; of a lease with `micro`."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")


def node_status(name: str, ready: str, *, pods: int = 500) -> dict[str, object]:
    """What a kubelet reports of its node; `ready` is True, False, or Unknown for a node that is lost."""
    reasons = {"True": "KubeletReady", "False": "KubeletNotReady", "Unknown": "NodeStatusUnknown"}
    reported = {"status": ready, "reason": reasons[ready], "message": "reported by the test bed"}
    conditions = [{"type": "Ready", "lastTransitionTime": now_text(), **reported}]
    conditions += [
        _condition(kind, False, f"KubeletHasNo{kind}", "reported by the test bed")
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    room = {"cpu": "64", "memory": "256Gi", "pods": str(pods), "ephemeral-storage": "100Gi"}
    addresses = [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}]
    return {"capacity": room, "allocatable": room, "conditions": conditions, "addresses": addresses}


def _condition(kind: str, status: bool, reason: str = "", message: str = "") -> dict[str, str]:
    found = {"type": kind, "status": str(status), "lastTransitionTime": now_text()}
    return {**found, "reason": reason, "message": message} if reason else found


def _tell_failure(task: asyncio.Task[None]) -> None:
    """A pod that cannot be read must not stop the others; the log says why."""
    error = None if task.cancelled() else task.exception()
    if error is not None:
        print(f"a pod is left alone: {type(error).__name__}: {error}", flush=True)


class PodWorker:
    """One pod's life, reported to the API server; one task, cancelled when the pod goes."""

    def __init__(self, api: Api, pod: Pod, ip: str) -> None:
        self._api = api
        self._pod = pod
        self._ip = ip
        self._path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
        self._started = pod.status.start_time or now_text()
        self._restarts = max((status.restart_count for status in pod.status.container_statuses), default=0)
        self._events = 0
        self._environment: dict[str, str] = {}
        self._reported_ready: bool | None = None
        self._conditions: list[dict[str, str]] = []

    async def run(self) -> None:
        """Until the pod has reached its steady state, or for ever while it crashes."""
        behaviour = behaviour_of(self._pod)
        if behaviour is Behaviour.PENDING:
            return
        await asyncio.sleep(START_SECONDS)
        if behaviour is Behaviour.MISSING:
            await self._never_pull()
        elif behaviour in _CRASHES:
            await self._crash_loop(behaviour)
        else:
            await self._read_environment()
            await self._serve(behaviour is Behaviour.READY)

    async def finalise(self) -> None:
        """The pod is marked for deletion: its processes are gone, so let the object go."""
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self._pod.metadata.uid}}
        await self._send("DELETE", self._path, {"apiVersion": "v1", "kind": "DeleteOptions", **options})

    async def _serve(self, ready: bool) -> None:
        delays = [
            c.readiness_probe.initial_delay_seconds for c in self._pod.spec.containers if c.readiness_probe
        ]
        state = {"running": {"startedAt": now_text()}}
        if delays and max(delays) > 0:
            await self._report("Running", state, ready=False)
            await asyncio.sleep(max(delays))
        await self._report("Running", state, ready=ready)
        if not ready:
            await self._event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 404")

    async def _never_pull(self) -> None:
        image = self._pod.spec.containers[0].image
        failed = f'Failed to pull image "{image}": not found'
        await self._report("Pending", {"waiting": {"reason": "ErrImagePull", "message": failed}})
        await self._event("Failed", failed)
        await asyncio.sleep(FIRST_BACK_OFF_SECONDS)
        message = f'Back-off pulling image "{image}"'
        await self._report("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": message}})
        await self._event("BackOff", message)

    async def _crash_loop(self, behaviour: Behaviour) -> None:
        reason, code, message = _CRASHES[behaviour]
        leaks = behaviour is Behaviour.LEAK
        back_off = FIRST_BACK_OFF_SECONDS
        while True:
            await self._read_environment()
            started = now_text()
            if behaviour is not Behaviour.BAD_COMMAND:
                await self._report("Running", {"running": {"startedAt": started}}, ready=leaks)
                await asyncio.sleep(LEAK_SECONDS if leaks else RUN_SECONDS)
            ended = {"exitCode": code, "reason": reason, "message": message, "finishedAt": now_text()}
            last = {"terminated": {**ended, "startedAt": started, "containerID": self._container_id()}}
            name = self._pod.spec.containers[0].name
            text = f"back-off {back_off:g}s restarting failed container={name} pod={self._pod.metadata.name}"
            waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": text}}
            await self._report("Running", waiting, last=last)
            await self._event("BackOff", f"Back-off restarting failed container {name} ({reason})")
            await asyncio.sleep(back_off)
            self._restarts += 1
            back_off = FIRST_BACK_OFF_SECONDS if leaks else min(back_off * 2, LONGEST_BACK_OFF_SECONDS)

    async def _read_environment(self) -> None:
        """What the container starts with this time; waits for configuration that is missing."""
        namespace, container = self._pod.metadata.namespace, self._pod.spec.containers[0]
        while True:
            try:
                self._environment = await read_environment(self._api, namespace, container)
            except ConfigurationMissing as error:
                waiting = {"reason": "CreateContainerConfigError", "message": str(error)}
                await self._report("Pending", {"waiting": waiting})
                await self._event("Failed", f"Error: {error}")
                await asyncio.sleep(FIRST_BACK_OFF_SECONDS)
            except httpx2.HTTPError as error:
                print(f"{self._path}: {type(error).__name__}: {error}; again", flush=True)
                await asyncio.sleep(RETRY_SECONDS)
            else:
                return

    def _container_id(self) -> str:
        return f"testbed://{self._pod.metadata.uid}-{self._restarts}"

    async def _report(
        self,
        phase: str,
        state: Mapping[str, object],
        *,
        ready: bool = False,
        last: Mapping[str, object] | None = None,
    ) -> None:
        statuses = [
            {
                "name": container.name,
                "image": container.image,
                "imageID": "" if phase == "Pending" else f"testbed://{container.image}",
                "containerID": "" if phase == "Pending" else self._container_id(),
                "ready": ready,
                "started": ready,
                "restartCount": self._restarts,
                "state": state,
                "lastState": last or {},
            }
            for container in self._pod.spec.containers
        ]
        if self._reported_ready is not ready:
            self._reported_ready = ready
            unready = () if ready else ("ContainersNotReady", "containers with unready status")
            self._conditions = [
                _condition("PodReadyToStartContainers", True),
                _condition("Initialized", True),
                _condition("ContainersReady", ready, *unready),
                _condition("Ready", ready, *unready),
            ]
        status = {
            "phase": phase,
            "startTime": self._started,
            "hostIP": "127.0.0.1",
            "podIP": self._ip,
            "podIPs": [{"ip": self._ip}],
            "conditions": self._conditions,
            "containerStatuses": statuses,
        }
        metadata = {"uid": self._pod.metadata.uid, "annotations": noted(self._environment)}
        body = {"metadata": metadata if phase == "Running" else {"uid": metadata["uid"]}, "status": status}
        await self._send("PATCH", f"{self._path}/status", body)

    async def _event(self, reason: str, message: str) -> None:
        """A Warning event, as a kubelet gives; a few for each pod, since a real one folds repeats too."""
        if self._events >= 3:
            return
        self._events += 1
        meta = self._pod.metadata
        about = {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": meta.namespace,
            "name": meta.name,
            "uid": meta.uid,
        }
        body = {
            "metadata": {"generateName": f"{meta.name}.", "namespace": meta.namespace},
            "involvedObject": about,
            "type": "Warning",
            "reason": reason,
            "message": message,
            "source": {"component": "kubelet", "host": self._pod.spec.node_name},
            "firstTimestamp": now_text(),
            "lastTimestamp": now_text(),
            "count": 1,
        }
        await self._send("POST", f"/api/v1/namespaces/{meta.namespace}/events", body)

    async def _send(self, method: str, path: str, body: object) -> None:
        """Until the server has answered; the status of a pod that is gone or was replaced is dropped."""
        while True:
            try:
                answer = await self._api.request(method, path, body)
            except httpx2.HTTPError as error:
                print(f"{method} {path}: {type(error).__name__}: {error}; again", flush=True)
            else:
                if answer.status_code < 500 and answer.status_code != 429:
                    if answer.status_code >= 400 and answer.status_code not in (404, 409):
                        print(f"{method} {path}: {answer.status_code} {answer.text}", flush=True)
                    return
            await asyncio.sleep(RETRY_SECONDS)


class Kubelet:
    """All nodes of the bed in one process."""

    def __init__(self, api: Api, nodes: Sequence[str]) -> None:
        self._api = api
        self._nodes = tuple(nodes)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: dict[str, asyncio.Task[None]] = {}
        self._addresses = 0

    async def run(self) -> None:
        """Register the nodes, then follow nodes and pods until cancelled."""
        for name in self._nodes:
            await self._register(name)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_leases())
            group.create_task(self._follow_nodes())
            group.create_task(self._follow_pods())

    # -------------------------------------------------------------- nodes

    async def _register(self, name: str) -> None:
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
        await self._api.request("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}})
        await self._report_node(name, ready=True)

    async def _report_node(self, name: str, *, ready: bool) -> None:
        status = node_status(name, str(ready))
        await self._api.request("PATCH", f"/api/v1/nodes/{name}/status", {"status": status})

    async def _keep_leases(self) -> None:
        base = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        while True:
            for name in self._nodes:
                renewed = now_text(micro=True)
                spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": renewed}
                try:
                    answer = await self._api.request("PATCH", f"{base}/{name}", {"spec": spec})
                    if answer.status_code == 404:
                        await self._api.request("POST", base, {"metadata": {"name": name}, "spec": spec})
                except httpx2.HTTPError as error:
                    print(f"lease of {name}: {type(error).__name__}: {error}", flush=True)
            await asyncio.sleep(_RENEW_SECONDS)

    async def _follow_nodes(self) -> None:
        reported = dict.fromkeys(self._nodes, True)
        async for change in self._api.follow("/api/v1/nodes", Node):
            for node in change.objects if isinstance(change, Listed) else (change.object,):
                name = node.metadata.name
                wanted = node.metadata.annotations.get(NODE_READY_ANNOTATION) != "false"
                if name in reported and reported[name] != wanted:
                    await self._report_node(name, ready=wanted)
                    reported[name] = wanted

    # -------------------------------------------------------------- pods

    async def _follow_pods(self) -> None:
        async for change in self._api.follow("/api/v1/pods", Pod, fieldSelector="spec.nodeName!="):
            if isinstance(change, Listed):
                present = {pod.metadata.uid for pod in change.objects}
                for uid in self._tasks.keys() - present:
                    self._cancel(uid)
                for pod in change.objects:
                    self._seen(pod)
            elif isinstance(change, Gone):
                self._cancel(change.object.metadata.uid)
            else:
                self._seen(change.object)

    def _seen(self, pod: Pod) -> None:
        uid = pod.metadata.uid
        if pod.spec.node_name not in self._nodes or uid in self._leaving:
            return
        if pod.metadata.deletion_timestamp is not None:
            self._cancel(uid)
            task = asyncio.create_task(self._worker(pod).finalise())
            self._leaving[uid] = task
            task.add_done_callback(lambda _: self._leaving.pop(uid, None))
        elif uid not in self._tasks and pod.status.phase in ("", "Pending", "Running"):
            self._tasks[uid] = asyncio.create_task(self._worker(pod).run())
            self._tasks[uid].add_done_callback(_tell_failure)

    def _worker(self, pod: Pod) -> PodWorker:
        self._addresses = self._addresses % 65_000 + 1
        return PodWorker(self._api, pod, f"10.244.{self._addresses // 250}.{self._addresses % 250 + 1}")

    def _cancel(self, uid: str) -> None:
        task = self._tasks.pop(uid, None)
        if task is not None:
            task.cancel()


async def _main(arguments: argparse.Namespace) -> None:
    api = Api(arguments.kubeconfig)
    try:
        await Kubelet(api, [f"node-{number}" for number in range(arguments.nodes)]).run()
    finally:
        await api.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m testbed.kubelet", description=__doc__)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--nodes", type=int, default=3)
    asyncio.run(_main(parser.parse_args()))
