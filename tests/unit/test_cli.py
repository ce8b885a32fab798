"""The `heal` command as a person uses it: what it prints, what it exits with, and never a traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import httpx2
import pytest

from tests.unit.heal_command import REPOSITORY, Heal, free_port, running_agent


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the database that the demo leaves, made once."""
    folder = tmp_path_factory.mktemp("played")
    (folder / "runbooks").symlink_to(REPOSITORY / "runbooks")
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "DATABASE_URL": "sqlite:///heal.db"}
    command = [sys.executable, "-c", "from app.cli import main; main()", "demo", "--simulated", "--fast"]
    subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    return folder


@pytest.fixture
def healed(heal: Heal, played: Path, tmp_path: Path) -> str:
    """An incident healed by the demo, in this test's database; its id."""
    for file in played.glob("heal.db*"):
        shutil.copy(file, tmp_path / file.name)
    incident_id: str = json.loads(heal("incidents", "--json").out)["items"][0]["id"]
    return incident_id


@contextmanager
def tampering(folder: Path) -> Iterator[sqlite3.Connection]:
    """The database of someone who takes its guards away first."""
    with sqlite3.connect(folder / "heal.db") as database:
        guards = database.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in guards:
            database.execute(f'DROP TRIGGER "{name}"')
        yield database


# ------------------------------------------------------------------ help, usage, settings


def test_help_names_every_command_and_the_exit_codes(heal: Heal) -> None:
    """What it can do and what its exit codes mean stands where people look first."""
    answer = heal("--help")
    assert answer.code == 0
    commands = ("run", "demo", "incidents", "show", "approvals", "approve", "deny", "doctor")
    for word in (*commands, "brake", "runbooks", "Exit codes"):
        assert word in answer.out
    for command in commands:
        told = heal(command, "--help")
        assert told.code == 0
        assert "Exit codes" in told.out


def test_version_is_the_packages(heal: Heal) -> None:
    """`--version` prints the version alone, without a command."""
    assert heal("--version").out.strip() == metadata.version("self-healing-devops-agent")


