"""`heal bench healing`: every variant of every scenario, three agents, and what their ends were worth."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TypeAlias, TypedDict

from msgspec import to_builtins
from rich.table import Table

from app.agent.actions import ENABLED_BY_DEFAULT
from app.agent.ids import JsonObject
from app.agent.runbooks import Catalogue, load_catalogue
from app.benchmarks.healing_agent import HealingStage, healing_stage
from app.benchmarks.healing_causes import answers
from app.benchmarks.healing_groups import FirstScore, groups, read_first_scores
from app.benchmarks.healing_runbooks import runbook_exists
from app.benchmarks.reliability import expected_calibration_error, reliability
from app.errors import ConfigurationError
from app.sandbox.scenarios.files import Variant, load_scenarios
from app.sandbox.scenarios.judge import Run, Scored, judge, score
from app.sandbox.scenarios.naive import run_naive, run_nothing
from app.settings.shipped import shipped
from app.testing import VirtualClock

AGENT, NAIVE, NOTHING = "agent", "naive", "nothing"
AGENTS = (AGENT, NAIVE, NOTHING)
START = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
"""The same for every run: records and random draws depend on it."""

Triple: TypeAlias = dict[str, Scored]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealingResults:
    """Every run of every agent, in the order of the files."""

    runs: tuple[Triple, ...]
    first_scores: Mapping[str, FirstScore] = field(default_factory=dict)
    """By held-out group."""

    def of(self, agent: str) -> list[Scored]:
        """The runs of one agent."""
        return [triple[agent] for triple in self.runs]


class ExpectedRun(TypedDict):
    """What the agent's run of a variant gave when the expectation was written."""

    right: bool
    wrong_actions: int
    harm_seconds: float


def play_all(folder: Path, *, variants: int | None = None, processes: int = 2) -> HealingResults:
    """Play everything in a folder; raises `ConfigurationError` for the first invalid file."""
    first = read_first_scores(folder) if folder.is_dir() else {}
    return replace(play_these(load_scenarios(folder, variants), processes=processes), first_scores=first)


def play_these(variants: Sequence[Variant], *, processes: int) -> HealingResults:
    """Play some variants; results do not depend on the number of processes."""
    if processes == 1 or len(variants) == 1:
        with healing_stage(shipped("runbooks"), VirtualClock) as stage:
            return HealingResults(runs=tuple(_play(variant, stage) for variant in variants))
    # New processes, not forks: this one may have threads.
    with ProcessPoolExecutor(min(processes, len(variants)), mp_context=get_context("spawn")) as pool:
        return HealingResults(runs=tuple(pool.map(_play_in_pool, variants, chunksize=4)))


def _play_in_pool(variant: Variant) -> Triple:
    return _play(variant, _stage())


def _play(variant: Variant, stage: HealingStage) -> Triple:
    """One variant with every agent, judged against the twin."""
    twin = run_nothing(variant, START)
    runs = {AGENT: stage.run(variant, START), NAIVE: run_naive(variant, START), NOTHING: twin}
    return {name: _scored(variant, run, twin) for name, run in runs.items()}


def _scored(variant: Variant, run: Run, twin: Run) -> Scored:
    return Scored(
        scenario=variant.scenario.id,
        variant=variant.number,
        family=variant.scenario.family,
        control=variant.scenario.control,
        held_out=variant.scenario.held_out,
        runbook=runbook_exists(variant, _catalogue(), ENABLED_BY_DEFAULT | {*variant.scenario.enables}),
        run=run,
        judgement=judge(variant.scenario, variant.fault_at, run, twin),
        answers=answers(variant, run),
    )


@cache
def _catalogue() -> Catalogue:
    return load_catalogue(shipped("runbooks"))


_open = ExitStack()
"""Holds the stage of a process of the pool open until the process ends."""


@cache
def _stage() -> HealingStage:
    Finalize(None, _open.close, exitpriority=10)
    return _open.enter_context(healing_stage(shipped("runbooks"), VirtualClock))


# ---------------------------------------------------------------- what is printed


