"""The kill switch as one row for all workers, and circuit breakers closed by people (promise 11).

`begin` reads it under a shared lock, so that setting it waits for the intents
that are beginning at this moment and holds for every later one.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from app.agent.guardrails.status import CircuitKey, circuit_in_words
from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import Person
from app.agent.ids import ServiceKey
from app.agent.models import KillSwitch
from app.errors import Invalid
from app.store import audit_log
from app.store.database import locks, nonces
from app.store.database.codec import storable_text
from app.store.database.repository import Repository, reads_urgently, writes_urgently
from app.store.database.tables import brakes

_KILL_SWITCH = "kill_switch"
_CIRCUIT = "circuit "
_CLUSTER = "circuit cluster"
_NAMED_CLUSTER = "circuit cluster "
"""Before the name of a cluster; the environment of a service has no space."""
_COMMAND = "kill switch command"


class SqlGuardrails(Repository):
    """`GuardrailRepository` over SQL."""

    @reads_urgently
    def kill_switch(self, connection: Connection) -> KillSwitch | None:
        row = connection.execute(select(brakes).where(brakes.c.name == _KILL_SWITCH)).one()
        return (
            KillSwitch(engaged=row.engaged, by=row.set_by, reason=row.reason, at=row.at)
            if row.set_by
            else None
        )

    @writes_urgently
    def set_kill_switch(
        self,
        connection: Connection,
        setting: KillSwitch,
        *,
        person: Person | None = None,
        nonce: str | None = None,
    ) -> None:
        if not setting.by.strip():
            raise Invalid("the kill switch needs the name of the person")
        # Lock the switch first: a repeated command waits here and then finds the nonce.
        connection.execute(select(brakes.c.name).where(brakes.c.name == _KILL_SWITCH).with_for_update())
        if nonce is not None:
            nonces.once(connection, _COMMAND, nonce, setting.at)
        connection.execute(
            update(brakes)
            .where(brakes.c.name == _KILL_SWITCH)
            .values(
                engaged=setting.engaged,
                set_by=storable_text(setting.by),
                reason=storable_text(setting.reason),
                at=setting.at,
            )
        )
        kind = HumanDecisionKind.BRAKE_ENGAGED if setting.engaged else HumanDecisionKind.BRAKE_RELEASED
        audit_log.append(connection, _decision(setting, person, kind, ""))

    @writes_urgently
    def close_circuit(
        self,
        connection: Connection,
        key: CircuitKey,
        said: KillSwitch,
        *,
        person: Person | None = None,
    ) -> None:
        if not said.by.strip():
            raise Invalid("closing the circuit breaker needs the name of the person")
        values = {
            "engaged": False,
            "set_by": storable_text(said.by),
            "reason": storable_text(said.reason),
            "at": said.at,
        }
        locks.hold(connection, locks.Space.BUDGET, ["budget"])
        changed = connection.execute(
            update(brakes).where(brakes.c.name == _name(key)).values(**values)
        ).rowcount
        if not changed:
            connection.execute(insert(brakes).values(name=_name(key), **values))
        audit_log.append(
            connection,
            _decision(
                said,
                person,
                HumanDecisionKind.CIRCUIT_CLOSED,
                "cluster" if key is None else circuit_in_words(key),
            ),
        )


def holds(connection: Connection) -> bool:
    """Whether new actions are blocked; the answer holds until this transaction ends."""
    engaged = connection.execute(
        select(brakes.c.engaged).where(brakes.c.name == _KILL_SWITCH).with_for_update(read=True)
    ).scalar_one()
    return bool(engaged)


def _decision(
    said: KillSwitch, person: Person | None, kind: HumanDecisionKind, subject: str
) -> HumanDecision:
    by = person or Person(name=said.by)
    return HumanDecision(at=said.at, by=by, kind=kind, subject=subject, data={"reason": said.reason})


def circuit_closed_at(connection: Connection, key: CircuitKey) -> datetime | None:
    """When a person last closed that breaker; None if never."""
    found: datetime | None = connection.execute(
        select(brakes.c.at).where(brakes.c.name == _name(key))
    ).scalar_one_or_none()
    return found


def circuits_closed(connection: Connection) -> dict[CircuitKey, datetime]:
    """Every breaker closed by a person, with the time."""
    rows = connection.execute(select(brakes.c.name, brakes.c.at).where(brakes.c.name.startswith(_CIRCUIT)))
    return {_key(row.name): row.at for row in rows}


def _name(key: CircuitKey) -> str:
    if isinstance(key, ServiceKey):
        return f"{_CIRCUIT}{key.environment}/{key.service}"
    return _NAMED_CLUSTER + key if key else _CLUSTER


def _key(name: str) -> CircuitKey:
    if name == _CLUSTER:
        return None
    if name.startswith(_NAMED_CLUSTER):
        return name.removeprefix(_NAMED_CLUSTER)
    environment, _, service = name.removeprefix(_CIRCUIT).partition("/")
    return ServiceKey(environment=environment, service=service)
