"""A sample of the healing benchmark: one variant of most families of faults, and some controls.

`bench/healing/expected.json` holds what the agent did when it was written. A run that
became worse fails here by the name of its scenario; better ones are fine, and
`heal bench healing bench/healing --write-expected bench/healing/expected.json` records them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from app.benchmarks.healing import (
    AGENT,
    NAIVE,
    NOTHING,
    ExpectedRun,
    HealingResults,
    as_json,
    play_these,
    read_expected,
    worse,
)
from app.sandbox.scenarios.files import Variant, load_file, scenario_files

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "bench" / "healing"
EXPECTED = read_expected(SHIPPED / "expected.json")


PLAYED = 3
"""The expectation holds the first variants of each scenario, so many."""
CONTROLS = 3
"""So many kinds of controls are in the sample."""
SAMPLE = 30
"""So many families, spread over all: half a minute of one core."""


def one_of_most_families() -> list[Variant]:
    """The first scenario of a family, in a variant that differs from family to family."""
    found: dict[str, Variant] = {}
    for file in scenario_files(SHIPPED):
        variants = load_file(file)
        family = variants[0].scenario.family
        found.setdefault(family, variants[len(found) % PLAYED])
    controls = [variant for variant in found.values() if variant.scenario.control]
    chosen = [variant for variant in found.values() if variant not in controls[CONTROLS:]]
    return [chosen[number * len(chosen) // SAMPLE] for number in range(min(SAMPLE, len(chosen)))]


@pytest.mark.parametrize("variant", one_of_most_families(), ids=lambda variant: variant.name)
def test_no_scenario_of_the_sample_became_worse(variant: Variant) -> None:
    """Right ends stay right, and neither wrong actions nor harm are added."""
    results = play_these([variant], processes=1)
    assert variant.name in EXPECTED, "not in expected.json: write it again"
    assert worse(EXPECTED, results.of(AGENT)) == []


def played(name: str, number: int) -> HealingResults:
    return play_these([load_file(SHIPPED / f"{name}.yaml")[number]], processes=1)


def test_a_run_is_the_same_every_time() -> None:
    """Results depend on the file and the code alone, so that a difference is one of the code."""
    assert as_json(played("release-errors", 1)) == as_json(played("release-errors", 1))


def test_the_three_agents_differ_where_they_should() -> None:
    """The agent heals with one action, the naive one with the wrong ones first, and no one never."""
    results = played("release-errors", 0)
    agent, naive, nothing = (results.of(name)[0] for name in (AGENT, NAIVE, NOTHING))
    assert agent.judgement.right
    assert [act.words for act in agent.run.acts] == ["rollback ledger"]
    assert naive.run.acts[0].words.startswith("restart")
    assert not naive.judgement.right
    assert not nothing.judgement.right
    assert nothing.judgement.harm_seconds == 0
    assert agent.judgement.saved_seconds > 1000
    assert agent.judgement.recover_seconds is not None
    assert nothing.judgement.recover_seconds is not None
    assert agent.judgement.recover_seconds * 5 < nothing.judgement.recover_seconds


def test_a_worse_result_is_named() -> None:
    """The message names the scenario, what it was, and what it is."""
    results = played("rollback-does-not-help", 0).of(NAIVE)
    before = {"rollback-does-not-help/0": ExpectedRun(right=True, wrong_actions=0, harm_seconds=0.0)}
    said = worse(before, results)
    assert said[0].startswith("rollback-does-not-help/0 ended rightly before, and now: wrong action: restart")
    assert "wrong actions, 0 before" in said[1]
