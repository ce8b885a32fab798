"""The values that the loop hands from stage to stage.

Everything here is frozen and free of effects. Times are aware and in UTC; units
stand in the names. Only `app.schemas` (HTTP) and `app.store` (SQL) know another
form of these values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from app.agent.identity.people import Answer, ApprovalTerms, Sender
from app.agent.ids import ApprovalId, IncidentId, IntentId, JsonObject, JsonScalar, ServiceKey, SignalId
from app.agent.workload import ConfigRecord, LogPattern, ObjectRef, RevisionRecord, WorkloadView

METRICS_SOURCE = ServiceKey(environment="telemetry", service="metrics")
CLUSTER_SOURCE = ServiceKey(environment="telemetry", service="cluster")
ALERTS_SOURCE = ServiceKey(environment="telemetry", service="alerts")
TELEMETRY_SOURCES = frozenset({METRICS_SOURCE, CLUSTER_SOURCE, ALERTS_SOURCE})
"""What incidents about a source are filed under; no workload and no series belongs to them."""


# ---------------------------------------------------------------- observe


POLLED = "prometheus"
BURN_ALERT = "ErrorBudgetBurn"
"""The agent's own alert about a service that uses up its error budget too fast."""
UNUSUAL_ALERT = "UnusualLevel"
"""The agent's own alert about a level that is clearly above the baseline of its service."""
"""The source of samples that the agent's own poller reports."""

WATCHED = "kubernetes"
"""The source of the conditions that the agent's own watcher sees."""


class SignalKind(StrEnum):
    DEPLOY = "deploy"
    METRIC = "metric"
    ALERT = "alert"
    CONDITION = "condition"
    CHANGE = "change"


class DeployStatus(StrEnum):
    STARTED = "started"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Trigger(StrEnum):
    """Why an incident is open; the closed list of reasons the agent acts on."""

    DEPLOY_FAILED = "deploy_failed"
    HIGH_ERROR_RATE = "high_error_rate"
    HIGH_LATENCY = "high_latency"
    CRASH_LOOP = "crash_loop"
    PODS_UNAVAILABLE = "pods_unavailable"
    """Pods of the service cannot be created, scheduled, started or reached, or do not get ready."""
    TELEMETRY_OUTAGE = "telemetry_outage"
    """A source that the agent measures by gives no usable answer; never a reason for a remediation."""


class Condition(StrEnum):
    """What the cluster itself says is wrong with a workload."""

    CRASH_LOOP_BACK_OFF = "CrashLoopBackOff"
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff"
    OOM_KILLED = "OOMKilled"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    CREATE_CONTAINER_CONFIG_ERROR = "CreateContainerConfigError"
    """A ConfigMap, a Secret or a key that a container needs does not exist."""
    CREATE_CONTAINER_ERROR = "CreateContainerError"
    """A container cannot be created or its command cannot be run."""
    FAILED_CREATE = "FailedCreate"
    """The API server refuses to create pods: quota, admission, Pod Security."""
    FAILED_SCHEDULING = "FailedScheduling"
    FAILED_MOUNT = "FailedMount"
    NODE_LOST = "NodeLost"
    """The cluster no longer hears from the node of a pod."""
    CONTAINER_TERMINATED = "ContainerTerminated"
    """A container ended, and its node does not start it again."""
    NOT_READY = "NotReady"
    """A pod has not been ready for longer than its service usually takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deploy:
    """A release of a service changed state, as reported by a pipeline."""

    version: str
    status: DeployStatus
    commit_sha: str | None = None
    irreversible: bool = False
    """The release carries a change that older code cannot run against."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSample:
    """Service levels at one instant; `None` is no data, which is never zero."""

    error_rate: float | None = None
    """Share of failed requests, 0..1."""
    p95_latency_ms: float | None = None
    crash_looping: bool | None = None
    request_rate: float | None = None
    """Requests per second behind the other two, where the sender measures them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert as delivered; identity is `identity` + status."""

    name: str
    firing: bool
    fingerprint: str
    starts_at: datetime
    trigger: Trigger | None
    """What the alert means to the agent; None when no mapping names it."""
    summary: str = ""
    telemetry: bool = False
    """It says that a rule could not be evaluated: no symptom of the service, and no end of one."""
    cluster: str = ""
    """The cluster that its labels name, where settings do not say that this is the connected one."""
    suppressed: bool = False
    """Its sender muted it (a silence, an inhibition): no reason for an action, and no end of one."""
    labels: tuple[tuple[str, str], ...] | None = None
    """All its labels, sorted, as its sender names them; None where they were not given, or are too many."""
    cycle: str | None = None
    """What links a start to its end where the sender repeats no start time; None: `starts_at` does."""

    @property
    def identity(self) -> str:
        """The same for every delivery about one firing of one alert, its end included."""
        return f"{self.fingerprint.lower()}@{self.cycle or self.starts_at.isoformat()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterCondition:
    """A condition the watcher saw appear on, or clear from, a workload."""

    condition: Condition
    present: bool
    message: str
    revision: int | None = None


