"""The simulation's checks can fail: a broken build for each promise is caught by that promise's own check.

Budget: two minutes on two cores; most broken builds fall within the first forty seeds.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import sys

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.promises import PROMISES
from tests.simulation.runs import HASH_SEED, caught

pytestmark = [pytest.mark.real, pytest.mark.timeout(0)]

WITHIN = 200


def test_each_promise_has_a_broken_build() -> None:
    """Promise 0 is that things end; the others are numbered as the product numbers them."""
    assert {mutant.promise for mutant in MUTANTS.values()} == set(PROMISES)


def test_every_broken_build_is_caught_by_the_check_of_its_promise() -> None:
    """Each within 200 seeds; what is caught, and when, is printed."""
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    names = sorted(MUTANTS)
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        found = dict(zip(names, pool.map(_first_caught, names, chunksize=1), strict=True))
    for name, answer in found.items():
        sys.stdout.write(f"{name}: {answer}\n")
    assert [name for name, answer in found.items() if answer is None] == []


_first_caught = functools.partial(caught, seeds=range(WITHIN))
