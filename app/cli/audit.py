"""`heal audit`: audits of signals, decisions of people, and anchors."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from app.agent.evidence.format import counted
from app.cli.options import (
    EXIT_CODES,
    AsJson,
    StoryListener,
    finished,
    print_error,
    read_settings,
)

app = typer.Typer(
    help="Audit signals, decisions of people, and anchors.", no_args_is_help=True, epilog=EXIT_CODES
)


@app.command("signals", epilog=EXIT_CODES)
def audit_signals(
    since: Annotated[
        str | None, typer.Option(help="Count from this day: an RFC 3339 time, or 7d. Default: all.")
    ] = None,
    deep: Annotated[
        bool, typer.Option("--deep", help="Check every timeline and duplicate directly in the database.")
    ] = False,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Count every accepted signal by its disposition, and list discrepancies; 1 if there are any."""
    from datetime import UTC, datetime

    from app.cli.commands import audit as auditing
    from app.cli.commands import incidents

    day = incidents.moment(since, datetime.now(UTC), "--since")
    found = finished(auditing.audit(read_settings(), url, day, deep=deep))
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for line in auditing.lines(found):
            typer.echo(line)
    if not found.adds_up:
        print_error("the signals do not add up")
        raise typer.Exit(1)


@app.command("people", epilog=EXIT_CODES)
def audit_people(
    limit: Annotated[
        int, typer.Option(min=0, help="Number of newest decisions to print; 0 prints all.")
    ] = 20,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Print decisions of people, and check the whole chain; 1 if an entry was altered or removed."""
    from app.cli.commands import audit as auditing
    from app.cli.commands import output as terminal

    entries, broken_at = finished(auditing.people(read_settings(), url))
    newest = entries[-limit:] if limit else entries
    if as_json:
        typer.echo(json.dumps([one.model_dump(mode="json") for one in newest], indent=2))
    else:
        for one in newest:
            typer.echo(terminal.printable(auditing.decision_line(one)))
        typer.echo(f"{counted(len(entries), 'decision')} on record.")
    if broken_at is not None:
        print_error(f"the audit trail of people was altered at entry {broken_at}")
        raise typer.Exit(1)


@app.command("anchor", epilog=EXIT_CODES)
def write_anchor() -> None:
    """Write an anchor of all records to AUDIT_ANCHOR_DIR now; an agent does so every AUDIT_ANCHOR_HOURS."""
    from app.cli.commands import anchors

    typer.echo(finished(anchors.anchor(read_settings())))


@app.command("verify", epilog=EXIT_CODES)
def verify_anchors(
    digest: Annotated[
        str | None,
        typer.Option(
            help="The digest of an anchor from the log, or its first 12 digits: that anchor must still exist."
        ),
    ] = None,
) -> None:
    """Compare the database with every anchor; 1 if records were changed, truncated or deleted."""
    from app.cli.commands import anchors
    from app.cli.commands import output as terminal

    settings = read_settings()

    async def compared() -> tuple[list[str], str]:
        found = [sentence async for sentence in anchors.verify(settings, digest)]
        return found, await anchors.summary(settings)

    discrepancies, summary = finished(compared())
    for sentence in discrepancies:
        typer.echo(f"discrepancy: {terminal.printable(sentence)}")
    typer.echo(summary)
    if discrepancies:
        print_error("the records and the anchors do not match")
        raise typer.Exit(1)
