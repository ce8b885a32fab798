"""Runs the commands of the README in fresh clones and checks their documented results.

The commands are read from the README itself, so that the two cannot differ: a
block marked `<!-- run: NAME -->` is run unchanged, on a free port. Called by
`.ci/run`; alone as `python -m scripts.check_readme`. Needs only Python.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.settings import EXAMPLE, documented

ROOT = Path(__file__).resolve().parent.parent
_BLOCK = re.compile(r"<!-- run: ([a-z-]+) -->\n```sh\n(.*?)```", re.DOTALL)
_PORT_IN_README = "localhost:8000"
_READY_WITHIN_SECONDS = 900.0
"""Installs everything on a slow connection, too."""

Json = dict[str, Any]


class Broken(Exception):
    """A documented command or result of the README is wrong."""


def blocks(readme: str) -> dict[str, str]:
    """The marked blocks of the README by name."""
    return dict(_BLOCK.findall(readme))


def main() -> int:
    told = blocks((ROOT / "README.md").read_text())
    made = told["make"].splitlines()
    start, *_ = (line.partition("#")[0].strip() for line in made)
    ways = {"quickstart": told["quickstart"], "make": start}
    try:
        for name, commands in ways.items():
            began = time.monotonic()
            with fresh_clone() as clone, served(clone, commands) as port:
                check_story(port, told["story"])
            print(f"README: the {name} way works ({time.monotonic() - began:.0f} s from a clean clone)")
    except Broken as broken:
        print(f"README: {broken}", file=sys.stderr)
        return 1
    return 0


@contextmanager
def fresh_clone() -> Iterator[Path]:
    """What is committed, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="readme-") as folder:
        clone = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        yield clone


@contextmanager
def served(clone: Path, commands: str) -> Iterator[int]:
    """Runs commands of which the last one serves, until it is ready; ends all they started afterwards."""
    *before, last = commands.strip().splitlines()
    port = free_port()
    log = clone / "readme-check.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["bash", "-ec", "\n".join([*before, f"exec {last}"])],
            cwd=clone,
            env=newcomer_environment(port),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, port)
        yield port
    except (Broken, LookupError, OSError, TypeError, ValueError, subprocess.SubprocessError) as error:
        said = "\n".join(log.read_text(errors="replace").splitlines()[-40:])
        raise Broken(f"{error!r} after\n{commands.strip()}\nwhich said\n{said}") from error
    finally:
        end(process)


def newcomer_environment(port: int) -> dict[str, str]:
    """This environment without anything that belongs to a virtual environment or configures the agent."""
    ours = {setting.name for setting in documented(EXAMPLE.read_text())} | {
        "VIRTUAL_ENV",
        "MAKEFLAGS",
        "MAKELEVEL",
    }
    env = {name: value for name, value in os.environ.items() if name.upper() not in ours}
    active = os.environ.get("VIRTUAL_ENV")
    if active:
        env["PATH"] = os.pathsep.join(p for p in env["PATH"].split(os.pathsep) if not p.startswith(active))
    return {**env, "PORT": str(port), "UVICORN_PORT": str(port)}


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _READY_WITHIN_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise Broken(f"the commands ended with {process.returncode} before anything was served")
        if status(port, "/readyz") == 200:
            return
        time.sleep(0.2)
    raise Broken(f"nothing was ready within {_READY_WITHIN_SECONDS:.0f} s")


def check_story(port: int, commands: str) -> None:
    """Plays the README's curl lines and checks every answer."""
    here = commands.replace(_PORT_IN_README, f"localhost:{port}")
    played = subprocess.run(["bash", "-ec", here], capture_output=True, text=True, timeout=60, check=True)
    deploy, metric, pass_made, listed = read_documents(played.stdout)
    for name, answer in (("deploy", deploy), ("metric", metric)):
        expect(answer.get("disposition") in ("opened", "joined"), f"the {name} event was {answer}")
        shown = get(port, f"/signals/{answer['signal_id']}")
        expect(shown["incident_id"] == listed["items"][0]["id"], f"its signal shows {shown}")
    expect(bool(pass_made["steps"]), f"run-once did nothing: {pass_made}")
    expect(
        set(listed) == {"items", "next"} and len(listed["items"]) == 1, f"GET /incidents answered {listed}"
    )
    check_incident(get(port, f"/incidents/{listed['items'][0]['id']}"))
    for path in ("/", "/docs", "/healthz"):
        expect(status(port, path) == 200, f"GET {path} answered {status(port, path)}")


def check_incident(incident: Json) -> None:
    """Triggers, diagnosis, plan, a denied rollback, its dry-run outcome and the whole timeline."""
    wanted = {"deploy_failed", "high_error_rate", "high_latency", "crash_loop"}
    expect("deploy_failed" in incident["triggers"], f"triggers are {incident['triggers']}")
    expect(set(incident["triggers"]) <= wanted, f"triggers are {incident['triggers']}")
    diagnosis, plan = incident["diagnosis"], incident["plan"]
    expect(
        diagnosis["cause"] == "bad_release" and bool(diagnosis["evidence"]), f"the diagnosis is {diagnosis}"
    )
    expect(bool(plan["runbook"]) and bool(plan["hash"]) and bool(plan["actions"]), f"the plan is {plan}")
    action = incident["actions"][0]
    expect((action["name"], action["risk"]) == ("rollback", "high"), f"the first action is {action}")
    expect(action["decision"] == "deny", f"the decision is {action}")
    expect(any("high risk" in reason for reason in action["reasons"]), f"the reasons are {action['reasons']}")
    expect(action["dry_run"] and action["outcome"] == "rehearsed", f"the outcome is {action}")
    stages = [entry["stage"] for entry in incident["timeline"]]
    expect(
        {"observe", "diagnose", "plan", "policy", "execute"} <= set(stages), f"the timeline shows {stages}"
    )
    expect(all(entry["hash"] for entry in incident["timeline"]), "an entry of the timeline has no hash")


def expect(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)


def read_documents(text: str) -> list[Json]:
    """The JSON documents that a series of curl commands printed one after the other."""
    decoder, found, at = json.JSONDecoder(), [], 0
    text = text.strip()
    while at < len(text):
        document, end_of_it = decoder.raw_decode(text, at)
        found.append(document)
        at = end_of_it + len(text[end_of_it:]) - len(text[end_of_it:].lstrip())
    return found


def get(port: int, path: str) -> Json:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
        answer: Json = json.load(response)
    return answer


def status(port: int, path: str) -> int | None:
    """The status of a GET; None while the port has no listener."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends the session that the commands run in, politely and then for good."""
    for sent in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sent)
            process.wait(timeout=20)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


if __name__ == "__main__":
    sys.exit(main())
