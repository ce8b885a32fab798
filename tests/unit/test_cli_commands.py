"""A table of commands: what each prints, in which form, and with which exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from app.cli.commands.errors import CommandFailed
from app.cli.commands.short_ids import the_one
from app.sandbox.scenarios.playground import OFFERED
from tests.unit.heal_command import REPOSITORY, Heal

IDS = ["inc_" + "ab" * 16, "inc_" + "abcd" * 8]
CASES = REPOSITORY / "tests" / "data" / "policy-cases.json"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("runbooks", "list"), 0, "roll-back-bad-release@2"),
        (("runbooks", "list", "-o", "wide"), 0, "MIN CONFIDENCE"),
        (("runbooks", "show", "roll-back-bad-release"), 0, "rollback to=previous_healthy"),
        (("runbooks", "show", "nothing"), 1, "the catalogue has"),
        (("runbooks", "simulate", "nothing"), 1, "the sandbox offers bad-release"),
        (("config", "show", "verify_soak"), 0, "VERIFY_SOAK_SECONDS"),
        (("config", "show", "no-such-name"), 0, "No setting."),
        (("policy", "eval", "no-such-file"), 1, "No such file"),
        (("events", "send", "deploy", "-s", "a", "-e", "b", "--version", "1"), 1, "no agent answers"),
        (("events", "send", "deploy", "-s", "A B", "-e", "b", "--version", "1"), 1, "service"),
        (("events", "send", "metric", "-s", "a", "-e", "b", "--error-rate", "7"), 1, "error_rate"),
        (("events", "send", "metric"), 2, "Missing option"),
        (("incidents", "-o", "xml"), 2, "Invalid value"),
        (("stats", "--since", "soon"), 1, "--since"),
        (("stats", "--since", "1d", "--until", "2d"), 1, "--until is not later than since"),
        (("stats", "--cause", "bad luck"), 1, "--cause"),
    ],
)
def test_a_command_prints_and_ends(heal: Heal, arguments: tuple[str, ...], code: int, says: str) -> None:
    """0 for success, 1 for failure, 2 for wrong usage; never a traceback."""
    answer = heal(*arguments)
    assert answer.code == code, answer
    assert says in answer.text
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "arguments", [("runbooks", "list"), ("runbooks", "show", "roll-back-bad-release"), ("config", "show")]
)
def test_json_and_yaml_say_the_same(heal: Heal, arguments: tuple[str, ...]) -> None:
    """And nothing else is on the standard output."""
    found = json.loads(heal(*arguments, "-o", "json").out)
    assert found
    assert yaml.safe_load(heal(*arguments, "--output", "yaml").out) == found


def test_settings_are_shown_with_their_source_and_without_secrets(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in an address is no exception."""
    (tmp_path / ".env").write_text("SLO_MAX_ERROR_RATE=0.02\nALERTMANAGER_TOKEN=very-secret-token\n")
    monkeypatch.setenv("ENABLED_ACTIONS", "scale,restart")
    monkeypatch.setenv("PROMETHEUS_URL", "http://me:pass-word@prometheus:9090")
    answer = heal("config", "show", "--changed", "-o", "json")
    found = {one["name"]: (one["value"], one["source"]) for one in json.loads(answer.out)}
    assert found["SLO_MAX_ERROR_RATE"] == (0.02, ".env")
    assert found["ENABLED_ACTIONS"] == (["restart", "scale"], "environment")
    assert found["ALERTMANAGER_TOKEN"] == ("(set, not shown)", ".env")
    assert "VERIFY_SOAK_SECONDS" not in found
    assert "pass-word" not in answer.out
    assert "very-secret-token" not in answer.out


def test_a_policy_decides_on_a_document(heal: Heal, tmp_path: Path) -> None:
    """The shipped policies, and a custom folder."""
    document = tmp_path / "input.json"
    document.write_text(json.dumps(json.loads(CASES.read_text())["document"]))
    assert heal("policy", "eval", str(document)).out.splitlines()[0] in {"allow", "deny", "needs approval"}
    own = tmp_path / "own"
    own.mkdir()
    (own / "heal.rego").write_text(
        'package heal\n\ndecision := {"decision": "deny", "reasons": ["not today"]}\n'
    )
    found = json.loads(heal("policy", "eval", str(document), "--policies", str(own), "-o", "json").out)
    assert (found["decision"], found["reasons"]) == ("deny", ["not today"])
    document.write_text("[1]")
    assert heal("policy", "eval", str(document)).code == 1


def test_runbooks_are_simulated_before_they_are_approved(heal: Heal, tmp_path: Path) -> None:
    """The shipped catalogue heals a bad release; one without a rollback does not, and that is code 1."""
    answer = heal("runbooks", "simulate", "bad-release")
    assert answer.code == 0, answer
    assert "rollback of payments-api; payments-api recovered. It ended as its file says" in answer.text
    assert "Most likely bad release" in answer.text
    own = tmp_path / "own"
    own.mkdir()
    (own / "one.yaml").write_text((REPOSITORY / "runbooks" / "scale-for-surge.yaml").read_text())
    short = (OFFERED / "1-bad-release.yaml").read_text().replace("horizon: 300", "horizon: 60")
    (tmp_path / "short.yaml").write_text(short)
    answer = heal("runbooks", "simulate", "short.yaml", "--runbooks", str(own), "-q")
    assert answer.code == 1
    assert "not as its file says" in answer.text


@pytest.mark.parametrize(
    ("given", "found"),
    [("abcd", IDS[1]), ("inc_ababab", IDS[0]), ("ffff", "ffff"), (IDS[0], IDS[0])],
)
def test_the_beginning_of_an_id_names_it(given: str, found: str) -> None:
    """With or without its kind; what begins no id is left to the agent, which says that it is unknown."""
    assert the_one("inc_", given, IDS) == found


def test_a_beginning_of_several_ids_is_an_error() -> None:
    """It names them: nothing is shown or answered by chance."""
    with pytest.raises(CommandFailed, match="the beginning of 2 ids"):
        the_one("inc_", "ab", IDS)


def test_the_shell_completes_commands() -> None:
    """As `heal --install-completion` sets it up."""
    asked = {"_HEAL_COMPLETE": "complete_bash", "COMP_WORDS": "heal runbooks si", "COMP_CWORD": "2"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "heal")],
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["simulate"]
