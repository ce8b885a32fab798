"""What the loop needs from the world, one small protocol per role.

Reading and writing are separate ports: a dry run is a missing writer, not an
`if`. Each port has one contract suite under `tests/contract/` that runs over
the fake and every real adapter.

Errors, for every port unless said otherwise: `TransientError` when the other
side cannot be asked now, `PermanentError` (`Forbidden`, `NotFound`, `Invalid`)
when asking again will not help. No other exception leaves an adapter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from app.agent.anchoring import Head
from app.agent.audit import AuditQuestion, Mended, SignalAudit, Strays
from app.agent.braking import Attempts
from app.agent.breach import Breach
from app.agent.channels import Announcement, Posting
from app.agent.consent import Consent
from app.agent.disruption import Disruption
from app.agent.identity import Credential, CredentialId, Person, SignedOn, SignOnAttempt
from app.agent.limits import Budget, History, Limits
from app.agent.models import (
    Action,
    Approval,
    ApprovalId,
    ApprovalState,
    Brake,
    Change,
    Condition,
    ConfigRecord,
    DecisionKind,
    Disposition,
    FencingToken,
    Incident,
    IncidentId,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentId,
    JsonObject,
    Note,
    Outcome,
    Rehearsal,
    RevisionRecord,
    ServiceKey,
    Signal,
    SignalId,
    SliSample,
    Snapshot,
    TargetState,
    TelemetryHealth,
    TimelineEntry,
    Trigger,
    WorkloadView,
)
from app.agent.reasons import Reason
from app.agent.silences import Silencing
from app.agent.terms import ApprovalTerms
from app.agent.trail import Deed, TrailEntry

# ------------------------------------------------------------------ cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class PodOwner:
    """The workload behind a pod, as the cluster says."""

    kind: str
    """`Deployment`, or the kind of the highest controller that can be read; `Pod` for a pod without one."""
    name: str
    key: ServiceKey | None = None
    """The service that a Deployment is; None where the agent does not look after it."""


class PodOwners(Protocol):
    """Says which workload a pod belongs to: a name alone does not."""

    async def owner(self, namespace: str, pod: str) -> PodOwner | None:
        """The owner of a pod; None when there is no such pod."""
        ...


class ClusterReader(Protocol):
    """Looks at one cluster; never changes anything."""

    async def services(self) -> tuple[ServiceKey, ...]:
        """Every service that a workload of the cluster maps to."""
        ...

    async def workload(self, key: ServiceKey) -> WorkloadView | None:
        """The Deployment behind a service with its revisions, pods and ConfigMaps.

        None when no workload maps to the service. Two workloads that map to one
        service are an `Invalid`: the agent does not guess.
        """
        ...

    async def target(self, action: Action) -> TargetState:
        """The present state of the object that the action would change; `NotFound` if gone."""
        ...

    async def snapshot(self, action: Action) -> Snapshot:
        """What `action.target` asks for now, enough for a `restore` to put it back."""
        ...

    async def disruption(self, action: Action) -> Disruption | None:
        """How many pods a change of `action.target` may take away at once; None where it has no pods."""
        ...

    async def consent(self, action: Action) -> Consent:
        """What owners say about the agent on `action.target` and on its namespace."""
        ...

    async def config_contents(self, key: ServiceKey) -> tuple[ConfigRecord, ...]:
        """The ConfigMaps in force for a service, with their data, for the agent's history.

        `health` is UNKNOWN: judging is not the reader's business.
        """
        ...


class ClusterRehearsal(Protocol):
    """Asks the API server what a change would do (`dryRun=All`); cannot persist one."""

    async def rehearse(self, action: Action, target: TargetState, snapshot: Snapshot | None) -> Rehearsal:
        """The server's answer, rejections and missing rights included, as a value.

        `snapshot` is given for `restore` and `revert_config` of a ConfigMap.
        Raises `TransientError` only when the server cannot be reached.
        """
        ...


class ClusterWriter(Protocol):
    """Changes a cluster. Constructed only when `DRY_RUN=false`."""

    async def apply(
        self, action: Action, intent_id: IntentId, target: TargetState, snapshot: Snapshot | None
    ) -> TargetState:
        """Carry out `action` on exactly the object state `target`, and mark the object with `intent_id`.

        Change and marker are one request with uid and resourceVersion as its
        preconditions, so that two copies of it have one effect. Returns the state
        after the change. Raises `Conflict` (nothing changed, object moved on),
        `Forbidden`, `NotFound`, `Invalid`, `TransientError` (certainly not sent
        or certainly refused) or `UnknownOutcome` (sent, no answer).
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEvent:
    """A service's workload looks different now; the watcher says so, the observer reads it."""

    key: ServiceKey