def as_json(results: HealingResults) -> str:
    """Each agent with its figures and its runs."""
    whole: dict[str, JsonObject] = {
        agent: {**asdict(score(results.of(agent))), "per_scenario": [_entry(s) for s in results.of(agent)]}
        for agent in AGENTS
    }
    runs = results.of(AGENT)
    whole[AGENT]["calibration"] = calibration(runs)
    whole[AGENT]["halves"] = {
        name: {**asdict(score(half)), "calibration": calibration(half)} for name, half in halves(runs).items()
    }
    whole[AGENT]["groups"] = {
        name: {
            **asdict(score(group)),
            "first_score": to_builtins(results.first_scores.get(name)),
            "calibration": calibration(group),
        }
        for name, group in groups(runs).items()
    }
    return json.dumps(whole, indent=2)


def calibration(runs: Sequence[Scored]) -> JsonObject:
    """How far confidence and accuracy of the diagnoses lie apart."""
    found = [answer for run in runs for answer in run.answers]
    return {
        "diagnoses": len(found),
        "unknown": sum(len(run.run.diagnoses) for run in runs) - len(found),
        "right": sum(answer.right for answer in found),
        "expected_calibration_error": round(expected_calibration_error(found), 4),
        "bins": [asdict(one) for one in reliability(found)],
    }


def halves(runs: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The runs in two halves of the families, which the names of the families fix.

    Rules that are developed with one half in view are judged by the other.
    """
    found: dict[str, list[Scored]] = {"first": [], "second": []}
    for run in runs:
        found[half_of(run.family)].append(run)
    return found


def half_of(family: str) -> str:
    """`first` or `second`."""
    return "second" if hashlib.sha256(family.encode()).digest()[-1] % 2 else "first"


def _entry(scored: Scored) -> JsonObject:
    run, verdict = scored.run, scored.judgement
    return {
        "scenario": f"{scored.scenario}/{scored.variant}",
        "family": scored.family,
        "control": scored.control,
        "right": verdict.right,
        "why": verdict.why,
        "actions": [act.words + (" (undo)" if act.undo else "") for act in run.acts],
        "escalated": list(run.pages),
        "incidents": run.incidents,
        "wrong_actions": verdict.wrong_actions,
        "forbidden_actions": verdict.forbidden,
        "harm_seconds": verdict.harm_seconds,
        "saved_seconds": verdict.saved_seconds,
        "recovered": run.recovered,
        "healed": verdict.healed,
        "runbook": scored.runbook,
        "detect_seconds": verdict.detect_seconds,
        "recover_seconds": verdict.recover_seconds,
    }


_COLUMNS: tuple[tuple[str, Callable[[Sequence[Scored]], str]], ...] = (
    ("scenarios", lambda runs: str(len(runs))),
    ("right ends", lambda runs: _share(score(runs).right_ends, len(runs))),
    ("wrong actions", lambda runs: str(score(runs).wrong_actions)),
    ("on controls", lambda runs: str(score(runs).control_actions)),
    ("harm", lambda runs: f"{score(runs).harm_seconds:.0f} s"),
    ("saved", lambda runs: f"{score(runs).saved_seconds:.0f} s"),
    ("escalated rightly", lambda runs: str(score(runs).escalated_rightly)),
    ("MTTD", lambda runs: _seconds(score(runs).mttd_seconds)),
    ("MTTR", lambda runs: _seconds(score(runs).mttr_seconds)),
    ("with a runbook", lambda runs: _seconds(score(runs).mttr_runbook_seconds)),
    ("where healed", lambda runs: _seconds(score(runs).mttr_healed_seconds)),
    ("actions/incident", lambda runs: _figure(score(runs).actions_per_incident)),
)


def report(results: HealingResults) -> Iterator[Table]:
    """The figures of each agent, and the scenarios that the agent did not always end rightly."""
    table = Table(title="Healing benchmark", title_justify="left")
    table.add_column("agent")
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right")
    for agent in AGENTS:
        runs = results.of(agent)
        table.add_row(agent, *(shown(runs) for _, shown in _COLUMNS))
    yield table
    if any(run.held_out for run in results.of(AGENT)):
        yield _groups(results)
    wrong = _by_scenario(run for run in results.of(AGENT) if not run.judgement.right)
    if wrong:
        yield _wrong_ends(wrong, _by_scenario(results.of(AGENT)))


def _groups(results: HealingResults) -> Table:
    table = Table(title="Held-out groups", title_justify="left")
    for name in GROUP_COLUMNS:
        table.add_column(name, justify="left" if name == "group" else "right")
    for row in group_rows(results):
        table.add_row(*row)
    return table


GROUP_COLUMNS = (
    "group",
    "scenarios",
    "right ends",
    "wrong actions",
    "harm",
    "first score",
    "wrong then",
)


def group_rows(results: HealingResults) -> Iterator[tuple[str, ...]]:
    """The figures of each group, beside the first ones of those that were held out."""
    for name, runs in groups(results.of(AGENT)).items():
        found, first = score(runs), results.first_scores.get(name)
        yield (
            name,
            str(found.scenarios),
            _share(found.right_ends, found.scenarios),
            str(found.wrong_actions),
            f"{found.harm_seconds:.0f} s",
            "-" if first is None else _share(first.right_ends, first.scenarios),
            "-" if first is None else str(first.wrong_actions),
        )


def _wrong_ends(wrong: dict[str, list[Scored]], every: dict[str, list[Scored]]) -> Table:
    table = Table(title="Where the agent ended wrongly", title_justify="left")
    for name in ("scenario", "wrong", "harm", "most often"):
        table.add_column(name)
    for name, runs in wrong.items():
        why, _ = Counter(run.judgement.why for run in runs).most_common(1)[0]
        harm = sum(run.judgement.harm_seconds for run in every[name])
        table.add_row(name, f"{len(runs)} of {len(every[name])}", f"{harm:.0f} s", why)
    return table


def _by_scenario(runs: Iterable[Scored]) -> dict[str, list[Scored]]:
    found: dict[str, list[Scored]] = {}
    for run in runs:
        found.setdefault(run.scenario, []).append(run)
    return found


def _share(part: int, whole: int) -> str:
    return f"{part} ({part / whole:.1%})" if whole else "0"


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} s"


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# ---------------------------------------------------------------- expectations

HARM_TOLERANCE_SECONDS = 15.0


def write_expected(file: Path, results: HealingResults) -> None:
    """The agent's results, to be compared with later."""
    found = {
        f"{run.scenario}/{run.variant}": ExpectedRun(
            right=run.judgement.right,
            wrong_actions=run.judgement.wrong_actions,
            harm_seconds=run.judgement.harm_seconds,
        )
        for run in results.of(AGENT)
    }
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(result)}" for name, result in found.items())
    file.write_text("{\n" + lines + "\n}\n", encoding="utf-8")


