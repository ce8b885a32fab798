"""The whole bed: control plane, kubelet, sample services, monitoring; started part by part as needed.

`tests/e2e/conftest.py` keeps one for a test session; `python -m testbed up` one
for a person.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType

from lightkube import Client
from lightkube.resources.core_v1 import Node

from testbed import TestbedError, rbac
from testbed.controlplane import ControlPlane
from testbed.fleet import read_targets
from testbed.monitoring import Monitoring
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for
from testbed.workloads import Workloads


class TestBed(Workloads):
    """Start, use, stop; also a context manager. Nothing of it outlives the process that made it."""

    __test__ = False

    def __init__(self, *, folder: Path | None = None, nodes: int = 3) -> None:
        """`folder` is kept for the caller; without one a temporary folder is used and removed."""
        self._own_folder = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="heal-testbed-"))
        self._nodes = nodes
        self._supervisor = Supervisor()
        self._processes: list[Process] = []
        self._serving = False
        self._monitoring: Monitoring | None = None
        self.targets = self.folder / "targets.json"
        """Where sample services listen, in Prometheus's file_sd format."""
        self.control_plane = ControlPlane(folder=self.folder / "cluster", supervisor=self._supervisor)

    def __enter__(self) -> TestBed:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -------------------------------------------------------------- life

    def start(self) -> None:
        """Control plane and kubelet, ready to run pods; whatever fails, nothing is left running."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.control_plane.start()
            super().__init__(self.control_plane.client())
            kubeconfig = str(self.control_plane.kubeconfig(rbac.KUBELET))
            self._run_module("kubelet", "--kubeconfig", kubeconfig, "--nodes", str(self._nodes))
            wait_for("the nodes to be schedulable", self._nodes_usable, timeout_seconds=30)
        except BaseException:
            self.stop()
            raise

    def start_services(self) -> None:
        """Every Deployment is served from now on, on a port of its own. Safe to repeat."""
        if not self._serving:
            kubeconfig = str(self.control_plane.kubeconfig(rbac.FLEET))
            fleet = self._run_module("fleet", "--kubeconfig", kubeconfig, "--targets", str(self.targets))
            self._serving = True

            def check() -> bool | NotYet:
                fleet.check()
                return True if self.targets.exists() else NotYet("no file of targets")

            wait_for("the sample fleet", check, timeout_seconds=30)

    def start_monitoring(self) -> None:
        """Prometheus and Alertmanager over the sample services. Safe to repeat."""
        self.start_services()
        if self._monitoring is None:
            monitoring = Monitoring(
                folder=self.folder / "monitoring", targets=self.targets, supervisor=self._supervisor
            )
            monitoring.start()
            self._monitoring = monitoring

    def stop(self) -> None:
        """End everything. Safe to repeat."""
        try:
            self.control_plane.stop()
            if self._monitoring is not None:
                self._monitoring.stop()
        finally:
            self._supervisor.close()
            if self._own_folder:
                shutil.rmtree(self.folder, ignore_errors=True)

    def check(self) -> None:
        """Raise `TestbedError`, with the end of its log, when a part has died."""
        self.control_plane.check()
        for process in self._processes:
            process.check()
        if self._monitoring is not None:
            self._monitoring.check()

    # -------------------------------------------------------------- traffic and monitoring

    @property
    def monitoring(self) -> Monitoring:
        """Raises `TestbedError` before `start_monitoring`."""
        if self._monitoring is None:
            raise TestbedError("monitoring is not started: call start_monitoring() first")
        return self._monitoring

    def start_load(self, namespace: str, *, rps: float = 10, seconds: float = 3600) -> Process:
        """Requests to every service of a namespace, present and future, until stopped or out of time."""
        self.start_services()
        bounds = ["--rps", f"{rps:g}", "--seconds", f"{seconds:g}"]
        command = [sys.executable, "-m", "testbed.load", "--targets", str(self.targets), *bounds]
        log = self.folder / f"load-{namespace}.log"
        return self._supervisor.start(f"load on {namespace}", [*command, "--namespace", namespace], log=log)

    def service_url(self, namespace: str, name: str) -> str:
        """Where the sample service of a Deployment listens; waits for it to appear."""

        def check() -> str | NotYet:
            known = read_targets(self.targets)
            address = known.get((namespace, name))
            return f"http://{address}" if address else NotYet(f"services {sorted(known)}")

        return wait_for(f"a listener for {namespace}/{name}", check, timeout_seconds=15)

    def client_of(self, user: str) -> Client:
        """A client that acts as `agent`, `readonly` or `nobody`."""
        return self.control_plane.client(user)

    def _run_module(self, name: str, *arguments: str) -> Process:
        command = [sys.executable, "-m", f"testbed.{name}", *arguments]
        process = self._supervisor.start(name, command, log=self.folder / f"{name}.log")
        self._processes.append(process)
        return process

    def _nodes_usable(self) -> bool | NotYet:
        self.check()
        nodes = list(self.client.list(Node))
        usable = [node for node in nodes if _ready(node) and not (node.spec and node.spec.taints)]
        return True if len(usable) == self._nodes else NotYet(f"{len(usable)} of {len(nodes)} registered")


def _ready(node: Node) -> bool:
    conditions = (node.status.conditions if node.status else None) or ()
    return any(c.type == "Ready" and c.status == "True" for c in conditions)
