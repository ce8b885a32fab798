"""`heal bench`: benchmarks of the agent's judgement; nothing outside this process is touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import EXIT_CODES, AsJson, complain, console

app = typer.Typer(
    help="Benchmarks of the agent's judgement on recorded cases and simulated faults.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
)


@app.command(epilog=EXIT_CODES)
def diagnosis(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A set of cases, or a folder of sets.")],
    as_json: AsJson = False,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write an HTML report with reliability diagrams to this file."),
    ] = None,
) -> None:
    """Rank the services of each case by how likely they are the root cause, and score the ranking.

    Every case is diagnosed alone, without the answers. A malformed file is an error (exit code 2).
    """
    from app.benchmarks import diagnosis as benchmark
    from app.benchmarks.diagnosis_report import html_report
    from app.benchmarks.diagnosis_sets import MalformedSet

    try:
        results = benchmark.run(folder)
    except MalformedSet as error:
        complain(str(error))
        raise typer.Exit(2) from error
    if report is not None:
        _write(report, html_report(results))
    if as_json:
        typer.echo(json.dumps(benchmark.as_json(results), indent=2))
        return
    screen = console()
    screen.print(benchmark.accuracy_table(results))
    screen.print(benchmark.calibration_table(results))


@app.command(epilog=EXIT_CODES)
def healing(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of scenario files, or one file.")],
    as_json: AsJson = False,
    variants: Annotated[
        int | None, typer.Option(min=1, help="Play only so many variants of each scenario.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that play side by side.")] = 2,
    expect: Annotated[
        Path | None,
        typer.Option(help="Compare with the results in this file; exit code 1 if a scenario became worse."),
    ] = None,
    write_expected: Annotated[
        Path | None, typer.Option(help="Write the agent's results to this file, to compare with later.")
    ] = None,
) -> None:
    """Play every scenario to the agent, to a naive one and to none, and report ends, times and harm.

    A scenario file that is not valid is reported with file and line (exit code 2).
    """
    from app.benchmarks import healing as benchmark
    from app.errors import ConfigurationError

    try:
        known = None if expect is None else benchmark.read_expected(expect)
        results = benchmark.play_all(folder, variants=variants, processes=processes)
    except ConfigurationError as error:
        complain(str(error))
        raise typer.Exit(2) from error
    if write_expected is not None:
        benchmark.write_expected(write_expected, results)
    if as_json:
        typer.echo(benchmark.as_json(results))
    else:
        for part in benchmark.report(results):
            console().print(part)
    worse = [] if known is None else benchmark.worse(known, results.of(benchmark.AGENT))
    for line in worse:
        complain(line)
    if worse:
        raise typer.Exit(1)


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        complain(f"{path}: {error.strerror}")
        raise typer.Exit(1) from error
