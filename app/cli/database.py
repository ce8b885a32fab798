"""`heal db`: back up, restore, verify and upgrade the database of DATABASE_URL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import EXIT_CODES, AsJson, finished, print_error, read_settings

if TYPE_CHECKING:
    from app.cli.commands.database import Verified

app = typer.Typer(
    help="Back up, restore, verify and upgrade the database.", no_args_is_help=True, epilog=EXIT_CODES
)


@app.command(epilog=EXIT_CODES)
def backup(file: Annotated[Path, typer.Argument(metavar="FILE", help="A new file.")]) -> None:
    """Write a consistent copy of the database to FILE, while agents run.

    SQLite: a database file. PostgreSQL: an archive of `pg_dump`, which must be installed.
    """
    from app.cli.commands import database

    typer.echo(finished(database.backup(read_settings(), file)))


@app.command(epilog=EXIT_CODES)
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A backup.")],
    *,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="Replace a database that has records. A SQLite file is kept under another name; "
            "PostgreSQL's records are overwritten.",
        ),
    ] = False,
) -> None:
    """Restore FILE into the database of DATABASE_URL, then verify it; 1 if the records do not verify.

    The database must be empty, and no agent may run on it. PostgreSQL needs `pg_restore`.
    """
    from app.cli.commands import database

    settings = read_settings()
    typer.echo(finished(database.restore(settings, file, replace=replace)))
    _show(finished(database.verify(settings, None)), as_json=False)


@app.command(epilog=EXIT_CODES)
def verify(
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="Verify a backup of SQLite instead of DATABASE_URL."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check the hash chain of every incident and of the audit of people, and the accounting of signals.

    1 if a record was changed, removed or does not add up.

    Nothing is written, except that an older database is migrated.

    A backup is not changed.
    """
    from app.cli.commands import database

    _show(finished(database.verify(read_settings(), file)), as_json=as_json)


@app.command(epilog=EXIT_CODES)
def upgrade() -> None:
    """Migrate the database to the schema of this version, or create it; agents do so at start as well."""
    from app.cli.commands import database

    typer.echo(finished(database.upgrade(read_settings())))


def _show(found: Verified, *, as_json: bool) -> None:
    """Print what was verified; exits with 1 for findings."""
    from app.cli.commands.output import printable

    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2))
    else:
        for line in found.lines():
            typer.echo(printable(line))
    if found.findings:
        print_error("the records do not verify")
        raise typer.Exit(1)
