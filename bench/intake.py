"""Intake rate of events, beside that of alerts in Alertmanager: one client, one machine, one run.

`make bench` calls it. It prints ratios and asserts nothing about them: the figures
depend on the machine, the pairing makes them comparable. The agent acknowledges after
the commit to disk, Alertmanager keeps alerts in memory. After the load it checks that
every acknowledged event is on record, also after `kill -9` in the middle. Bounded in
requests and in time, on loopback only. `--json FILE` writes the figures.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.crash import lost_after_kill

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(__file__).with_suffix(".lua")
MOST_REQUESTS = 150_000
"""A round ends here even before its time is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One shape of load."""

    entries: int
    """In one body."""
    connections: int
    body: str = "samples"
    """What the agent gets: samples, or deliveries of Alertmanager."""
    breaching: int = 0
    """Samples of ten thousand that report a crash loop."""

    @property
    def name(self) -> str:
        breaching = f", {self.breaching / 100:g} % breaching" if self.breaching else ""
        return f"{self.body}, {self.entries} a body{breaching}"


SHAPES = (
    Shape(entries=1, connections=32),
    Shape(entries=1, connections=128),
    Shape(entries=1, connections=32, breaching=100),
    Shape(entries=1, connections=32, breaching=1000),
    Shape(entries=100, connections=4),
    Shape(entries=100, connections=32),
    Shape(entries=100, connections=4, breaching=100),
    Shape(entries=10, connections=32, body="deliveries"),
)


class BenchError(Exception):
    """The comparison cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one run of wrk measured."""

    requests: int
    requests_per_second: float
    p99_ms: float
    refused: int
    """Answers other than 2xx and 3xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server under load."""

    name: str
    url: str
    paths: dict[str, str]
    """By the kind of body that the agent gets."""
    alerts: bool = False
    """It gets alerts whatever the agent gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long to measure."""

    rounds: int
    seconds: int


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=int, default=5)
    arguments.add_argument("--json", type=Path)
    arguments.add_argument("--quickstart", action="store_true", help="under uvicorn instead of `heal run`")
    given = arguments.parse_args()
    limits = Limits(rounds=given.rounds, seconds=given.seconds)
    missing = [name for name in ("wrk", "prometheus-alertmanager") if shutil.which(name) is None]
    if missing:
        print(f"{' and '.join(missing)} not found: `make bench` installs what it needs", file=sys.stderr)
        return 1
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        peers = (
            running.enter_context(agent(folder, quickstart=given.quickstart)),
            running.enter_context(alertmanager(folder)),
            running.enter_context(noop(folder)),
        )
        acknowledged = 0
        figures = []
        for shape in SHAPES:
            rounds = compare(peers, shape, limits)
            acknowledged += shape.entries * sum(one.requests for one in rounds[0])
            figures.append(_figures(shape, rounds))
        on_record = accounted(peers[0].url)
    report = {"figures": figures, "acknowledged": acknowledged, **on_record, **lost_after_kill()}
    _print(report, limits)
    if given.json is not None:
        given.json.write_text(json.dumps(report, indent=2) + "\n")
    whole = report["adds_up"] and report["accepted"] >= acknowledged and not report["lost_after_kill"]
    return 0 if whole else 1


def compare(peers: Sequence[Peer], shape: Shape, limits: Limits) -> tuple[list[Round], ...]:
    """Rounds of each peer in turn, so that a slow moment of the machine meets all of them."""
    rounds: tuple[list[Round], ...] = tuple([] for _ in peers)
    for number in range(limits.rounds):
        for peer, measured in zip(peers, rounds, strict=True):
            measured.append(load(peer, shape, number, limits.seconds))
            rate = measured[-1].requests_per_second
            print(f"{peer.name}, {shape.name}: {rate:,.0f} requests/s", file=sys.stderr)
            if measured[-1].refused:
                raise BenchError(f"{peer.name} refused {measured[-1].refused} requests")
    return rounds


def load(peer: Peer, shape: Shape, number: int, seconds: int) -> Round:
    """One bounded run of wrk."""
    limits = ["-t1", f"-c{shape.connections}", f"-d{seconds}s", f"--timeout={seconds * 2}s", "--latency"]
    body = "alerts" if peer.alerts else shape.body
    bodies = [body, str(shape.entries), str(number), str(MOST_REQUESTS), str(shape.breaching)]
    url = peer.url + peer.paths[shape.body]
    done = subprocess.run(
        ["wrk", *limits, "-s", str(SCRIPT), url, "--", *bodies],
        capture_output=True,
        text=True,
        timeout=seconds * 20,
        check=True,
    )
    return parse(done.stdout)


def parse(said: str) -> Round:
    """The figures in wrk's report."""

    def figure(pattern: str) -> re.Match[str]:
        found = re.search(pattern, said)
        if found is None:
            raise BenchError(f"wrk reported no {pattern!r}:\n{said}")
        return found

    p99 = figure(r"99%\s+([\d.]+)(us|ms|s)\b")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", said)
    return Round(
        requests=int(figure(r"(\d+) requests in ")[1]),
        requests_per_second=float(figure(r"Requests/sec:\s+([\d.]+)")[1]),
        p99_ms=float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]],
        refused=int(refused[1]) if refused else 0,
    )


