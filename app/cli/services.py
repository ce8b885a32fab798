"""`heal services`: what is set for single services."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.agent.evidence.format import counted
from app.cli.options import EXIT_CODES, complain, read_settings

app = typer.Typer(
    help="What is set for single services: objectives, owner, dependencies, autonomy.",
    no_args_is_help=True,
    epilog=EXIT_CODES,
)


@app.callback()
def _group() -> None:
    pass


@app.command(epilog=EXIT_CODES)
def check(
    file: Annotated[Path | None, typer.Argument(metavar="FILE", help="Default: SERVICES_FILE.")] = None,
) -> None:
    """Validate the services file; reports the first error with file and line."""
    from app.settings.services import read_services, terms_in_words

    path = file or read_settings().services_file
    if path is None:
        complain("no file: name one, or set SERVICES_FILE")
        raise typer.Exit(2)
    found = read_services(path)
    for terms in found.values():
        typer.echo(f"ok  {terms.key.environment}/{terms.key.service:<28} {terms_in_words(terms)}")
    typer.echo(f"Valid: {counted(len(found), 'service')} in {path}.")
