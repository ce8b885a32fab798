"""`heal ack`, `assign`, `note`, `take-over`, `hand-back`, `resolve`, `undo`: what people do on incidents."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.options import (
    EXIT_CODES,
    AsJson,
    By,
    StoryListener,
    finished,
    read_settings,
    user_of,
)

app = typer.Typer()

Comment = Annotated[str, typer.Option("--comment", help="Comment for the record.")]
IncidentIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The incident's id, or its first four characters or more.")
]


def _with_comment(name: str, act: str, does: str) -> None:
    """A command whose only text is an optional comment."""

    @app.command(name, epilog=EXIT_CODES, help=does)
    def command(
        incident_id: IncidentIdArgument,
        comment: Comment = "",
        by: By = None,
        url: StoryListener = None,
        as_json: AsJson = False,
    ) -> None:
        _respond(incident_id, act, comment, by, url, as_json)


_with_comment("ack", "acknowledge", "Acknowledge an incident: you have seen it.")


@app.command(epilog=EXIT_CODES)
def assign(
    incident_id: IncidentIdArgument,
    owner: Annotated[str, typer.Argument(help="The new owner; '-' removes the owner.")],
    comment: Comment = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Set the owner of an incident."""
    given = None if owner == "-" else owner
    _respond(incident_id, "assign", comment, by, url, as_json, owner=given)


@app.command(epilog=EXIT_CODES)
def note(
    incident_id: IncidentIdArgument,
    text: Annotated[str, typer.Argument(help="The note: one line.")],
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Add a note to the timeline of an incident."""
    _respond(incident_id, "note", text, by, url, as_json)


_with_comment(
    "take-over", "take-over", "Take over an incident: the agent stops on it until it is handed back."
)


_with_comment("hand-back", "hand-back", "Hand an incident back to the agent.")


@app.command(epilog=EXIT_CODES)
def resolve(
    incident_id: IncidentIdArgument,
    reason: Annotated[str, typer.Option("--reason", help="What resolved it, for the record.")],
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Resolve an open or escalated incident by hand."""
    _respond(incident_id, "resolve", reason, by, url, as_json)


@app.command(epilog=EXIT_CODES)
def undo(
    incident_id: IncidentIdArgument,
    reason: Annotated[str, typer.Option("--reason", help="Why it must be undone, for the record.")],
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Request an undo of the agent's last change, of an incident that has ended or was taken over.

    Policy, guardrails and the kill switch apply; follow the result with `heal watch`.
    """
    _respond(incident_id, "undo", reason, by, url, as_json)


def _respond(
    incident_id: str,
    act: str,
    text: str,
    by: str | None,
    url: str | None,
    as_json: bool,
    *,
    owner: str | None = None,
) -> None:
    from app.agent.responders.request import ResponderAct
    from app.cli.commands import output, responders

    settings = read_settings()
    said = responders.SaidByPerson(act=ResponderAct(act), by=by or user_of(settings), text=text, owner=owner)
    view = finished(responders.respond(settings, url, incident_id, said))
    typer.echo(view.model_dump_json(indent=2) if as_json else output.status_line(view))
