"""Values for the store's contract: signals, incidents, intents and fixed intake decisions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from app.agent.ids import (
    ApprovalId,
    IncidentId,
    IntentId,
    ServiceKey,
    SignalId,
)
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    Change,
    Decision,
    DecisionKind,
    Deploy,
    DeployStatus,
    Disposition,
    DispositionKind,
    Incident,
    IncidentState,
    Intent,
    IntentState,
    MetricSample,
    Note,
    Outcome,
    OutcomeKind,
    Payload,
    Risk,
    Signal,
    SignalKind,
    Snapshot,
    Stage,
    Trigger,
    Verdict,
    VerdictKind,
)
from app.agent.ports.store import Store
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.signals import IntakeVerdict, ServiceLevels
from app.agent.slo import SloThresholds
from app.agent.workload import ObjectRef

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
PAYMENTS = ServiceKey(environment="prod", service="payments-api")
FAILED_DEPLOY = Deploy(version="1.15.0", status=DeployStatus.FAILED, commit_sha="d1e2f3a")
LEASE = timedelta(seconds=30)
MINUTE = timedelta(minutes=1)
SLO = SloThresholds(
    max_error_rate=0.05,
    max_p95_latency_ms=1000,
    clear_ratio=0.8,
    breach_for=MINUTE,
    reopen_after=timedelta(hours=1),
)

_numbers = itertools.count(1)


def signal(
    payload: Payload = FAILED_DEPLOY,
    *,
    key: ServiceKey = PAYMENTS,
    at: datetime = NOW,
    dedup_key: str | None = None,
    stale: bool = False,
) -> Signal:
    """A signal like no other, unless it is given another's `dedup_key`."""
    number = next(_numbers)
    return Signal(
        id=SignalId(f"sig_{number:032x}"),
        kind=SignalKind.METRIC if isinstance(payload, MetricSample) else SignalKind.DEPLOY,
        key=key,
        source="http",
        observed_at=at,
        received_at=at,
        dedup_key=dedup_key or f"observation {number}",
        stale=stale,
        payload=payload,
    )


@dataclass
class Deciding:
    """An intake decision fixed in advance, which remembers what it was asked with."""

    kind: DispositionKind = DispositionKind.OPENED
    triggers: tuple[Trigger, ...] = (Trigger.DEPLOY_FAILED,)
    levels: ServiceLevels | None = None
    change: Change | None = None
    release_pending: bool = False
    asked: list[tuple[Signal, ServiceLevels | None, Incident | None, Incident | None]] = field(
        default_factory=list
    )

    def __call__(
        self,
        signal: Signal,
        levels: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        self.asked.append((signal, levels, open_incident, last_closed))
        return IntakeVerdict(
            disposition=Disposition(kind=self.kind, reason="the test says so"),
            levels=self.levels,
            triggers=self.triggers,
            change=self.change,
            release_pending=self.release_pending,
        )


def pending() -> Deciding:
    return Deciding(kind=DispositionKind.PENDING, triggers=())


async def disposition(store: Store, one: Signal) -> Disposition:
    """What became of a signal, as stored."""
    record = await store.signals.get(one.id)
    assert record is not None
    return record.disposition


async def opened(
    store: Store,
    key: ServiceKey = PAYMENTS,
    *,
    at: datetime = NOW,
    dry_run: bool = False,
    decide: Deciding | None = None,
    stale: bool = False,
) -> Incident:
    """Open an incident through intake."""
    accepted = await store.signals.accept(
        [signal(key=key, at=at, stale=stale)], decide or Deciding(), dry_run=dry_run
    )
    incident_id = accepted[0].disposition.incident_id
    assert incident_id is not None
    return await loaded(store, incident_id)


def key(number: int) -> ServiceKey:
    """One of many services."""
    return ServiceKey(environment="prod", service=f"service-{number}")


def closed(incident: Incident, state: IncidentState = IncidentState.RECOVERED) -> Incident:
    """The incident at its end."""
    return replace(incident, state=state, closed_at=NOW + MINUTE)


async def loaded(store: Store, incident_id: IncidentId) -> Incident:
    record = await store.incidents.get(incident_id)
    assert record is not None
    return record.incident


async def claimed(store: Store, incident: Incident, owner: str = "worker-1", at: datetime = NOW) -> Claim:
    claim = await store.claims.take(incident.id, owner, LEASE, at)
    assert claim is not None
    return claim


def note(message: str = "looked", at: datetime = NOW) -> Note:
    return Note(at=at, stage=Stage.DIAGNOSE, message=message, data={"figure": 0.13})


DEPLOYMENT = ObjectRef(kind="Deployment", namespace="payments", name="payments-api")
SNAPSHOT = Snapshot(ref=DEPLOYMENT, token="uid/7", body={"spec": {"replicas": 3, "paused": None}})


def intent(
    incident: Incident,
    sequence: int = 0,
    *,
    kind: DecisionKind = DecisionKind.ALLOW,
    dry_run: bool = False,
    undoes: IntentId | None = None,
) -> Intent:
    return Intent(
        id=IntentId(f"int_{uuid4().hex}"),
        incident_id=incident.id,
        sequence=sequence,
        action=Action(
            name=ActionName.RESTORE if undoes else ActionName.ROLLBACK,
            risk=Risk.HIGH,
            target=DEPLOYMENT,
            parameters={"revision": 6, "factor": 1.5, "force": False, "note": None},
            expected_effect="the previous template runs again",
            undo="restore the template",
        ),
        dry_run=dry_run,
        decision=Decision(kind=kind, reasons=("as asked",), plan_hash="abc", target_token="uid/7", at=NOW),
        rehearsal=None,
        state=IntentState.DECIDED,
        undoes=undoes,
    )


def outcome(kind: OutcomeKind = OutcomeKind.DONE) -> Outcome:
    return Outcome(kind=kind, message="as the server said", at=NOW)


def recovered_after(act: Intent | None) -> Verdict:
    """A verified recovery after this action, or without one."""
    intent_id = None if act is None else act.id
    return Verdict(kind=VerdictKind.RECOVERED, reasons=("within the SLO",), at=NOW, intent_id=intent_id)


async def decided(store: Store, claim: Claim, intents: Sequence[Intent]) -> Incident:
    """Store decided intents on the claimed incident."""
    incident = await loaded(store, claim.incident_id)
    for each in intents:
        incident = await store.intents.add(claim, incident, each, [note(f"decided {each.sequence}")])
    return incident


def approval(incident: Incident, *, action_index: int = 0, expires_at: datetime = NOW + MINUTE) -> Approval:
    """A request for the first action of the plan."""
    return Approval(
        id=ApprovalId(f"apr_{uuid4().hex}"),
        incident_id=incident.id,
        action_index=action_index,
        action=ActionName.ROLLBACK,
        plan_hash="abc",
        target_token="uid/7",
        reasons=("high risk",),
        requested_at=NOW,
        expires_at=expires_at,
    )
