"""Intake rate of events, beside that of alerts in Alertmanager: one client, one machine, one run.

`make bench` calls it. It prints ratios and asserts nothing: the figures depend
on the machine, the pairing makes them comparable. The agent acknowledges after the
commit to disk, Alertmanager keeps alerts in memory. Bounded in requests and in
time, on loopback only.
"""

from __future__ import annotations

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

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = Path(__file__).with_suffix(".lua")
SIZES = {1: 32, 100: 4}
"""Entries in a body, and how many connections send such bodies at once."""
SECONDS = 5
ROUNDS = 3
MOST_REQUESTS = 150_000
"""A round ends here even before its time is over."""


class BenchError(Exception):
    """The comparison cannot be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What one run of wrk measured."""

    requests_per_second: float
    p99_ms: float
    refused: int
    """Answers other than 2xx and 3xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """One server under load, and the kind of body it takes."""

    name: str
    url: str
    body: str


def main() -> int:
    missing = [name for name in ("wrk", "prometheus-alertmanager") if shutil.which(name) is None]
    if missing:
        print(f"{' and '.join(missing)} not found: `make bench` installs what it needs", file=sys.stderr)
        return 1
    table = Table(title=f"Intake, medians of {ROUNDS} alternating rounds")
    for column in (
        "entries in a body",
        "connections",
        "agent",
        "Alertmanager",
        "ratio",
        "p99 agent",
        "p99 Alertmanager",
    ):
        table.add_column(column, justify="right")
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        peers = (running.enter_context(agent(folder)), running.enter_context(alertmanager(folder)))
        for entries in SIZES:
            ours, theirs = compare(peers, entries)
            table.add_row(*_row(entries, ours, theirs))
    Console(width=110).print(table)
    print("Entries per second. The agent's are on disk when it answers, Alertmanager's are in memory.")
    return 0


def compare(peers: Sequence[Peer], entries: int) -> tuple[list[Round], ...]:
    """Rounds of each peer in turn, so that a slow moment of the machine meets both."""
    rounds: tuple[list[Round], ...] = tuple([] for _ in peers)
    for number in range(ROUNDS):
        for peer, measured in zip(peers, rounds, strict=True):
            measured.append(load(peer, entries, number))
            print(f"{peer.name}, {entries} per body: {measured[-1].requests_per_second:,.0f} requests/s")
            if measured[-1].refused:
                raise BenchError(f"{peer.name} refused {measured[-1].refused} requests")
    return rounds


def load(peer: Peer, entries: int, number: int) -> Round:
    """One bounded run of wrk."""
    limits = ["-t1", f"-c{SIZES[entries]}", f"-d{SECONDS}s", f"--timeout={SECONDS}s", "--latency"]
    bodies = [peer.body, str(entries), str(number), str(MOST_REQUESTS)]
    done = subprocess.run(
        ["wrk", *limits, "-s", str(SCRIPT), peer.url, "--", *bodies],
        capture_output=True,
        text=True,
        timeout=SECONDS * 10,
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
        requests_per_second=float(figure(r"Requests/sec:\s+([\d.]+)")[1]),
        p99_ms=float(p99[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99[2]],
        refused=int(refused[1]) if refused else 0,
    )


def _row(entries: int, ours: list[Round], theirs: list[Round]) -> tuple[str, ...]:
    rates = [entries * median(one.requests_per_second for one in rounds) for rounds in (ours, theirs)]
    tails = [median(one.p99_ms for one in rounds) for rounds in (ours, theirs)]
    return (
        str(entries),
        str(SIZES[entries]),
        *(f"{rate:,.0f}" for rate in rates),
        f"{rates[0] / rates[1]:.3f}",
        *(f"{tail:.1f} ms" for tail in tails),
    )


@contextmanager
def agent(folder: Path) -> Iterator[Peer]:
    """The agent on its embedded default: SQLite, one process, dry run."""
    port = free_port()
    env = {
        **os.environ,
        "DATABASE_URL": f"sqlite:///{folder / 'bench.db'}",
        "RUNBOOKS_DIR": str(ROOT / "runbooks"),
        "PYTHONPATH": str(ROOT),
        "LOG_LEVEL": "warning",
    }
    command = [sys.executable, "-m", "uvicorn", "app.main:app", "--port", str(port), "--no-access-log"]
    with _server(command, f"http://127.0.0.1:{port}/readyz", folder, env):
        yield Peer(name="agent", url=f"http://127.0.0.1:{port}/events/metric", body="samples")


@contextmanager
def alertmanager(folder: Path) -> Iterator[Peer]:
    """Debian's Alertmanager, alone, with a receiver that tells nobody."""
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
    with _server(command, f"http://127.0.0.1:{port}/-/ready", folder, dict(os.environ)):
        yield Peer(name="Alertmanager", url=f"http://127.0.0.1:{port}/api/v2/alerts", body="alerts")


@contextmanager
def _server(command: list[str], ready: str, folder: Path, env: dict[str, str]) -> Iterator[None]:
    log = folder / f"{Path(command[0]).name}.log"
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
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
