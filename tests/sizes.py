"""How much of the real tier runs: a share for every change, everything before a release.

`make test-real` runs every kind of check at the size of a change. Where it runs a
share, HEAD's hash selects the share, so that several commits in a row cover
everything; the header of the run prints the size and the turn. `make soak`
runs everything. Environment variables override each figure:

- TEST_SIZE: `change` (the default) or `whole`
- TEST_TURN: the number that decides which share is taken, instead of HEAD's hash
- SEEDS and SEEDS_START: seeds of the simulation, and the first of them
- CRASH_POINTS: how many crash points are tried, at most; BROKEN_BUILDS: the same of the simulation's
- EXAMPLES: how many of a property's examples are tried, in percent
- SCENARIOS: how many scenarios of the healing benchmark are played on the control plane, at most
- OPENAPI_CASES: requests made from the OpenAPI document, in the whole size only
- SOAK_INTAKES: how many of the soak's intakes run; SOAK_SIGNALS and others: `tests.soak.score.Size`
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent

WHOLE_SEEDS = 2000
CHANGE_SEEDS = 200
CHANGE_CRASH_POINTS = 12
CHANGE_BROKEN_BUILDS = 12
CHANGE_INTAKES = 2
CHANGE_SCENARIOS = 3
CHANGE_EXAMPLES_PERCENT = 35
"""Every run chooses others, so that several changes try more than one whole run does."""
CHANGE_SOAK: Mapping[str, int] = {
    "services": 40,
    "signals": 1_200,
    "seconds": 30,
    "kills": 6,
    "breakages": 32,
    "workers": 3,
    "senders": 16,
}
"""What of `tests.soak.score.Size` is smaller for a change; about a minute for each intake."""


def whole() -> bool:
    """Whether everything runs. Raises `ValueError` for a size that does not exist."""
    size = os.environ.get("TEST_SIZE", "change")
    if size not in ("change", "whole"):
        raise ValueError(f"TEST_SIZE is {size!r}: use 'change' or 'whole'")
    return size == "whole"


def turn() -> int:
    """Which share this run takes: TEST_TURN, else from HEAD's hash, else 0 (an export without git)."""
    given = os.environ.get("TEST_TURN")
    return int(given) if given else _turn_of_head(ROOT)


@cache
def _turn_of_head(folder: Path) -> int:
    try:
        asked = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
        )
    except OSError:
        return 0
    return int(asked.stdout[:8], 16) if asked.returncode == 0 else 0


def share(items: Sequence[T], most: int) -> list[T]:
    """At most so many of the items, spread evenly; every item is in the share of some turn."""
    shares = max(1, math.ceil(len(items) / max(1, most)))
    return list(items[turn() % shares :: shares])


def seeds() -> range:
    """The simulation's seeds: the whole, or the first of them, so that a change is not judged by luck."""
    count = int(os.environ.get("SEEDS", WHOLE_SEEDS if whole() else CHANGE_SEEDS))
    start = int(os.environ.get("SEEDS_START", 0))
    return range(start, start + count)


def crash_points(points: Sequence[T]) -> list[T]:
    """The crash points to try, of all that there are."""
    most = len(points) if whole() else CHANGE_CRASH_POINTS
    return share(points, int(os.environ.get("CRASH_POINTS", most)))


def scenarios(files: Sequence[T]) -> list[T]:
    """The scenarios to play on the control plane, of all that there are."""
    most = len(files) if whole() else CHANGE_SCENARIOS
    return share(files, int(os.environ.get("SCENARIOS", most)))


def examples(number: int) -> int:
    """How many of a property's examples to try, of the whole number; at least ten."""
    percent = int(os.environ.get("EXAMPLES", 100 if whole() else CHANGE_EXAMPLES_PERCENT))
    return min(number, max(10, math.ceil(number * percent / 100)))


def broken_builds(names: Sequence[T]) -> list[T]:
    """The broken builds that the simulation has to catch, of all that there are."""
    most = len(names) if whole() else CHANGE_BROKEN_BUILDS
    return share(names, int(os.environ.get("BROKEN_BUILDS", most)))


def intakes(tests: Sequence[T]) -> list[T]:
    """The soaks to run, of all that there are."""
    most = len(tests) if whole() else CHANGE_INTAKES
    return share(tests, int(os.environ.get("SOAK_INTAKES", most)))


def soak_changes() -> Mapping[str, int]:
    """What differs from the whole size of a soak."""
    return {} if whole() else CHANGE_SOAK


def described() -> str:
    """The size and the turn, for the header of a run."""
    size = "whole" if whole() else "change"
    return (
        f"size of the real tier: {size}, turn {turn()} (repeat it with TEST_SIZE={size} TEST_TURN={turn()})"
    )
