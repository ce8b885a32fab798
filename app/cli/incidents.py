"""`heal incidents` and `heal show`."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.options import (
    EXIT_CODES,
    AsJson,
    Url,
    complain,
    console,
    finished,
    read_settings,
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
    if as_json:
        typer.echo(page.model_dump_json(indent=2))
        return
    if not page.items:
        typer.echo("No incidents.")
        return
    terminal.print_table(console(), page.items)
    if page.next is not None:
        typer.echo(f"Showing the newest {len(page.items)}; raise --limit to show more.")


@app.command(epilog=EXIT_CODES)
def show(
    incident_id: Annotated[str, typer.Argument(metavar="ID", help="The incident's id: inc_...")],
    url: Url = None,
    as_json: AsJson = False,
) -> None:
    """Show one incident and check its record: chain, length, head and anchors (exit code 1 if altered)."""
    from app.cli.commands import anchors, incidents
    from app.cli.commands import output as terminal
    from app.cli.commands.errors import CommandFailed

    settings = read_settings()
    try:
        incident = finished(incidents.load_incident(settings, url, incident_id))
    except CommandFailed:
        for sentence in anchors.of_missing(settings, incident_id):
            complain(f"the record was altered: {terminal.printable(sentence)}")
        raise
    broken_at = incidents.broken_entry(incident)
    discrepancies = list(anchors.of_view(settings, incident))
    if as_json:
        typer.echo(incident.model_dump_json(indent=2))
    else:
        terminal.print_story(console(), incident, broken_at, discrepancies)
        typer.echo(terminal.printable(anchors.compared(settings)))
    for sentence in discrepancies:
        complain(f"the record was altered: {terminal.printable(sentence)}")
    if discrepancies:
        raise typer.Exit(1)