class ClusterWatch(Protocol):
    """Tells which services moved, without end."""

    def events(self) -> AsyncIterator[ClusterEvent]:
        """Every known service once at the start, then each one whose objects change.

        Survives expired versions (410) and dropped connections by listing anew;
        an event may be repeated, never lost.
        """
        ...


# ------------------------------------------------------------------ metrics


class MetricSource(Protocol):
    """Service level indicators from a monitoring system."""

    async def sli(self, key: ServiceKey, at: datetime) -> SliSample:
        """The indicators as of `at`; each one without data is None.

        A reachable source without a series answers None values; an unreachable
        one raises `TransientError`.
        """
        ...

    async def sli_range(
        self, key: ServiceKey, start: datetime, end: datetime, step: timedelta
    ) -> tuple[SliSample, ...]:
        """Samples from `start` to `end`, oldest first; instants without any data are left out."""
        ...

    async def telemetry(self, keys: Sequence[ServiceKey], at: datetime) -> TelemetryHealth:
        """How many of `keys` had data in the look-back before `at` and have none now.

        A source that gives no usable answer, whatever it answers, is an answer here
        (`source_reachable=False` with its `fault`), not an error.
        """
        ...


class SilenceSource(Protocol):
    """What people muted in the monitoring; never changes anything."""

    async def concerning(self, key: ServiceKey, at: datetime) -> tuple[Silencing, ...]:
        """The silences in force at that moment that concern the service, or may concern its alerts."""
        ...


# ------------------------------------------------------------------ policy


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyAnswer:
    """What a policy engine says to one document."""

    kind: DecisionKind
    reasons: tuple[str, ...]
    rules: tuple[str, ...] = ()
    """The rules that decided, by the names that the policy gives them."""
    terms: ApprovalTerms | None = None
    """On which terms people are to be asked, where the policy says so."""


class PolicyEngine(Protocol):
    """An external policy asked before every action, besides the built-in guardrails."""

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        """The engine's complete, well-formed answer; anything else is a deny with the reason (promise 7).

        Never raises.
        """
        ...


# ------------------------------------------------------------------ people


class Notifier(Protocol):
    """Tells people. Constructed only when `DRY_RUN=false`.

    The product's own puts an announcement on record, which the announcer then
    brings to every channel (`app.agent.channels`): telling people waits for nobody.
    """

    async def send(self, text: str, incident: Incident) -> None:
        """Have one message delivered; raises like every port."""
        ...


# ------------------------------------------------------------------ store


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalRecord:
    """An accepted signal and what became of it."""

    signal: Signal
    disposition: Disposition


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceLevels:
    """What intake remembers per service to judge for-duration and hysteresis; one bounded row.

    Times are event times. A `*_breach_since` is set while the indicator has been
    above its threshold and not yet below its clearing level.
    """

    key: ServiceKey
    error_rate_breach_since: datetime | None = None
    latency_breach_since: datetime | None = None
    conditions: tuple[Condition, ...] = ()
    """What the cluster says is wrong now; a crash loop told by a sample counts as CRASH_LOOP_BACK_OFF."""
    last_sample_at: datetime | None = None
    last_sample: SliSample | None = None
    error_rate_breach_until: datetime | None = None
    """The newest sample that keeps the breach on."""
    latency_breach_until: datetime | None = None
    error_rate_clear_at: datetime | None = None
    """The newest sample at which the indicator was well: what is older and was not is over."""
    latency_clear_at: datetime | None = None
    crash_told_at: datetime | None = None
    """The newest sample that told whether it crash loops."""
    rhythm_seconds: float | None = None
    """How far apart the last two pushed samples were; None where that says nothing."""
    resolved_alerts: tuple[str, ...] = ()
    """The last alerts that were told resolved: one that is told firing after that is over."""
    measured_error_rate: Breach = field(default_factory=Breach)
    """What the agent's own poller saw, apart from what was posted."""
    measured_latency: Breach = field(default_factory=Breach)
    deploy_succeeded_at: datetime | None = None
    """The newest deploy that was reported as succeeded: a failure from before it is over."""

    @property
    def breached(self) -> tuple[bool, bool]:
        """Whether a breach of the error rate, and one of the latency, is on record, whoever reported it."""
        return (
            self.error_rate_breach_since is not None or self.measured_error_rate.since is not None,
            self.latency_breach_since is not None or self.measured_latency.since is not None,
        )

    reasons: tuple[Reason, ...] = ()
    """What was reported that speaks for acting on the service, withdrawn or not (promise 13); at most 32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeVerdict:
    """The pure decision on one signal: computed by the observer inside the intake transaction."""

    disposition: Disposition
    """`incident_id` may be left out for JOINED and OPENED: the store fills it in."""
    levels: ServiceLevels | None
    """New per-service state, or None to leave it."""
    triggers: tuple[Trigger, ...] = ()
    """What this signal adds to the incident it opens or joins."""
    change: Change | None = None
    """A change to remember for diagnosis."""
    release_pending: bool = False
    """The service's pending signals join the same incident."""
    open_limit: int | None = None
    """An opening is queued while its sender has so many incidents of unknown services open; None: never."""


