"""Which diagnoses of the healing benchmark are right, and how the report shows it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.agent.models import Cause
from app.benchmarks.healing import calibration, half_of, halves
from app.benchmarks.healing_causes import answers, right_causes
from app.sandbox.scenarios.document import LoadEvent
from app.sandbox.scenarios.files import load_file, load_scenarios
from app.sandbox.scenarios.judge import JudgedCause, NamedCause, Run, Scored, judge
from app.sandbox.scenarios.naive import run_nothing
from app.testing import DEFAULT_START
from tests.unit.heal_command import REPOSITORY, Heal

FOLDER = REPOSITORY / "bench" / "healing"
QUIET = Run(violated={}, unhealthy_until=0.0, horizon=2100.0)


def causes_of(name: str, service: str) -> frozenset[Cause]:
    return right_causes(load_file(FOLDER / f"{name}.yaml", 1)[0], service)


@pytest.mark.parametrize(
    ("name", "service", "right", "wrong"),
    [
        ("release-image-missing", "orders", Cause.BAD_RELEASE, Cause.BAD_CONFIG),
        ("release-image-missing", "gateway", Cause.DEPENDENCY_FAILURE, Cause.BAD_RELEASE),
        ("config-map-shared", "finder", Cause.BAD_CONFIG, Cause.BAD_RELEASE),
        ("irreversible-crash", None, Cause.IRREVERSIBLE_RELEASE, Cause.BAD_RELEASE),
        ("node-lost", None, Cause.NODE_FAILURE, Cause.BAD_RELEASE),
        ("quota-refuses-pods", "exports", Cause.ADMISSION_REFUSAL, Cause.TRAFFIC_SURGE),
        ("surge-saturates-callee", "stock-levels", Cause.TRAFFIC_SURGE, Cause.BAD_RELEASE),
        ("memory-leak", "feed", Cause.MEMORY_LEAK, Cause.BAD_RELEASE),
        ("cluster-full", "stream", Cause.SCHEDULING_FAILURE, Cause.BAD_RELEASE),
    ],
)
def test_right_causes_follow_from_the_faults(
    name: str, service: str | None, right: Cause, wrong: Cause
) -> None:
    """At the service of the fault its own causes, elsewhere that a dependency fails."""
    variant = load_file(FOLDER / f"{name}.yaml", 1)[0]
    of = service or next(
        getattr(event, "service", variant.scenario.topology.services[0].name)
        for event in variant.events
        if event.role == "fault"
    )
    found = right_causes(variant, of)
    assert right in found
    assert wrong not in found


def test_every_fault_has_a_cause_somewhere_and_a_control_has_none() -> None:
    """Each service of a scenario with a fault has a right answer; a decoy is none."""
    for variant in load_scenarios(FOLDER, 1):
        faulty = variant.fault_at is not None and any(event.role == "fault" for event in variant.events)
        for service in variant.scenario.topology.services:
            found = right_causes(variant, service.name)
            assert bool(found) or not faulty, variant.name
            assert not (found and variant.scenario.control), variant.name


def test_unknown_is_no_answer() -> None:
    """It is counted by itself, and neither right nor wrong."""
    variant = load_file(FOLDER / "release-image-missing.yaml", 1)[0]
    named = (
        NamedCause(service="orders", cause=Cause.BAD_RELEASE, confidence=0.9),
        NamedCause(service="orders", cause=Cause.UNKNOWN, confidence=0.9),
        NamedCause(service="orders", cause=Cause.MEMORY_LEAK, confidence=0.7),
    )
    run = Run(violated={}, unhealthy_until=0.0, horizon=2100.0, diagnoses=named)
    found = answers(variant, run)
    assert found == (JudgedCause(confidence=0.9, right=True), JudgedCause(confidence=0.7, right=False))
    verdict = judge(variant.scenario, None, run, QUIET)
    scored = Scored(
        scenario="s", variant=0, family="f", control=False, run=run, judgement=verdict, answers=found
    )
    figures = calibration([scored])
    assert (figures["diagnoses"], figures["unknown"], figures["right"]) == (2, 1, 1)
    assert figures["expected_calibration_error"] == pytest.approx(0.4)


def test_the_halves_are_fixed_by_the_names_of_the_families() -> None:
    """Each family is in one half, the halves are of similar size, and a name never moves."""
    families = {
        line.partition(":")[2].strip()
        for file in FOLDER.glob("*.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("family:")
    }
    first = {family for family in families if half_of(family) == "first"}
    assert 0.4 <= len(first) / len(families) <= 0.6
    assert half_of("bad-release") == half_of("bad-release")


def test_the_report_has_a_diagram_for_all_families_and_for_each_half(heal: Heal, tmp_path: Path) -> None:
    """One file that any browser shows, and the same figures as JSON."""
    report = tmp_path / "report.html"
    file = str(FOLDER / "release-image-missing.yaml")
    answer = heal("bench", "healing", file, "--variants", "1", "--json", "--report", str(report))
    assert answer.code == 0
    text = report.read_text(encoding="utf-8")
    for title in ("all families", "first half of the families", "second half of the families"):
        assert f'aria-label="Reliability diagram, {title}"' in text
    assert text.count("expected calibration error") == 3
    agent = json.loads(answer.out)["agent"]
    assert agent["calibration"]["diagnoses"] == 1
    assert agent["halves"].keys() == halves([]).keys()


def test_a_load_that_is_a_fault_is_more_than_the_replicas_can_serve() -> None:
    """In every variant: without a violation there is nothing to heal."""
    unharmed = [
        variant.name
        for file in sorted(FOLDER.glob("*.yaml"))
        if "do: load" in (text := file.read_text(encoding="utf-8")) and "control: true" not in text
        for variant in load_file(file)
        if (faults := [event for event in variant.events if event.role == "fault"])
        and all(isinstance(event, LoadEvent) for event in faults)
        and all(end.end != "no_action" for end in variant.scenario.right_ends)
        and all(service.memory_limit is None for service in variant.scenario.topology.services)
        and sum(run_nothing(variant, DEFAULT_START).violated.values()) == 0
    ]
    assert unharmed == []