def accounted(url: str) -> dict[str, Any]:
    """What the agent has on record, by its own audit."""
    with urllib.request.urlopen(f"{url}/audit/signals", timeout=60) as response:
        found = json.load(response)
    return {"accepted": found["accepted"], "adds_up": found["adds_up"]}


def _figures(shape: Shape, rounds: Sequence[list[Round]]) -> dict[str, Any]:
    ours, theirs, nothing = (
        shape.entries * median(one.requests_per_second for one in measured) for measured in rounds
    )
    return {
        "shape": shape.name,
        "connections": shape.connections,
        "agent": round(ours),
        "alertmanager": round(theirs),
        "noop": round(nothing),
        "ratio": round(ours / theirs, 3),
        "p99_ms": median(one.p99_ms for one in rounds[0]),
        "p99_ms_alertmanager": median(one.p99_ms for one in rounds[1]),
    }


def _print(report: dict[str, Any], limits: Limits) -> None:
    table = Table(title=f"Intake, medians of {limits.rounds} alternating rounds, entries per second")
    for column in ("load", "connections", "agent", "Alertmanager", "no-op", "ratio", "p99", ""):
        table.add_column(column, justify="left" if column in {"load", ""} else "right")
    for one in report["figures"]:
        bar = "#" * round(10 * min(one["ratio"], 2.0))
        rates = (f"{one[name]:,}" for name in ("agent", "alertmanager", "noop"))
        table.add_row(
            one["shape"],
            str(one["connections"]),
            *rates,
            f"{one['ratio']:.3f}",
            f"{one['p99_ms']:.1f} ms",
            bar,
        )
    Console(width=120).print(table)
    print("The agent's entries are on disk when it answers, Alertmanager's are in memory.")
    print(
        f"{report['acknowledged']:,} entries acknowledged, {report['accepted']:,} on record; "
        f"of {report['acknowledged_before_kill']:,} events acknowledged before kill -9, "
        f"{report['lost_after_kill']} are lost."
    )


@contextmanager
def agent(folder: Path, *, quickstart: bool = False) -> Iterator[Peer]:
    """The agent on its embedded default: SQLite, one process, dry run."""
    port = free_port()
    program = ["-c", "from app.cli import main; main()", "run"]
    if quickstart:
        program = ["-m", "uvicorn", "app.main:app", "--no-access-log"]
    command = [sys.executable, *program, "--port", str(port)]
    with _server(command, f"http://127.0.0.1:{port}/readyz", folder, agent_environment(folder)):
        yield Peer(
            name="agent",
            url=f"http://127.0.0.1:{port}",
            paths={"samples": "/events/metric", "deliveries": "/webhooks/alertmanager"},
        )


def agent_environment(folder: Path) -> dict[str, str]:
    """What an agent needs to run over a database in this folder."""
    return {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder / 'bench.db'}",
        "RUNBOOKS_DIR": str(ROOT / "runbooks"),
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "warning",
    }


@contextmanager
def noop(folder: Path) -> Iterator[Peer]:
    """A server of the same stack that reads bodies and does nothing with them."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.noop:app", "--port", str(port), "--no-access-log"]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    with _server(command, f"http://127.0.0.1:{port}/", folder, env):
        yield Peer(name="no-op", url=f"http://127.0.0.1:{port}", paths={"samples": "/", "deliveries": "/"})


@contextmanager
def alertmanager(folder: Path) -> Iterator[Peer]:
    """Debian's Alertmanager, alone, with a receiver that sends no notification."""
    port = free_port()
    config = folder / "alertmanager.yml"
    config.write_text("route: {receiver: nobody}\nreceivers: [{name: nobody}]\n")
    command = [
        "prometheus-alertmanager",
        f"--config.file={config}",
        f"--storage.path={folder / 'alertmanager'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--cluster.listen-address=",
        "--log.level=error",
    ]
    url, path = f"http://127.0.0.1:{port}", "/api/v2/alerts"
    with _server(command, f"{url}/-/ready", folder, dict(os.environ)):
        yield Peer(name="Alertmanager", url=url, paths={"samples": path, "deliveries": path}, alerts=True)


@contextmanager
def _server(command: list[str], ready: str, folder: Path, env: dict[str, str]) -> Iterator[None]:
    log = folder / f"server-{len([*folder.iterdir()])}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=output, stderr=output)
    try:
        _wait(lambda: _answers(ready), process, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise BenchError(f"{process.args!r} did not come up:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def free_port() -> int:
    """A loopback port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