class IntakeDecider(Protocol):
    """The observer's pure judgement, handed to the store so that it runs inside the transaction."""

    def __call__(
        self,
        signal: Signal,
        levels: ServiceLevels | None,
        open_incident: Incident | None,
        last_closed: Incident | None,
    ) -> IntakeVerdict:
        """`last_closed` is the service's incident with the newest `closed_at`, if any."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """What a signal says that was delivered before: the service's state after it."""

    levels: ServiceLevels
    anew: bool = False
    """It is true once more: to be decided as a new signal, not as a duplicate."""


class RepeatDecider(Protocol):
    """The pure judgement on a signal that repeats an earlier one."""

    def __call__(
        self, signal: Signal, levels: ServiceLevels | None, open_incident: Incident | None
    ) -> Repeat | None:
        """None where it says nothing that is not known."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The answer to one accepted signal; durable when this exists."""

    signal_id: SignalId
    disposition: Disposition


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
    """What the action stands on was withdrawn, or is too old by now (promise 13)."""


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
class Queued:
    """Openings of one sender that wait until others of its incidents have ended."""

    sender: str
    waiting: int
    newest: IncidentId | None
    """The newest open incident of that sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dequeued:
    """What one look at the queued openings did, and what is left."""

    ended: int
    """Signals that have another disposition now."""
    queued: tuple[Queued, ...]


class SignalStore(Protocol):
    """Durable intake."""

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
        """Record signals, decide each, open or join incidents: in order, all durable when it returns.

        Up to twenty signals are one transaction; more are recorded in parts of that
        size. If it fails in between, the same call again completes it.

        A `dedup_key` seen before gets the disposition deduplicated without
        `decide` being asked; `again` says what the repeat means for the service's
        levels, and whether it is to be decided as a new signal. With an
        `idempotency_key` seen before (kept 24 h) and an equal `request_hash` the first
        answer is returned and nothing is recorded; with another hash it raises
        `Invalid`. At most one incident per service is
        open, whatever runs beside this. New incidents get the state OPEN, the
        `dry_run` given, and a first timeline entry.
        """
        ...

    async def signal(self, signal_id: SignalId) -> SignalRecord | None: ...

    async def incident_signals(self, incident_id: IncidentId, limit: int) -> tuple[Signal, ...]:
        """The signals that opened or joined an incident, oldest first: the first one and the newest."""
        ...

    async def pending_services(self, service: str, environment: str | None) -> tuple[ServiceKey, ...]:
        """Services of that name with pending signals or current levels on record."""
        ...

    async def levels(self, key: ServiceKey) -> ServiceLevels | None: ...

    async def open_from_pending(
        self, key: ServiceKey, triggers: Sequence[Trigger], *, dry_run: bool, at: datetime
    ) -> IncidentId | None:
        """Open an incident now from a service's pending signals (run-once); None without any.

        If one is open already, the pending signals join it.
        """
        ...

    async def open_queued(self, decide: IntakeDecider, *, dry_run: bool, limit: int) -> Dequeued:
        """Decide queued openings again, oldest first and every sender in turn, up to `limit` in all."""
        ...

    async def expire_pending(self, older_than: datetime) -> int:
        """End pending signals received before that with the disposition expired; how many.

        In bounded transactions, at most 10,000 of them, oldest first. Queued openings do
        not expire.
        """
        ...

    async def prune(self, older_than: datetime) -> int:
        """Forget signals received before that which ended without an incident, and changes as old; how many.

        In bounded transactions, at most 10,000 of each, oldest first. What opened or joined an
        incident is kept for good, and so is a signal that still waits for its end;
        a first signal is kept for as long as a duplicate of it. What is forgotten
        is tallied for the audit.
        """
        ...

    async def samples(self, key: ServiceKey, since: datetime) -> tuple[SliSample, ...]:
        """Metric samples among the signals since then, oldest first, at most 1,000.

        Those that the agent's own poller reported are marked as measured.
        """
        ...

    async def changes(self, since: datetime, *, of: ServiceKey | None = None) -> tuple[Change, ...]:
        """Changes to any service, or `of` one, since then, newest first, at most 500."""
        ...


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
        incident is closed; nothing is taken anew.
        """
        ...

    async def take_due(self, owner: str, lease: timedelta, now: datetime, limit: int) -> tuple[Claim, ...]:
        """Claim up to `limit` open incidents that are due and that nobody holds, longest due first.

        Of two workers that ask at the same time each incident goes to one. An
        incident is due when it opens, when an approval is answered, and at the
        time its last holder named in `release`.
        """
        ...

    async def next_due(self) -> datetime | None:
        """When the next open incident that nobody holds becomes due; None when there is none."""
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


