"""What people do about incidents, from a terminal: `heal ack`, `assign`, `note`, `take-over` and the like.

A running agent is called over its HTTP API. When none answers and no `--url` was
given, the database of DATABASE_URL is written directly; workers that share it follow
from their next claim on.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote

import httpx2
from pydantic import BaseModel, ValidationError

from app.agent.closing import trace_end
from app.agent.identity.people import Scope
from app.agent.ids import IncidentId
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.cli.commands import short_ids
from app.cli.commands.agent_client import running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database
from app.cli.commands.speaker import speaker
from app.config import Settings
from app.connectors.traces.connect import traced
from app.errors import Conflict, NotFound
from app.schemas import IncidentSummary
from app.wire.field_errors import field_errors, in_words
from app.wire.responders import ActRequest, AssignRequest, NoteRequest, ResolveRequest, UndoActRequest

_PATHS = {ResponderAct.NOTE: "notes"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SaidByPerson:
    """One act as given on the command line."""

    act: ResponderAct
    by: str | None
    text: str = ""
    owner: str | None = None

    def body(self) -> BaseModel:
        """The request; raises `CommandFailed` that names what does not fit."""
        try:
            match self.act:
                case ResponderAct.ASSIGN:
                    return AssignRequest(owner=self.owner, by=self.by, comment=self.text)
                case ResponderAct.NOTE:
                    return NoteRequest(text=self.text, by=self.by)
                case ResponderAct.RESOLVE:
                    return ResolveRequest(reason=self.text, by=self.by)
                case ResponderAct.UNDO:
                    return UndoActRequest(reason=self.text, by=self.by)
                case _:
                    return ActRequest(by=self.by, comment=self.text)
        except ValidationError as error:
            found = field_errors([dict(item) for item in error.errors(include_url=False)])
            raise CommandFailed(in_words(found)) from error


async def respond(settings: Settings, url: str | None, given: str, said: SaidByPerson) -> IncidentSummary:
    """Do it, on the incident of that id or of that beginning of one; the incident after it."""
    agent, body = running_agent(settings, url), said.body()
    incident_id = await short_ids.incident_id(settings, url, given)
    path = f"/v1/incidents/{quote(incident_id, safe='')}/{_PATHS.get(said.act, said.act.value)}"
    reply = await agent.ask(path, method="POST", body=body)
    if reply is not None and reply.status_code == httpx2.codes.NOT_FOUND:
        raise _unknown(given, at=agent.base)
    if reply is not None:
        return agent.parsed(IncidentSummary, reply)
    async with database(settings) as store:
        found = IncidentId(incident_id)
        by = await speaker(settings, store.credentials, said.by, Scope.APPROVE)
        request = ResponderRequest(
            act=said.act, by=by, at=datetime.now(UTC), text=said.text, owner=said.owner
        )
        try:
            async with traced(settings):
                after = await store.responders.respond(found, request)
                if after.closed_at == request.at:
                    trace_end(after)
        except Conflict as error:
            raise CommandFailed(str(error)) from error
        except NotFound:
            raise _unknown(given) from None
        part = await store.incidents.get_part(found, limit=1)
        if part is None:
            raise _unknown(given)
        return IncidentSummary.of(part.record)


def _unknown(given: str, at: str | None = None) -> CommandFailed:
    where = "" if at is None else f" at {at}"
    return CommandFailed(f"no incident {given!r} is known{where}; `heal incidents` lists them with their ids")