class ChangeKind(StrEnum):
    DEPLOY = "deploy"
    CONFIG = "config"
    FLAG = "flag"
    SCALE = "scale"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigChange:
    """Configuration of a workload changed while its images stayed as they were."""

    summary: str
    kind: ChangeKind = ChangeKind.CONFIG
    revision: int | None = None


Payload: TypeAlias = Deploy | MetricSample | Alert | ClusterCondition | ConfigChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One accepted observation. Durable before it is acknowledged (promise 9)."""

    id: SignalId
    kind: SignalKind
    key: ServiceKey
    source: str
    """Where it came from: `http`, `kubernetes`, an alert format, a stream or `POLLED`."""
    observed_at: datetime
    """When the sender says it was true."""
    received_at: datetime
    dedup_key: str
    """Two signals with the same key are one observation, reported twice."""
    stale: bool
    """Too old on arrival to act on: it may open an incident, never lead to a real action."""
    payload: Payload
    sender: Sender | None = None
    """Who sent it; None for what the agent saw itself, and for signals of an older version."""


class DispositionKind(StrEnum):
    OPENED = "opened"
    JOINED = "joined"
    DEDUPLICATED = "deduplicated"
    IGNORED = "ignored"
    PENDING = "pending"
    """A breach not yet sustained; becomes opened, joined, ignored or expired."""
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disposition:
    """What became of a signal, and why."""

    kind: DispositionKind
    reason: str
    incident_id: IncidentId | None = None
    duplicate_of: SignalId | None = None


# ---------------------------------------------------------------- cluster views


# ---------------------------------------------------------------- evidence and diagnosis


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Something that somebody changed, as a possible cause."""

    kind: ChangeKind
    key: ServiceKey
    at: datetime
    summary: str
    version: str | None = None
    irreversible: bool = False
    status: DeployStatus | None = None
    """The status of the deploy; None for other changes, and in records of older versions."""
    commit_sha: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SliSample:
    """Service level indicators at one instant, from whichever source measured them."""

    at: datetime
    error_rate: float | None = None
    p95_latency_ms: float | None = None
    request_rate: float | None = None
    """Requests per second."""
    measured: bool = False
    """Measured by the agent's own metric source; False: posted by a sender."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryHealth:
    """Whether the measuring itself works: many series vanishing together is its fault (promise 8)."""

    known_services: int
    silent_services: int
    """Services that had data before and have none now."""
    source_reachable: bool
    """It answers, and what it answers can be used."""
    fault: str | None = None
    """Why it cannot be used, as the connector words it."""

    @property
    def outage(self) -> bool:
        """At least three services, and more than half of all, fell silent; or the source is down."""
        return not self.source_reachable or (
            self.silent_services >= 3 and self.silent_services * 2 > self.known_services
        )

    @property
    def said(self) -> str:
        """What is wrong, in words."""
        if not self.source_reachable:
            return f"the source of metrics cannot be used: {self.fault or 'it does not answer'}"
        return f"{self.silent_services} of {self.known_services} services fell silent together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Objectives:
    """Above which level an indicator is a symptom, and how much traffic it takes to say so."""

    max_error_rate: float
    max_p95_latency_ms: float
    min_request_rate: float = 0.0
    """Requests per second below which neither of the two says anything."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UsualLevel:
    """The baseline of one indicator of one service, in the unit of the indicator."""

    key: ServiceKey
    indicator: str
    median: float
    often: float
    """Every tenth sample is above it."""
    high: float
    """Every fiftieth sample is above it."""
    observed_for: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyLevels:
    """The service levels of a service that the incident's service calls, directly or not."""

    key: ServiceKey
    sli: tuple[SliSample, ...]
    """Recent samples, oldest first."""
    calls: tuple[ServiceKey, ...]
    """The services that it calls in turn, where known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FailingBeside:
    """Another service of the environment whose service levels are outside their objectives too."""

    key: ServiceKey
    since: datetime
    """The first sample outside."""
    unrelated: bool
    """Known not to call the incident's service, directly or not, and not to be called by it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that diagnosis may look at; gathered by the observer, never fetched by a rule."""

    key: ServiceKey
    at: datetime
    opened_at: datetime
    triggers: tuple[Trigger, ...]
    conditions: tuple[Condition, ...]
    signals: tuple[Signal, ...]
    """The signals of this incident, oldest first."""
    changes: tuple[Change, ...]
    """Changes to any known service inside the look-back window, newest first."""
    workload: WorkloadView | None
    revision_history: tuple[RevisionRecord, ...]
    config_history: tuple[ConfigRecord, ...]
    sli: tuple[SliSample, ...]
    """Recent samples of this service, oldest first; posted and measured ones are marked and never mixed."""
    telemetry: TelemetryHealth | None
    other_open_incidents: tuple[ServiceKey, ...]
    dependencies: tuple[ServiceKey, ...]
    """Services this one calls, where known."""
    failed_actions: tuple[ActionName, ...] = ()
    """Actions already tried on this incident without recovery."""
    unmeasured: str | None = None
    """Why the agent's own metric source gave no usable answer; None: it answered, or none is configured."""
    objectives: Objectives | None = None
    """None: not known, so that every reported symptom is taken for one."""
    dependency_levels: tuple[DependencyLevels, ...] = ()
    """What was measured of the services that this one calls, directly or not."""
    failing_beside: tuple[FailingBeside, ...] = ()
    """Dependencies, and services with a recent incident, that fail at this moment: a bounded number."""
    callers: tuple[ServiceKey, ...] = ()
    """Services that call this one directly, where known."""
    usual: tuple[UsualLevel, ...] = ()
    """The baselines of the service and of its dependencies, where they are known."""
    log_patterns: tuple[LogPattern, ...] = ()
    """Of the failing containers, where the agent may read logs."""


