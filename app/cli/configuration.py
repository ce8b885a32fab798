"""`heal config`: the settings in force."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import EXIT_CODES, Output, OutputOption, console, read_settings, structured

app = typer.Typer(help="The settings in force.", no_args_is_help=True, epilog=EXIT_CODES)


@app.callback()
def config() -> None:
    """The settings in force."""


@app.command(epilog=EXIT_CODES)
def show(
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help="Only settings with this in their name.")
    ] = None,
    *,
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are set.")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every setting with its value and its source; secrets are not shown."""
    from app.cli.commands import configuration

    found = [
        one
        for one in configuration.in_force(read_settings(), Path(".env"))
        if (name is None or name.upper() in one.name) and not (changed and one.source == "default")
    ]
    text = structured(found, output)
    if text is not None:
        typer.echo(text)
    elif found:
        console(wide=output is Output.WIDE).print(configuration.table(found))
    else:
        typer.echo("No setting.")


@app.command(epilog=EXIT_CODES)
def check(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A configuration file. Default: CONFIG_FILE, if it is set."),
    ] = None,
) -> None:
    """Check every setting without starting anything; 1, with a line for each wrong one."""
    from app.cli.commands import configuration

    if file is not None:
        os.environ["CONFIG_FILE"] = str(file)
    typer.echo(configuration.checked(read_settings(), Path(".env")))
