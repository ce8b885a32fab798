"""`heal sandbox`: the whole product over a simulated cluster, and its scenarios."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import EXIT_CODES, AsJson, console, finished, read_settings

app = typer.Typer(invoke_without_command=True, epilog=EXIT_CODES)

Sandboxed = Annotated[
    str | None, typer.Option("--url", help="Address of the running sandbox. Default: HOST and PORT.")
]


@app.callback(epilog=EXIT_CODES)
def sandbox(
    context: typer.Context,
    *,
    speed: Annotated[
        float | None,
        typer.Option(
            min=1,
            max=100,
            help="Simulated seconds in a second; 1 is real time. Default: SANDBOX_SPEED.",
        ),
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Option(
            file_okay=False,
            help="Keep the database in this folder. Default: SANDBOX_FOLDER, else a temporary folder.",
        ),
    ] = None,
    scenarios: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            help="Offer these scenario files too: a folder, or one file. Default: SANDBOX_SCENARIOS.",
        ),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 selects a free one.")
    ] = None,
) -> None:
    """Start the whole product over a simulated cluster, or start a scenario in it.

    No real cluster, metric source, chat or stream is connected, whatever the settings say.

    Open the printed address, start a scenario, and approve what the agent asks for.
    """
    if context.invoked_subcommand is not None:
        return
    from app.cli.serving import serve

    given = (("SANDBOX_SPEED", speed), ("SANDBOX_FOLDER", folder), ("SANDBOX_SCENARIOS", scenarios))
    usual = read_settings().port
    if port == 0:
        port = _free_port()
    os.environ["SANDBOX"] = "true"
    for name, value in (*given, ("PORT", port)):
        if value is not None:
            os.environ[name] = str(value)
    settings = read_settings()
    serve(settings, elsewhere=settings.port != usual)


def _free_port() -> int:
    """A port that is free now: the printed address names it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@app.command(epilog=EXIT_CODES)
def start(
    name: Annotated[str, typer.Argument(metavar="SCENARIO", help="Its name, such as bad-release.")],
    url: Sandboxed = None,
) -> None:
    """Start a scenario in the running sandbox, with fresh services in an environment of its own."""
    from app.cli.commands import sandbox as commands
    from app.cli.commands.agent_client import address_option
    from app.cli.commands.output import printable

    settings = read_settings()
    run = finished(commands.start(settings, url, name))
    typer.echo(printable(f"Started {run.scenario} in the environment {run.environment}: {run.title}."))
    hint = f"heal incidents --environment {run.environment}{address_option(settings, url)}"
    typer.echo(printable(f"Follow it with `{hint}`."))


@app.command("list", epilog=EXIT_CODES)
def list_scenarios(url: Sandboxed = None, as_json: AsJson = False) -> None:
    """List the scenarios of the running sandbox, and the one that was started last."""
    from app.cli.commands import sandbox as commands

    view = finished(commands.load(read_settings(), url))
    if as_json:
        typer.echo(view.model_dump_json(indent=2))
        return
    console().print(commands.table(view))
    typer.echo(commands.newest(view))
