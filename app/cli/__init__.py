"""The `heal` command: parses arguments, calls `app.cli.commands`, and reports errors.

Modules are imported inside the commands, so that `heal --help` is fast. Expected
errors print no traceback; `--help` lists the exit codes.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from app.cli import (
    approvals as people,
)
from app.cli import (
    audit,
    bench,
    catalogue,
    configuration,
    database,
    events,
    incidents,
    responders,
    sandbox,
    tokens,
)
from app.cli import (
    run as serving,
)
from app.cli.options import EXIT_CODES, AsJson, print_error

app = typer.Typer(
    name="heal",
    help="Self-Healing DevOps Agent: finds, diagnoses and heals incidents on Kubernetes, safely.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _part in (serving, incidents, people, responders, catalogue):
    app.add_typer(_part.app)


def _print_version(wanted: bool) -> None:
    if wanted:
        from app.version import package_version

        typer.echo(package_version())
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


@app.command(epilog=EXIT_CODES)
def version(as_json: AsJson = False) -> None:
    """Show the version of the agent, of its database schema, and of Python."""
    import json
    import platform

    from app.store.database.migrate import newest_schema
    from app.version import package_version

    found = {"version": package_version(), "schema": newest_schema(), "python": platform.python_version()}
    typer.echo(
        json.dumps(found)
        if as_json
        else "self-healing-devops-agent {version}, database schema {schema}, Python {python}".format(**found)
    )


app.add_typer(audit.app, name="audit")
app.add_typer(tokens.app, name="token")
app.add_typer(bench.app, name="bench")
app.add_typer(configuration.app, name="config")
app.add_typer(database.app, name="db")
app.add_typer(events.app, name="events")
app.add_typer(sandbox.app, name="sandbox")


def main() -> None:
    """Entry point of the `heal` script."""
    from app.cli.commands.errors import CommandFailed
    from app.errors import AgentError

    try:
        app()
    except (CommandFailed, AgentError) as error:
        print_error(str(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
