"""The HTML report of the healing benchmark: ends, calibration, and two halves of the families."""

from __future__ import annotations

from collections.abc import Sequence

from app.agent.evidence.format import counted, share
from app.benchmarks.healing import (
    AGENT,
    AGENTS,
    GROUP_COLUMNS,
    HealingResults,
    calibration,
    group_rows,
    halves,
)
from app.benchmarks.reliability import cells, document, expected_calibration_error, reliability_diagram
from app.sandbox.scenarios.judge import Scored, score


def html_report(results: HealingResults) -> str:
    """The report as a document of its own; names of scenarios are escaped."""
    runs = results.of(AGENT)
    body = (
        f"<h2>Ends: {counted(len(runs), 'run')}</h2>\n{_ends(results)}"
        "<h2>Development and held-out groups</h2>\n"
        "<p>A held-out group was played before any rule was adjusted to it: its first figures are kept.</p>\n"
        f"{_table(GROUP_COLUMNS, [f'<tr>{cells(row)}</tr>' for row in group_rows(results)])}"
        "<h2>Calibration of the diagnoses</h2>\n"
        "<p>A diagnosis is right if it names a cause that a fault of the scenario has at the service of"
        " the incident. Diagnoses that name no cause are left out.</p>\n"
        f"{_diagram('all families', runs)}"
        + "".join(_diagram(f"{name} half of the families", half) for name, half in halves(runs).items())
        + f"<h2>Two halves of the families</h2>\n{_halves(runs)}"
        f"<h2>Where the agent ended wrongly</h2>\n{_wrong(runs)}"
    )
    return document("Healing benchmark", body)


def _ends(results: HealingResults) -> str:
    headings = ("agent", "right ends", "wrong actions", "on controls", "harm")
    rows = []
    for agent in AGENTS:
        found = score(results.of(agent))
        ends = f"{found.right_ends} of {found.scenarios}"
        row = (
            agent,
            ends,
            f"{found.wrong_actions}",
            f"{found.control_actions}",
            f"{found.harm_seconds:.0f} s",
        )
        rows.append(f"<tr>{cells(row)}</tr>")
    return _table(headings, rows)


def _diagram(title: str, runs: Sequence[Scored]) -> str:
    return reliability_diagram(title, [answer for run in runs for answer in run.answers])


def _halves(runs: Sequence[Scored]) -> str:
    headings = ("half", "families", "runs", "right ends", "wrong actions", "harm", "diagnoses right", "ECE")
    rows = []
    for name, half in halves(runs).items():
        found, answers = score(half), [answer for run in half for answer in run.answers]
        row = (
            name,
            str(len({run.family for run in half})),
            str(found.scenarios),
            share(found.right_ends / found.scenarios) if half else "-",
            str(found.wrong_actions),
            f"{found.harm_seconds:.0f} s",
            share(sum(one.right for one in answers) / len(answers)) if answers else "-",
            f"{expected_calibration_error(answers):.3f}",
        )
        rows.append(f"<tr>{cells(row)}</tr>")
    whole = calibration(runs)
    unknown = f"<p>{whole['unknown']} diagnoses named no cause, {whole['diagnoses']} did.</p>\n"
    return _table(headings, rows) + unknown


def _wrong(runs: Sequence[Scored]) -> str:
    rows = [
        f'<tr class="wrong">{cells((f"{run.scenario}/{run.variant}", run.family, run.judgement.why))}</tr>'
        for run in runs
        if not run.judgement.right
    ]
    return _table(("run", "family", "why"), rows) if rows else "<p>Nowhere.</p>\n"


def _table(headings: Sequence[str], rows: Sequence[str]) -> str:
    return f"<table><tr>{cells(headings, 'th')}</tr>{''.join(rows)}</table>\n"
