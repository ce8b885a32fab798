"""A real Prometheus with known data: series written at exact times, then served by the program itself.

Used by the contract tests of the Prometheus connector. `promtool` turns the
series into blocks, so that nothing waits for scrapes and every run is the same.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from socket import socket

import httpx2

NOW = datetime(2026, 2, 20, 17, 20, tzinfo=UTC)
LENGTH = timedelta(minutes=20)
SCRAPE = timedelta(seconds=5)
BUCKETS_MS = (50, 100, 250, 500, 1_000, 2_500, 5_000)
_START_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """How a service served until `until`, as requests for each scrape interval."""

    until: datetime
    good: int = 10
    bad: int = 0
    latency_ms: float = 120.0


def exposition(services: dict[str, tuple[Phase, ...]], *, namespace: str = "payments") -> str:
    """The services' counters and histograms over the whole time, as OpenMetrics with timestamps."""
    requests: list[str] = []
    latencies: list[str] = []
    for service, phases in services.items():
        labels = f'namespace="{namespace}",service="{service}"'
        codes = ["200"] + (["500"] if any(phase.bad for phase in phases) else [])
        good = bad = 0
        buckets = dict.fromkeys(BUCKETS_MS, 0)
        lines: dict[str, list[str]] = {code: [] for code in codes}
        shapes: dict[str, list[str]] = {}
        for at, phase in _instants(phases):
            good, bad = good + phase.good, bad + phase.bad
            for bound in BUCKETS_MS:
                buckets[bound] += (phase.good + phase.bad) * (phase.latency_ms <= bound)
            counts = {"200": good, "500": bad}
            for code in codes:
                lines[code].append(f'http_requests_total{{{labels},code="{code}"}} {counts[code]} {at}')
            for le, count in {**{f"{b / 1000:g}": n for b, n in buckets.items()}, "+Inf": good + bad}.items():
                shapes.setdefault(le, []).append(
                    f'http_request_duration_seconds_bucket{{{labels},le="{le}"}} {count} {at}'
                )
        requests += [line for code in codes for line in lines[code]]
        latencies += [line for series in shapes.values() for line in series]
    return "\n".join(
        [
            "# TYPE http_requests counter",
            *requests,
            "# TYPE http_request_duration_seconds histogram",
            *latencies,
        ]
    )


def gauge(name: str, labels: str, value: float, until: datetime) -> str:
    """A gauge that keeps one value and is written until then: the form of a recording rule."""
    times = _instants((Phase(until=until),))
    return "\n".join([f"# TYPE {name} gauge", *(f"{name}{{{labels}}} {value} {at}" for at, _ in times)])


def _instants(phases: tuple[Phase, ...]) -> Iterator[tuple[int, Phase]]:
    at = NOW - LENGTH
    for phase in phases:
        while at <= phase.until:
            yield int(at.timestamp()), phase
            at += SCRAPE


@contextmanager
def prometheus(
    folder: Path,
    *,
    openmetrics: str = "",
    config: str = "global: {scrape_interval: 5s}",
    flags: tuple[str, ...] = (),
) -> Iterator[str]:
    """Run Prometheus over the given data; yields its address once it is ready."""
    data = folder / "data"
    data.mkdir(parents=True)
    if openmetrics:
        (folder / "series.om").write_text(openmetrics + "\n# EOF\n")
        subprocess.run(
            ["promtool", "tsdb", "create-blocks-from", "openmetrics", folder / "series.om", data],
            check=True,
            capture_output=True,
        )
    (folder / "prometheus.yml").write_text(config)
    address = f"127.0.0.1:{free_port()}"
    command = [
        "prometheus",
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={data}",
        f"--web.listen-address={address}",
        "--storage.tsdb.retention.time=100y",
        "--log.level=warn",
        *flags,
    ]
    with serving("Prometheus", command, address, folder / "log") as url:
        yield url


@contextmanager
def serving(name: str, command: list[str], address: str, log: Path) -> Iterator[str]:
    """Run a program of Prometheus's family at an address; yields its URL once it is ready."""
    with log.open("wb") as written, subprocess.Popen(command, stdout=written, stderr=written) as process:
        try:
            _wait_until_ready(name, f"http://{address}", process, log)
            yield f"http://{address}"
        finally:
            process.terminate()
            process.wait(timeout=120)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_ready(name: str, url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx2.get(f"{url}/-/ready", trust_env=False, verify=False).status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError(f"{name} did not become ready: {log.read_text()[-2000:]}")
