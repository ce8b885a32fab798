"""`heal policy`, and policies with a mistake at the start and at a reload."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from app.agent.models import DecisionKind
from app.config import Settings
from app.connectors.policy.bundle import shipped_policies
from app.connectors.policy.fields import input_schema
from testbed.waiting import NotYet, wait_for
from tests.unit.heal_command import REPOSITORY, Heal, agent_process
from tests.unit.test_cli import healed, played  # noqa: F401 - fixtures

ALLOW = 'package heal\n\ndecision := {"decision": "allow", "reasons": ["why not"]}\n'
BROKEN = "package heal\n\ndecision := \n"
TEST = "package heal_test\n\nimport data.heal\n\ntest_it if heal.decision.decision == "


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A custom folder of policies."""
    made = tmp_path / "own"
    made.mkdir()
    (made / "heal.rego").write_text(ALLOW)
    return made


def test_the_shipped_policies_are_valid_and_their_tests_pass(heal: Heal) -> None:
    """Without any setting, from any folder."""
    assert heal("policy", "check").code == 0
    answer = heal("policy", "test")
    assert answer.code == 0
    assert answer.out.strip().endswith("0 failed")


def test_check_reports_every_mistake_with_file_and_line(heal: Heal, folder: Path) -> None:
    """And exits with 1; a folder that is not there is one too."""
    (folder / "heal.rego").write_text(BROKEN)
    (folder / "more.rego").write_text("package heal\n\ndeny contains nope(1)\n")
    answer = heal("policy", "check", str(folder))
    assert answer.code == 1
    assert f"{folder / 'heal.rego'}:4:1: expecting expression" in answer.err
    assert "Traceback" not in answer.err
    assert heal("policy", "check", str(folder / "none")).code == 1


