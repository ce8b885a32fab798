"""`heal bench`: benchmarks of the agent's decisions on recorded cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import EXIT_CODES, complain, console

app = typer.Typer(
    help="Benchmarks of the agent's decisions on recorded cases.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
)


@app.callback()
def _bench() -> None:
    pass


@app.command("diagnosis", epilog=EXIT_CODES)
def diagnosis(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A set of cases, or a folder of sets.")],
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON, with the answer to each case.")
    ] = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write an HTML report with reliability diagrams to this file."),
    ] = None,
) -> None:
    """Rank the services of each case by how likely they are the root cause, and score the ranking.

    Every case is diagnosed alone, without the answers. A malformed file is an error (exit code 2).
    """
    from app.cli.commands import bench_diagnosis, diagnosis_report
    from app.cli.commands.diagnosis_sets import MalformedSet

    try:
        results = bench_diagnosis.run(folder)
    except MalformedSet as error:
        complain(str(error))
        raise typer.Exit(2) from error
    if report is not None:
        _write(report, diagnosis_report.html_report(results))
    if as_json:
        typer.echo(json.dumps(bench_diagnosis.as_json(results), indent=2))
        return
    screen = console()
    screen.print(bench_diagnosis.accuracy_table(results))
    screen.print(bench_diagnosis.calibration_table(results))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        complain(f"{path}: {error.strerror}")
        raise typer.Exit(1) from error