class Cause(StrEnum):
    """The closed list of causes the agent can name; `UNKNOWN` is an answer."""

    BAD_RELEASE = "bad_release"
    BAD_CONFIG = "bad_config"
    IRREVERSIBLE_RELEASE = "irreversible_release"
    RESOURCE_LIMIT = "resource_limit"
    MEMORY_LEAK = "memory_leak"
    TRAFFIC_SURGE = "traffic_surge"
    DEPENDENCY_FAILURE = "dependency_failure"
    NODE_FAILURE = "node_failure"
    TELEMETRY_OUTAGE = "telemetry_outage"
    MISSING_CONFIGURATION = "missing_configuration"
    SCHEDULING_FAILURE = "scheduling_failure"
    STORAGE_FAILURE = "storage_failure"
    ADMISSION_REFUSAL = "admission_refusal"
    PROBE_FAILURE = "probe_failure"
    REGISTRY_FAILURE = "registry_failure"
    SCALED_TO_ZERO = "scaled_to_zero"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hypothesis:
    """One cause with what speaks for and against it."""

    cause: Cause
    confidence: float
    """0..1; an ordering with a meaning for thresholds, not a probability."""
    rule: str
    evidence_for: tuple[str, ...]
    evidence_against: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """Ranked hypotheses, best first; never empty."""

    hypotheses: tuple[Hypothesis, ...]
    at: datetime
    fingerprint: str | None = None
    """Over what it rests on that can be found again in another incident; None on old records."""

    @property
    def best(self) -> Hypothesis:
        return self.hypotheses[0]


# ---------------------------------------------------------------- plan