def test_the_folder_of_the_settings_is_checked(
    heal: Heal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """POLICY_DIR."""
    monkeypatch.setenv("POLICY_DIR", str(folder))
    assert str(folder) in heal("policy", "check").text.replace(" ", "")


@pytest.mark.parametrize(
    ("tests", "code", "words"),
    [
        (TEST + '"allow"\n', 0, "1 passed, 0 failed"),
        (TEST + '"deny"\n', 1, "FAIL data.heal_test.test_it"),
        (TEST + 'input.x\n\ntest_two if to_number("x") == 1\n', 1, "0 passed, 2 failed"),
        ("package heal_test\n", 1, "no test"),
        ("package heal_test\n\ntest_it if \n", 1, "heal_test.rego:"),
    ],
)
def test_tests_written_in_rego_are_run(heal: Heal, folder: Path, tests: str, code: int, words: str) -> None:
    """Each by its name; exit code 1 when one fails, or when there is none."""
    (folder / "heal_test.rego").write_text(tests)
    answer = heal("policy", "test", str(folder))
    assert answer.code == code
    assert words in answer.text


def test_a_failing_test_says_file_line_expected_and_got(heal: Heal, folder: Path) -> None:
    """For the statement that does not hold, with the values that its two sides had there."""
    (folder / "heal_test.rego").write_text(
        "package heal_test\n\nimport data.heal\n\n"
        'question := {"service": "shop"}\n\n'
        "test_it if {\n\tquestion.service\n"
        '\theal.decision.decision == "deny" with input as question\n}\n'
    )
    answer = heal("policy", "test", str(folder))
    assert answer.code == 1
    lines = [" ".join(line.split()) for line in answer.out.splitlines()]
    assert lines[0].startswith(f"FAIL data.heal_test.test_it: {folder / 'heal_test.rego'}:9: heal.decision")
    assert lines[1:3] == ['expected "deny"', 'got "allow"']


@pytest.mark.parametrize(
    "day", ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
)
def test_the_shipped_tests_hold_whatever_windows_are_configured(heal: Heal, tmp_path: Path, day: str) -> None:
    """They test the rules and not the team's own data.json: no weekday and no environment fails them."""
    copy = tmp_path / "copy"
    shutil.copytree(shipped_policies(), copy)
    window = {
        "name": "all day",
        "decision": "deny",
        "environments": ["prod"],
        "days": [day],
        "from": "00:00",
        "until": "24:00",
        "time_zone": "Europe/Berlin",
    }
    data = {"heal_config": {"environments": {"prod": "needs_approval"}, "windows": [window]}}
    (copy / "data.json").write_text(json.dumps(data))
    assert heal("policy", "test", str(copy)).code == 0


def test_a_configuration_that_the_shipped_policy_does_not_understand_is_refused(
    heal: Heal, tmp_path: Path
) -> None:
    """It denies everything once it is used: `check` says so before."""
    copy = tmp_path / "copy"
    shutil.copytree(shipped_policies(), copy)
    (copy / "data.json").write_text('{"heal_config": {"environments": {"prod": "maybe"}, "windows": []}}')
    answer = heal("policy", "check", str(copy))
    assert answer.code == 1
    assert "data.json: heal_config.environments has an unknown decision" in answer.text


def test_explain_reports_what_was_decided_and_by_which_rule(heal: Heal, healed: str) -> None:  # noqa: F811 - fixture
    """For each action, with the reasons on record."""
    answer = heal("policy", "explain", healed)
    assert answer.code == 0
    assert f": {DecisionKind.ALLOW}" in answer.out
    assert "because" in answer.out
    assert "decided by guardrails, policy: nothing_against" in answer.text


def test_an_unknown_incident_cannot_be_explained(heal: Heal, healed: str) -> None:  # noqa: F811 - fixture
    """Said in one line."""
    answer = heal("policy", "explain", "inc_" + "0" * 32)
    assert answer.code == 1
    assert "no incident" in answer.err


# ------------------------------------------------------------------ start and reload


def test_a_mistake_at_start_stops_it_with_file_and_line(folder: Path, tmp_path: Path) -> None:
    """`heal run` ends with 1 and one message."""
    (folder / "heal.rego").write_text(BROKEN)
    (tmp_path / "runbooks").symlink_to(REPOSITORY / "runbooks")
    command = [sys.executable, "-c", "from app.cli import main; main()", "run", "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "POLICY_DIR": str(folder)}
    started = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert started.returncode == 1
    assert f"{folder / 'heal.rego'}:4:1: expecting expression" in started.stderr
    assert "Traceback" not in started.stderr


def test_a_mistake_at_reload_is_reported_and_denies_until_it_is_fixed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGHUP reloads the policies, and the agent continues."""
    (tmp_path / "runbooks").symlink_to(REPOSITORY / "runbooks")
    monkeypatch.setenv("POLICY_DIR", str(folder))
    with agent_process(tmp_path) as (_, agent):

        def logged(words: str) -> bool | NotYet:
            text = (tmp_path / "agent.log").read_text()
            return True if words in text else NotYet(text)

        (folder / "heal.rego").write_text(BROKEN)
        agent.send_signal(signal.SIGHUP)
        wait_for("the mistake", lambda: logged(f"{folder / 'heal.rego'}:4:1"), timeout_seconds=20)
        assert "all actions denied until they are fixed and reloaded" in (tmp_path / "agent.log").read_text()
        (folder / "heal.rego").write_text(ALLOW)
        agent.send_signal(signal.SIGHUP)
        wait_for("the mended policies", lambda: logged("policies reloaded"), timeout_seconds=20)
        assert agent.poll() is None


# ------------------------------------------------------------------ packaging


def test_a_wheel_holds_every_file_of_the_shipped_policies() -> None:
    """An installed agent finds them where its environment keeps shared data."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    data_files = project["tool"]["setuptools"]["data-files"]
    patterns = data_files["share/self-healing-devops-agent/policies"]
    packed = {file for pattern in patterns for file in REPOSITORY.glob(pattern)}
    assert packed == set(shipped_policies().iterdir())


def test_a_wheel_holds_every_runbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed agent has its catalogue in any working directory; RUNBOOKS_DIR names another."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (pattern,) = project["tool"]["setuptools"]["data-files"]["share/self-healing-devops-agent/runbooks"]
    assert set(REPOSITORY.glob(pattern)) == set((REPOSITORY / "runbooks").iterdir())
    monkeypatch.chdir(tmp_path)
    assert Settings(_env_file=None).runbooks_folder == REPOSITORY / "runbooks"
    (tmp_path / "runbooks").mkdir()
    assert Settings(_env_file=None).runbooks_folder == Path("runbooks")
    chosen = Settings.model_validate({"runbooks_dir": tmp_path / "mine"})
    assert chosen.runbooks_folder == tmp_path / "mine"


def test_a_wheel_holds_the_schema_that_policies_are_checked_against() -> None:
    """The published one, where the check looks for it outside a source tree."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    data_files = project["tool"]["setuptools"]["data-files"]
    (packed,) = data_files["share/self-healing-devops-agent/docs"]
    assert json.loads((REPOSITORY / packed).read_text()) == input_schema()
