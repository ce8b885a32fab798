"""The simulation's checks can fail: a broken build for each promise is caught by that promise's own check.

At the size of a change (`tests.sizes`) a share of the builds is tried, each on the seed
that is known to catch it first; the whole size tries every build on the seeds in order.
Most broken builds fall within the first forty seeds.
"""

from __future__ import annotations

import multiprocessing
import os
import sys

import pytest

from tests import sizes
from tests.simulation.mutants import MUTANTS
from tests.simulation.promises import PROMISES
from tests.simulation.runs import HASH_SEED, caught

pytestmark = pytest.mark.real

WITHIN = 200

KNOWN = {
    "all-clear-while-it-fires": 19,
    "any-traffic-tells": 195,
    "blind-repeat": 45,
    "forgotten-dry-run": 8,
    "no-brake": 21,
    "no-budget": 48,
    "no-shared-budget": 9,
    "onset-is-now": 77,
    "outage-unseen": 9,
    "own-measurement-ignored": 80,
    "posted-outranks-measured": 131,
    "posted-stands-in": 3,
    "quieted-after-recovery": 80,
    "reasons-never-age": 48,
    "refusal-is-a-reason": 130,
    "risk-ignored": 129,
    "same-again": 1,
    "silence-is-health": 25,
    "silences-ignored": 14,
    "unasked-at-the-beginning": 29,
    "unbound-decisions": 18,
    "undo-by-generation": 152,
    "undo-of-others-work": 13,
    "undo-unbraked": 130,
    "undo-unlimited": 50,
    "undo-unverified": 10,
    "undo-without-policy": 23,
    "undone-twice": 11,
    "unread-at-the-end": 4,
    "watch-acts": 18,
    "watch-over-silence": 2,
    "watch-takes-credit": 1,
    "watch-without-soak": 1,
    "withdrawals-ignored": 14,
    "withdrawn-read-again": 29,
}
"""Seeds that caught a build when they were last tried; one that no longer does costs a moment, no more.

Only builds that survive several seeds are listed.
"""


def test_each_promise_has_a_broken_build() -> None:
    """Promise 0 is that things end; the others are numbered as the product numbers them."""
    assert {mutant.promise for mutant in MUTANTS.values()} == set(PROMISES)


def test_a_broken_build_is_caught_by_the_check_of_its_promise() -> None:
    """Within 200 seeds; what is caught, and when, is printed."""
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    names = sizes.broken_builds(sorted(MUTANTS))
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        found = dict(zip(names, pool.map(_first_caught, names, chunksize=1), strict=True))
    for name, answer in found.items():
        sys.stdout.write(f"{name}: {answer}\n")
    assert [name for name, answer in found.items() if answer is None] == []


def _first_caught(mutant: str) -> tuple[int, str] | None:
    known = [KNOWN[mutant]] if mutant in KNOWN and not sizes.whole() else []
    return caught(mutant, dict.fromkeys([*known, *range(WITHIN)]))
