"""The store port over SQL: names the unit of work behind each method, and nothing more.

Built by `app.store.open_store`; the loop, intake and the API see it as `Store`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from sqlalchemy import Connection

from app.agent.audit.accounting import (
    AuditQuestion,
    Discrepancies,
    Repairs,
    SignalAudit,
)
from app.agent.audit.anchoring import Head
from app.agent.guardrails.limits import Budget, History, Limits
from app.agent.guardrails.status import Attempts
from app.agent.identity.audit_log import AuditLogEntry, HumanDecision
from app.agent.identity.people import Credential, CredentialId, Person
from app.agent.ids import (
    ApprovalId,
    IncidentId,
    IntentId,
    ServiceKey,
    SignalId,
)
from app.agent.models import (
    Approval,
    ApprovalState,
    Change,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    KillSwitch,
    Note,
    Outcome,
    Signal,
    SliSample,
    Snapshot,
    TimelineEntry,
    Trigger,
)
from app.agent.notifications.channel import Announcement, Posting
from app.agent.ports.signals import (
    Accepted,
    Dequeued,
    IntakeDecider,
    RepeatDecider,
    ServiceLevels,
    SignalRecord,
)
from app.agent.ports.store import (
    ApprovalPage,
    Beginning,
    Begun,
    Claim,
    IncidentFilter,
    OpenBeside,
    Page,
    ReasonGuard,
    RecordPart,
)
from app.agent.workload import ConfigRecord, RevisionRecord
from app.errors import ClaimLost, PartlyRecorded, TransientError
from app.store import (
    approvals,
    brakes,
    budgets,
    claims,
    credentials,
    history,
    incidents,
    intake,
    intents,
)
from app.store import (
    audit_log as trail,
)
from app.store import (
    notes as narrative,
)
from app.store import (
    notifications as postings,
)
from app.store import (
    timeline as journal,
)
from app.store.database import nonces, ping
from app.store.database.port import Database
from app.store.signals import audit
from app.store.signals import records as signals

PARTS_AT_ONCE = 2
"""Parts of large deliveries in work: operators wait for these, however many deliveries were let in."""
MOST_BATCHES = 20
"""Batches of one call of `prune` or `expire_pending`; the next call goes on with what is left."""


class SqlStore:
    """`app.agent.ports.Store` over one database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._large = asyncio.Semaphore(PARTS_AT_ONCE)
        """Held for each part of a large delivery."""

    # ------------------------------------------------------------ signals

    async def accept(
        self,
        signals: Sequence[Signal],
        decide: IntakeDecider,
        *,
        again: RepeatDecider | None = None,
        dry_run: bool,
        idempotency_key: str | None = None,
        request_hash: str | None = None,
    ) -> tuple[Accepted, ...]:
        delivery = intake.Delivery(
            signals=tuple(signals),
            decide=decide,
            again=again,
            dry_run=dry_run,
            idempotency_key=idempotency_key,
            request_hash=request_hash,
        )
        if len(intake.parts(delivery)) == 1:
            return await self._database.write(lambda connection: intake.accept(connection, delivery))
        return await self._accept_in_parts(delivery)

    async def _accept_in_parts(self, delivery: intake.Delivery) -> tuple[Accepted, ...]:
        """One transaction for each part, so that others get their turn between two parts.

        Raises `PartlyRecorded` where the store stops answering between two of them.
        """
        intake.check_keys(delivery)
        recorded = await self._database.write(lambda connection: intake.recorded(connection, delivery))
        if recorded is not None:
            return recorded
        places = intake.by_service(delivery)
        sorted_out = replace(delivery, signals=tuple(delivery.signals[place] for place in places))
        answers: list[Accepted] = []
        try:
            for part in intake.parts(sorted_out):
                async with self._large:
                    answers += await self._database.write(partial(intake.accept, delivery=part))
            in_order = tuple(
                answer for _, answer in sorted(zip(places, answers, strict=True), key=lambda pair: pair[0])
            )
            await self._database.write(lambda connection: intake.record(connection, delivery, in_order))
        except TransientError as error:
            if not answers:
                raise
            raise PartlyRecorded(
                str(error),
                recorded=len(answers),
                total=len(delivery.signals),
                retry_after=error.retry_after,
            ) from error
        return in_order

    async def signal(self, signal_id: SignalId) -> SignalRecord | None:
        return await self._database.read(lambda connection: signals.get(connection, signal_id))

    async def incident_signals(self, incident_id: IncidentId, limit: int) -> tuple[Signal, ...]:
        return await self._database.read(
            lambda connection: signals.of_incident(connection, incident_id, limit)
        )

    async def pending_services(self, service: str, environment: str | None) -> tuple[ServiceKey, ...]:
        return await self._database.read(
            lambda connection: intake.pending_services(connection, service, environment)
        )

    async def levels(self, key: ServiceKey) -> ServiceLevels | None:
        return await self._database.read(lambda connection: intake.levels(connection, key))

    async def open_from_pending(
        self, key: ServiceKey, triggers: Sequence[Trigger], *, dry_run: bool, at: datetime
    ) -> IncidentId | None:
        return await self._database.write(
            lambda connection: intake.open_from_pending(connection, key, triggers, dry_run, at)
        )

    async def open_queued(self, decide: IntakeDecider, *, dry_run: bool, limit: int) -> Dequeued:
        return await self._database.write(
            lambda connection: intake.open_queued(connection, decide, dry_run, limit)
        )

    async def expire_pending(self, older_than: datetime) -> int:
        return await self._in_batches(partial(signals.expire_pending, older_than=older_than), signals.BATCH)

    async def prune(self, older_than: datetime) -> int:
        pruned = await self._in_batches(partial(signals.prune, older_than=older_than), signals.BATCH)
        return pruned + await self._in_batches(
            partial(signals.prune_changes, older_than=older_than), signals.BATCH
        )

    async def samples(self, key: ServiceKey, since: datetime) -> tuple[SliSample, ...]:
        return await self._database.read(lambda connection: signals.samples(connection, key, since))

    async def changes(self, since: datetime, *, of: ServiceKey | None = None) -> tuple[Change, ...]:
        return await self._database.read(lambda connection: signals.changes(connection, since, of))

    # ------------------------------------------------------------ incidents

    async def load(self, incident_id: IncidentId) -> IncidentRecord | None:
        return await self._database.read(lambda connection: incidents.load(connection, incident_id))

    async def load_part(
        self, incident_id: IncidentId, *, limit: int, after: int | None = None, urgent: bool = False
    ) -> RecordPart | None:
        return await self._database.read(
            lambda connection: incidents.load_part(connection, incident_id, limit, after), urgent=urgent
        )

    async def find(self, where: IncidentFilter, *, limit: int, cursor: str | None) -> Page:
        return await self._database.read(lambda connection: incidents.find(connection, where, limit, cursor))

    async def open_incidents(self) -> tuple[Incident, ...]:
        return await self._database.read(incidents.open_incidents)

    async def open_of_service(self, service: str, environment: str | None) -> tuple[Incident, ...]:
        return await self._database.read(
            lambda connection: incidents.open_of_service(connection, service, environment)
        )

    async def open_beside(self, key: ServiceKey, named: Sequence[ServiceKey], limit: int) -> OpenBeside:
        return await self._database.read(
            lambda connection: incidents.open_beside(connection, key, named, limit)
        )

    async def claim(
        self, incident_id: IncidentId, owner: str, lease: timedelta, now: datetime
    ) -> Claim | None:
        return await self._database.write(
            lambda connection: claims.take(connection, incident_id, owner, lease, now)
        )

    async def renew(self, claim: Claim, lease: timedelta, now: datetime) -> None:
        await self._database.write(lambda connection: claims.renew(connection, claim, lease, now))

    async def take_due(self, owner: str, lease: timedelta, now: datetime, limit: int) -> tuple[Claim, ...]:
        return await self._database.write(
            lambda connection: claims.take_due(connection, owner, lease, now, limit)
        )

    async def next_due(self) -> datetime | None:
        return await self._database.read(claims.next_due)

    async def release(self, claim: Claim, due_at: datetime | None = None) -> None:
        await self._database.write(lambda connection: claims.release(connection, claim, due_at))

    async def release_owner(self, owner: str) -> int:
        return await self._database.write(lambda connection: claims.release_owner(connection, owner))

    async def save(self, claim: Claim, incident: Incident, notes: Sequence[Note]) -> Incident:
        return await self._database.write(lambda connection: _save(connection, claim, incident, notes))

    async def decide(
        self, claim: Claim, incident: Incident, intent: Intent, notes: Sequence[Note]
    ) -> Incident:
        def work(connection: Connection) -> Incident:
            if intent.approval is not None:
                # The incident first, in the lock order of all transactions, which prevents deadlocks.
                approvals.use(connection, claims.hold(connection, claim).id, intent.approval)
            saved = _save(connection, claim, incident, notes)
            intents.add(connection, saved, intent)
            return saved

        return await self._database.write(work)

    async def begin(
        self,
        claim: Claim,
        intent_id: IntentId,
        snapshot: Snapshot | None,
        budget: Budget,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Beginning:
        def work(connection: Connection) -> Beginning:
            incident = claims.hold(connection, claim)
            ask = functools.partial(_refusal, connection, incident, reasons)
            beginning, intent = intents.begin(connection, incident, intent_id, snapshot, budget, at, ask)
            if beginning.begun is Begun.YES:
                journal.append(connection, incident.id, [narrative.begin_note(intent, snapshot, at)])
            return beginning

        return await self._database.write(work)

    async def recent_actions(self, key: ServiceKey, limits: Limits, at: datetime) -> History:
        return await self._database.read(lambda connection: budgets.recent(connection, key, limits, at))

    async def retry(
        self,
        claim: Claim,
        intent_id: IntentId,
        limit: int,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Begun:
        def work(connection: Connection) -> Begun:
            incident = claims.hold(connection, claim)
            ask = functools.partial(_refusal, connection, incident, reasons)
            begun, intent = intents.retry(connection, incident.id, intent_id, limit, ask)
            if begun is Begun.YES:
                journal.append(connection, incident.id, [narrative.retry_note(intent, at)])
            return begun

        return await self._database.write(work)

    async def finish(
        self,
        claim: Claim,
        intent_id: IntentId,
        outcome: Outcome,
        applied_token: str | None,
        notes: Sequence[Note],
    ) -> None:
        def work(connection: Connection) -> None:
            incident = claims.hold(connection, claim)
            intents.finish(connection, incident.id, intent_id, outcome, applied_token)
            journal.append(connection, incident.id, notes)

        await self._database.write(work)

    async def timeline(self, incident_id: IncidentId) -> tuple[TimelineEntry, ...]:
        return await self._database.read(lambda connection: journal.entries(connection, incident_id))

    # ------------------------------------------------------------ people and brakes

    async def ask(
        self, claim: Claim, incident: Incident, approval: Approval, notes: Sequence[Note]
    ) -> Incident:
        def work(connection: Connection) -> Incident:
            saved = _save(connection, claim, incident, notes)
            approvals.add(connection, saved, approval)
            return saved

        return await self._database.write(work)

    async def escalated(
        self, claim: Claim, incident: Incident, approval_id: ApprovalId, steps: int, notes: Sequence[Note]
    ) -> Incident:
        def work(connection: Connection) -> Incident:
            saved = _save(connection, claim, incident, notes)
            approvals.escalated(connection, incident.id, approval_id, steps)
            return saved

        return await self._database.write(work)

    async def approval(self, approval_id: ApprovalId) -> Approval | None:
        return await self._database.read(
            lambda connection: approvals.get(connection, approval_id), urgent=True
        )

    async def find_approvals(
        self, state: ApprovalState | None, *, limit: int, cursor: str | None
    ) -> ApprovalPage:
        return await self._database.read(
            lambda connection: incidents.find_approvals(connection, state, limit, cursor), urgent=True
        )

    async def answer(
        self,
        approval_id: ApprovalId,
        *,
        approve: bool,
        by: Person,
        comment: str,
        at: datetime,
        nonce: str | None = None,
    ) -> Approval:
        spoken = approvals.Spoken(approve=approve, by=by, comment=comment, at=at, nonce=nonce)
        return await self._database.write(
            lambda connection: approvals.answer(connection, approval_id, spoken), urgent=True
        )

    async def issue_nonce(self, approval_id: ApprovalId, nonce: str, at: datetime) -> None:
        await self._database.write(lambda connection: nonces.issue(connection, approval_id, nonce, at))

    async def brake(self) -> KillSwitch | None:
        return await self._database.read(brakes.get, urgent=True)

    async def set_brake(
        self, brake: KillSwitch, *, person: Person | None = None, nonce: str | None = None
    ) -> None:
        await self._database.write(
            lambda connection: brakes.set_to(connection, brake, person, nonce), urgent=True
        )

    async def attempts(self, since: datetime) -> Attempts:
        return await self._database.read(lambda connection: budgets.attempts(connection, since), urgent=True)

    async def close_circuit(
        self, key: ServiceKey | None, said: KillSwitch, *, person: Person | None = None
    ) -> None:
        await self._database.write(
            lambda connection: brakes.close_circuit(connection, key, said, person), urgent=True
        )

    # ------------------------------------------------------------ identity

    async def add_credential(
        self, credential: Credential, human_decision: HumanDecision, *, nonce: str | None = None
    ) -> None:
        await self._database.write(
            lambda connection: credentials.add(connection, credential, human_decision, nonce), urgent=True
        )

    async def credential(self, credential_id: CredentialId) -> Credential | None:
        return await self._database.read(
            lambda connection: credentials.get(connection, credential_id), urgent=True
        )

    async def tokens(self) -> tuple[Credential, ...]:
        return await self._database.read(credentials.tokens)

    async def revoke(self, credential_id: CredentialId, human_decision: HumanDecision) -> Credential:
        return await self._database.write(
            lambda connection: credentials.revoke(connection, credential_id, human_decision), urgent=True
        )

    async def touch(self, credential: Credential, at: datetime) -> None:
        if credentials.is_stale(credential, at):
            await self._database.write(
                lambda connection: credentials.touch(connection, credential.id, at), urgent=True
            )

    async def forget_credentials(self, older_than: datetime) -> int:
        await self._in_batches(partial(nonces.forget, older_than=older_than), nonces.BATCH)
        return await self._in_batches(partial(credentials.forget, older_than=older_than), credentials.BATCH)

    async def record_human_decision(self, human_decision: HumanDecision) -> None:
        await self._database.write(lambda connection: trail.append(connection, human_decision), urgent=True)

    async def trail(self, *, after: int, limit: int) -> tuple[AuditLogEntry, ...]:
        return await self._database.read(lambda connection: trail.entries(connection, after, limit))

    async def timeline_heads(
        self, *, after: IncidentId | None, limit: int
    ) -> tuple[tuple[IncidentId, Head], ...]:
        return await self._database.read(lambda connection: journal.heads(connection, after, limit))

    # ------------------------------------------------------------ channels

    async def announce(self, incident_id: IncidentId, text: str, at: datetime) -> None:
        await self._database.write(lambda connection: postings.announce(connection, incident_id, text, at))

    async def unshown(self, channel: str, at: datetime, limit: int) -> tuple[IncidentId, ...]:
        return await self._database.write(lambda connection: postings.unshown(connection, channel, at, limit))

    async def posting(self, channel: str, incident_id: IncidentId) -> Posting | None:
        return await self._database.read(lambda connection: postings.get(connection, channel, incident_id))

    async def save_posting(self, posting: Posting) -> Posting:
        return await self._database.write(lambda connection: postings.save(connection, posting))

    async def announcements(self, incident_id: IncidentId, after: int) -> tuple[Announcement, ...]:
        return await self._database.read(
            lambda connection: postings.unannounced(connection, incident_id, after)
        )

    # ------------------------------------------------------------ history

    async def record_revision(self, record: RevisionRecord) -> None:
        await self._database.write(lambda connection: history.record_revision(connection, record))

    async def revisions(self, key: ServiceKey) -> tuple[RevisionRecord, ...]:
        return await self._database.read(lambda connection: history.revisions(connection, key))

    async def record_config(self, record: ConfigRecord) -> None:
        await self._database.write(lambda connection: history.record_config(connection, record))

    async def configs(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        return await self._database.read(lambda connection: history.configs(connection, key))

    # ------------------------------------------------------------ accounting

    async def audit(self, question: AuditQuestion) -> SignalAudit:
        return await self._database.read(lambda connection: audit.examine(connection, question))

    async def strays(self, question: AuditQuestion) -> Discrepancies:
        return await self._database.read(lambda connection: audit.strays(connection, question))

    async def mend(self, now: datetime) -> Repairs:
        return await self._database.write(lambda connection: audit.mend(connection, now))

    # ------------------------------------------------------------ the database

    async def ping(self) -> None:
        await self._database.same()
        await self._database.write(ping.write, urgent=True)

    async def close(self) -> None:
        await self._database.close()

    async def _in_batches(self, work: Callable[[Connection], int], size: int) -> int:
        """Each batch in a transaction of its own, until one finds less than it may take; how many in all."""
        total = 0
        for _ in range(MOST_BATCHES):
            done = await self._database.write(work)
            total += done
            if done < size:
                break
        return total


def _refusal(connection: Connection, incident: Incident, reasons: ReasonGuard | None) -> str | None:
    """Why no reason for acting stands, by what is on record of the service in this transaction.

    A transaction that records a signal of the service locks the row of its open incident, which
    the caller holds: what was committed before is seen, what comes later comes later.
    """
    if reasons is None:
        return None
    found = intake.levels(connection, incident.key)
    return reasons.refusal(() if found is None else found.reasons)


def _save(connection: Connection, claim: Claim, incident: Incident, notes: Sequence[Note]) -> Incident:
    stored = claims.hold(connection, claim)
    if incident.id != stored.id or incident.version != stored.version:
        raise ClaimLost(f"incident {stored.id} is now at version {stored.version}; reload it")
    saved = incidents.store_next_version(connection, stored, incident)
    if stored.state is IncidentState.AWAITING_APPROVAL and saved.state is not stored.state:
        ended_at = max((note.at for note in notes), default=claim.expires_at)
        approvals.end_open(connection, saved.id, ended_at)
    journal.append(connection, saved.id, notes)
    return saved
