"""The cost of following a cluster in which nothing happens, and the time from a crash to its signal.

`python -m bench.cluster_view`: 50, 500 and 5,000 Deployments as objects of a real API
server (etcd and kube-apiserver, without controllers), and a real `heal run` on SQLite.
Its requests are counted by the API server's audit log. A Prometheus that takes every
connection and never answers is configured throughout, unless `--without-metrics`. Crashes
are measured right after start, before anything else happens, and later, one by one.
It prints a Markdown table and writes JSON; it asserts nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx2

from bench.cluster_objects import NAMESPACE, Objects, administrator, service_name
from bench.processes import cpu_seconds, memory_mib, percentile
from bench.serving import ROOT, Server, silent_peer, start_server
from testbed.controlplane import ControlPlane
from testbed.rbac import ADMIN, AGENT
from testbed.supervisor import Supervisor

SIZES = (50, 500, 5_000)
PROGRAM = [sys.executable, "-P", "-c", "from app.cli import main; main()", "run"]
SETTLED_SHARE = 0.1
SETTLED_SECONDS = 10.0
"""The agent has settled when it uses less than this share of a core for so long."""
SETTLE_WITHIN_SECONDS = 600.0
CRASH_PATIENCE_SECONDS = 240.0
POLL_SECONDS = 0.02
AUDIT_POLICY = """\
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [ResponseStarted, ResponseComplete, Panic]
rules:
- {level: Metadata, users: [agent]}
- {level: None}
"""
"""Every request of the agent once, a watch when it begins; nothing of others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one size costs."""

    deployments: int
    metrics: str
    objects: int
    start_requests: int
    """API requests until the agent had settled."""
    start_seconds: float
    """From the start of the process until it had settled."""
    start_cpu_seconds: float
    requests_a_minute: float
    lists_a_minute: float
    cpu_share: float
    """Of one core, while nothing happens."""
    memory_mib: float
    crash_after_start_seconds: list[float]
    """From the node's report to the incident; the agent was started immediately before."""
    crash_seconds: list[float]
    """The same later, while nothing else happens."""
    unseen: int = 0
    """Crashes without an incident within four minutes."""


@dataclass(slots=True, kw_only=True)
class Bench:
    """One control plane and the way an agent is started over it."""

    plane: ControlPlane
    supervisor: Supervisor
    folder: Path
    root: Path
    prometheus: str | None
    objects: Objects
    given: argparse.Namespace
    _names: list[str] = field(default_factory=list)

    def start(self) -> Server:
        """A new agent on a new database."""
        name = f"agent-{len(self._names)}"
        self._names.append(name)
        settings = {
            "DATABASE_URL": f"sqlite:///{self.folder}/{name}.db",
            "KUBECONFIG": str(self.plane.kubeconfig(AGENT)),
            "DRY_RUN": "true",
            "LOG_LEVEL": "warning",
            "RUNBOOKS_DIR": str(self.root / "runbooks"),
            "PYTHONPATH": str(self.root),
            **({"PROMETHEUS_URL": self.prometheus} if self.prometheus is not None else {}),
        }
        return start_server(self.supervisor, self.folder, PROGRAM, settings, name)

    def requests(self) -> tuple[int, int]:
        """How many requests the agent has sent so far, and how many of them were lists."""
        log = self.plane.audit_log
        lines = log.read_bytes().splitlines() if log.exists() else []
        return len(lines), sum(b'"verb":"list"' in line for line in lines)

    async def measure(self, size: int) -> Figures:
        """All figures of one size."""
        after_start, unseen = [], 0
        for number in range(self.given.starts):
            began = await self._crash_right_after_start(number)
            unseen += began is None
            after_start += [] if began is None else [began]
        before = self.requests()[0]
        started = time.monotonic()
        server = self.start()
        try:
            await self._settled(server)
            start_seconds = time.monotonic() - started - SETTLED_SECONDS
            start_cpu_seconds = cpu_seconds(server.process.pid)
            start_requests = self.requests()[0] - before
            idle = await self._idle(server, self.given.seconds)
            later = []
            for number in range(self.given.crashes):
                seen = await self._crash(server, number)
                unseen += seen is None
                later += [] if seen is None else [seen]
        finally:
            server.process.stop()
        for number in range(self.given.crashes):
            await self.objects.heal(number)
        return Figures(
            deployments=size,
            metrics="none" if self.prometheus is None else "hanging",
            objects=4 * size,
            start_requests=start_requests,
            start_seconds=start_seconds,
            start_cpu_seconds=start_cpu_seconds,
            crash_after_start_seconds=after_start,
            crash_seconds=later,
            unseen=unseen,
            **idle,
        )

    async def _crash_right_after_start(self, number: int) -> float | None:
        server = self.start()
        try:
            return await self._crash(server, number)
        finally:
            server.process.stop()
            await self.objects.heal(number)

    async def _settled(self, server: Server) -> None:
        """Until the agent uses little of a core."""
        deadline = time.monotonic() + SETTLE_WITHIN_SECONDS
        while time.monotonic() < deadline:
            before = cpu_seconds(server.process.pid)
            await asyncio.sleep(SETTLED_SECONDS)
            if (cpu_seconds(server.process.pid) - before) / SETTLED_SECONDS < SETTLED_SHARE:
                return

    async def _idle(self, server: Server, seconds: float) -> Mapping[str, float]:
        pid = server.process.pid
        (sent, listed), used, began = self.requests(), cpu_seconds(pid), time.monotonic()
        await asyncio.sleep(seconds)
        minutes = (time.monotonic() - began) / 60
        after, lists = self.requests()
        return {
            "requests_a_minute": (after - sent) / minutes,
            "lists_a_minute": (lists - listed) / minutes,
            "cpu_share": (cpu_seconds(pid) - used) / (minutes * 60),
            "memory_mib": memory_mib(pid),
        }

    async def _crash(self, server: Server, number: int) -> float | None:
        """Seconds from the answer to the node's report until the incident is on record; None if it is not."""
        query = {"service": service_name(number), "environment": NAMESPACE}
        await self.objects.crash(number)
        began = time.monotonic()
        async with httpx2.AsyncClient(base_url=server.url, trust_env=False, timeout=60) as http:
            while time.monotonic() - began < CRASH_PATIENCE_SECONDS:
                answer = await http.get("/incidents", params=query)
                if answer.json()["items"]:
                    return time.monotonic() - began
                await asyncio.sleep(POLL_SECONDS)
        return None


