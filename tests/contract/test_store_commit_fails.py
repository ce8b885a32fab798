"""A COMMIT that fails leaves nothing behind: what follows is judged as if it had never run."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection

from app.agent.ids import ServiceKey
from app.agent.intake.signals import new_signal
from app.agent.models import Deploy, DeployStatus, DispositionKind, Signal
from app.agent.ports.store import Store
from app.errors import Invalid
from app.store.database.port import Brief, Work
from app.store.signals import intake
from app.store.signals.deliveries import Delivery
from app.store.signals.levels import remembered
from tests.contract.store_values import NOW
from tests.contract.test_store_intake_sets import RULES
from tests.repositories import database_of

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

KEY = ServiceKey(environment="prod", service="shop")


def _deploy(version: str, status: DeployStatus, *, minutes_ago: int) -> Signal:
    return new_signal(
        key=KEY,
        source="http",
        observed_at=NOW - timedelta(minutes=minutes_ago),
        received_at=NOW,
        payload=Deploy(version=version, status=status),
        stale_after=timedelta(hours=1),
    )


def _fails_at_commit(signal: Signal, connection: Connection) -> None:
    """Record the signal, in a transaction that no statement of it but its COMMIT refuses."""
    delivery = Delivery(signals=(signal,), decide=RULES, again=RULES.again, dry_run=True)
    intake.accept(connection, [delivery])
    for statement in (
        "CREATE TABLE one (n INTEGER PRIMARY KEY)",
        "CREATE TABLE other (n INTEGER REFERENCES one (n) DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO other VALUES (1)",
    ):
        connection.exec_driver_sql(statement)


async def _opens(store: Store, signal: Signal) -> None:
    """It opens an incident, and the levels in memory are those on record."""
    [accepted] = await store.signals.accept([signal], RULES, again=RULES.again, dry_run=True)
    assert accepted.disposition.kind is DispositionKind.OPENED, accepted.disposition.reason
    on_record = await store.signals.levels(KEY)
    assert on_record is not None
    kept = await database_of(store).write(partial(remembered, keys=[KEY]))
    assert kept[KEY].levels == on_record


@pytest.mark.parametrize("known", [False, True], ids=["a new service", "a service on record"])
@pytest.mark.parametrize("kind", [Brief, lambda work: work], ids=["brief", "on the writer's thread"])
async def test_what_a_failed_commit_decided_is_forgotten(
    store: Store, kind: Callable[[Work[None]], Work[None]], known: bool
) -> None:
    """A later deploy that was not recorded hides no failure, and a delivery once more is recorded whole."""
    if known:
        started = _deploy("1", DeployStatus.STARTED, minutes_ago=5)
        await store.signals.accept([started], RULES, again=RULES.again, dry_run=True)
        lost, given = _deploy("3", DeployStatus.SUCCEEDED, minutes_ago=1), None
    else:
        lost = given = _deploy("2", DeployStatus.FAILED, minutes_ago=2)
    with pytest.raises(Invalid):
        await database_of(store).write(kind(partial(_fails_at_commit, lost)))
    assert await store.signals.get(lost.id) is None
    await _opens(store, given or _deploy("2", DeployStatus.FAILED, minutes_ago=2))
