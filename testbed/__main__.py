"""`python -m testbed up | down | status | build`: the test bed on the command line.

`up` stays in the foreground until Ctrl-C or `down`, and leaves the settings that
point the agent at the bed in `.testbed/env`.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import secrets
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from testbed import TestbedError, rbac
from testbed.binaries import ensure_binaries
from testbed.debian import ensure_packages
from testbed.waiting import NotYet, wait_for
from testbed.world import TestBed

FOLDER = Path(".testbed")
SERVICE = "payments-api"
ENVIRONMENT = "prod"
_WATCH_SECONDS = 2.0
_LOAD_SECONDS = 12 * 3600
_AGENT_URL = os.environ.get("TESTBED_AGENT_URL", "http://127.0.0.1:8000")


class _Stop(Exception):
    """A person asked the bed to go down."""


def main() -> int:
    """The exit code: 0 when all went well, 1 with a message on stderr otherwise."""
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start everything and stay until Ctrl-C")
    commands.add_parser("down", help="end the bed that runs in this folder")
    commands.add_parser("status", help="tell whether a bed runs here, and where")
    commands.add_parser("build", help="have programs and packages at hand, and start nothing")
    command = parser.parse_args().command
    try:
        return {"up": up, "down": down, "status": status, "build": build}[command]()
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1


def build() -> int:
    """Everything that takes long the first time."""
    ensure_packages()
    print(f"control plane: {ensure_binaries().folder}")
    return 0


def up() -> int:
    """Start the bed with one healthy sample service under load; stay, and watch that no part dies."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "pid").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held for as long as the bed runs
        except BlockingIOError:
            text = f"a bed runs here already (pid {_running()}); `python -m testbed down` ends it"
            raise TestbedError(text) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        _set_handlers(_on_signal)
        try:
            build()
            with TestBed() as bed:
                settings = _furnish(bed)
                _write_env(settings)
                _tell(settings)
                while True:
                    time.sleep(_WATCH_SECONDS)
                    bed.check()
        except _Stop:
            print("\ntestbed: down")
            return 0
        finally:
            (FOLDER / "env").unlink(missing_ok=True)


def down() -> int:
    """End the bed of this folder and wait until it is gone."""
    pid = _running()
    if pid is None:
        print("testbed: no bed runs here")
        return 0
    os.kill(pid, signal.SIGTERM)
    wait_for(
        f"the bed (pid {pid}) to end",
        lambda: NotYet("still running") if _running() else True,
        timeout_seconds=30,
    )
    print("testbed: down")
    return 0


def status() -> int:
    """0 when a bed runs here."""
    pid = _running()
    if pid is None:
        print("testbed: no bed runs here; `make testbed` starts one")
        return 1
    env = FOLDER / "env"
    print(f"testbed: pid {pid}" + ("" if env.exists() else ", starting"))
    if env.exists():
        print(env.read_text(), end="")
    return 0


def _furnish(bed: TestBed) -> dict[str, str]:
    """A service to look at, alerts towards an agent on its default port; the agent's settings."""
    bed.start_monitoring()
    namespace = bed.create_namespace(ENVIRONMENT)
    bed.deploy(namespace, SERVICE, f"registry.example/{SERVICE}:1.14.2", progress_deadline_seconds=30)
    bed.wait_rolled_out(namespace, SERVICE)
    bed.start_load(namespace, rps=10, seconds=_LOAD_SECONDS)
    token = secrets.token_urlsafe(16)
    bed.monitoring.route_alerts_to(f"{_AGENT_URL}/webhooks/alertmanager", token)
    return {
        "KUBECONFIG": str(bed.control_plane.kubeconfig(rbac.AGENT)),
        "PROMETHEUS_URL": bed.monitoring.prometheus_url,
        "PROMETHEUS_WINDOW": "10s",
        "PROMETHEUS_POLL_SECONDS": "2",
        "ALERTMANAGER_TOKEN": token,
        "TESTBED_ADMIN_KUBECONFIG": str(bed.control_plane.kubeconfig(rbac.ADMIN)),
        "TESTBED_ALERTMANAGER_URL": bed.monitoring.alertmanager_url,
        "TESTBED_SERVICE_URL": bed.service_url(namespace, SERVICE),
        "TESTBED_AUDIT_LOG": str(bed.control_plane.audit_log),
    }


def _write_env(settings: Mapping[str, str]) -> None:
    """In the form that a shell and python-dotenv both read; its owner's alone, for the token in it."""
    unfinished = FOLDER / "env.new"
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.writelines(f"{key}={value}\n" for key, value in settings.items())
    unfinished.replace(FOLDER / "env")


def _tell(settings: Mapping[str, str]) -> None:
    print("\nThe test bed is up. Settings for the agent, also in .testbed/env:\n")
    for key, value in settings.items():
        print(f"  {key}={value}")
    print(
        f"\n{SERVICE} in {ENVIRONMENT} serves healthy traffic. Point the agent at it:\n\n"
        "  set -a; source .testbed/env; set +a; make run\n\n"
        "Ctrl-C ends the bed.",
        flush=True,
    )


def _running() -> int | None:
    """The pid of this folder's bed; a dead one leaves a file without a lock."""
    try:
        with (FOLDER / "pid").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
    except FileNotFoundError:
        pass
    return None


def _on_signal(_number: int, _frame: FrameType | None) -> None:
    """Once: a second Ctrl-C must not interrupt the ending that the first one began."""
    _set_handlers(signal.SIG_IGN)
    raise _Stop


def _set_handlers(handler: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)


if __name__ == "__main__":
    raise SystemExit(main())
