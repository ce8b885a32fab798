"""Many seeds on every core: what the command and the tests have in common."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.simulation.afterwards_checks import by_watch, requested_undos
from tests.simulation.faults import Kind
from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.promises import broken_promises
from tests.simulation.simulation import Case, run_seed
from tests.simulation.tape import Effect, IncidentMoved, IntentMoved, UndoAnswered

HASH_SEED = "0"
"""Sets keep their order from one process to the next only under one seed of Python's own hashes."""


AFTER_THE_END = ("undos requested and begun", "requests refused", "recoveries after an escalation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One seed in figures."""

    seed: int
    violations: tuple[tuple[int, str], ...]
    """Number of the promise, and the whole sentence."""
    faults: Counter[str]
    incidents: Counter[str]
    effects: int
    undos: int
    requests: Counter[str]
    """What became of the requests to undo, and how many incidents the recovery watch ended."""
    virtual_seconds: float
    digest: str


@dataclass(slots=True)
class Figures:
    """What many seeds amount to."""

    seeds: int = 0
    effects: int = 0
    undos: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    virtual_seconds: float = 0.0
    incidents: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.effects += result.effects
        self.undos += result.undos
        self.requests += result.requests
        self.virtual_seconds += result.virtual_seconds
        self.incidents += result.incidents
        self.faults += result.faults
        self.violations += [told for _, told in result.violations]

    @property
    def crashes(self) -> int:
        return sum(count for kind, count in self.faults.items() if kind.startswith("crash"))

    @property
    def never_injected(self) -> list[str]:
        return [kind.value for kind in Kind if not self.faults[kind.value]]

    def lines(self) -> Iterator[str]:
        """The figures as text."""
        yield f"{self.seeds} seeds, {self.virtual_seconds / 3600:.1f} h of virtual time"
        yield f"{self.crashes} crashes, {self.effects} effects, {self.undos} of them undos"
        ends = ", ".join(f"{count} {end}" for end, count in sorted(self.incidents.items()))
        yield f"{sum(self.incidents.values())} incidents: {ends}"
        yield ", ".join(f"{self.requests[each]} {each}" for each in AFTER_THE_END)
        for kind in Kind:
            yield f"  {self.faults[kind.value]:8} {kind.value}"
        yield f"{len(self.violations)} broken promises"


def check(seed: int, mutant: str | None = None) -> Result:
    """Run one seed, of the product or of a broken build, and check every promise on it."""
    broken = None if mutant is None else MUTANTS[mutant]
    with mutated(mutant):
        case = run_seed(
            seed,
            calm=broken is not None and broken.calm,
            afterwards=broken is None or broken.afterwards,
        )
    return _in_figures(case)


def _in_figures(case: Case) -> Result:
    tape = case.tape
    return Result(
        seed=case.scenario.seed,
        violations=tuple((v.promise, str(v)) for v in broken_promises(case)),
        faults=Counter({str(kind): count for kind, count in tape.faults().items()}),
        incidents=Counter(record.incident.state.value for record in case.records),
        effects=sum(1 for _ in tape.of(Effect)),
        undos=sum(1 for m in tape.of(IntentMoved) if m.after == "executing" and m.undoes is not None),
        requests=Counter(dict(zip(AFTER_THE_END, _after_the_end(case), strict=True))),
        virtual_seconds=tape.now(),
        digest=tape.digest(),
    )


def _after_the_end(case: Case) -> tuple[int, int, int]:
    begun = sum(undo.started_at is not None for undo in requested_undos(case).values())
    refused = sum(answer.refused is not None for answer in case.tape.of(UndoAnswered))
    return begun, refused, sum(by_watch(moved) for moved in case.tape.of(IncidentMoved))


def caught(mutant: str, seeds: Iterable[int]) -> tuple[int, str] | None:
    """The first seed on which the check of the mutant's own promise fails, and what it says."""
    for seed in seeds:
        for promise, told in check(seed, mutant).violations:
            if promise == MUTANTS[mutant].promise:
                return seed, told
    return None


def on_every_core(work: Callable[[int], Result], items: Iterable[int]) -> Iterator[Result]:
    """The results in the order of the items, worked out in processes of their own."""
    os.environ["PYTHONHASHSEED"] = HASH_SEED
    with multiprocessing.get_context("spawn").Pool(os.cpu_count() or 1) as pool:
        yield from pool.imap(work, items, chunksize=10)


def seeds_in_parallel(seeds: Iterable[int], mutant: str | None = None) -> Iterator[Result]:
    return on_every_core(functools.partial(check, mutant=mutant), seeds)
