"""`python -m tests.simulation`: many seeds with every promise checked, or one seed with all that happened.

Ends with 1 when a promise is broken, or when some misfortune never came up.
"""

from __future__ import annotations

import argparse
import os
import sys
import time

from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.promises import broken_promises
from tests.simulation.runs import HASH_SEED, Figures, seeds_in_parallel
from tests.simulation.simulation import run_seed

_EVERY_FAULT_BY = 500
"""With fewer seeds than this a misfortune may well not have come up."""
_SHOWN = 20


def _say(*lines: object) -> None:
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def main() -> int:
    """Run what the arguments ask for."""
    options = _options()
    if os.environ.get("PYTHONHASHSEED") != HASH_SEED:
        os.environ["PYTHONHASHSEED"] = HASH_SEED
        os.execv(sys.executable, [sys.executable, "-m", "tests.simulation", *sys.argv[1:]])  # noqa: S606 - itself
    if options.seed is not None:
        return _one(options.seed, options.mutant, trace=options.trace)
    return _many(range(options.start, options.start + options.seeds), options.mutant)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many seeds (2000)")
    parser.add_argument("--start", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--seed", type=int, help="only this one")
    parser.add_argument("--trace", action="store_true", help="with --seed: print all that happened")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="a build that breaks a promise on purpose")
    return parser.parse_args()


def _one(seed: int, mutant: str | None, *, trace: bool) -> int:
    broken = None if mutant is None else MUTANTS[mutant]
    with mutated(mutant):
        case = run_seed(
            seed,
            calm=broken is not None and broken.calm,
            afterwards=broken is None or broken.afterwards,
        )
    if trace:
        _say(*case.tape.lines())
        for record in case.records:
            _say(f"\n{record.incident.id} {record.incident.key}: {record.incident.state}")
            for entry in record.timeline:
                _say(f"  {entry.at:%H:%M:%S.%f} {entry.stage:<8} {entry.message}")
    violations = broken_promises(case)
    _say(*violations)
    _say(f"seed {seed}: trace {case.tape.digest()}, {len(violations)} broken promises")
    return 1 if violations else 0


def _many(seeds: range, mutant: str | None) -> int:
    began, figures = time.monotonic(), Figures()
    for result in seeds_in_parallel(seeds, mutant):
        figures.add(result)
        for _, told in result.violations:
            if len(figures.violations) <= _SHOWN:
                _say(told)
    _say(*figures.lines())
    _say(f"{time.monotonic() - began:.0f} s")
    missed = figures.never_injected if len(seeds) >= _EVERY_FAULT_BY else []
    for kind in missed:
        _say(f"never came up: {kind}")
    return 1 if figures.violations or missed else 0


if __name__ == "__main__":
    sys.exit(main())
