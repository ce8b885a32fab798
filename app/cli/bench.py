"""`heal bench`: benchmarks of the agent's judgement; nothing outside this process is touched."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import EXIT_CODES, AsJson, console, print_error

if TYPE_CHECKING:
    from app.benchmarks.healing import ExpectedRun
    from app.sandbox.scenarios.judge import Scored

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
        print_error(str(error))
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
        int | None, typer.Option(min=1, help="Play only this number of variants of each scenario.")
    ] = None,
    processes: Annotated[int, typer.Option(min=1, max=64, help="Processes that play side by side.")] = 2,
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Write an HTML report with reliability diagrams to this file."),
    ] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster",
            help="Play the agent on a real control plane that testbed/ starts: a checkout is needed.",
        ),
    ] = False,
    speed: Annotated[
        float,
        typer.Option(min=1, max=30, help="With --cluster: seconds of a scenario in one of this machine's."),
    ] = 10.0,
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

    if cluster and (report is not None or write_expected is not None):
        print_error("--report and --write-expected are for the simulated world: leave out --cluster")
        raise typer.Exit(2)
    try:
        known = None if expect is None else benchmark.read_expected(expect)
        if cluster:
            runs = _on_control_plane(folder, variants, processes, speed, as_json=as_json)
            _compare(known, runs)
            return
        results = benchmark.play_all(folder, variants=variants, processes=processes)
    except ConfigurationError as error:
        print_error(str(error))
        raise typer.Exit(2) from error
    if write_expected is not None:
        benchmark.write_expected(write_expected, results)
    if report is not None:
        from app.benchmarks.healing_report import html_report

        _write(report, html_report(results))
    if as_json:
        typer.echo(benchmark.as_json(results))
    else:
        for part in benchmark.report(results):
            console().print(part)
    _compare(known, results.of(benchmark.AGENT))


def _compare(known: dict[str, ExpectedRun] | None, runs: Sequence[Scored]) -> None:
    """Report each run that is worse than expected, and exit with 1 if there is one."""
    from app.benchmarks.healing import worse

    found = [] if known is None else worse(known, runs)
    for line in found:
        print_error(line)
    if found:
        raise typer.Exit(1)


def _on_control_plane(
    folder: Path, variants: int | None, processes: int, speed: float, *, as_json: bool
) -> list[Scored]:
    """Play the first variants on a control plane, and print how each ended."""
    # A wheel has no testbed; in a checkout it stands beside the package.
    sys.path.append(str(Path(__file__).resolve().parents[2]))
    try:
        from testbed import TestbedError
        from testbed.scenarios import bench as benchmark
    except ModuleNotFoundError as error:
        print_error("--cluster needs testbed/: run it in a checkout of the repository")
        raise typer.Exit(2) from error
    try:
        played = benchmark.play_all(folder, variants=variants or 1, processes=processes, speed=speed)
    except TestbedError as error:
        print_error(f"the control plane cannot be used: {error}")
        raise typer.Exit(1) from error
    if as_json:
        typer.echo(benchmark.as_json(played))
    else:
        console().print(benchmark.report(played))
    return [one.scored for one in played if one.scored is not None]


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        print_error(f"{path}: {error.strerror}")
        raise typer.Exit(1) from error
