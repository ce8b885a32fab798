"""`heal bench healing`: what it prints, and how it ends when a scenario became worse."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.heal_command import REPOSITORY, Heal

SCENARIO = str(REPOSITORY / "bench" / "healing" / "registry-out-briefly.yaml")
FIGURES = {
    "scenarios",
    "right_ends",
    "wrong_actions",
    "harm_seconds",
    "escalated_rightly",
    "mttd_seconds",
    "mttr_seconds",
    "healed",
    "mttr_healed_seconds",
    "with_runbook",
    "mttr_runbook_seconds",
    "actions_per_incident",
    "per_scenario",
}


def test_json_holds_the_figures_and_the_runs_of_each_agent(heal: Heal) -> None:
    """One object for each agent, with the same fields."""
    answer = heal("bench", "healing", SCENARIO, "--variants", "1", "--json")
    assert answer.code == 0
    found = json.loads(answer.out)
    assert set(found) == {"agent", "naive", "nothing"}
    for agent in found.values():
        assert set(agent) >= FIGURES
        assert agent["scenarios"] == len(agent["per_scenario"]) == 1
        assert agent["per_scenario"][0]["scenario"] == "registry-out-briefly/0"
    assert found["nothing"]["harm_seconds"] == 0
    assert found["nothing"]["per_scenario"][0]["actions"] == []


def test_a_scenario_that_became_worse_fails_the_command_by_name(heal: Heal, tmp_path: Path) -> None:
    """What was expected is compared run by run, and the table is printed all the same."""
    file = tmp_path / "expected.json"
    hoped = {"right": True, "wrong_actions": -1, "harm_seconds": 0.0}
    file.write_text(json.dumps({"registry-out-briefly/0": hoped}), encoding="utf-8")
    answer = heal("bench", "healing", SCENARIO, "--variants", "1", "--expect", str(file))
    assert answer.code == 1
    assert "Healing benchmark" in answer.out
    assert "registry-out-briefly/0" in answer.err


def test_an_unreadable_expectation_is_wrong_usage(heal: Heal, tmp_path: Path) -> None:
    """It is reported before anything is played."""
    answer = heal("bench", "healing", SCENARIO, "--expect", str(tmp_path / "absent.json"))
    assert answer.code == 2
    assert "absent.json" in answer.text
