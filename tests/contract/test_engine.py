"""The durable engine drives incidents to their end on both databases, and goes on after a restart."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from app.agent.models import Deploy, DeployStatus, IncidentId, IncidentRecord, IncidentState, ServiceKey
from app.agent.observer import new_signal
from app.bootstrap import Container, World, assemble
from app.clock import SystemClock
from app.errors import ConfigurationError
from app.store import open_store
from app.workers import attended
from app.workers.engine import DurableRunner
from tests.stories import settings_for

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

KEY = ServiceKey(environment="prod", service="shop")
DEADLINE_SECONDS = 30.0


async def agent(directory: Path, database_url: str, **changes: object) -> tuple[Container, DurableRunner]:
    """A wired agent without a cluster, on the given database."""
    clock = SystemClock()
    runner = DurableRunner(database_url=database_url, clock=clock)
    settings = settings_for(
        directory, **{"database_url": database_url, "incident_settle_seconds": 0, **changes}
    )
    store = await open_store(database_url)
    return assemble(settings, clock=clock, store=store, world=World(), runner=runner), runner


async def report_a_failed_deploy(container: Container, age: timedelta) -> IncidentId:
    now = container.clock.now()
    (accepted,) = await container.intake.accept(
        [
            new_signal(
                key=KEY,
                source="http",
                observed_at=now - age,
                received_at=now,
                payload=Deploy(version="2", status=DeployStatus.FAILED),
                stale_after=container.stale_after,
            )
        ]
    )
    assert accepted.disposition.incident_id is not None
    return accepted.disposition.incident_id


async def wait_until(
    container: Container, incident_id: IncidentId, holds: Callable[[IncidentRecord], bool]
) -> IncidentRecord:
    """The incident's record once it satisfies the condition."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        record = await container.store.load(incident_id)
        if record is not None and holds(record):
            return record
        await asyncio.sleep(0.05)
    raise AssertionError(f"not in time: {record}")


async def test_an_incident_is_driven_to_its_end_by_nobody(tmp_path: Path, database_url: str) -> None:
    """Accepting the signal is all that anybody does."""
    container, runner = await agent(tmp_path, database_url)
    try:
        async with attended(container, runner):
            incident_id = await report_a_failed_deploy(container, timedelta(days=30))
            record = await wait_until(container, incident_id, lambda r: r.incident.state.closed)
            assert record.incident.lesson is not None
    finally:
        await container.close()


async def test_a_second_agent_on_one_sqlite_file_is_refused(tmp_path: Path) -> None:
    """Promise 3: two processes would both believe that they hold every claim."""
    url = f"sqlite:///{tmp_path / 'heal.db'}"
    first, runner = await agent(tmp_path, url)
    second, rival = await agent(tmp_path, url)
    try:
        async with attended(first, runner):
            with pytest.raises(ConfigurationError, match="another agent runs on"):
                await rival.start(second.loop)
        async with attended(second, DurableRunner(database_url=url, clock=SystemClock())):
            pass
    finally:
        await first.close()
        await second.close()


async def test_an_incident_goes_on_after_a_restart(tmp_path: Path, database_url: str) -> None:
    """Stopped while it watched; the next start takes it to its end."""
    first, runner = await agent(tmp_path, database_url, verify_timeout_seconds=3600)
    try:
        async with attended(first, runner):
            incident_id = await report_a_failed_deploy(first, timedelta(seconds=1))
            await wait_until(first, incident_id, lambda r: r.incident.state is IncidentState.VERIFYING)
    finally:
        await first.close()
    second, runner = await agent(
        tmp_path,
        database_url,
        verify_soak_seconds=0,
        verify_timeout_seconds=0.5,
        verify_interval_seconds=0.1,
        claim_lease_seconds=1,
    )
    try:
        async with attended(second, runner):
            record = await wait_until(second, incident_id, lambda r: r.incident.state.closed)
            assert record.incident.state is IncidentState.PROPOSED
    finally:
        await second.close()


async def test_an_incident_opened_while_nobody_was_there_is_found(tmp_path: Path, database_url: str) -> None:
    """A crash between the commit and the wake loses nothing: the sweep at start finds it."""
    container, runner = await agent(tmp_path, database_url)
    try:
        incident_id = await report_a_failed_deploy(container, timedelta(days=30))
        assert (await wait_until(container, incident_id, lambda _: True)).incident.state is IncidentState.OPEN
        async with attended(container, runner):
            await wait_until(container, incident_id, lambda r: r.incident.state.closed)
    finally:
        await container.close()