class ActionName(StrEnum):
    """The closed set of operations, each in a file of `app/agent/actions/`. No command is free-form."""

    RESTART = "restart"
    ROLLBACK = "rollback"
    REVERT_CONFIG = "revert_config"
    SCALE = "scale"
    PAUSE = "pause"
    RESUME = "resume"
    NOTIFY = "notify"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    DELETE_STUCK_POD = "delete_stuck_pod"
    RAISE_AUTOSCALER_BOUNDS = "raise_autoscaler_bounds"
    RAISE_MEMORY_LIMIT = "raise_memory_limit"
    ABORT_ROLLOUT = "abort_rollout"
    RETRY_ROLLOUT = "retry_rollout"
    PROMOTE_ROLLOUT = "promote_rollout"
    PAUSE_ROLLOUT = "pause_rollout"
    RESTORE = "restore"
    """Undo: put an object back to the snapshot taken before another action. Never in a runbook."""

    @property
    def words(self) -> str:
        """The action in a sentence: `revert config`."""
        return self.value.replace("_", " ")


class Risk(StrEnum):
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One typed operation on one object, with resolved parameters."""

    name: ActionName
    risk: Risk
    target: ObjectRef | None
    """None where nothing in a cluster is touched (notify), or no cluster is known."""
    parameters: Mapping[str, JsonScalar]
    expected_effect: str
    undo: str | None
    """How it is undone, in words; None when it cannot or need not be."""
    diagnosed_token: str | None = None
    """The target's state that the diagnosis saw: a plan for another state is void."""
    then_verify: bool = True
    """False when the next action of the plan completes it: only both together can be judged."""
    leaves: str | None = None
    """What the target holds before it, named by content; None where that has no name."""
    reaches: str | None = None
    """What the target holds after it, named by content."""
    drifts_from: str | None = None
    """The release that wrote what it changes and does not notice it (`Helm release shop`); None if none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRunbook:
    """Why a runbook of the catalogue was not chosen."""

    runbook: str
    reason: str
    addresses_cause: bool = True
    """Whether it is for the diagnosed cause at all; True where an older version did not record it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered actions from one approved runbook; empty actions mean: take no action and escalate."""

    runbook: str | None
    """`id@version`, None when no runbook fits."""
    runbook_hash: str | None
    actions: tuple[Action, ...]
    rejected: tuple[RejectedRunbook, ...]
    hash: str
    """SHA-256 over the canonical form of runbook hash and actions: what a decision is bound to."""
    at: datetime
    handover: tuple[str, ...] = ()
    """The instructions of a runbook that hands the incident to a person; it has no actions."""


# ---------------------------------------------------------------- policy and execution


class DecisionKind(StrEnum):
    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"

    @property
    def words(self) -> str:
        """The answer in a sentence: `allowed`, `denied` or `approval required`."""
        match self:
            case DecisionKind.ALLOW:
                return "allowed"
            case DecisionKind.DENY:
                return "denied"
            case DecisionKind.NEEDS_APPROVAL:
                return "approval required"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The recorded answer of policy for exactly one plan, action and live state (promise 1)."""

    kind: DecisionKind
    reasons: tuple[str, ...]
    plan_hash: str
    target_token: str | None
    at: datetime
    rules: tuple[str, ...] = ()
    """Which rules it rests on: `guardrails`, and the policy's own by name; empty on old records."""
    terms: ApprovalTerms | None = None
    """On which terms people are asked, where the answer is that they must be."""
    policy_roles: bool = False
    """Whether the policy engine named the roles of the terms; the configured roles do not apply then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehearsal:
    """What the API server said to the same request with `dryRun=All`."""

    accepted: bool
    message: str


class OutcomeKind(StrEnum):
    DONE = "done"
    REHEARSED = "rehearsed"
    """Dry run: the request was answered by the API server, nothing was written."""
    REFUSED = "refused"
    """Not attempted: policy, precondition or brake."""
    FAILED = "failed"
    """Attempted, and certainly without effect."""
    UNKNOWN = "unknown"
    """Attempted with an unknown outcome; escalated to a person."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    kind: OutcomeKind
    message: str
    at: datetime
    look_anew: bool = False
    """Refused because what was decided on is gone: the incident is to be judged again."""