def markdown(figures: Sequence[Figures], label: str) -> str:
    """One row for each size."""
    lines = [
        f"Cluster view, {label}: objects in a real kube-apiserver without controllers",
        "",
        "| Deployments | metrics | start: requests, s, CPU s | idle: requests/min (lists) | CPU of a core"
        " | MiB | crash right after start, s | crash p50 / p99, s | not seen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        first = ", ".join(f"{seconds:.2f}" for seconds in one.crash_after_start_seconds) or "-"
        later = one.crash_seconds
        both = f"{percentile(later, 0.5):.2f} / {percentile(later, 0.99):.2f}" if later else "-"
        lines.append(
            f"| {one.deployments:,} | {one.metrics} | {one.start_requests},"
            f" {one.start_seconds:.0f}, {one.start_cpu_seconds:.0f} |"
            f" {one.requests_a_minute:.0f} ({one.lists_a_minute:.0f}) | {one.cpu_share:.1%} |"
            f" {one.memory_mib:.0f} | {first} | {both} | {one.unseen} |"
        )
    return "\n".join(lines)


async def _run(plane: ControlPlane, given: argparse.Namespace, stack: ExitStack) -> list[Figures]:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
    prometheus = None if given.without_metrics else stack.enter_context(silent_peer())
    figures: list[Figures] = []
    async with administrator(plane.kubeconfig(ADMIN)) as objects:
        await objects.prepare()
        bench = Bench(
            plane=plane,
            supervisor=plane.supervisor,
            folder=folder,
            root=given.root.resolve(),
            prometheus=prometheus,
            objects=objects,
            given=given,
        )
        there = 0
        for size in given.sizes:
            await objects.add(there, size)
            there = size
            figures.append(await bench.measure(size))
            print(markdown(figures[-1:], given.label).splitlines()[-1], flush=True)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="Deployments, ascending")
    parser.add_argument("--seconds", type=float, default=120.0, help="how long idleness is watched")
    parser.add_argument("--starts", type=int, default=3, help="crashes right after a start")
    parser.add_argument("--crashes", type=int, default=20, help="crashes one by one later")
    parser.add_argument("--without-metrics", action="store_true", help="configure no metric source")
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout whose agent is measured")
    parser.add_argument("--label", default="this checkout", help="its name in the table")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    given = parser.parse_args()
    with ExitStack() as stack:
        plane = stack.enter_context(ControlPlane(audit_policy=AUDIT_POLICY, controllers=False))
        figures = asyncio.run(_run(plane, given, stack))
    print(markdown(figures, given.label))
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(one) for one in figures], indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
