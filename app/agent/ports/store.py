"""The store of incidents, approvals, guardrails, history, audit trail, identity and notifications."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from app.agent.audit.accounting import (
    AuditQuestion,
    Discrepancies,
    Repairs,
    SignalAudit,
)
from app.agent.audit.anchoring import Head
from app.agent.freshness.reasons import Reason
from app.agent.guardrails.limits import Budget, History, Limits
from app.agent.guardrails.status import Attempts
from app.agent.identity.audit_log import AuditLogEntry, HumanDecision
from app.agent.identity.people import (
    Credential,
    CredentialId,
    Person,
)
from app.agent.ids import (
    ApprovalId,
    FencingToken,
    IncidentId,
    IntentId,
    ServiceKey,
)
from app.agent.models import (
    Approval,
    ApprovalState,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    KillSwitch,
    Note,
    Outcome,
    Snapshot,
    TimelineEntry,
)
from app.agent.notifications.channel import Announcement, Posting
from app.agent.ports.signals import SignalStore
from app.agent.workload import (
    ConfigRecord,
    RevisionRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentFilter:
    """Which incidents to list; None is any. Times compare with `opened_at`: since <= t < until."""

    service: str | None = None
    environment: str | None = None
    state: IncidentState | None = None
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page of incidents, newest first."""

    items: tuple[IncidentRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalRecord:
    """An approval with the incident that it was asked for, as it stands now."""

    approval: Approval
    incident: Incident


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalPage:
    """One page of approvals, newest first."""

    items: tuple[ApprovalRecord, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to move one incident, until it expires or a newer token is given out."""

    incident_id: IncidentId
    owner: str
    token: FencingToken
    expires_at: datetime
    interruptions: int = 0
    """How many holders in a row left it without a release: they died over it, or were cut off."""
    nudges: int = 0
    """How often the incident had been made due from outside when this was taken."""


class Begun(StrEnum):
    """What became of an attempt to begin an intent."""

    YES = "yes"
    BUDGET_SPENT = "budget_spent"
    BRAKED = "braked"
    """The kill switch is engaged."""
    NOT_DECIDED = "not_decided"
    """Begun or ended already."""
    NO_REASON = "no_reason"
    """What the action stands on was withdrawn, or is now too old (promise 13)."""


class ReasonGuard(Protocol):
    """What an action stands on, asked once more inside the transaction that begins it."""

    def refusal(self, reported: tuple[Reason, ...] = ()) -> str | None:
        """Why nothing may begin, given what is on record of the service; None while a reason stands."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What became of an attempt to begin an intent, and why it was not begun."""

    begun: Begun
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenBeside:
    """Services other than the one asked about that have an open incident."""

    named: tuple[ServiceKey, ...]
    """Those of the services asked for by name."""
    others: tuple[ServiceKey, ...]
    """The newest of the rest, up to the limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordPart:
    """An incident with a part of its timeline."""

    record: IncidentRecord
    """Its timeline holds the part alone."""
    length: int
    """Entries of the whole timeline."""

    @property
    def next_after(self) -> int | None:
        """The sequence after which the next part begins; None when this one is the last."""
        entries = self.record.timeline
        return entries[-1].sequence if entries and entries[-1].sequence + 1 < self.length else None


class IncidentStore(Protocol):
    """Incidents, intents and the timeline. Every write of the loop needs a live claim."""

    async def load(self, incident_id: IncidentId) -> IncidentRecord | None: ...

    async def load_part(
        self, incident_id: IncidentId, *, limit: int, after: int | None = None, urgent: bool = False
    ) -> RecordPart | None:
        """With at most `limit` entries: those after sequence `after` (-1: all), else the newest.

        `urgent` is for operators who answer: it uses what is reserved for them.
        """
        ...

    async def find(self, where: IncidentFilter, *, limit: int, cursor: str | None) -> Page:
        """Newest first; a cursor that this store did not issue raises `Invalid`."""
        ...

    async def open_incidents(self) -> tuple[Incident, ...]:
        """All that have not ended, oldest first. Grows with the fleet: no pass of the loop asks for it."""
        ...

    async def open_of_service(self, service: str, environment: str | None) -> tuple[Incident, ...]:
        """The open incidents of the services of that name, oldest first; one environment, or all."""
        ...

    async def open_beside(self, key: ServiceKey, named: Sequence[ServiceKey], limit: int) -> OpenBeside:
        """What else is open, read by index: which of `named`, and the newest others up to `limit`."""
        ...

    async def claim(
        self, incident_id: IncidentId, owner: str, lease: timedelta, now: datetime
    ) -> Claim | None:
        """Take or renew the incident; None while another owner's lease lives.

        Each take-over raises the token; a renewal by the same owner keeps it.
        """
        ...

    async def renew(self, claim: Claim, lease: timedelta, now: datetime) -> None:
        """Hold on for another lease from now.

        Raises `ClaimLost` when the claim was voided or taken over meanwhile, or the
        incident is closed; no further incident is claimed.
        """
        ...

    async def take_due(self, owner: str, lease: timedelta, now: datetime, limit: int) -> tuple[Claim, ...]:
        """Claim up to `limit` open incidents that are due and unclaimed, longest due first.

        Of two workers that ask at the same time each incident goes to one. An
        incident is due when it opens, when an approval is answered, and at the
        time its last holder named in `release`.
        """
        ...

    async def next_due(self) -> datetime | None:
        """When the next unclaimed open incident becomes due; None when there is none."""
        ...

    async def release(self, claim: Claim, due_at: datetime | None = None) -> None:
        """Give it back, to be looked at again at `due_at`; a claim that was lost already is no error."""
        ...

    async def release_owner(self, owner: str) -> int:
        """Void every claim of an owner known to be dead; how many."""
        ...

    async def save(self, claim: Claim, incident: Incident, notes: Sequence[Note]) -> Incident:
        """Store the incident with its notes in one transaction; the result has the next version.

        Raises `ClaimLost` when the claim is no longer the newest, or the version
        is not the stored one. A closed incident is never changed: `ClaimLost`.
        So is a recovery over a signal with a trigger that joined after `incident`
        was loaded (`joined` differs): the pass looks again. Leaving
        AWAITING_APPROVAL ends the incident's unanswered or unused approvals as
        expired or void.
        """
        ...

    async def decide(
        self, claim: Claim, incident: Incident, intent: Intent, notes: Sequence[Note]
    ) -> Incident:
        """Store a decided intent (state DECIDED, or FINISHED where it was refused or rehearsed).

        An intent with an `approval` uses it up in the same transaction; `ClaimLost`
        when that approval is not APPROVED (any more).
        """
        ...

    async def begin(
        self,
        claim: Claim,
        intent_id: IntentId,
        snapshot: Snapshot | None,
        budget: Budget,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Beginning:
        """DECIDED -> EXECUTING by compare-and-set, durable before it returns (promise 2).

        With nothing changed: BUDGET_SPENT, with the reasons, when the incident has
        its number of intents that began and are no undo, or when one of the limits
        that all incidents share would be exceeded, however many workers ask at once
        (promise 4); BRAKED while the kill switch is engaged (promise 11); NO_REASON
        when `reasons` refuse it with what is on record of the service in this
        transaction (promise 13); NOT_DECIDED otherwise. An undo neither counts nor is
        braked, and needs no reason, as a notification does not. Adds a timeline entry.
        """
        ...

    async def recent_actions(self, key: ServiceKey, limits: Limits, at: datetime) -> History:
        """What began before and matters to an action on that service now."""
        ...

    async def retry(
        self,
        claim: Claim,
        intent_id: IntentId,
        limit: int,
        at: datetime,
        reasons: ReasonGuard | None = None,
    ) -> Begun:
        """Count one more attempt at an intent that is EXECUTING, durable before it returns.

        BUDGET_SPENT when it had `limit` attempts, BRAKED and NO_REASON as for
        `begin`. Adds a timeline entry.
        """
        ...

    async def finish(
        self,
        claim: Claim,
        intent_id: IntentId,
        outcome: Outcome,
        applied_token: str | None,
        notes: Sequence[Note],
    ) -> None:
        """EXECUTING or DECIDED -> FINISHED with its outcome; finishing twice is `ClaimLost`."""
        ...

    async def timeline(self, incident_id: IncidentId) -> tuple[TimelineEntry, ...]: ...


class ApprovalStore(Protocol):
    """Requests to people, and their answers."""

    async def ask(
        self, claim: Claim, incident: Incident, approval: Approval, notes: Sequence[Note]
    ) -> Incident:
        """Save the incident (AWAITING_APPROVAL) and the request in one transaction."""
        ...

    async def approval(self, approval_id: ApprovalId) -> Approval | None: ...

    async def find_approvals(
        self, state: ApprovalState | None, *, limit: int, cursor: str | None
    ) -> ApprovalPage:
        """Newest first, all or those in one state; a foreign cursor raises `Invalid`."""
        ...

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
        """One answer, weighed by the request's terms under a lock; the incident is due at once.

        Adds a timeline entry and one to the audit trail. `NotFound` for an unknown
        id; `Conflict` when it was answered already (it says by whom), has expired, or
        is void; `NotEntitled` when this person may not answer it. With a `nonce`, it
        must be one that was issued for this very request and never used: else
        `Conflict`, and nothing is changed.
        """
        ...

    async def issue_nonce(self, approval_id: ApprovalId, nonce: str, at: datetime) -> None:
        """Make a nonce good for one answer to that request; only its hash is kept."""
        ...

    async def escalated(
        self, claim: Claim, incident: Incident, approval_id: ApprovalId, steps: int, notes: Sequence[Note]
    ) -> Incident:
        """Record that so many steps of a request's escalation were taken; one that ended meanwhile stays."""
        ...


class GuardrailStore(Protocol):
    """The kill switch and the circuit breakers, shared by all workers."""

    async def brake(self) -> KillSwitch | None:
        """Its last setting; None while it was never touched."""
        ...

    async def set_brake(
        self, brake: KillSwitch, *, person: Person | None = None, nonce: str | None = None
    ) -> None:
        """Engage or release; holds for every `begin` that has not committed yet.

        Adds an entry to the audit trail, in the name of `person`, else of `brake.by`
        at their word. `Conflict`, and nothing is changed, for a `nonce` seen before.
        """
        ...

    async def attempts(self, since: datetime) -> Attempts:
        """What began since then on any service, as circuit breakers see it; the newest 2,000."""
        ...

    async def close_circuit(
        self, key: ServiceKey | None, said: KillSwitch, *, person: Person | None = None
    ) -> None:
        """Forget failures before `said.at` for one service's breaker; None: for the cluster's.

        Adds an entry to the audit trail, as `set_brake` does.
        """
        ...


class HistoryStore(Protocol):
    """What served well and what failed; outlives ReplicaSets and restarts."""

    async def record_revision(self, record: RevisionRecord) -> None:
        """Remember; FAILED is never overwritten by SERVED_WELL or UNKNOWN of the same template."""
        ...

    async def revisions(self, key: ServiceKey) -> tuple[RevisionRecord, ...]:
        """Newest first, at most fifty."""
        ...

    async def record_config(self, record: ConfigRecord) -> None:
        """Remember a version of a ConfigMap; at most twenty are kept for each name."""
        ...

    async def configs(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        """Newest first."""
        ...


class AuditStore(Protocol):
    """The proof that every accepted signal has its end (promise 9)."""

    async def audit(self, question: AuditQuestion) -> SignalAudit:
        """The sum over every accepted signal and the discrepancies, as of one instant."""
        ...

    async def strays(self, question: AuditQuestion) -> Discrepancies:
        """The discrepancies without the sum: cheap enough for every sweep."""
        ...

    async def mend(self, now: datetime) -> Repairs:
        """Put right what needs no judgement, and count it; at most 500 signals and 100 incidents."""
        ...

    async def timeline_heads(
        self, *, after: IncidentId | None, limit: int
    ) -> tuple[tuple[IncidentId, Head], ...]:
        """The length and last hash of each timeline as kept beside it, by id, those behind `after`."""
        ...


class IdentityStore(Protocol):
    """Credentials, and the audit trail of what people decided."""

    async def add_credential(
        self, credential: Credential, human_decision: HumanDecision, *, nonce: str | None = None
    ) -> None:
        """Keep a new one, with the entry of the audit trail that says whose it is and who made it.

        `Conflict`, and nothing is kept, for a `nonce` seen before.
        """
        ...

    async def credential(self, credential_id: CredentialId) -> Credential | None: ...

    async def tokens(self) -> tuple[Credential, ...]:
        """Every token, newest first, those that hold no more included; sessions are not listed."""
        ...

    async def revoke(self, credential_id: CredentialId, human_decision: HumanDecision) -> Credential:
        """End it from `human_decision.at` on; `NotFound`, or `Conflict` when it was revoked before."""
        ...

    async def touch(self, credential: Credential, at: datetime) -> None:
        """Remember that it was used; written at most once an hour for each."""
        ...

    async def forget_credentials(self, older_than: datetime) -> int:
        """Remove sessions that ended before that; how many. Tokens stay, for an old one is no guess."""
        ...

    async def record_human_decision(self, human_decision: HumanDecision) -> None:
        """Append to the audit trail what has no row of its own to be written with."""
        ...

    async def trail(self, *, after: int, limit: int) -> tuple[AuditLogEntry, ...]:
        """Entries with a sequence above `after` (-1: from the start), oldest first."""
        ...


class PostingStore(Protocol):
    """How far each channel is up to date, and the pending announcements."""

    async def announce(self, incident_id: IncidentId, text: str, at: datetime) -> None:
        """Put an announcement on record, durably; every channel gets it in its turn.

        `NotFound` for an incident that is not on record.
        """
        ...

    async def unshown(self, channel: str, at: datetime, limit: int) -> tuple[IncidentId, ...]:
        """Incidents with notifications pending for the channel, and that may be tried at `at`.

        Open ones first, each kind oldest first. What had ended before the channel was
        first asked about here is left out; dry runs are.
        """
        ...

    async def posting(self, channel: str, incident_id: IncidentId) -> Posting | None: ...

    async def save_posting(self, posting: Posting) -> Posting:
        """Store the next version; `Conflict` when another announcer was faster."""
        ...

    async def announcements(self, incident_id: IncidentId, after: int) -> tuple[Announcement, ...]:
        """An incident's announcements with a number above that, oldest first."""
        ...


class Store(
    SignalStore,
    IncidentStore,
    ApprovalStore,
    GuardrailStore,
    HistoryStore,
    AuditStore,
    IdentityStore,
    PostingStore,
    Protocol,
):
    """All of them over one database, so that intake and incident share a transaction."""

    async def ping(self) -> None:
        """Write something; raises when that fails, or the database is not the one that was opened."""
        ...

    async def close(self) -> None: ...