def read_expected(file: Path) -> dict[str, ExpectedRun]:
    """What `write_expected` wrote; raises `ConfigurationError`."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {
            name: ExpectedRun(
                right=bool(one["right"]),
                wrong_actions=int(one["wrong_actions"]),
                harm_seconds=float(one["harm_seconds"]),
            )
            for name, one in found.items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"{file}: no results of this benchmark: {error}") from error


def worse(expected: dict[str, ExpectedRun], runs: Sequence[Scored]) -> list[str]:
    """A sentence for each run that is worse than expected; better ones, and new ones, are fine."""
    return [
        sentence
        for run in runs
        if (known := expected.get(f"{run.scenario}/{run.variant}")) is not None
        for sentence in _worse(known, run)
    ]


def _worse(known: ExpectedRun, run: Scored) -> Iterator[str]:
    name, verdict = f"{run.scenario}/{run.variant}", run.judgement
    if known["right"] and not verdict.right:
        yield f"{name} ended rightly before, and now: {verdict.why}"
    if verdict.wrong_actions > known["wrong_actions"]:
        yield f"{name}: {verdict.wrong_actions} wrong actions, {known['wrong_actions']} before: {verdict.why}"
    if verdict.harm_seconds > known["harm_seconds"] + HARM_TOLERANCE_SECONDS:
        yield f"{name}: {verdict.harm_seconds:.0f} s of harm, {known['harm_seconds']:.0f} s before"
