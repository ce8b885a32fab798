"""`heal incidents` and `heal show`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.cli.options import (
    EXIT_CODES,
    AsJson,
    Output,
    OutputOption,
    Url,
    console,
    finished,
    print_error,
    read_settings,
    structured,
)

app = typer.Typer()


@app.command("incidents", epilog=EXIT_CODES)
def list_incidents(
    service: Annotated[str | None, typer.Option(help="Only for this service.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only in this environment.")] = None,
    state: Annotated[str | None, typer.Option(help="Only this state, such as awaiting_approval.")] = None,
    since: Annotated[str | None, typer.Option(help="Opened since: an RFC 3339 time, or 30m, 2h, 7d.")] = None,
    until: Annotated[str | None, typer.Option(help="Opened before: same formats.")] = None,
    search: Annotated[
        str, typer.Option("--search", help="Words that service, id, cause, owner or summary contain.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to show.")] = 20,
    url: Url = None,
    output: OutputOption = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """List incidents, newest first."""
    from datetime import UTC, datetime

    from app.agent.models import IncidentState
    from app.cli.commands import incidents
    from app.cli.commands import output as terminal

    if state is not None and state not in set(IncidentState):
        raise typer.BadParameter(f"one of {', '.join(IncidentState)}", param_hint="--state")
    now = datetime.now(UTC)
    wanted = incidents.Wanted(
        service=service,
        environment=environment,
        state=None if state is None else IncidentState(state),
        since=incidents.moment(since, now, "--since"),
        until=incidents.moment(until, now, "--until"),
        limit=limit,
        text=search,
    )
    page = finished(incidents.list_incidents(read_settings(), url, wanted))
    text = structured(page, output, as_json=as_json)
    if text is not None:
        typer.echo(text)
        return
    if not page.items:
        typer.echo("No incidents.")
        return
    terminal.print_table(console(wide=output is Output.WIDE), page.items)
    if page.next is not None:
        typer.echo(f"Showing the newest {len(page.items)}; raise --limit to show more.")


@app.command(epilog=EXIT_CODES)
def show(
    incident_id: Annotated[
        str, typer.Argument(metavar="ID", help="The incident's id, or its first four characters or more.")
    ],
    url: Url = None,
    output: OutputOption = Output.TABLE,
    as_json: AsJson = False,
) -> None:
    """Show one incident and check its record: chain, length, head and anchors (exit code 1 if altered)."""
    from app.cli.commands import anchors, incidents
    from app.cli.commands import output as terminal
    from app.cli.commands.errors import NotOnRecord
    from app.cli.commands.short_ids import load_by_beginning

    settings = read_settings()
    try:
        incident = finished(load_by_beginning(settings, url, incident_id))
    except NotOnRecord:
        for sentence in anchors.of_missing(settings, incident_id):
            print_error(f"the record was altered: {terminal.printable(sentence)}")
        raise
    broken_at = incidents.broken_entry(incident)
    discrepancies = list(anchors.of_view(settings, incident))
    text = structured(incident, output, as_json=as_json)
    if text is not None:
        typer.echo(text)
    else:
        terminal.print_story(console(wide=output is Output.WIDE), incident, broken_at, discrepancies)
        typer.echo(terminal.printable(anchors.compared(settings)))
    for sentence in discrepancies:
        print_error(f"the record was altered: {terminal.printable(sentence)}")
    if discrepancies:
        raise typer.Exit(1)


@app.command(epilog=EXIT_CODES)
def export(
    incident_id: Annotated[
        str, typer.Argument(metavar="ID", help="The incident's id, or its first four characters or more.")
    ],
    sign: Annotated[bool, typer.Option("--sign", help="Sign the file with Ed25519.")] = False,
    key: Annotated[
        Path | None, typer.Option(help="Private key in PEM. Default: EXPORT_SIGNING_KEY_FILE.")
    ] = None,
    to: Annotated[Path | None, typer.Option("--to", help="File to write. Default: standard output.")] = None,
    url: Url = None,
) -> None:
    """Export the whole record of an incident as JSON, signed if wanted; `heal verify-export` checks it."""
    from datetime import UTC, datetime

    from app.cli.commands import export as exporting
    from app.cli.commands.short_ids import load_by_beginning

    settings = read_settings()
    file = key or settings.export_signing_key_file
    if sign and file is None:
        raise typer.BadParameter("give --key FILE, or set EXPORT_SIGNING_KEY_FILE", param_hint="--sign")
    signing_key = exporting.private_key(file) if sign and file is not None else None
    incident = finished(load_by_beginning(settings, url, incident_id))
    text = exporting.exported(incident, datetime.now(UTC), signing_key)
    if to is None:
        typer.echo(text, nl=False)
        return
    to.write_text(text, encoding="utf-8")
    typer.echo(f"{incident.id} written to {to}" + (", signed." if sign else "."))


@app.command("verify-export", epilog=EXIT_CODES)
def verify_export(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `heal export --sign` wrote.")],
    key: Annotated[Path, typer.Option(help="Public key in PEM.")],
) -> None:
    """Check signature and hash chain of an exported record, offline (exit code 1 if altered)."""
    from app.cli.commands import export as exporting
    from app.cli.commands import output as terminal

    typer.echo(terminal.printable(exporting.verified(file, exporting.public_key(key))))


@app.command(epilog=EXIT_CODES)
def stats(
    since: Annotated[str, typer.Option(help="Opened since: an RFC 3339 time, or 30m, 2h, 7d.")] = "30d",
    until: Annotated[str | None, typer.Option(help="Opened before: same formats.")] = None,
    service: Annotated[str | None, typer.Option(help="Only for this service.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only in this environment.")] = None,
    cause: Annotated[str | None, typer.Option(help="Only of this cause, such as bad_release.")] = None,
    severity: Annotated[str | None, typer.Option(help="critical, major or minor.")] = None,
    manual_minutes: Annotated[
        int, typer.Option(help="What a person is assumed to need for an incident; for the time saved.")
    ] = 30,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV: section, item, figure, value.")] = False,
    url: Url = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show statistics of a period: ends, times, causes, services, runbooks, decisions, dry runs."""
    from app.cli.commands import stats as counting

    given = {
        "since": since,
        "until": until,
        "service": service,
        "environment": environment,
        "cause": cause,
        "severity": severity,
        "manual_minutes": str(manual_minutes),
    }
    view = finished(counting.statistics(read_settings(), url, given))
    text = counting.as_csv(view).rstrip("\r\n") if csv else structured(view, output)
    if text is not None:
        typer.echo(text)
        return
    for table in counting.tables(view):
        console(wide=output is Output.WIDE).print(table)
        typer.echo("")
    typer.echo(counting.sentence(view))


@app.command(epilog=EXIT_CODES)
def watch(
    service: Annotated[str | None, typer.Option(help="Only for this service.")] = None,
    environment: Annotated[str | None, typer.Option(help="Only in this environment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Maximum number to show.")] = 20,
    every: Annotated[float, typer.Option(min=0.2, max=3600, help="Seconds between two updates.")] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print once and end.")] = False,
    url: Url = None,
) -> None:
    """Show the newest incidents and keep the list up to date until interrupted."""
    from app.cli.commands import incidents
    from app.cli.commands.watching import follow

    wanted = incidents.Wanted(
        service=service, environment=environment, state=None, since=None, until=None, limit=limit
    )
    finished(follow(read_settings(), url, wanted, console(), seconds=None if once else every))
