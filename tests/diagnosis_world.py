"""A small world of services that call each other, and sets of diagnosis cases recorded in it.

Latency adds up along the calls, errors pass from callee to caller, requests flow from
the entry. One service of a case has a fault; everything else follows from it.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import random
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from app.agent.localisation.deviation import normal_range
from app.agent.localisation.system import ObservedSystem
from app.benchmarks.diagnosis_sets import DiagnosisCase, series_key, system_of

HISTORY = 160
EARLIER, DURING = 3, 4
INTERVAL = 60

FAULTS = ("cpu", "memory", "latency", "code_error", "crash", "network_delay")

Values = dict[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Services in an order in which each calls only later ones; the first is the entry."""

    names: tuple[str, ...]
    calls: dict[tuple[int, int], int]
    work: tuple[float, ...]
    cores: tuple[float, ...]
    memory: tuple[float, ...]
    style: str = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault of one service; the class is the label of the answer."""

    service: int
    kind: str


@dataclass(slots=True, kw_only=True)
class Sample:
    """What one service does at one time."""

    requests: float = 0.0
    latency: float = 0.0
    waiting: list[float] = field(default_factory=list)
    errors: float = 0.0


def make_world(seed: int, size: int = 9, style: str = "plain") -> World:
    """A world of a seed. `style` is `plain`, or `sides` where servers and clients measure latency."""
    dice = random.Random(seed)  # noqa: S311 - a seed repeats the world
    calls = {}
    for callee in range(1, size):
        for caller in dice.sample(range(callee), k=min(callee, dice.choice((1, 1, 2)))):
            calls[caller, callee] = dice.choice((1, 1, 2))
    letters = dice.sample("abcdefghijklmnopqrstuvwxyz", k=size)
    return World(
        names=tuple(f"{letter}-{place}" for place, letter in enumerate(letters)),
        calls=calls,
        work=tuple(math.exp(dice.gauss(math.log(0.02), 0.6)) for _ in range(size)),
        cores=tuple(dice.uniform(0.05, 0.4) for _ in range(size)),
        memory=tuple(dice.uniform(50, 400) for _ in range(size)),
        style=style,
    )


def measured(world: World, dice: random.Random, load: float, fault: Fault | None) -> Values:
    """One sample of every series of the world."""
    size = len(world.names)
    kind = {fault.service: fault.kind} if fault else {}
    state = [Sample() for _ in range(size)]
    state[0].requests = load * dice.gauss(1, 0.04)
    for (caller, callee), times in sorted(world.calls.items()):
        state[callee].requests += state[caller].requests * times * dice.gauss(1, 0.02)
    for service in reversed(range(size)):
        own = state[service]
        slower = {"cpu": 6.0, "memory": 2.0, "latency": 8.0}.get(kind.get(service, ""), 1.0)
        own.latency = world.work[service] * slower * math.exp(dice.gauss(0, 0.06))
        own.errors = 0.25 if kind.get(service) == "code_error" else 0.0
        for (caller, callee), times in world.calls.items():
            if caller == service:
                delay = 0.4 if kind.get(callee) == "network_delay" else 0.0
                waited = state[callee].latency + delay
                own.latency += times * waited
                own.waiting.append(waited)
                failing = 0.5 if kind.get(callee) == "crash" else state[callee].errors
                own.errors = 1 - (1 - own.errors) * (1 - failing) ** times
    values: Values = {}
    for service, name in enumerate(world.names):
        values |= _series(world, service, name, state[service], kind.get(service), dice)
    return values


def _series(
    world: World, service: int, name: str, own: Sample, fault: str | None, dice: random.Random
) -> Values:
    busy = own.requests * world.cores[service] * dice.gauss(1, 0.05)
    size = world.memory[service] * dice.gauss(1, 0.01)
    seen = max(0.0, min(1.0, own.errors * dice.gauss(1, 0.1)))
    values: Values = {
        f"{name}|requests": own.requests,
        f"{name}|error_rate": seen,
        f"{name}|cpu_pct": busy * (5 if fault == "cpu" else 1),
        f"{name}|mem_mi": size * (3 if fault == "memory" else 1),
    }
    if world.style == "plain":
        values |= {
            f"{name}|latency_avg": own.latency,
            f"{name}|latency_p95": own.latency * math.exp(abs(dice.gauss(0, 0.2))),
        }
    else:
        values[f"{name}|latency_p95_server"] = own.latency
        if own.waiting:
            values[f"{name}|latency_p95_client"] = max(own.waiting)
    return dict.fromkeys(values) if fault == "crash" else values


def write_set(
    folder: Path, seed: int, cases: int = 12, style: str = "plain", *, observed: bool = True
) -> Path:
    """A set of cases of one world in the format of the benchmark; answers the folder."""
    dice = random.Random(seed)  # noqa: S311 - a seed repeats the world
    world = make_world(seed, style=style)
    (folder / "cases").mkdir(parents=True)
    history = [measured(world, dice, dice.uniform(40, 60), None) for _ in range(HISTORY)]
    columns = sorted(history[0])
    with gzip.open(folder / "baseline-0.csv.gz", "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["timestamp", *columns])
        writer.writerows([INTERVAL * k, *(row[name] for name in columns)] for k, row in enumerate(history))
    answers = {}
    for number in range(cases):
        fault = Fault(service=dice.randrange(len(world.names)), kind=FAULTS[number % len(FAULTS)])
        if fault.kind in ("crash", "network_delay"):
            fault = Fault(service=dice.randrange(1, len(world.names)), kind=fault.kind)
        name = f"case-{number:03d}"
        case = record_case(world, dice, fault, name, observed=observed)
        (folder / "cases" / f"{name}.json").write_text(json.dumps(case), encoding="utf-8")
        answers[name] = {"root_cause": world.names[fault.service], "fault": fault.kind, "change": None}
    (folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")
    described = {"title": f"generated from seed {seed}", "licence": "none", "cases": cases}
    (folder / "set.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def record_case(
    world: World, dice: random.Random, fault: Fault, name: str, *, observed: bool = True
) -> dict[str, object]:
    """One case around the start of a fault."""
    started = 1_700_000_000 + dice.randrange(100_000)
    load = dice.uniform(45, 55)
    series: dict[str, list[list[float | None]]] = {}
    for place in range(-EARLIER, DURING):
        at = started + 5 + place * INTERVAL
        for key, value in measured(world, dice, load, fault if place >= 0 else None).items():
            series.setdefault(key, []).append([at, value])
    symptom = "availability" if fault.kind in ("code_error", "crash") else "latency"
    decoy = dice.choice(world.names)
    return {
        "id": name,
        "baseline": "baseline-0.csv.gz",
        "services": [{"name": service, "kind": "service"} for service in world.names],
        "calls": [[world.names[a], world.names[b]] for a, b in sorted(world.calls)],
        "observed": {"service": world.names[0], "metric": symptom} if observed else None,
        "started_at": started,
        "changes": [{"kind": "deploy", "service": decoy, "timestamp": started - dice.randrange(900, 3600)}],
        "metrics": series,
    }


def observed_system(seed: int, kind: str, style: str = "plain") -> tuple[ObservedSystem, str]:
    """A system of a seed with a fault of a kind, and the service that has it."""
    dice = random.Random(seed)  # noqa: S311 - as above
    world = make_world(seed, style=style)
    history = [measured(world, dice, dice.uniform(40, 60), None) for _ in range(HISTORY)]
    first = 1 if kind in ("crash", "network_delay") else 0
    fault = Fault(service=dice.randrange(first, len(world.names)), kind=kind)
    case = msgspec.convert(record_case(world, dice, fault, "case"), DiagnosisCase)
    normal = {series_key(name): normal_range([row[name] for row in history]) for name in history[0]}
    return system_of(case, normal, with_changes=True), world.names[fault.service]
