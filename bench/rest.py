"""Fills a database with thousands of incidents that await approval.

The first ones are brought to AWAITING_APPROVAL by the store's own methods, with
diagnosis, plan, approval and timeline, and released until the approval expires: row
for row what the loop leaves. The others are copies of their rows under new ids, for
which the hashes of the timeline are wrong; nothing that is measured reads them.
"""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Connection, TextClause, text

from app.agent.ids import (
    ApprovalId,
    IncidentId,
    ServiceKey,
    SignalId,
)
from app.agent.intake import IntakeRules
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    Cause,
    Deploy,
    DeployStatus,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentState,
    Note,
    Plan,
    Risk,
    Signal,
    SignalKind,
    Stage,
)
from app.agent.planner import plan_hash
from app.agent.ports.store import Store
from app.agent.slo import SloThresholds
from app.store import store_over
from app.store.database.port import Database, Work

T = TypeVar("T")

MADE = 100
"""So many are made by the store itself, in one transaction."""
LEASE = timedelta(minutes=1)
_numbers = itertools.count()


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """One incident that waits, and what it waits for."""

    incident: IncidentId
    approval: ApprovalId


class _Inside:
    """A `Database` within one transaction of another: the store's methods, without a commit each."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def write(self, work: Work[T], *, urgent: bool = False) -> T:  # noqa: ARG002 - the port's signature
        return work(self._connection)

    async def read(self, work: Work[T], *, urgent: bool = False) -> T:  # noqa: ARG002 - as above
        return work(self._connection)

    async def same(self) -> None:
        """It always is."""

    async def close(self) -> None:
        """The transaction is its owner's."""


async def fill(database: Database, count: int, expires_in: timedelta) -> list[Waiting]:
    """Bring so many new incidents, a multiple of `MADE`, to wait for an approval."""
    if count % MADE:
        raise ValueError(f"{count} is no multiple of {MADE}")
    copies = count // MADE - 1
    keys = [next(_numbers) for _ in range(MADE)]

    def work(connection: Connection) -> list[Waiting]:
        store = store_over(_Inside(connection))
        made = [_at_once(_waiting(store, key, expires_in)) for key in keys]
        for table, changed in _COPIED.items():
            connection.execute(
                _copying(table, changed), {"copies": copies, "made": [m.incident for m in made]}
            )
        return made + [_copy(one, n) for n in range(1, copies + 1) for one in made]

    return await database.write(work)


_COPIED = {
    "incidents": ("id", "service"),
    "signals": ("id", "dedup_key", "service", "incident_id"),
    "claims": ("incident_id",),
    "approvals": ("id", "incident_id"),
    "timeline": ("incident_id",),
}
"""The tables an incident has rows in, and the columns by which its copies differ."""


def _copying(table: str, changed: tuple[str, ...]) -> TextClause:
    """`copies` copies of the rows of the incidents `made`."""
    fresh = ", ".join(f"'{column}', row.{column} || '-' || n" for column in changed)
    number = ", 'number', nextval(pg_get_serial_sequence('signals', 'number'))" if table == "signals" else ""
    mine = "id" if table == "incidents" else "incident_id"
    return text(
        f"INSERT INTO {table} SELECT (jsonb_populate_record(row, jsonb_build_object({fresh}{number}))).*"  # noqa: S608 - names of ours
        f" FROM {table} AS row, generate_series(1, :copies) AS n WHERE row.{mine} = ANY(:made)"
    )


def _copy(one: Waiting, number: int) -> Waiting:
    return Waiting(
        incident=IncidentId(f"{one.incident}-{number}"), approval=ApprovalId(f"{one.approval}-{number}")
    )


def _at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        value: T = end.value
        return value
    raise RuntimeError("it waits for something")


async def _waiting(store: Store, number: int, expires_in: timedelta) -> Waiting:
    now = datetime.now(UTC)
    signal = Signal(
        id=SignalId(f"sig_{uuid.uuid4().hex}"),
        kind=SignalKind.DEPLOY,
        key=ServiceKey(environment="bench", service=f"service-{number:06d}"),
        source="http",
        observed_at=now,
        received_at=now,
        dedup_key=f"bench {number}",
        stale=False,
        payload=Deploy(version="1.15.0", status=DeployStatus.FAILED, commit_sha="d1e2f3a"),
    )
    thresholds = SloThresholds(
        max_error_rate=0.05,
        max_p95_latency_ms=1000,
        clear_ratio=0.8,
        breach_for=timedelta(minutes=1),
        reopen_after=timedelta(hours=1),
    )
    [accepted] = await store.signals.accept([signal], IntakeRules(slo=thresholds), dry_run=False)
    identifier = accepted.disposition.incident_id
    if identifier is None:
        raise RuntimeError(f"no incident was opened: {accepted.disposition.reason}")
    claim = await store.claims.take(identifier, "bench", LEASE, now)
    record = await store.incidents.get(identifier)
    if claim is None or record is None:
        raise RuntimeError(f"{identifier} is held by somebody")
    planned = await store.incidents.save(claim, _planned(record.incident, now), _notes(now))
    asked = _asked(planned, now, expires_in)
    asking = replace(planned, state=IncidentState.AWAITING_APPROVAL)
    note = Note(
        at=now,
        stage=Stage.POLICY,
        message=f"notify (low risk) needs an approval until {asked.expires_at:%Y-%m-%d %H:%M:%S} UTC.",
        data={"approval": asked.id, "plan_hash": asked.plan_hash},
    )
    await store.approvals.request(claim, asking, asked, [note])
    await store.claims.release(claim, asked.expires_at)
    return Waiting(incident=identifier, approval=asked.id)


def _planned(incident: Incident, now: datetime) -> Incident:
    action = Action(
        name=ActionName.NOTIFY,
        risk=Risk.LOW,
        target=None,
        parameters={"message": f"{incident.key.service} fails since version 1.15.0"},
        expected_effect="people are notified of the incident",
        undo=None,
    )
    best = Hypothesis(
        cause=Cause.BAD_RELEASE,
        confidence=0.9,
        rule="bad_release",
        evidence_for=("version 1.15.0 was released and failed",),
    )
    plan = Plan(
        runbook="bench@1",
        runbook_hash="0" * 64,
        actions=(action,),
        rejected=(),
        hash=plan_hash("0" * 64, (action,)),
        at=now,
    )
    return replace(incident, diagnosis=Diagnosis(hypotheses=(best,), at=now), plan=plan)


def _notes(now: datetime) -> list[Note]:
    return [
        Note(at=now, stage=Stage.OBSERVE, message="Evidence: a failed deploy.", data={"changes": 1}),
        Note(at=now, stage=Stage.DIAGNOSE, message="Diagnosis: bad_release (0.90).", data={"rule": "bad"}),
        Note(at=now, stage=Stage.PLAN, message="Plan: bench@1, one action.", data={"runbook": "bench@1"}),
    ]


def _asked(incident: Incident, now: datetime, expires_in: timedelta) -> Approval:
    if incident.plan is None:
        raise RuntimeError("nothing is planned")
    return Approval(
        id=ApprovalId(f"apr_{uuid.uuid4().hex}"),
        incident_id=incident.id,
        action_index=0,
        action=ActionName.NOTIFY,
        plan_hash=incident.plan.hash,
        target_token=None,
        reasons=("notify is low risk, and APPROVAL_FOR_RISKS requires an approval",),
        requested_at=now,
        expires_at=now + expires_in,
    )
