"""Helpers of the benches: start the product's processes and measure their CPU time and memory."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from testbed.supervisor import Process, Supervisor

ROOT = Path(__file__).resolve().parent.parent
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How one process of the product is started; two of one `Start` share its settings."""

    supervisor: Supervisor
    folder: Path
    settings: Mapping[str, str]

    def worker(self, name: str) -> Process:
        """A real `heal worker`."""
        environment = {"RUNBOOKS_DIR": str(ROOT / "runbooks"), "PYTHONPATH": str(ROOT), **self.settings}
        program = [sys.executable, "-c", "from app.cli import main; main()", "worker"]
        return self.supervisor.start(name, program, log=self.folder / f"{name}.log", env=environment)


def cpu_seconds(pid: int) -> float:
    """What a process has used so far, with those of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS


def family_cpu_seconds(pid: int) -> float:
    """As `cpu_seconds`, with the children that still run: PostgreSQL has one for each connection."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu_seconds(pid) + sum(cpu_seconds(int(child)) for child in children)


def memory_mib(pid: int) -> float:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ProcessLookupError(pid)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least this share of `values` does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
