"""CI's own checks notice what they are there to notice."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from scripts.check_readme import Broken, blocks, check_incident, newcomer_environment, read_documents
from scripts.check_tiers import main as check_tiers

REPORT = '<testsuites><testsuite><testcase classname="t" name="a"/>{}</testsuite></testsuites>'
INCIDENT: dict[str, Any] = {
    "triggers": ["deploy_failed", "crash_loop"],
    "diagnosis": {"cause": "bad_release", "evidence": ["the release came first"]},
    "plan": {"runbook": "roll-back-bad-release@2", "hash": "5b", "actions": [{"name": "rollback"}]},
    "actions": [
        {
            "name": "rollback",
            "risk": "high",
            "decision": "deny",
            "reasons": ["rollback is high risk"],
            "dry_run": True,
            "outcome": "rehearsed",
        }
    ],
    "timeline": [
        {"stage": stage, "hash": "07"} for stage in ("observe", "diagnose", "plan", "policy", "execute")
    ],
}


@pytest.mark.parametrize(
    ("case", "whole"),
    [
        ("", True),
        ('<testcase classname="t" name="b"><skipped/></testcase>', False),
        ('<testcase classname="t" name="b"><failure/></testcase>', False),
        ('<testcase classname="t" name="b"><error/></testcase>', False),
    ],
)
def test_a_tier_that_did_not_run_whole_fails(case: str, *, whole: bool, tmp_path: Path) -> None:
    """A skipped test is no better than a failed one."""
    report = tmp_path / "tier.xml"
    report.write_text(REPORT.format(case))
    assert (check_tiers([str(report)]) == 0) is whole


def test_a_tier_without_tests_fails(tmp_path: Path) -> None:
    """Neither an empty report nor a missing one is a success."""
    report = tmp_path / "tier.xml"
    report.write_text("<testsuites/>")
    assert check_tiers([str(report)]) == 1
    assert check_tiers([str(tmp_path / "missing.xml")]) == 1
    assert check_tiers([]) == 1


def test_the_promised_incident_is_accepted() -> None:
    """The incident that the README promises passes."""
    check_incident(INCIDENT)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("triggers",), ["high_latency"]),
        (("diagnosis", "cause"), "unknown"),
        (("diagnosis", "evidence"), []),
        (("plan", "actions"), []),
        (("actions", 0, "name"), "restart"),
        (("actions", 0, "decision"), "allow"),
        (("actions", 0, "reasons"), ["not today"]),
        (("actions", 0, "dry_run"), False),
        (("actions", 0, "outcome"), "done"),
        (("timeline", 3, "stage"), "plan"),
        (("timeline", 0, "hash"), ""),
    ],
)
def test_an_incident_that_breaks_the_promise_is_not(path: tuple[str | int, ...], value: object) -> None:
    """Each part of what the README promises is looked at."""
    incident = copy.deepcopy(INCIDENT)
    place: Any = incident
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(Broken):
        check_incident(incident)


def test_only_marked_blocks_are_commands() -> None:
    """A block of the README is run when it is marked, and as it stands."""
    text = "```sh\nrm -r x\n```\n\n<!-- run: story -->\n```sh\ncurl a\ncurl b\n```\n"
    assert blocks(text) == {"story": "curl a\ncurl b\n"}


def test_answers_are_distinguished() -> None:
    """Curl prints one document after the other, with or without a line between."""
    assert read_documents('{"a":1}{"b":"}{"}\n\n{"c":[]}\n') == [{"a": 1}, {"b": "}{"}, {"c": []}]


def test_a_newcomer_has_no_settings_and_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this shell has set for the agent does not reach the clone."""
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    monkeypatch.setenv("dry_run", "false")
    monkeypatch.setenv("VIRTUAL_ENV", "/somewhere/.venv")
    monkeypatch.setenv("PATH", "/somewhere/.venv/bin:/usr/bin")
    env = newcomer_environment(4711)
    assert not {"KUBECONFIG", "dry_run", "VIRTUAL_ENV"} & env.keys()
    assert env["PATH"] == "/usr/bin"
    assert env["PORT"] == env["UVICORN_PORT"] == "4711"
