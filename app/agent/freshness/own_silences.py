"""Which silences are the agent's own: they mute alerts for people, and withdraw no reason.

What the source says of a silence is not believed alone: the incident must have the intent
that it names on record, and the silence may be no longer than that intent asked for. One
that a person prolonged is a silence of that person.
"""

from __future__ import annotations

from datetime import timedelta

from app.agent.freshness.silences import Silence, Silencing
from app.agent.models import ActionName, IncidentRecord, Intent, IntentState
from app.agent.ports.store.incidents import IncidentRepository

_CLOCKS_DIFFER = timedelta(minutes=1)


async def incident_of(silence: Silence, incidents: IncidentRepository) -> IncidentRecord | None:
    """The incident for which the agent created the silence; None where it did not. Raises like the store."""
    if silence.incident_id is None or silence.intent_id is None:
        return None
    record = await incidents.get(silence.incident_id)
    if record is None or not any(created_by(one, silence) for one in record.intents):
        return None
    return record


async def of_others(
    silencings: tuple[Silencing, ...], incidents: IncidentRepository
) -> tuple[Silencing, ...]:
    """The silences that people created; raises like the store."""
    return tuple([one for one in silencings if await incident_of(one.silence, incidents) is None])


def created_by(intent: Intent, silence: Silence) -> bool:
    """Whether the intent may have created the silence as it is now. Pure."""
    if intent.id != silence.intent_id:
        return False
    minutes = intent.action.parameters.get("minutes")
    if intent.action.name is not ActionName.SILENCE_ALERTS or not isinstance(minutes, int):
        return False
    if intent.state is IntentState.DECIDED or intent.started_at is None:
        return False
    return silence.ends_at - silence.starts_at <= timedelta(minutes=minutes) + _CLOCKS_DIFFER
