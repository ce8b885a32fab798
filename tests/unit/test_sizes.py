"""The real tier takes a share of its checks for each change, and misses none over a few of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import sizes
from tests.conftest import LONGEST
from tests.soak.score import Size


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a run without TEST_SIZE."""
    for name in [
        name for name in os.environ if name.startswith(("TEST_", "SEEDS", "CRASH_", "SOAK_", "EXAMPLES"))
    ]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("count", [1, 4, 12, 13, 52, 53])
def test_every_crash_point_has_its_turn(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """As many turns in a row as there are shares try every point once; no turn tries too many, or none."""
    points: list[int] = list(range(count))
    tried: list[int] = []
    for turn in range(-(-count // sizes.CHANGE_CRASH_POINTS)):
        monkeypatch.setenv("TEST_TURN", str(7_000 + turn))
        share = sizes.crash_points(points)
        assert 0 < len(share) <= sizes.CHANGE_CRASH_POINTS
        tried += share
    assert sorted(tried) == points


def test_every_intake_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two soaks of four at a time; the seeds stay the same, so that a change is not judged by luck."""
    soaked: set[str] = set()
    for turn in range(5):
        monkeypatch.setenv("TEST_TURN", str(turn))
        taken = sizes.intakes(["postgresql", "sqlite", "kafka", "redis"])
        assert len(taken) == 2
        soaked.update(taken)
        assert sizes.seeds() == range(sizes.CHANGE_SEEDS)
    assert soaked == {"postgresql", "sqlite", "kafka", "redis"}


def test_a_change_tries_a_share_of_the_examples_of_each_property() -> None:
    """Never fewer than ten, nor more than there are."""
    assert [sizes.examples(number) for number in (400, 100, 25, 5)] == [140, 35, 10, 5]


def test_the_whole_is_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make soak` leaves nothing out, whatever the turn."""
    monkeypatch.setenv("TEST_SIZE", "whole")
    monkeypatch.setenv("TEST_TURN", "3")
    assert sizes.crash_points(range(52)) == list(range(52))
    assert sizes.intakes("abcd") == list("abcd")
    assert sizes.seeds() == range(2000)
    assert sizes.examples(400) == 400
    assert (Size.from_environment().signals, Size.from_environment().kills) == (10_000, 32)


def test_each_figure_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment wins over both sizes; the turn decides which share of the rest is taken."""
    monkeypatch.setenv("TEST_TURN", "1")
    monkeypatch.setenv("SEEDS", "50")
    monkeypatch.setenv("EXAMPLES", "50")
    assert sizes.examples(400) == 200
    monkeypatch.setenv("CRASH_POINTS", "26")
    monkeypatch.setenv("SOAK_INTAKES", "1")
    monkeypatch.setenv("SOAK_KILLS", "3")
    assert sizes.seeds() == range(50)
    assert sizes.crash_points(range(52)) == list(range(1, 52, 2))
    assert sizes.intakes("abcd") == ["b"]
    assert Size.from_environment().kills == 3
    monkeypatch.setenv("SEEDS", "3000")
    monkeypatch.setenv("SEEDS_START", "2000")
    assert sizes.seeds() == range(2000, 5000)


def test_a_size_that_does_not_exist_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A typing mistake must not make a release's run a small one."""
    monkeypatch.setenv("TEST_SIZE", "full")
    with pytest.raises(ValueError, match="'change' or 'whole'"):
        sizes.whole()


def test_the_turn_is_the_commits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The same commit takes the same shares everywhere; where there is no git the first share is taken."""
    assert sizes.turn() == sizes.turn()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert sizes._turn_of_head(tmp_path) == 0
    monkeypatch.setenv("PATH", str(tmp_path))
    assert sizes._turn_of_head(tmp_path.parent) == 0
    monkeypatch.setenv("TEST_TURN", "11")
    assert sizes.described().endswith("TEST_SIZE=change TEST_TURN=11)")


@pytest.mark.parametrize("part", LONGEST)
def test_what_begins_first_exists(part: str) -> None:
    """A file that was renamed would begin late, and a process would wait for it at the end."""
    tests = sizes.ROOT / "tests"
    assert any(part in str(path.relative_to(sizes.ROOT)) for path in tests.rglob("test_*.py"))
