"""A real Flux on the bed's control plane: source-controller and kustomize-controller.

Built from their Go modules, at the versions of `flux/*/go.mod`, with the controllers'
own replacements. They run outside the cluster with the bed's kubeconfig. The
helm-controller and the notification-controller are left out.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import yaml
from lightkube.resources.apiextensions_v1 import CustomResourceDefinition

from testbed import TestbedError
from testbed.binaries import go_program
from testbed.controlplane import ControlPlane
from testbed.go_tool import GoTool
from testbed.ports import free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

CONTROLLERS = tuple(
    GoTool(name=name, module=f"github.com/fluxcd/{name}", package=f"github.com/fluxcd/{name}", within="flux")
    for name in ("source-controller", "kustomize-controller")
)
NAMESPACE = "flux-system"
_START_SECONDS = 120.0


def ensure_flux(tell: Callable[[str], None] = print) -> tuple[Path, ...]:
    """The two programs: from the cache, else built now (minutes)."""
    return tuple(one.ensure(tell) for one in CONTROLLERS)


def definitions() -> list[CustomResourceDefinition]:
    """The custom resources, as the modules ship them."""
    found = []
    for one in CONTROLLERS:
        done = subprocess.run(
            [go_program(), "list", "-m", "-f", "{{.Dir}}", one.module],
            cwd=one.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        folder = Path(done.stdout.strip())
        if done.returncode != 0 or not done.stdout.strip():
            raise TestbedError(f"go list {one.module} failed:\n{done.stderr[-2000:]}")
        for path in sorted((folder / "config" / "crd" / "bases").glob("*.yaml")):
            made = CustomResourceDefinition.from_dict(yaml.safe_load(path.read_text()))
            if isinstance(made, CustomResourceDefinition):
                found.append(made)
    return found


@dataclass(kw_only=True)
class Flux:
    """The two controllers."""

    control_plane: ControlPlane
    supervisor: Supervisor
    folder: Path
    _processes: list[Process] = field(default_factory=list)

    def start(self) -> None:
        """Install the custom resources and start; returns when both controllers are ready."""
        source, kustomize = ensure_flux()
        client = self.control_plane.client()
        for one in definitions():
            client.create(one)
            name = f"{one.spec.names.plural}.{one.spec.group}"
            client.wait(CustomResourceDefinition, name, for_conditions=["Established"])
        storage, *ports = free_ports(5)
        served = f"127.0.0.1:{storage}"
        stored = self.folder / "storage"
        stored.mkdir()
        own = ("--storage-path", str(stored), "--storage-addr", served, "--storage-adv-addr", served)
        self._run(source, ports[0], ports[1], *own)
        self._run(kustomize, ports[2], ports[3], "--requeue-dependency", "2s")
        for health in (ports[1], ports[3]):
            self._wait(health)

    def stop(self) -> None:
        """Safe to repeat."""
        for process in self._processes:
            process.stop()

    def _run(self, program: Path, metrics: int, health: int, *arguments: str) -> None:
        home = self.folder / program.name
        (home / "tmp").mkdir(parents=True)
        command = [
            *(str(program), "--metrics-addr", f"127.0.0.1:{metrics}", "--health-addr", f"127.0.0.1:{health}"),
            *("--events-addr", "", "--enable-leader-election=false", "--log-level", "info", *arguments),
        ]
        env = {
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "KUBECONFIG": str(self.control_plane.kubeconfig("admin")),
            "RUNTIME_NAMESPACE": NAMESPACE,
        }
        log = self.folder / f"{program.name}.log"
        self._processes.append(self.supervisor.start(program.name, command, log=log, env=env))

    def _wait(self, port: int) -> None:
        def ready() -> bool | NotYet:
            for process in self._processes:
                process.check()
            try:
                answer = httpx2.get(f"http://127.0.0.1:{port}/readyz", timeout=5)
            except httpx2.HTTPError as error:
                return NotYet(str(error))
            return True if answer.status_code == 200 else NotYet(answer.text[:200])

        wait_for("Flux to be ready", ready, timeout_seconds=_START_SECONDS)
