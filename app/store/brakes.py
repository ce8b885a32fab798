"""The kill switch as a row: engaged once for all workers (promise 11).

`begin` reads it under a shared lock, so that setting it waits for the intents
that are beginning at this moment and holds for every later one.
"""

from __future__ import annotations

from sqlalchemy import Connection, select, update

from app.agent.models import Brake
from app.errors import Invalid
from app.store.codec import storable_text
from app.store.tables import brakes

_KILL_SWITCH = "kill_switch"


def get(connection: Connection) -> Brake | None:
    """The last setting; None while it was never touched."""
    row = connection.execute(select(brakes).where(brakes.c.name == _KILL_SWITCH)).one()
    return Brake(engaged=row.engaged, by=row.set_by, reason=row.reason, at=row.at) if row.set_by else None


def holds(connection: Connection) -> bool:
    """Whether no action may begin; nobody changes the answer before this transaction ends."""
    engaged = connection.execute(
        select(brakes.c.engaged).where(brakes.c.name == _KILL_SWITCH).with_for_update(read=True)
    ).scalar_one()
    return bool(engaged)


def set_to(connection: Connection, brake: Brake) -> None:
    """Engage or release; `Invalid` without the name of who does it."""
    if not brake.by.strip():
        raise Invalid("who sets the kill switch is not said")
    connection.execute(
        update(brakes)
        .where(brakes.c.name == _KILL_SWITCH)
        .values(
            engaged=brake.engaged,
            set_by=storable_text(brake.by),
            reason=storable_text(brake.reason),
            at=brake.at,
        )
    )
