"""`heal ack`, `assign`, `note`, `take-over`, `hand-back` and `resolve`: what people do about incidents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from app.agent.responders.request import ResponderAct

app = typer.Typer()

Comment = Annotated[str, typer.Option("--comment", help="Comment for the record.")]
IncidentIdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="The incident's id, or its beginning: inc_...")
]


@app.command("ack", epilog=EXIT_CODES)
def acknowledge(
    incident_id: IncidentIdArgument,
    comment: Comment = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Acknowledge an incident: you have seen it."""
    from app.agent.responders.request import ResponderAct

    _respond(incident_id, ResponderAct.ACKNOWLEDGE, comment, by, url, as_json)


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
    from app.agent.responders.request import ResponderAct

    given = None if owner == "-" else owner
    _respond(incident_id, ResponderAct.ASSIGN, comment, by, url, as_json, owner=given)


@app.command(epilog=EXIT_CODES)
def note(
    incident_id: IncidentIdArgument,
    text: Annotated[str, typer.Argument(help="The note: one line.")],
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Add a note to the timeline of an incident."""
    from app.agent.responders.request import ResponderAct

    _respond(incident_id, ResponderAct.NOTE, text, by, url, as_json)


@app.command("take-over", epilog=EXIT_CODES)
def take_over(
    incident_id: IncidentIdArgument,
    comment: Comment = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Take over an incident: the agent stops on it until it is handed back."""
    from app.agent.responders.request import ResponderAct

    _respond(incident_id, ResponderAct.TAKE_OVER, comment, by, url, as_json)


@app.command("hand-back", epilog=EXIT_CODES)
def hand_back(
    incident_id: IncidentIdArgument,
    comment: Comment = "",
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Hand an incident back to the agent."""
    from app.agent.responders.request import ResponderAct

    _respond(incident_id, ResponderAct.HAND_BACK, comment, by, url, as_json)


@app.command(epilog=EXIT_CODES)
def resolve(
    incident_id: IncidentIdArgument,
    reason: Annotated[str, typer.Option("--reason", help="What resolved it, for the record.")],
    by: By = None,
    url: StoryListener = None,
    as_json: AsJson = False,
) -> None:
    """Resolve an open or escalated incident by hand."""
    from app.agent.responders.request import ResponderAct

    _respond(incident_id, ResponderAct.RESOLVE, reason, by, url, as_json)


def _respond(
    incident_id: str,
    act: ResponderAct,
    text: str,
    by: str | None,
    url: str | None,
    as_json: bool,
    *,
    owner: str | None = None,
) -> None:
    from app.cli.commands import output, responders

    settings = read_settings()
    said = responders.SaidByPerson(act=act, by=by or user_of(settings), text=text, owner=owner)
    view = finished(responders.respond(settings, url, incident_id, said))
    typer.echo(view.model_dump_json(indent=2) if as_json else output.standing_line(view))
