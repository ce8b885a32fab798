"""A sender's limit of open incidents: what is above it is queued, kept, and opened in its turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from app.agent.audit.accounting import AuditQuestion
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intake import Intake, IntakeRules
from app.agent.models import (
    Deploy,
    DeployStatus,
    DispositionKind,
    Incident,
    Signal,
)
from app.agent.ports.store import Store
from app.agent.workload import RevisionHealth, RevisionRecord
from app.testing import VirtualClock
from app.workers.backlog import Backlog
from tests.contract.store_values import LEASE, NOW, SLO, claimed, closed, disposition, signal

pytest_plugins = ["tests.contract.postgres", "tests.contract.stores"]

LIMIT = 3
RULES = IntakeRules(slo=SLO, max_open_per_sender=LIMIT)


def key(number: int) -> ServiceKey:
    return ServiceKey(environment="prod", service=f"bogus-{number:04d}")


def opening(of: ServiceKey, sender: str = "http") -> Signal:
    """A failed deploy, which opens an incident at once."""
    one = signal(Deploy(version="2", status=DeployStatus.FAILED), key=of)
    return replace(one, source=sender, dedup_key=f"{sender} {of}")


async def accepted(store: Store, *signals: Signal) -> list[DispositionKind]:
    answers = await store.signals.accept(signals, RULES, dry_run=False)
    return [answer.disposition.kind for answer in answers]


async def ended(store: Store, incident: Incident) -> None:
    claim = await claimed(store, incident)
    await store.incidents.save(claim, closed(incident), [])
    await store.claims.release(claim)


async def serves(store: Store, of: ServiceKey) -> None:
    """The agent has seen it serve in its own cluster."""
    await store.history.record_revision(
        RevisionRecord(
            key=of,
            template_hash="t",
            number=1,
            health=RevisionHealth.SERVED_WELL,
            seen_at=NOW,
            reason="complete",
        )
    )


async def test_above_the_limit_openings_are_queued_and_none_is_lost(store: Store) -> None:
    """They neither expire nor count as discrepancies; each is opened when another of the sender has ended."""
    signals = [opening(key(number)) for number in range(10)]
    kinds = await accepted(store, *signals)
    assert kinds == [DispositionKind.OPENED] * LIMIT + [DispositionKind.PENDING] * 7
    assert (await disposition(store, signals[-1])).reason.startswith("queued: http has 3 incidents open")
    later = NOW + timedelta(days=3)
    assert await store.signals.expire_pending(later) == 0
    assert (
        await store.accounting.discrepancies(AuditQuestion(now=NOW, pending_for=-timedelta(days=1)))
    ).found == ()
    opened: set[ServiceKey] = set()
    for _ in range(len(signals)):
        open_now = await store.incidents.all_open()
        assert len(open_now) <= LIMIT
        opened |= {incident.key for incident in open_now}
        for incident in open_now[:1]:
            await ended(store, incident)
        await store.signals.open_queued(RULES, dry_run=False, limit=20)
    assert opened == {one.key for one in signals}
    assert {(await disposition(store, one)).kind for one in signals} == {DispositionKind.OPENED}


async def test_other_senders_and_known_services_are_not_held_up(store: Store) -> None:
    """The limit is the sender's own, and never applies to a service of the agent's own cluster."""
    real, watched = ServiceKey(environment="prod", service="payments"), key(99)
    await serves(store, real)
    await accepted(store, *(opening(key(number)) for number in range(2 * LIMIT)))
    assert await accepted(store, opening(real)) == [DispositionKind.OPENED]
    assert await accepted(store, opening(key(50), "alertmanager")) == [DispositionKind.OPENED]
    assert await accepted(store, opening(watched, "kubernetes")) == [DispositionKind.OPENED]


async def test_a_queued_opening_joins_what_another_sender_opened(store: Store) -> None:
    """At most one incident of a service is open, for any number of reporters."""
    await accepted(store, *(opening(key(number)) for number in range(LIMIT)))
    queued = opening(key(7))
    assert await accepted(store, queued) == [DispositionKind.PENDING]
    assert await accepted(store, opening(key(7), "alertmanager")) == [DispositionKind.OPENED]
    await store.signals.open_queued(RULES, dry_run=False, limit=20)
    assert (await disposition(store, queued)).kind is DispositionKind.JOINED


async def test_queued_openings_of_one_service_are_recorded_once_in_its_incident(store: Store) -> None:
    """The first opens, the others join with it in one entry, and none of them is left in the backlog."""
    await accepted(store, *(opening(key(number)) for number in range(LIMIT)))
    waiting = [replace(opening(key(7)), dedup_key=f"again {number}") for number in range(5)]
    assert await accepted(store, *waiting) == [DispositionKind.PENDING] * 5
    for incident in await store.incidents.all_open():
        await ended(store, incident)
    found = await store.signals.open_queued(RULES, dry_run=False, limit=20)
    assert (found.ended, found.queued) == (5, ())
    [incident] = await store.incidents.all_open()
    timeline = await store.incidents.timeline(incident.id)
    assert [entry.message.split()[0] for entry in timeline] == ["Opened", "Joined"]
    assert timeline[1].data["signals"] == 4
    kinds = [(await disposition(store, one)).kind for one in waiting]
    assert kinds == [DispositionKind.OPENED] + [DispositionKind.JOINED] * 4


async def test_every_sender_has_its_turn(store: Store) -> None:
    """No sender with a backlog keeps another's from being opened."""
    for sender, count in (("http", 20), ("alertmanager", LIMIT + 1)):
        await accepted(store, *(opening(key(number + 100 * count), sender) for number in range(count)))
    for incident in await store.incidents.all_open():
        await ended(store, incident)
    await store.signals.open_queued(RULES, dry_run=False, limit=4)
    services = {incident.key for incident in await store.incidents.all_open()}
    assert key(LIMIT + 100 * (LIMIT + 1)) in services
    assert key(LIMIT + 100 * 20) in services


