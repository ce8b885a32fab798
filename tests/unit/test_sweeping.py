"""The sweep: what it ends, mends and says, over a real store on a virtual clock."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from app.agent.audit.accounting import AuditQuestion
from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import CredentialKind, Person, issue
from app.agent.models import DispositionKind
from app.agent.ports.store import Store
from app.store import open_store
from app.testing import VirtualClock
from app.workers.sweeper import Sweeper
from tests.contract.store_values import Deciding, claimed, disposition, opened, pending, signal

KEPT = timedelta(days=7)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    made = await open_store(f"sqlite:///{tmp_path / 'heal.db'}")
    yield made
    await made.close()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def sweeper(store: Store, clock: VirtualClock) -> Sweeper:
    return Sweeper(
        store=store,
        clock=clock,
        every=timedelta(seconds=15),
        pending_for=timedelta(minutes=4),
        keep_for=KEPT,
    )


async def test_every_signal_comes_to_an_end_and_stays_in_the_sum(
    store: Store, clock: VirtualClock, sweeper: Sweeper
) -> None:
    """Pending becomes expired, expired becomes forgotten, and the sum holds at each step."""
    one = signal(at=clock.now())
    await store.signals.accept([one], pending(), dry_run=True)
    await sweeper.sweep()
    assert (await disposition(store, one)).kind is DispositionKind.PENDING
    await clock.advance(241)
    await sweeper.sweep()
    assert (await disposition(store, one)).kind is DispositionKind.EXPIRED
    await clock.advance(KEPT.total_seconds())
    await sweeper.sweep()
    assert await store.signals.get(one.id) is None
    found = await store.accounting.audit(AuditQuestion(now=clock.now(), pending_for=timedelta(minutes=5)))
    assert (found.adds_up, found.accepted, found.forgotten) == (True, 1, {DispositionKind.EXPIRED: 1})


async def test_what_would_oversleep_is_woken_and_said(
    store: Store, clock: VirtualClock, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    """It is due at once, for whichever worker asks first."""
    incident = await opened(store, at=clock.now())
    claim = await claimed(store, incident, at=clock.now())
    await store.claims.release(claim, clock.now() + timedelta(days=400))
    await sweeper.sweep()
    assert f"with a missed wake-up are due now: {incident.id}" in caplog.text
    [taken] = await store.claims.take_due("worker-2", timedelta(seconds=30), clock.now(), 5)
    assert taken.incident_id == incident.id


async def test_what_cannot_be_fixed_is_said_once(
    store: Store, clock: VirtualClock, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    """An incident without a worker: once while it lasts, and again when it comes back."""
    caplog.set_level(logging.WARNING, logger="app")
    incident = await opened(store, at=clock.now())
    await clock.advance(600)
    await sweeper.sweep()
    await sweeper.sweep()
    assert caplog.text.count("discrepancy (nobody_drives)") == 1
    claim = await claimed(store, incident, at=clock.now())
    await sweeper.sweep()
    await store.claims.release(claim, clock.now())
    await clock.advance(600)
    await sweeper.sweep()
    assert caplog.text.count("discrepancy (nobody_drives)") == 2


async def test_nothing_is_said_of_a_store_where_all_is_well(
    store: Store, clock: VirtualClock, sweeper: Sweeper, caplog: pytest.LogCaptureFixture
) -> None:
    """The log is for what a person should read."""
    caplog.set_level(logging.INFO, logger="app")
    ignoring = Deciding(kind=DispositionKind.IGNORED, triggers=())
    await store.signals.accept([signal(at=clock.now())], ignoring, dry_run=True)
    await opened(store, at=clock.now())
    await sweeper.sweep()
    assert caplog.text == ""


async def test_old_credentials_are_forgotten_now_and_then(
    store: Store, clock: VirtualClock, sweeper: Sweeper
) -> None:
    """A session that ended long ago goes, one that ended lately stays for those who ask."""
    lifetime = timedelta(hours=12)
    issued = issue(
        CredentialKind.SESSION, "ann", roles=(), scopes=(), by="ann", at=clock.now(), lifetime=lifetime
    )
    ann = Person(name="ann")
    human_decision = HumanDecision(
        at=clock.now(), by=ann, kind=HumanDecisionKind.SIGNED_ON, subject=issued.credential.id
    )
    await store.credentials.add(issued.credential, human_decision)
    forgetting = asyncio.create_task(sweeper.forget())
    await clock.advance(timedelta(days=30).total_seconds())
    assert await store.credentials.get(issued.credential.id) is not None
    await clock.advance(timedelta(hours=14).total_seconds())
    assert await store.credentials.get(issued.credential.id) is None
    forgetting.cancel()
    await asyncio.wait({forgetting})


async def test_days_that_are_over_are_counted_once(
    store: Store, clock: VirtualClock, sweeper: Sweeper
) -> None:
    """For statistics; a later sweep finds nothing left to count."""
    await store.signals.accept([signal(at=clock.now())], Deciding(), dry_run=True)
    await clock.advance(timedelta(days=2).total_seconds())
    await sweeper.sweep()
    assert await store.statistics.roll_up(clock.now()) == 0
    await clock.advance(timedelta(days=1).total_seconds())
    assert await store.statistics.roll_up(clock.now()) == 1
