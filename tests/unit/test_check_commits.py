"""Commit messages are checked: `area: what`, short, imperative, in history and by git's hook."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from scripts import check_commits
from scripts.check_commits import ROOT, main, messages, problems

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


@pytest.mark.parametrize(
    "message",
    [
        "intake: refuse signals from the future",
        "ci, docs: print how long each part takes",
        "app/store: address a race between two workers\n\nBoth read before either wrote.\n",
        "lint: embed the list of words\n# a comment of git's",
        "api: process one entry at a time",
        "e2e: bring the bed up once",
        "Merge branch 'ci'",
        'Revert "intake: refuse signals from the future"',
        f"area: {'x' * 66}",
    ],
)
def test_a_good_message_passes(message: str) -> None:
    """With and without a body, an area of several words, and what git writes itself."""
    assert list(problems(message)) == []


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("", "is not `area: what`"),
        ("Refuse signals from the future", "is not `area: what`"),
        ("Intake: refuse signals", "is not `area: what`"),
        ("intake:refuse signals", "is not `area: what`"),
        ("intake: Refuse signals", "lower-case"),
        ("intake: refused signals", "`refused` is not an imperative"),
        ("intake: refusing signals", "`refusing` is not an imperative"),
        ("intake: refuses signals", "`refuses` is not an imperative"),
        ("intake: the signals are refused", "`the` is not an imperative"),
        ("intake: refuse signals.", "full stop"),
        (f"area: {'x' * 67}", "73 characters"),
        ("intake: refuse signals\nfrom the future", "second line"),
    ],
)
def test_a_bad_message_is_named_with_its_fault(message: str, said: str) -> None:
    """Each rule alone."""
    assert [problem for problem in problems(message) if said in problem]


def test_the_hook_checks_the_message_in_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As git's commit-msg hook: the path of the message, and an exit code."""
    message = tmp_path / "COMMIT_EDITMSG"
    message.write_text("intake: refuse signals\n")
    assert main([str(message)]) == 0
    message.write_text("Refused signals\n")
    assert main([str(message)]) == 1
    assert "Refused signals\n  the subject is not" in capsys.readouterr().err


@needs_git
def test_history_is_checked_from_the_commit_on_from_which_the_rule_holds(tmp_path: Path) -> None:
    """Earlier commits do not count; later ones do, with their bodies."""
    first = _commit(tmp_path, "Whatever it was")
    second = _commit(tmp_path, "intake: refuse signals\n\nThey come from the future.")
    found = messages(tmp_path, after=first)
    assert found == {second: "intake: refuse signals\n\nThey come from the future.\n"}


@needs_git
@pytest.mark.parametrize("history", [True, False], ids=["shallow", "no repository"])
def test_where_the_history_is_not_there_nothing_is_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], history: bool
) -> None:
    """A shallow clone does not hold the commit, and an export holds none."""
    if history:
        _commit(tmp_path, "Whatever it was")
    else:
        monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setattr(check_commits, "ROOT", tmp_path)
    assert messages(tmp_path) is None
    assert main([]) == 0
    assert "not checked" in capsys.readouterr().out


def test_a_machine_without_git_checks_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Git is no requirement for the tests."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert messages(ROOT) is None


def test_the_hook_is_configured() -> None:
    """pre-commit installs it beside the checks of the code."""
    configured = (ROOT / ".pre-commit-config.yaml").read_text()
    assert "stages: [commit-msg]" in configured
    assert "default_install_hook_types: [pre-commit, commit-msg]" in configured


def _commit(folder: Path, message: str) -> str:
    """Commit nothing under a message; the commit's hash."""
    who = ("-c", "user.name=heal", "-c", "user.email=heal@example.org", "-c", "commit.gpgsign=false")

    def git(*arguments: str) -> str:
        command = ["git", *who, "-c", f"core.hooksPath={folder}", *arguments]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    return git("rev-parse", "HEAD")
