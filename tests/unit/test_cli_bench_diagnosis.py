"""`heal bench diagnosis`: the scores of generated sets, and what it says about malformed ones."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.agent.localisation.system import FaultClass
from app.benchmarks import diagnosis
from app.benchmarks.diagnosis_scores import (
    ScoredCase,
    accuracy_of,
    answered_accuracy,
    classes_of,
    commonest_floor,
    random_floor,
)
from app.benchmarks.reliability import expected_calibration_error, reliability
from tests.diagnosis_world import FAULTS, write_set
from tests.unit.heal_command import Heal

SLOWEST_MILLISECONDS = 500
"""Ten times what a case may take."""


@pytest.fixture
def one_set(tmp_path: Path) -> Path:
    """A set of twelve cases in which servers and clients measure latency."""
    return write_set(tmp_path / "sets" / "first", seed=1, style="sides")


def scored(**changes: Any) -> ScoredCase:
    values = {
        "set_name": "set",
        "id": "case",
        "services": 10,
        "ranked": ("a", "b", "c"),
        "confidence": 0.9,
        "unknown": False,
        "fault": FaultClass.CPU,
        "root_cause": "a",
        "true_fault": "cpu",
        "rank": 1,
        "milliseconds": 1.0,
    }
    return ScoredCase(**{**values, **changes})


def edit(path: Path, change: Callable[[Any], object]) -> None:
    """Change a JSON file of a set in place."""
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_the_table_shows_the_agent_beside_both_floors(heal: Heal, one_set: Path) -> None:
    """A figure without a floor says nothing."""
    answer = heal("bench", "diagnosis", str(one_set))
    assert answer.code == 0
    for expected in (
        "agent without change events",
        "random order",
        "commonest answer of the set",
        "AC@1",
        "Calibration",
    ):
        assert expected in answer.text


def test_the_report_has_a_reliability_diagram_for_each_set(heal: Heal, one_set: Path) -> None:
    """One file that any browser shows; text from the set is escaped."""
    write_set(one_set.parent / "second", seed=2, cases=6)
    edit(one_set / "set.json", lambda described: described.update(title="<script>alert(1)</script>"))
    report = one_set.parent / "report.html"
    assert heal("bench", "diagnosis", str(one_set.parent), "--report", str(report)).code == 0
    text = report.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert text.count('aria-label="Reliability diagram, all change events"') == 3
    assert text.count("expected calibration error") == 6
    assert text.count("<tr") == text.count("</tr>")


def test_a_report_that_cannot_be_written_is_an_error(heal: Heal, one_set: Path) -> None:
    """The message names the file."""
    answer = heal("bench", "diagnosis", str(one_set), "--report", str(one_set / "missing" / "report.html"))
    assert answer.code == 1
    assert "report.html: No such file" in answer.err


def test_json_has_every_score_in_total_and_per_set(heal: Heal, one_set: Path) -> None:
    """Programs compare releases with it."""
    write_set(one_set.parent / "second", seed=2, cases=6)
    found = json.loads(heal("bench", "diagnosis", str(one_set.parent), "--json").out)
    assert found["cases"] == 18
    assert set(found["sets"]) == {"first", "second"}
    for scores in (found, *found["sets"].values()):
        assert {
            "cases",
            "ac1",
            "ac3",
            "avg5",
            "abstained",
            "fault_accuracy",
            "ms_per_case",
            "per_case",
            "answered_accuracy",
            "calibration",
            "floors",
            "without_changes",
        } <= set(scores)
        assert len(scores["per_case"]) == scores["cases"]
        assert scores["ms_per_case"] < SLOWEST_MILLISECONDS


@pytest.mark.parametrize(
    ("style", "faults", "least"),
    [("plain", tuple(f for f in FAULTS if f != "network_delay"), 0.95), ("sides", FAULTS, 0.9)],
)
@pytest.mark.parametrize("observed", [True, False])
def test_generated_faults_are_found(
    tmp_path: Path, style: str, faults: tuple[str, ...], least: float, observed: bool
) -> None:
    """Six worlds with twelve faults each, whether or not it is known where people noticed the symptom.

    Without the callers' view of latency a network delay looks like a slow caller.
    """
    for seed in range(6):
        write_set(tmp_path / f"world-{seed}", seed=seed, style=style, observed=observed)
    cases = [c for result in diagnosis.run(tmp_path) for c in result.cases if c.true_fault in faults]
    accuracy = accuracy_of(cases)
    assert accuracy.ac1 >= least
    assert accuracy.ac1 >= random_floor(cases).ac1 + 0.5
    assert accuracy.ac1 >= commonest_floor(cases).ac1 + 0.3
    assert accuracy.fault_accuracy >= 0.9
    assert expected_calibration_error(cases) < 0.15
    assert (answered_accuracy(cases) or 0.0) >= accuracy.ac1


def test_answers_are_used_only_to_score(heal: Heal, one_set: Path) -> None:
    """Other answers change the scores and nothing that the agent says."""
    said = ("answer", "ranking", "confidence", "unknown", "fault")
    before = json.loads(heal("bench", "diagnosis", str(one_set), "--json").out)
    edit(
        one_set / "answers.json",
        lambda answers: [a.update(root_cause="someone-else", fault="other") for a in answers.values()],
    )
    after = json.loads(heal("bench", "diagnosis", str(one_set), "--json").out)
    assert after["ac1"] == after["fault_accuracy"] == 0.0
    assert [[case[key] for key in said] for case in after["per_case"]] == [
        [case[key] for key in said] for case in before["per_case"]
    ]


def test_each_case_is_diagnosed_alone(heal: Heal, one_set: Path) -> None:
    """A case gets the same answer in a set of its own."""
    whole = json.loads(heal("bench", "diagnosis", str(one_set), "--json").out)
    for path in sorted((one_set / "cases").glob("*.json"))[:-1]:
        path.unlink()
    alone = json.loads(heal("bench", "diagnosis", str(one_set), "--json").out)
    kept = ("id", "answer", "ranking", "confidence", "unknown", "fault")
    assert [alone["per_case"][0][key] for key in kept] == [whole["per_case"][-1][key] for key in kept]


def broken_json(folder: Path) -> None:
    (folder / "cases" / "case-003.json").write_text('{"id": "case-003", "services": [', encoding="utf-8")


def wrong_type(folder: Path) -> None:
    edit(folder / "cases" / "case-003.json", lambda case: case.update(calls=[["a"]]))


def missing_field(folder: Path) -> None:
    edit(folder / "cases" / "case-003.json", lambda case: case.pop("started_at"))


def nameless_metric(folder: Path) -> None:
    edit(folder / "cases" / "case-003.json", lambda case: case["metrics"].update(latency=[]))


def unordered_times(folder: Path) -> None:
    edit(folder / "cases" / "case-003.json", lambda case: case["metrics"].update({"a|cpu": [[2, 1], [1, 1]]}))


def path_outside(folder: Path) -> None:
    edit(folder / "cases" / "case-003.json", lambda case: case.update(baseline="../baseline-0.csv.gz"))


def repeated_id(folder: Path) -> None:
    edit(folder / "cases" / "case-003.json", lambda case: case.update(id="case-002"))


def no_answer(folder: Path) -> None:
    edit(folder / "answers.json", lambda answers: answers.pop("case-003"))


def no_answers(folder: Path) -> None:
    (folder / "answers.json").unlink()


def no_history(folder: Path) -> None:
    (folder / "baseline-0.csv.gz").unlink()


def no_cases(folder: Path) -> None:
    for path in (folder / "cases").iterdir():
        path.unlink()


def history_with(line: int, text: str) -> Callable[[Path], None]:
    """Replace a line (from 1) of the history."""

    def change(folder: Path) -> None:
        path = folder / "baseline-0.csv.gz"
        lines = gzip.decompress(path.read_bytes()).decode().splitlines()
        lines[line - 1] = text
        path.write_bytes(gzip.compress("\n".join(lines).encode()))

    return change


def truncated_history(folder: Path) -> None:
    path = folder / "baseline-0.csv.gz"
    path.write_bytes(path.read_bytes()[:200])


def plain_history(folder: Path) -> None:
    (folder / "baseline-0.csv.gz").write_text("timestamp,a|cpu\n", encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (broken_json, ("case-003.json", "truncated")),
        (wrong_type, ("case-003.json", "$.calls[0]")),
        (missing_field, ("case-003.json", "started_at")),
        (nameless_metric, ("case-003.json", "'latency' is not service|metric")),
        (unordered_times, ("case-003.json", "$.metrics.a|cpu", "not in order")),
        (path_outside, ("case-003.json", "$.baseline")),
        (repeated_id, ("case-003.json", "$.id", "case-002")),
        (no_answer, ("answers.json", "$.case-003")),
        (no_answers, ("answers.json", "No such file")),
        (no_history, ("baseline-0.csv.gz", "No such file")),
        (no_cases, ("cases", "no case")),
        (history_with(1, "time,a|cpu"), ("baseline-0.csv.gz:2", "columns instead of 2")),
        (history_with(3, "60,1"), ("baseline-0.csv.gz:3", "2 columns instead of")),
        (truncated_history, ("baseline-0.csv.gz", "end-of-stream")),
        (plain_history, ("baseline-0.csv.gz", "gzip")),
    ],
)
def test_a_malformed_set_is_an_error_with_file_and_position(
    heal: Heal, one_set: Path, spoil: Callable[[Path], None], expected: tuple[str, ...]
) -> None:
    """Exit code 2, no traceback, no scores."""
    spoil(one_set)
    answer = heal("bench", "diagnosis", str(one_set))
    assert answer.code == 2
    assert answer.out == ""
    assert answer.err.startswith("heal: ")
    for part in expected:
        assert part in answer.err


@pytest.mark.parametrize("cell", ["fast", "nan", "inf", "1e999"])
def test_a_cell_that_is_no_number_is_an_error(heal: Heal, one_set: Path, cell: str) -> None:
    """An empty cell is no data; anything else has to be a finite number."""
    path = one_set / "baseline-0.csv.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    cells = lines[4].split(",")
    cells[2] = cell
    history_with(5, ",".join(cells))(one_set)
    answer = heal("bench", "diagnosis", str(one_set))
    assert answer.code == 2
    assert f"baseline-0.csv.gz:5: column 3: '{cell}' is not a number" in answer.err


def test_a_folder_without_a_set_is_an_error(heal: Heal, tmp_path: Path) -> None:
    """So is a folder that does not exist."""
    (tmp_path / "empty").mkdir()
    assert heal("bench", "diagnosis", str(tmp_path / "empty")).code == 2
    missing = heal("bench", "diagnosis", str(tmp_path / "missing"))
    assert missing.code == 2
    assert "not a folder" in missing.err


def test_optional_parts_of_a_case_may_be_missing(heal: Heal, one_set: Path) -> None:
    """Without calls, symptom, changes, history and samples the answer is unknown."""
    for path in (one_set / "cases").iterdir():
        edit(path, lambda case: [case.pop(key) for key in ("calls", "observed", "changes", "baseline")])
        edit(path, lambda case: case.update(metrics={}))
    found = json.loads(heal("bench", "diagnosis", str(one_set), "--json").out)
    assert found["abstained"] == 1.0
    assert found["answered_accuracy"] is None


def test_the_scores_count_ranks() -> None:
    """First, second, fourth, and not ranked at all."""
    cases = [scored(rank=rank) for rank in (1, 2, 4, 0)]
    found = accuracy_of(cases)
    assert (found.ac1, found.ac3, found.avg5) == (0.25, 0.5, (1 + 2 + 2 + 3 + 3) / 4 / 5)


def test_the_floors_know_the_set_and_not_the_case() -> None:
    """One of ten services at random; the commonest answer of two."""
    cases = [scored(root_cause=name) for name in ("a", "a", "a", "b")]
    assert random_floor(cases).ac1 == pytest.approx(0.1)
    assert random_floor(cases).ac3 == pytest.approx(0.3)
    assert commonest_floor(cases).ac1 == 0.75
    assert commonest_floor(cases).ac3 == 1.0


def test_calibration_compares_confidence_with_accuracy() -> None:
    """Nine of ten right at 90% is no error; none right is an error of 90%."""
    good = [scored(confidence=0.9, rank=1) for _ in range(9)] + [scored(confidence=0.9, rank=2)]
    assert expected_calibration_error(good) == pytest.approx(0.0)
    assert expected_calibration_error([scored(confidence=0.9, rank=3)]) == pytest.approx(0.9)
    assert [
        found.cases for found in reliability([*good, scored(confidence=1.0), scored(confidence=0.0)])
    ] == [
        1,
        11,
    ]


@pytest.mark.parametrize(
    ("label", "fault"),
    [
        ("cpu", FaultClass.CPU),
        ("network_delay", FaultClass.NETWORK),
        ("packet-loss", FaultClass.NETWORK),
        ("code_error", FaultClass.ERRORS),
        ("memory leak", FaultClass.MEMORY),
        ("pod-kill", FaultClass.UNAVAILABLE),
        ("overload", FaultClass.OVERLOAD),
        ("latency", FaultClass.LATENCY),
    ],
)
def test_labels_of_data_sets_have_fault_classes(label: str, fault: FaultClass) -> None:
    """Data sets have their own words; an unknown one matches nothing."""
    assert classes_of(label) == {fault}
    assert classes_of("gremlins") == frozenset()
