"""Latency of a decision: the embedded engine and a real OPA server, in turns on the same documents.

`python -m bench.policy`: the shipped policies, the agent's own clients of both,
so that the measured time is what an action waits for. It prints figures and
asserts nothing. The first run builds OPA.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from app.agent.ids import JsonObject
from app.agent.models import DecisionKind
from app.agent.ports.policy import PolicyEngine
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.embedded import EmbeddedPolicy
from app.connectors.policy.opa import OpaPolicy
from bench.processes import percentile
from testbed.opa import OpaServer, opa_version
from testbed.supervisor import Supervisor
from tests.contract.policy_cases import Case, cases

WARM_UP = 50


async def _milliseconds(engine: PolicyEngine, document: JsonObject) -> float:
    begun = time.perf_counter()
    await engine.decide(document)
    return (time.perf_counter() - begun) * 1000


def _as_sent(case: Case) -> bool:
    """Whether an agent could send it to the shipped policies: a malformed one costs a new embedded engine."""
    shipped = case.config is None and case.module is None
    return shipped and case.decision is DecisionKind.ALLOW


async def measure(url: str, decisions: int) -> Table:
    """Both engines on each document, one after the other, so that the machine's moods hit both."""
    engines: dict[str, EmbeddedPolicy | OpaPolicy] = {
        "embedded (regorus 0.13.0)": EmbeddedPolicy(shipped_policies(), timeout_seconds=30),
        f"OPA {opa_version()}, over loopback": OpaPolicy(url, timeout_seconds=30),
    }
    documents = [case.document for case in cases() if _as_sent(case)]
    took: dict[str, list[float]] = {name: [] for name in engines}
    try:
        for number in range(WARM_UP + decisions):
            for name, engine in engines.items():
                milliseconds = await _milliseconds(engine, documents[number % len(documents)])
                if number >= WARM_UP:
                    took[name].append(milliseconds)
    finally:
        for engine in engines.values():
            await engine.aclose()
    table = Table("engine", "decisions", "p50 ms", "p99 ms", title="From question to decision")
    for name, each in took.items():
        table.add_row(name, f"{len(each):,}", f"{percentile(each, 0.5):.2f}", f"{percentile(each, 0.99):.2f}")
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decisions", type=int, default=3_000)
    given = parser.parse_args()
    supervisor = Supervisor()
    try:
        with tempfile.TemporaryDirectory(prefix="heal-bench-") as folder:
            server = OpaServer(supervisor=supervisor, directory=Path(folder), policies=shipped_policies())
            server.start()
            Console(width=120).print(asyncio.run(measure(server.url, given.decisions)))
    finally:
        supervisor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