class IntentState(StrEnum):
    DECIDED = "decided"
    EXECUTING = "executing"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What an object asked for before an action, enough to put it back. Opaque to the loop."""

    ref: ObjectRef
    token: str
    body: JsonObject
    available: int | None = None
    """How many replicas of the service were available then, where that was known."""
    sent_at: str | None = None
    """The version of the object that the first write is bound to; None in records of an older release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """One attempt at one action: decided, then durable, then (at most once) real (promise 2)."""

    id: IntentId
    incident_id: IncidentId
    sequence: int
    """0, 1, ... within the incident."""
    action: Action
    dry_run: bool
    decision: Decision
    rehearsal: Rehearsal | None
    state: IntentState
    snapshot: Snapshot | None = None
    """Taken right before the effect."""
    outcome: Outcome | None = None
    applied_token: str | None = None
    """Token of the target after the effect: an undo is refused when what the action changed moved on."""
    undoes: IntentId | None = None
    """The intent that this one undoes."""
    started_at: datetime | None = None
    attempts: int = 0
    """How often a worker set out to bring about the effect: once, and once more after an interruption."""
    approval: ApprovalId | None = None
    """The approval that this intent used up, where policy asked for one."""


# ---------------------------------------------------------------- people and brakes


class ApprovalState(StrEnum):
    PENDING = "pending"
    APPROVED = "approved"
    """Answered with yes, and not used yet."""
    DENIED = "denied"
    USED = "used"
    """One intent follows from it; none other ever will."""
    EXPIRED = "expired"
    VOID = "void"
    """What it was asked for is gone: the plan, or the state of the target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A durable request to a person, bound to one action of one plan on one live state (promise 1)."""

    id: ApprovalId
    incident_id: IncidentId
    action_index: int
    """Index into `plan.actions`."""
    action: ActionName
    plan_hash: str
    target_token: str | None
    reasons: tuple[str, ...]
    """Why policy asks."""
    requested_at: datetime
    expires_at: datetime
    state: ApprovalState = ApprovalState.PENDING
    answered_by: str | None = None
    """The people whose answers decided it."""
    answered_at: datetime | None = None
    comment: str = ""
    terms: ApprovalTerms = field(default_factory=ApprovalTerms)
    answers: tuple[Answer, ...] = ()
    """Every yes and no so far, oldest first."""
    escalated: int = 0
    """How many steps of the escalation were taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KillSwitch:
    """The kill switch: while engaged no new action begins; undo and verification go on (promise 11)."""

    engaged: bool
    by: str
    reason: str
    at: datetime


# ---------------------------------------------------------------- verify and learn


class VerdictKind(StrEnum):
    RECOVERED = "recovered"
    NOT_RECOVERED = "not_recovered"
    WORSE = "worse"
    CANNOT_TELL = "cannot_tell"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The end of a verification."""

    kind: VerdictKind
    reasons: tuple[str, ...]
    at: datetime
    intent_id: IntentId | None = None
    """The action that it judges; None where the service was only watched, and on old records."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What the verifier saw at one instant; missing parts stay missing."""

    at: datetime
    sli: SliSample | None
    workload: WorkloadView | None
    telemetry: TelemetryHealth | None = None
    told_conditions: tuple[Condition, ...] = ()
    """Conditions reported by pushed signals whose end was not reported yet."""
    gone: bool = False
    """The cluster answered, and no workload maps to the service."""
    missing: tuple[str, ...] = ()
    """What could not be read, in words."""
    unmeasured: str | None = None
    """Why the agent's own metric source gave no usable answer; None: it answered, or none is configured."""
    unseen: str | None = None
    """Why the cluster gave no usable answer about the workload; None: it answered, or none is connected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What the closed incident taught."""

    cause: Cause
    runbook: str | None
    actions: tuple[ActionName, ...]
    worked: bool | None
    """None: nothing was done, so nothing was learnt about an action."""
    recovered_alone: bool
    seconds_to_recover: float | None
    at: datetime


# ---------------------------------------------------------------- incident


class IncidentState(StrEnum):
    OPEN = "open"
    AWAITING_APPROVAL = "awaiting_approval"
    EXECUTING = "executing"
    VERIFYING = "verifying"
    RECOVERED = "recovered"
    RECOVERED_WITHOUT_ACTION = "recovered_without_action"
    PROPOSED = "proposed"
    ESCALATED = "escalated"
    RESOLVED_BY_HAND = "resolved_by_hand"
    """A person ended it: while it was open, or after the agent had escalated it."""

    @property
    def closed(self) -> bool:
        return self in _ENDS


