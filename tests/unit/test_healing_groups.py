"""The held-out groups of the healing benchmark, and the first scores that are kept of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from app.benchmarks.healing import AGENT, AGENTS, HealingResults, as_json, group_rows, read_expected
from app.benchmarks.healing_groups import (
    DEVELOPED,
    FIRST_SCORES,
    FirstScore,
    groups,
    read_first_scores,
)
from app.errors import ConfigurationError
from app.sandbox.scenarios.files import load_scenarios
from app.sandbox.scenarios.judge import Scored, judge
from tests.unit.test_healing_judge import DONE, ESCALATED, FAULT, HEALED, RECOVERED, TWIN, scenario

BENCH = Path(__file__).parent.parent.parent / "bench" / "healing"
FIRST = FirstScore(scenarios=4, right_ends=1, wrong_actions=3, control_actions=0, harm_seconds=0.0)


def scored(name: str, held_out: str | None, *, right: bool = True) -> Scored:
    run = replace(HEALED, acts=DONE)
    played = scenario(RECOVERED if right else ESCALATED)
    return Scored(
        scenario=name,
        variant=0,
        family="test",
        control=False,
        held_out=held_out,
        run=run,
        judgement=judge(played, FAULT, run, TWIN),
        answers=(),
    )


RUNS = (scored("c", "zebra"), scored("a", None), scored("d", "mixed", right=False), scored("b", None))
RESULTS = HealingResults(
    runs=tuple(dict.fromkeys(AGENTS, one) for one in RUNS), first_scores={"mixed": FIRST}
)


def test_runs_are_grouped_and_shown_beside_the_first_score() -> None:
    """What the rules were developed with comes first; a group without a first score shows none."""
    found = groups(RESULTS.of(AGENT))
    assert {name: [run.scenario for run in runs] for name, runs in found.items()} == {
        DEVELOPED: ["a", "b"],
        "mixed": ["d"],
        "zebra": ["c"],
    }
    assert list(found) == [DEVELOPED, "mixed", "zebra"]
    assert [(row[0], row[2], *row[-2:]) for row in group_rows(RESULTS)] == [
        (DEVELOPED, "2 (100.0%)", "-", "-"),
        ("mixed", "0 (0.0%)", "1 (25.0%)", "3"),
        ("zebra", "1 (100.0%)", "-", "-"),
    ]
    said = json.loads(as_json(RESULTS))[AGENT]["groups"]
    assert said["mixed"]["first_score"]["right_ends"] == 1
    assert said["zebra"]["first_score"] is None


@pytest.mark.parametrize("text", ["{", '{"mixed": {"scenarios": 1}}', '{"mixed": {"other": 1}}', "[]"])
def test_first_scores_that_cannot_be_read_are_an_error(tmp_path: Path, text: str) -> None:
    """A folder without the file has none; anything else in the file stops the run."""
    assert read_first_scores(tmp_path) == {}
    (tmp_path / FIRST_SCORES).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=FIRST_SCORES):
        read_first_scores(tmp_path)


def test_every_shipped_group_has_its_first_score_and_every_file_an_expectation() -> None:
    """And neither names anything that is no longer shipped."""
    variants = load_scenarios(BENCH, 3)
    expected = read_expected(BENCH / "expected.json")
    assert expected.keys() == {f"{one.scenario.id}/{one.number}" for one in variants}
    held = Counter(one.scenario.held_out for one in variants if one.scenario.held_out is not None)
    first = read_first_scores(BENCH)
    assert {name: score.scenarios for name, score in first.items()} == dict(held)
    assert all(score.right_ends <= score.scenarios for score in first.values())