def test_the_command_line_is_light_to_import() -> None:
    """Help answers at once: no framework, driver, client or engine is loaded for it."""
    heavy = ("fastapi", "sqlalchemy", "dbos", "lightkube", "pydantic", "httpx2", "uvicorn", "app.config")
    code = f"import sys, app.cli; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("show",),
        ("incidents", "--state", "sick"),
        ("demo", "--cluster"),
        ("incidents", "--limit", "0"),
        ("approve",),
        ("approvals", "--state", "open"),
        ("brake", "on"),
    ],
)
def test_wrong_usage_exits_with_two(heal: Heal, arguments: tuple[str, ...]) -> None:
    """Usage errors and failures have different exit codes."""
    answer = heal(*arguments)
    assert answer.code == 2
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("command", [("incidents",), ("show", "x"), ("doctor",), ("demo",), ("run",)])
def test_a_wrong_setting_is_named(
    heal: Heal, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Every command says which setting is wrong, and nothing else happens."""
    monkeypatch.setenv("DRY_RUN", "perhaps")
    monkeypatch.setenv("SLO_MAX_ERROR_RATE", "7")
    answer = heal(*command)
    assert answer.code == 1
    assert "DRY_RUN" in answer.err
    assert "SLO_MAX_ERROR_RATE" in answer.err
    assert "Traceback" not in answer.err


# ------------------------------------------------------------------ incidents and show, from the file


def test_without_agent_and_database_nothing_is_created(heal: Heal, tmp_path: Path) -> None:
    """Looking creates no database; the message says what would."""
    for command in (("incidents",), ("show", "inc_" + "0" * 32)):
        answer = heal(*command)
        assert answer.code == 1
        assert "heal run" in answer.err
    assert not (tmp_path / "heal.db").exists()


def test_without_agent_and_with_a_server_database_the_agent_is_asked_for(
    heal: Heal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL is never read behind an agent's back; its password is not repeated."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://heal:s3cret@localhost/heal")
    answer = heal("incidents")
    assert answer.code == 1
    assert "--url" in answer.err
    assert "s3cret" not in answer.text


def test_a_healed_incident_is_listed_and_described(heal: Heal, healed: str) -> None:
    """After the demo the table has the incident, and its story has every stage and an intact record."""
    table = heal("incidents", "--service", "payments-api", "--environment", "sandbox", "--state", "recovered")
    assert table.code == 0
    assert "no agent answers at http://" in table.err
    assert "reading the database " in table.err
    assert "heal.db" in table.err
    for word in (healed, "payments-api in sandbox", "recovered", "bad release", "rollback done"):
        assert word in table.text
    story = heal("show", healed)
    assert story.code == 0
    order = ["observe", "diagnose", "plan", "policy", "execute", "verify", "learn", "Record intact"]
    positions = [story.text.index(word, story.text.index("Opened by")) for word in order[1:]]
    assert positions == sorted(positions)
    assert "Closed: recovered" in story.text


def test_lists_are_filtered(heal: Heal, healed: str) -> None:
    """Every filter leaves the incident in or takes it out, as it should."""
    for inside in (("--since", "1h"), ("--until", "2100-01-01T00:00:00Z"), ("--limit", "1")):
        assert healed in heal("incidents", *inside).out
    for outside in (
        ("--service", "other"),
        ("--environment", "prod"),
        ("--state", "escalated"),
        ("--until", "1h"),
        ("--since", "2100-01-01T00:00:00Z"),
    ):
        answer = heal("incidents", *outside)
        assert answer.code == 0
        assert "No incidents." in answer.out
    assert json.loads(heal("incidents", "--json", "--service", "other").out) == {"items": [], "next": None}


@pytest.mark.parametrize("when", ["yesterday", "2026-02-20T17:00:00", "5w", "-1h"])
def test_a_time_that_is_none_is_refused_with_its_fix(heal: Heal, when: str) -> None:
    """Naive times and invented units are not guessed at."""
    answer = heal("incidents", f"--since={when}")
    assert answer.code == 1
    assert "--since" in answer.err
    assert "7d" in answer.err


def test_json_is_what_the_api_answers(heal: Heal, healed: str) -> None:
    """Scripts get whole incidents, timeline with hashes included."""
    listed = json.loads(heal("incidents", "--json").out)
    assert [one["id"] for one in listed["items"]] == [healed]
    shown = json.loads(heal("show", healed, "--json").out)
    assert shown["state"] == "recovered"
    assert [action["name"] for action in shown["actions"]] == ["rollback"]
    assert len({entry["hash"] for entry in shown["timeline"]}) == len(shown["timeline"]) > 10


def test_an_unknown_incident_is_said_to_be_unknown(heal: Heal, healed: str) -> None:
    """Exit code 1 and a hint, whatever was typed for an id."""
    for wrong in ("inc_" + "0" * 32, "../etc/passwd", "nonsense"):
        answer = heal("show", wrong)
        assert answer.code == 1
        assert "heal incidents" in answer.err


def test_an_altered_record_is_not_believed(heal: Heal, healed: str, tmp_path: Path) -> None:
    """One changed sentence breaks the chain: the story says so, and so does the exit code (promise 12)."""
    with tampering(tmp_path) as database:
        changed = database.execute(
            "UPDATE timeline SET message = 'Nobody did anything.' WHERE message LIKE 'rollback done%'"
        )
        assert changed.rowcount == 1
    answer = heal("show", healed)
    assert answer.code == 1
    assert "RECORD ALTERED" in answer.out
    assert heal("show", healed, "--json").code == 1


def test_a_dry_run_of_the_demo_proposes(heal: Heal) -> None:
    """The demo's dry run ends as proposed and says that the fault is still there."""
    answer = heal("demo", "--simulated", "--fast", "--dry-run")
    assert answer.code == 0
    assert "SIMULATION" in answer.text
    assert "Closed: proposed" in answer.text
    assert "still fails" in answer.text


def test_terminal_control_characters_never_reach_the_terminal(
    heal: Heal, healed: str, tmp_path: Path
) -> None:
    """Text from outside is printed as text: no escape sequence, no markup."""
    with tampering(tmp_path) as database:
        database.execute(
            "UPDATE timeline SET message = ? WHERE sequence = 0", ("\x1b[2J[red]gone[/red]\r\n\x07",)
        )
    answer = heal("show", healed)
    assert "[red]gone[/red]" in answer.text
    assert "\x1b[2J" not in answer.out
    assert "\x07" not in answer.out


# ------------------------------------------------------------------ runbooks


def test_the_shipped_runbooks_are_valid(heal: Heal) -> None:
    """Each is listed with its version and hash."""
    answer = heal("runbooks", "check")
    assert answer.code == 0
    assert "roll-back-bad-release@2" in answer.out
    assert re.search(r"Valid: (\d+) runbooks in .*, (\d+) examples tested", answer.out)


def test_a_wrong_runbook_is_reported_with_file_and_line(heal: Heal, tmp_path: Path) -> None:
    """A shell string is refused where it stands."""
    folder = tmp_path / "mine"
    folder.mkdir()
    text = (REPOSITORY / "runbooks" / "restart-leaking-service.yaml").read_text()
    (folder / "mine.yaml").write_text(text.replace("action: restart", "action: kubectl delete pod"))
    answer = heal("runbooks", "check", str(folder))
    assert answer.code == 1
    assert re.search(r"mine\.yaml:\d+", answer.err)
    assert heal("runbooks", "check", str(tmp_path / "nowhere")).code == 1


def test_a_services_file_is_checked(heal: Heal, tmp_path: Path) -> None:
    """Each service on a line with what is set; a mistake with file and line; without a file, usage."""
    file = tmp_path / "services.yaml"
    file.write_text(
        "schema: 1\nservices:\n  prod/shop: {owner: team-checkout, autonomy: observe,"
        " dependencies: [cart, shared/main-db]}\n"
    )
    answer = heal("services", "check", str(file))
    assert answer.code == 0
    assert "owner team-checkout; calls cart, shared/main-db; autonomy observe" in answer.out
    file.write_text(file.read_text().replace("observe", "watch"))
    answer = heal("services", "check", str(file))
    assert answer.code == 1
    assert "services.yaml:3:" in answer.err
    assert heal("services", "check").code == 2


# ------------------------------------------------------------------ a running agent


def test_a_running_agent_is_asked_over_http(heal: Heal, healed: str, tmp_path: Path) -> None:
    """`heal run` serves what the demo left, and `--url` reads it from there."""
    with running_agent(tmp_path) as url:
        second = heal("run")
        assert (second.code, "heal: another agent runs on" in second.err) == (1, True), second
        (tmp_path / "elsewhere").mkdir()
        os.chdir(tmp_path / "elsewhere")
        listed = heal("incidents", "--url", url)
        assert (listed.code, listed.err) == (0, "")
        assert healed in listed.out
        story = heal("show", healed, "--url", url)
        assert story.code == 0
        assert "Record intact" in story.text
        assert json.loads(heal("show", healed, "--url", url, "--json").out)["id"] == healed
        assert heal("show", "inc_" + "0" * 32, "--url", url).code == 1
        refused = heal("incidents", "--url", url, "--service", "Not A Label")
        assert refused.code == 1
        assert "422" in refused.err


def test_an_agent_that_does_not_answer_at_its_address_is_an_error(heal: Heal, healed: str) -> None:
    """With `--url` the file is never read instead."""
    for url in (f"http://127.0.0.1:{free_port()}", "http://", "nonsense", "ftp://127.0.0.1"):
        answer = heal("incidents", "--url", url)
        assert answer.code == 1
        assert healed not in answer.out
        assert "Traceback" not in answer.err


def test_a_dry_run_without_a_cluster_is_proposed_and_not_rehearsed(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rehearsal is what an API server answered: without one the action is only proposed."""
    monkeypatch.setenv("COLUMNS", "200")
    release = {
        "service": "shop",
        "environment": "prod",
        "version": "1.15.0",
        "status": "failed",
        "timestamp": "2026-02-20T17:00:00Z",
    }
    sample = {
        "service": "shop",
        "environment": "prod",
        "error_rate": 0.13,
        "crash_looping": True,
        "timestamp": "2026-02-20T17:01:00Z",
    }
    with running_agent(tmp_path) as url:
        httpx2.post(f"{url}/events/deploy", json=release).raise_for_status()
        httpx2.post(f"{url}/events/metric", json=sample).raise_for_status()
        httpx2.post(f"{url}/agent/run-once?service=shop", timeout=60).raise_for_status()
        listed = heal("incidents", "--url", url).text
        [one] = json.loads(heal("incidents", "--url", url, "--json").out)["items"]
        story = heal("show", one["id"], "--url", url).text
    assert "rollback proposed (dry run)" in listed
    assert "rehearsed" not in listed
    assert "deny; rehearsed" not in story
    assert "Dry run, nothing was written. Proposed: rollback denied by policy." in story


def test_a_shown_incident_says_whether_anchors_were_compared(
    heal: Heal, healed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None configured, none written yet, and how many."""
    assert "Anchors: none configured (AUDIT_ANCHOR_DIR is not set)" in heal("show", healed).text
    monkeypatch.setenv("AUDIT_ANCHOR_DIR", str(tmp_path / "anchors"))
    assert "yet; only the chain was checked" in heal("show", healed).text
    assert heal("audit", "anchor").code == 0
    assert "Anchors: compared with 1 anchor in" in heal("show", healed).text
