"""Recognition of the agent's own silences: they mute alerts for people, and withdraw no reason.

Author and comment of a silence are not enough: the named incident must have the named intent on record,
and the silence may not be longer than that intent requested. A silence that a person prolonged counts as
a silence of that person.
"""

from __future__ import annotations

from datetime import timedelta

from app.agent.actions.silence_alerts import MINUTES
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
    """Whether the intent may have created the silence in its current form. Pure."""
    if intent.id != silence.intent_id:
        return False
    minutes = intent.action.parameters.get(MINUTES)
    if intent.action.name is not ActionName.SILENCE_ALERTS or not isinstance(minutes, int):
        return False
    if intent.state is IntentState.DECIDED or intent.started_at is None:
        return False
    return silence.ends_at - silence.starts_at <= timedelta(minutes=minutes) + _CLOCKS_DIFFER
