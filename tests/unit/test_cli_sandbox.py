"""`heal sandbox`: a real process, a scenario started from another terminal, and what the commands say."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.heal_command import Heal, agent_process


@contextmanager
def sandbox_process(folder: Path) -> Iterator[str]:
    with agent_process(folder, "sandbox", "--speed", "50", "--folder", "kept") as (url, _):
        yield url


def test_a_scenario_is_started_and_followed_from_the_terminal(heal: Heal, tmp_path: Path) -> None:
    """The commands label what a sandbox answers; JSON stays JSON; the folder keeps the database."""
    with sandbox_process(tmp_path) as url:
        table = [
            (("sandbox", "list", "--url", url), 0, "bad-release", "none started yet"),
            (
                ("sandbox", "start", "bad-release", "--url", url),
                0,
                "in the environment sandbox",
                f"--url {url}",
            ),
            (("sandbox", "list", "--url", url), 0, "Started last: bad-release", "simulated seconds ago"),
            (("sandbox", "start", "nothing", "--url", url), 1, "no scenario 'nothing'", "bad-release"),
            (("incidents", "--url", url), 0, f"sandbox at {url}: simulated cluster", ""),
            (("brake", "show", "--url", url), 0, f"sandbox at {url}: simulated cluster", ""),
        ]
        for arguments, code, *words in table:
            answer = heal(*arguments)
            assert answer.code == code, answer
            assert all(word in answer.text for word in words), (arguments, answer.text)
        service = ("-s", "shop", "-e", "prod")
        deploy = ("events", "send", "deploy", *service, "--version", "2", "--status", "failed")
        identifier = json.loads(heal(*deploy, "--url", url, "-o", "json").out)["incident_id"]
        assert f"{identifier}, opened" in heal("show", identifier[:20], "--url", url).out
        for arguments in (("stats",), ("watch", "--once"), ("incidents", "-o", "yaml")):
            assert "shop" in heal(*arguments, "--url", url).out
        listed = heal("sandbox", "list", "--json", "--url", url)
        assert json.loads(listed.out)["run"]["scenario"] == "bad-release"
        assert "simulated cluster" in listed.err
    assert (tmp_path / "kept" / "heal.db").is_file()
    assert not (tmp_path / "heal.db").exists()
    log = (tmp_path / "agent.log").read_text()
    assert f"{url}/sandbox" in log
    assert f"--url {url}" in log
    assert "Traceback" not in log


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("sandbox", "--help"), 0, "No real cluster, metric source, chat or stream is connected"),
        (("sandbox", "start", "bad-release"), 1, "no sandbox answers at"),
        (("sandbox", "list"), 1, "start one with `heal sandbox`"),
        (("sandbox", "start"), 2, "Missing argument"),
        (("sandbox", "--speed", "0"), 2, "--speed"),
        (("sandbox", "--scenarios", "no-such"), 2, "no-such"),
    ],
)
def test_without_a_sandbox_the_commands_say_what_to_do(
    heal: Heal, arguments: tuple[str, ...], code: int, says: str
) -> None:
    """Wrong usage is 2, a sandbox that does not answer is 1."""
    answer = heal(*arguments)
    assert answer.code == code
    assert says in answer.text


def test_a_wrong_scenario_file_is_named_before_the_server_starts(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With file and line, as the benchmark does."""
    for name in ("SANDBOX", "SANDBOX_SCENARIOS"):  # the command sets them for its server
        monkeypatch.setenv(name, "")
    (tmp_path / "wrong.yaml").write_text("schema: 1\nid: x\n")
    answer = heal("sandbox", "--scenarios", "wrong.yaml")
    assert answer.code == 1
    assert "wrong.yaml" in answer.text
    assert "missing required field" in answer.text


def test_a_port_in_use_is_named_before_anything_starts(heal: Heal, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what to do, in place of an error of the server after the address was printed."""
    monkeypatch.setenv("SANDBOX", "")  # the command sets it for its server
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        for arguments in (("run",), ("sandbox",)):
            answer = heal(*arguments)
            assert answer.code == 1
            assert f"port {port} of 127.0.0.1 is in use" in answer.text
            assert "PORT or --port" in answer.text
            assert "SANDBOX:" not in answer.text
