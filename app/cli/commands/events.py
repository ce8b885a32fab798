"""`heal events send`: posts a deploy or a metric sample to a running agent."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TypeAlias

from pydantic import JsonValue, TypeAdapter, ValidationError

from app.cli.commands.agent_client import running_agent
from app.cli.commands.errors import CommandFailed
from app.config import Settings
from app.schemas import AcceptedView
from app.wire.events import DeployEvent, MetricEvent
from app.wire.field_errors import field_errors, in_words

Event: TypeAlias = DeployEvent | MetricEvent

_FIELDS = TypeAdapter(dict[str, JsonValue])


def event_of(kind: type[DeployEvent] | type[MetricEvent], given: Mapping[str, JsonValue | None]) -> Event:
    """The event with these fields; without a timestamp it is now. `CommandFailed` names what is invalid."""
    fields = {name: value for name, value in given.items() if value is not None}
    stamped: dict[str, JsonValue] = {"timestamp": datetime.now(UTC).isoformat(), **fields}
    try:
        return kind.model_validate_json(_FIELDS.dump_json(stamped))
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        raise CommandFailed(f"the event is not valid: {in_words(found)}") from error


async def send(settings: Settings, url: str | None, event: Event) -> AcceptedView:
    """Post it; raises `CommandFailed` where no agent answers or it refuses the event."""
    agent = running_agent(settings, url)
    path = "/events/deploy" if isinstance(event, DeployEvent) else "/events/metric"
    reply = await agent.ask(path, method="POST", body=event)
    if reply is None:
        raise CommandFailed(f"no agent answers at {agent.base}; start one with `heal run`")
    return agent.parsed(AcceptedView, reply)
