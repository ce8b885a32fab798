"""The incident: the aggregate that the loop moves from stage to stage."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from app.agent.ids import IncidentId, IntentId, ServiceKey
from app.agent.models.diagnoses import Cause, Diagnosis
from app.agent.models.intents import OutcomeKind
from app.agent.models.plans import ActionName, Plan
from app.agent.models.signals import Trigger
from app.agent.models.verification import Verdict, Verification


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """The lesson of the closed incident."""

    cause: Cause
    runbook: str | None
    actions: tuple[ActionName, ...]
    worked: bool | None
    """None: no action was taken, so there is no lesson about one."""
    recovered_alone: bool
    seconds_to_recover: float | None
    at: datetime


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

    @property
    def is_recovery(self) -> bool:
        """Whether it is an end with a recovered service, by an action or without one."""
        return self in (IncidentState.RECOVERED, IncidentState.RECOVERED_WITHOUT_ACTION)


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
class UndoRequest:
    """A person's request to undo the agent's last change, and the earlier state of the incident.

    While it is pending, the plan of the incident is the undo.
    """

    by: str
    at: datetime
    text: str
    undoes: tuple[IntentId, ...]
    """In the order in which they are undone."""
    state: IncidentState
    closed_at: datetime | None
    plan: Plan | None
    next_action: int
    verification: Verification | None
    wake_at: datetime | None
    joined: int
    outcome: OutcomeKind | None = None
    """None while it is pending."""
    message: str = ""
    """Why it ended so, as a sentence."""
    ended_at: datetime | None = None

    @property
    def pending(self) -> bool:
        return self.outcome is None


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
    """The name of the person who first requested a pass on it; they may not approve its actions."""
    also_requested_by: tuple[str, ...] = ()
    """People who did so later; they may not either."""
    reported_by: tuple[str, ...] = ()
    """The names of verified senders of its signals; they may not approve its actions either."""
    cluster: str = ""
    """The cluster that its first alert with such a label named; alerts about another one do not join."""
    acknowledged: ByPerson | None = None
    """The first person who acknowledged it."""
    owner: str | None = None
    """The person responsible for it, by name; None while it has no owner."""
    taken_over: ByPerson | None = None
    """The person who handles it instead of the agent, which starts no stage of it until it is handed back."""
    resolved: ByPerson | None = None
    """Who resolved it by hand; `closed_at` of an escalated one stays the time of its escalation."""
    recovered_at: datetime | None = None
    """When the service of an escalated incident recovered by itself; `closed_at` stays the escalation's."""
    undo: UndoRequest | None = None
    """The last request of a person to undo a change of the agent."""
    summary: str = ""
    """One sentence for people: why the incident is where it is."""

    @property
    def over_at(self) -> datetime | None:
        """When nothing was left to do: an escalated incident is over once it recovered or was resolved.

        `closed_at` is the time when the agent ended its work; after it a new symptom may open another
        incident.
        """
        if self.state is IncidentState.ESCALATED or not self.state.closed:
            return None
        if self.resolved is not None:
            return self.resolved.at
        return self.recovered_at or self.closed_at

    @property
    def undoing(self) -> UndoRequest | None:
        """The request to undo that the agent carries out now."""
        return self.undo if self.undo is not None and self.undo.pending else None

    @property
    def held_by(self) -> str | None:
        """The person who handles it, so that no worker does; not while the agent undoes at their request."""
        return None if self.taken_over is None or self.undoing is not None else self.taken_over.by
