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
) -> None:
    """Rank the services of each case by how likely they are the root cause, and score the ranking.

    Every case is diagnosed alone, without the answers. A malformed file is an error (exit code 2).
    """
    from app.cli.commands import bench_diagnosis
    from app.cli.commands.diagnosis_sets import MalformedSet

    try:
        results = bench_diagnosis.run(folder)
    except MalformedSet as error:
        complain(str(error))
        raise typer.Exit(2) from error
    if as_json:
        typer.echo(json.dumps(bench_diagnosis.as_json(results), indent=2))
        return
    screen = console()
    screen.print(bench_diagnosis.accuracy_table(results))
    screen.print(bench_diagnosis.calibration_table(results))
