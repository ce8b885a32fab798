"""Reads sets of diagnosis cases: `set.json`, `answers.json`, `cases/*.json` and `baseline-*.csv.gz`.

Every error names the file and the position in it. Answers are read here and used only
to score.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from app.agent.localisation.deviation import NormalRange, normal_range
from app.agent.localisation.system import (
    ObservedChange,
    ObservedSymptom,
    ObservedSystem,
    SeriesKey,
)

Column = Sequence[float | None]
T = TypeVar("T")


class MalformedSet(Exception):
    """A file of a set cannot be used; the message names the file, the position and the reason."""


class CaseService(msgspec.Struct, frozen=True):
    """A service of a case."""

    name: str
    kind: str = ""


class CaseSymptom(msgspec.Struct, frozen=True):
    """Where people noticed the symptom of a case."""

    service: str
    metric: str


class CaseChange(msgspec.Struct, frozen=True):
    """A change event of a case; `timestamp` is in unix seconds."""

    kind: str
    service: str
    timestamp: float


class DiagnosisCase(msgspec.Struct, frozen=True):
    """One case as its file has it; times are unix seconds."""

    id: str
    services: list[CaseService]
    started_at: float
    metrics: dict[str, list[tuple[float, float | None]]]
    baseline: str | None = None
    calls: list[tuple[str, str]] = []
    observed: CaseSymptom | None = None
    changes: list[CaseChange] = []


class CaseAnswer(msgspec.Struct, frozen=True):
    """The true root cause of a case."""

    root_cause: str
    fault: str
    change: str | None = None


class SetDescription(msgspec.Struct, frozen=True):
    """The part of `set.json` that is used."""

    title: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosisSet:
    """A set: its cases in order of their ids, its histories by file name, its answers by case."""

    name: str
    title: str
    cases: Sequence[DiagnosisCase]
    histories: Mapping[str, Mapping[SeriesKey, Column]]
    answers: Mapping[str, CaseAnswer]


def read_sets(folder: Path) -> list[DiagnosisSet]:
    """The set in a folder, or every set in the folders below it; raises `MalformedSet`."""
    if not folder.is_dir():
        raise MalformedSet(f"{folder}: not a folder")
    if (folder / "set.json").is_file():
        return [_read_set(folder)]
    found = sorted(inner.parent for inner in folder.glob("*/set.json"))
    if not found:
        raise MalformedSet(f"{folder}: no set.json in it or in the folders below it")
    return [_read_set(inner) for inner in found]


def ranges_of(history: str, read: DiagnosisSet) -> dict[SeriesKey, NormalRange]:
    """The fault-free range of each series of a history; none for a case without one."""
    return {key: normal_range(column) for key, column in read.histories.get(history, {}).items()}


def system_of(
    case: DiagnosisCase, normal: Mapping[SeriesKey, NormalRange], *, with_changes: bool
) -> ObservedSystem:
    """What the agent sees of a case."""
    return ObservedSystem(
        kinds={service.name: service.kind for service in case.services},
        calls=case.calls,
        started_at=case.started_at,
        series={series_key(name): points for name, points in case.metrics.items()},
        normal=normal,
        symptom=ObservedSymptom(service=case.observed.service, metric=case.observed.metric)
        if case.observed
        else None,
        changes=[
            ObservedChange(service=change.service, kind=change.kind, at=change.timestamp)
            for change in (case.changes if with_changes else ())
        ],
    )


def series_key(name: str) -> SeriesKey:
    """`service|metric` as service and metric."""
    service, _, metric = name.rpartition("|")
    return service, metric


def _read_set(folder: Path) -> DiagnosisSet:
    described = _decoded(folder / "set.json", SetDescription)
    answers = _decoded(folder / "answers.json", dict[str, CaseAnswer])
    paths = sorted((folder / "cases").glob("*.json"))
    if not paths:
        raise MalformedSet(f"{folder / 'cases'}: no case in it")
    cases: dict[str, DiagnosisCase] = {}
    for path in paths:
        case = _read_case(path)
        if case.id in cases:
            raise MalformedSet(f"{path}: $.id: another case is {case.id} too")
        if case.id not in answers:
            raise MalformedSet(f"{folder / 'answers.json'}: $.{case.id}: no answer for this case")
        cases[case.id] = case
    names = sorted({case.baseline for case in cases.values() if case.baseline})
    return DiagnosisSet(
        name=folder.resolve().name,
        title=described.title,
        cases=[cases[name] for name in sorted(cases)],
        histories={name: _read_history(folder / name) for name in names},
        answers=answers,
    )


def _read_case(path: Path) -> DiagnosisCase:
    case = _decoded(path, DiagnosisCase)
    if case.baseline and Path(case.baseline).name != case.baseline:
        raise MalformedSet(f"{path}: $.baseline: {case.baseline!r} is not a file name")
    for name, points in case.metrics.items():
        service, metric = series_key(name)
        if not service or not metric:
            raise MalformedSet(f"{path}: $.metrics: {name!r} is not service|metric")
        times = [at for at, _ in points]
        if times != sorted(times):
            raise MalformedSet(f"{path}: $.metrics.{name}: the times are not in order")
    return case


def _decoded(path: Path, kind: type[T]) -> T:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MalformedSet(f"{path}: {error.strerror}") from error
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).rpartition(" - at ")
        raise MalformedSet(f"{path}: {place.strip('`') or '$'}: {reason or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedSet(f"{path}: {error}") from error


def _read_history(path: Path) -> dict[SeriesKey, Column]:
    """The columns of a history; an empty cell is no data."""
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(_rows(path, csv.reader(file)))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise MalformedSet(f"{path}: {getattr(error, 'strerror', None) or error}") from error
    if not rows or rows[0][:1] != ["timestamp"]:
        raise MalformedSet(f"{path}:1: the first column is not timestamp")
    header = rows[0][1:]
    for place, name in enumerate(header, start=2):
        if not all(series_key(name)):
            raise MalformedSet(f"{path}:1: column {place}: {name!r} is not service|metric")
    columns: list[list[float | None]] = [[] for _ in header]
    for line, row in enumerate(rows[1:], start=2):
        _number(path, line, 1, row[0])
        for place, (column, cell) in enumerate(zip(columns, row[1:], strict=True), start=2):
            column.append(_number(path, line, place, cell) if cell else None)
    return {series_key(name): column for name, column in zip(header, columns, strict=True)}


def _rows(path: Path, lines: Iterator[list[str]]) -> Iterator[list[str]]:
    width = None
    for line, row in enumerate(lines, start=1):
        width = width or len(row)
        if len(row) != width:
            raise MalformedSet(f"{path}:{line}: {len(row)} columns instead of {width}")
        yield row


def _number(path: Path, line: int, place: int, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise MalformedSet(f"{path}:{line}: column {place}: {cell!r} is not a number")
    return value
