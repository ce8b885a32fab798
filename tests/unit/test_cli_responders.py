"""What people do about incidents from a terminal, on a running agent and on the database."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.stories import opened
from tests.unit.heal_command import Heal, running_agent
from tests.unit.test_cli_people import in_file


def test_an_incident_is_handled_by_the_beginning_of_its_id(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the database while no agent runs; each act says where the incident stands."""
    monkeypatch.setenv("LOGNAME", "ann")
    incident_id = in_file(tmp_path, opened)
    short = incident_id[:12]
    stands = f"{incident_id} (payments-api in prod): open"
    assert heal("ack", short, "--comment", "on it").text.startswith(stands)
    assert ", owner ben." in heal("assign", short.removeprefix("inc_"), "ben").text
    assert ", owner ben." not in heal("assign", short, "-").text
    assert heal("note", short, "the provider is down").code == 0
    early = heal("hand-back", short)
    assert (early.code, "was never taken over: there is nothing to hand back" in early.text) == (1, True)
    assert "taken over by ann" in heal("take-over", short).text
    assert "taken over" not in heal("hand-back", incident_id).text
    undo = heal("undo", short, "--reason", "needed after all")
    assert (undo.code, "there is nothing to undo" in undo.text) == (1, True)
    assert "resolved by hand" in heal("resolve", short, "--reason", "cleared", "--by", "cem").text
    unknown = heal("undo", "inc_" + "0" * 32, "--reason", "needed after all")
    assert (unknown.code, "`heal incidents` lists them" in unknown.text) == (1, True)
    late = heal("ack", short)
    assert late.code == 1
    assert "has ended (resolved by hand)" in late.text
    story = heal("show", incident_id).text
    for line in ("Acknowledged by ann: on it.", "Taken over by ann.", "Resolved by hand by cem"):
        assert line in story


def test_a_running_agent_lets_go_of_an_incident(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over its API: taken over, noted and resolved by the beginning of the id."""
    monkeypatch.setenv("LOGNAME", "ann")
    incident_id = in_file(tmp_path, opened)
    with running_agent(tmp_path) as url:
        assert "taken over by ann" in heal("take-over", incident_id[:12], "--url", url).text
        assert heal("note", incident_id, "the provider is down", "--url", url).code == 0
        unknown = heal("undo", "inc_" + "0" * 32, "--reason", "needed after all", "--url", url)
        assert unknown.code == 1
        assert f"known at {url}; `heal incidents` lists them with their ids" in unknown.text
        ended = heal("resolve", incident_id[:12], "--reason", "cleared", "--url", url)
        assert "resolved by hand" in ended.text