async def test_what_is_known_is_looked_at_before_a_storm_of_unknown_services(store: Store) -> None:
    """However many were opened before it; of the unknown ones the longest waiting come first."""
    rules = IntakeRules(slo=SLO)
    storm = [
        replace(opening(key(number)), received_at=NOW + timedelta(seconds=number)) for number in range(30)
    ]
    await store.signals.accept(storm, rules, dry_run=False)
    real = ServiceKey(environment="prod", service="payments")
    await serves(store, real)
    [answer] = await store.signals.accept([opening(real)], rules, dry_run=False)
    [first] = await store.claims.take_due("a", LEASE, NOW, 1)
    assert first.incident_id == answer.disposition.incident_id
    taken = await store.claims.take_due("a", LEASE, NOW, 10)
    assert [claim.incident_id for claim in taken] == [
        incident.id for incident in sorted(await _of(store, storm), key=lambda i: (i.opened_at, i.id))
    ][:10]


async def test_an_incident_under_way_is_not_starved_by_new_ones(store: Store) -> None:
    """One that is due since a minute comes before those that were opened after that."""
    rules = IntakeRules(slo=SLO)
    under_way = opening(key(0))
    await store.signals.accept([under_way], rules, dry_run=False)
    [claim] = await store.claims.take_due("a", LEASE, NOW, 1)
    await store.claims.release(claim, NOW + timedelta(seconds=1))
    later = NOW + timedelta(minutes=1)
    await store.signals.accept(
        [replace(opening(key(number)), observed_at=later, received_at=later) for number in range(1, 30)],
        rules,
        dry_run=False,
    )
    [first] = await store.claims.take_due("a", LEASE, later, 1)
    assert first.incident_id == claim.incident_id


async def _of(store: Store, signals: Sequence[Signal]) -> list[Incident]:
    wanted = {one.key for one in signals}
    return [incident for incident in await store.incidents.all_open() if incident.key in wanted]


@dataclass(kw_only=True)
class People:
    """A `Notifier` that keeps what it was given."""

    said: list[tuple[str, IncidentId]] = field(default_factory=list)

    async def send(self, text: str, incident: Incident) -> None:
        self.said.append((text, incident.id))


class Asleep:
    """A `Runner` that moves nothing on."""

    async def wake(self, incident_id: IncidentId) -> None:
        """Leave it."""


async def test_people_are_notified_once_of_a_backlog(store: Store) -> None:
    """Once for as long as it lasts, and again for the next one."""
    people, clock = People(), VirtualClock(NOW)
    intake = Intake(signals=store.signals, rules=RULES, runner=Asleep(), dry_run=False)
    backlog = Backlog(intake=intake, incidents=store.incidents, notifier=people, clock=clock)
    await backlog.round()
    assert people.said == []
    await accepted(store, *(opening(key(number)) for number in range(LIMIT + 2)))
    for _ in range(3):
        await backlog.round()
    assert len(people.said) == 1
    assert "http" in people.said[0][0]
    assert "2 more are queued" in people.said[0][0]
    while open_now := await store.incidents.all_open():
        for incident in open_now:
            await ended(store, incident)
        await backlog.round()
    await accepted(store, *(opening(key(number)) for number in range(100, 101 + LIMIT)))
    await backlog.round()
    assert len(people.said) == 2