_ENDS = frozenset(
    {
        IncidentState.RECOVERED,
        IncidentState.RECOVERED_WITHOUT_ACTION,
        IncidentState.PROPOSED,
        IncidentState.ESCALATED,
        IncidentState.RESOLVED_BY_HAND,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPerson:
    """Who did something about an incident, by name, and when."""

    by: str
    at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """How far verification has come; durable, so that a restart of the process does not restart the soak."""

    intent_id: IntentId | None
    """The action under test; None while a dry run only watches."""
    started_at: datetime
    """When the action was done, or when the agent looked again after a time in which it did not."""
    healthy_since: datetime | None = None
    last_unhealthy_at: datetime | None = None
    last_observed_at: datetime | None = None
    baseline: SliSample | None = None
    """Service levels right before the action: what "worse" is measured against."""
    lost_seconds: float = 0.0
    """The length of the attempts that a gap between observations ended; bounds the number of restarts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """The aggregate that the loop moves from stage to stage.

    `version` grows by one with every stored change; a writer that holds an old
    version or an old fencing token is refused.
    """

    id: IncidentId
    key: ServiceKey
    state: IncidentState
    opened_at: datetime
    triggers: tuple[Trigger, ...]
    stale: bool
    """Every trigger was stale on arrival: no real action may follow."""
    dry_run: bool
    version: int = 0
    closed_at: datetime | None = None
    diagnosis: Diagnosis | None = None
    plan: Plan | None = None
    next_action: int = 0
    """Index into `plan.actions` of the action to take next."""
    verification: Verification | None = None
    verdict: Verdict | None = None
    """The last verdict; it applies only to the action that it names."""
    lesson: Lesson | None = None
    wake_at: datetime | None = None
    """Nothing to be done before: a change is given time to show, or an error time to pass."""
    failing_since: datetime | None = None
    """Since when the next step could not be taken, by errors that were hoped to pass."""
    without_reason_since: datetime | None = None
    """Since when no reason for an action holds (promise 13); None while one holds, or none was required."""
    joined: int = 0
    """How many signals with a trigger joined; intake counts, and no recovery is declared over a new one."""
    requested_by: str | None = None
    """The person who first had the agent act on it now, by name; they may not approve what follows."""
    also_requested_by: tuple[str, ...] = ()
    """People who did so later; they may not either."""
    reported_by: tuple[str, ...] = ()
    """Who is proved to have sent a signal of it, by name; they may not approve what rests on it either."""
    cluster: str = ""
    """The cluster that its first alert with such a label named; alerts about another one do not join."""
    acknowledged: ByPerson | None = None
    """The first person who acknowledged it."""
    owner: str | None = None
    """The person responsible for it, by name; None while it has no owner."""
    taken_over: ByPerson | None = None
    """The person who handles it instead of the agent, which starts no stage of it meanwhile."""
    resolved: ByPerson | None = None
    """Who resolved it by hand; `closed_at` of an escalated one stays the time of its escalation."""
    summary: str = ""
    """One sentence for people: why the incident is where it is."""

    @property
    def over_at(self) -> datetime | None:
        """When nothing was left to do: an escalated incident is over once a person has resolved it.

        `closed_at` is when the agent ended its part, and a new symptom may open another incident.
        """
        if self.state is IncidentState.ESCALATED:
            return None
        return self.resolved.at if self.resolved is not None else self.closed_at


class Stage(StrEnum):
    OBSERVE = "observe"
    DIAGNOSE = "diagnose"
    PLAN = "plan"
    POLICY = "policy"
    EXECUTE = "execute"
    VERIFY = "verify"
    UNDO = "undo"
    LEARN = "learn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A timeline entry to be: the store adds sequence and hash."""

    at: datetime
    stage: Stage
    message: str
    data: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineEntry:
    """One line of an incident's tamper-evident record (promise 12)."""

    sequence: int
    at: datetime
    stage: Stage
    message: str
    data: JsonObject
    hash: str
    """SHA-256 over the previous entry's hash and this entry's canonical form."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IncidentRecord:
    """An incident with everything that was recorded about it."""

    incident: Incident
    intents: tuple[Intent, ...]
    timeline: tuple[TimelineEntry, ...]
    approvals: tuple[Approval, ...] = ()
    """Every approval asked for, oldest first."""
    timeline_length: int | None = None
    """How many entries were written, as kept beside the timeline; None where it was not read."""
    timeline_head: str | None = None
    """The hash of the last entry that was written, likewise."""