class BrakeStore(Protocol):
    """The kill switch and the circuit breakers, shared by all workers."""

    async def brake(self) -> Brake | None:
        """Its last setting; None while it was never touched."""
        ...

    async def set_brake(
        self, brake: Brake, *, person: Person | None = None, nonce: str | None = None
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
        self, key: ServiceKey | None, said: Brake, *, person: Person | None = None
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
        """The sum over every accepted signal and what is astray, as of one instant."""
        ...

    async def strays(self, question: AuditQuestion) -> Strays:
        """What is astray, without the sum: cheap enough for every sweep."""
        ...

    async def mend(self, now: datetime) -> Mended:
        """Put right what needs no judgement, and count it; at most 500 signals and 100 incidents."""
        ...

    async def timeline_heads(
        self, *, after: IncidentId | None, limit: int
    ) -> tuple[tuple[IncidentId, Head], ...]:
        """The length and last hash of each timeline as kept beside it, by id, those behind `after`."""
        ...


class IdentityStore(Protocol):
    """Credentials, and the audit trail of what people decided."""

    async def add_credential(self, credential: Credential, deed: Deed, *, nonce: str | None = None) -> None:
        """Keep a new one, with the entry of the audit trail that says whose it is and who made it.

        `Conflict`, and nothing is kept, for a `nonce` seen before.
        """
        ...

    async def credential(self, credential_id: CredentialId) -> Credential | None: ...

    async def tokens(self) -> tuple[Credential, ...]:
        """Every token, newest first, those that hold no more included; sessions are not listed."""
        ...

    async def revoke(self, credential_id: CredentialId, deed: Deed) -> Credential:
        """End it from `deed.at` on; `NotFound`, or `Conflict` when it was revoked before."""
        ...

    async def touch(self, credential: Credential, at: datetime) -> None:
        """Remember that it was used; written at most once an hour for each."""
        ...

    async def forget_credentials(self, older_than: datetime) -> int:
        """Remove sessions that ended before that; how many. Tokens stay, for an old one is no guess."""
        ...

    async def record_deed(self, deed: Deed) -> None:
        """Append to the audit trail what has no row of its own to be written with."""
        ...

    async def trail(self, *, after: int, limit: int) -> tuple[TrailEntry, ...]:
        """Entries with a sequence above `after` (-1: from the start), oldest first."""
        ...


class IdentityProvider(Protocol):
    """The issuer that people sign on with: OpenID Connect's authorization code flow, seen from here."""

    async def begin(self) -> SignOnAttempt:
        """A fresh attempt; `TransientError` while the issuer is silent, `PermanentError` for nonsense."""
        ...

    async def finish(self, *, code: str, nonce: str, verifier: str) -> SignedOn:
        """Who signed on, by what the issuer gives for the code that the browser brought.

        Raises `Invalid` when the issuer does not take the code, `NotEntitled` with
        words for the person when it vouches for nobody who can be named,
        `TransientError` when it does not answer, and `PermanentError` when its
        answer cannot be trusted.
        """
        ...


class PostingStore(Protocol):
    """How far each channel has been told, and what people are to be told."""

    async def announce(self, incident_id: IncidentId, text: str, at: datetime) -> None:
        """Put an announcement on record, durably; every channel gets it in its turn.

        `NotFound` for an incident that is not on record.
        """
        ...

    async def unshown(self, channel: str, at: datetime, limit: int) -> tuple[IncidentId, ...]:
        """Incidents of which the channel has something still to be told, and that may be tried at `at`.

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
    BrakeStore,
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


# ------------------------------------------------------------------ engine


class Runner(Protocol):
    """Moves incidents on; the engine behind it is not the loop's business."""

    async def wake(self, incident_id: IncidentId) -> None:
        """Look for due work now instead of at the next poll; safe to repeat, and to lose."""
        ...


class Fleet(Protocol):
    """The processes of the agent that share one store: who is alive, who leads, who rang."""

    async def enter(self, owner: str) -> None:
        """Be counted as alive from now on, until `leave` or the death of this process.

        Enters anew by itself when the connection to the store breaks.
        """
        ...

    async def reap(self) -> tuple[str, ...]:
        """Void the claims and leases of owners that died, and say who; their incidents are due at once."""
        ...

    async def elect(self, duty: str, owner: str, lease: timedelta, now: datetime) -> bool:
        """Take or renew the lease of a duty that one process does for all; False while another holds it."""
        ...

    async def resign(self, duty: str, owner: str) -> None:
        """Give a duty back, so that a peer need not wait for the lease."""
        ...

    async def rung(self) -> None:
        """Return when some process has said that an incident became due; may return for nothing."""
        ...

    async def leave(self) -> None:
        """Be gone in good order: claims and leases are free at once. May be called twice."""
        ...


# ------------------------------------------------------------------ streams


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamMessage:
    """One entry of a stream, as it was read."""

    position: str
    """Where it stands, the same on every redelivery: `kafka:<cluster>/<topic>/<partition>/<offset>`."""
    key: str | None
    """What it is ordered by, where the stream has keys: `<environment>/<service>`."""
    body: bytes
    headers: Mapping[str, str]
    appended_at: datetime | None
    """When the stream took it in, where it says."""
    deliveries: int = 1
    """How often it was handed out, this time included, where the stream counts."""


class SignalStream(Protocol):
    """A durable stream of signals, read by one of several consumers that share the work.

    A message is handed out again, here or to another consumer, until it was
    acknowledged or rejected: at least once, in order within a key where the
    stream has keys.
    """

    async def take(self, limit: int) -> tuple[StreamMessage, ...]:
        """The next messages, at most `limit`; waits a short while for the first, then may be empty."""
        ...

    async def acknowledge(self, messages: Sequence[StreamMessage]) -> None:
        """These are durable elsewhere. Losing this only repeats them."""
        ...

    async def reject(self, message: StreamMessage, reason: str) -> None:
        """Put it into the dead letters with the reason, durably, then acknowledge it."""
        ...

    async def lag(self) -> int | None:
        """How many messages this consumer has still to read or acknowledge; None when unknown."""
        ...

    async def close(self) -> None:
        """Give up its share at once, so that another consumer takes it over."""
        ...


@dataclass(slots=True, kw_only=True)
class StreamProgress:
    """How a reader is getting on, for readiness and metrics. Counts start at zero with the process."""

    accepted: int = 0
    """Signals made durable, repetitions included."""
    acknowledged: int = 0
    """Messages done with after their signals were durable."""
    rejected: int = 0
    """Messages put among the dead letters."""
    redelivered: int = 0
    """Messages taken that had been handed out before, where the stream counts that."""
    lag: int | None = None
    """Messages still to be read or acknowledged, when last asked; None when not known."""
    lag_at: datetime | None = None
    blocked_since: datetime | None = None
    """Since when nothing moves; None while all is well."""
    trouble: str = ""
    """What is waited for while nothing moves."""
