"""The steps of a rollback through a GitOps controller, as the timeline records them. Pure.

Each step is recorded as begun before its effect and as done after it, in the incident's own timeline, so
that a process that takes over the intent knows its progress (promise 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from app.agent.gitops.application import Application, ApplicationRef
from app.agent.ids import IntentId, JsonObject, JsonScalar
from app.agent.intents import intent_by_id
from app.agent.models import (
    Action,
    IncidentRecord,
    IncidentState,
    Intent,
    Note,
    OutcomeKind,
    Stage,
    VerdictKind,
)

APPLICATION, HISTORY_ID, GIT_REVISION = "application", "history_id", "git_revision"
LEFT_HISTORY_ID, LEFT_REVISION = "left_history_id", "left_git_revision"
"""Parameters of a rollback through an application; the last two name the state that it leaves."""

CARRIED = (APPLICATION, HISTORY_ID, GIT_REVISION, LEFT_HISTORY_ID, LEFT_REVISION)

MAX_ATTEMPTS = 2
"""A step whose effect does not show after this many attempts is escalated."""

MAX_RESTORE_ATTEMPTS = 5
"""The policy is set to recorded values: a repeat has no further effect."""


class GitOpsStep(StrEnum):
    """In the order of a rollback; `back out` replaces the rest where a step was refused."""

    RECORD = "record"
    SWITCH_OFF = "switch off"
    ROLL_BACK = "roll back"
    BACK_OUT = "back out"
    REVERT = "revert"
    RESTORE = "restore"
    PROVE = "prove"


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far an intent has come."""

    begun: Mapping[GitOpsStep, int]
    """How often each step was begun."""
    before: Mapping[GitOpsStep, JsonObject]
    """The data recorded at the last beginning of a step."""
    done: Mapping[GitOpsStep, JsonObject]
    """The data recorded when a step was done."""
    at: Mapping[GitOpsStep, datetime] = field(default_factory=dict)
    """When a step was begun last, or done."""

    @property
    def policy(self) -> JsonObject | None:
        """The recorded sync policy; None where automated sync was off before, or nothing is recorded."""
        found = self.done.get(GitOpsStep.RECORD, {})
        policy = found.get("policy")
        return policy if found.get("automated") and isinstance(policy, dict) else None

    @property
    def left_off(self) -> bool:
        """Automated sync was or may have been switched off, and was not switched on again."""
        restored = self.done.get(GitOpsStep.RESTORE)
        return self.begun.get(GitOpsStep.SWITCH_OFF, 0) > 0 and (restored is None or "kept" in restored)


def progress(record: IncidentRecord, intent_id: IntentId) -> Progress:
    """How far an intent has come, from the timeline."""
    begun: dict[GitOpsStep, int] = {}
    before: dict[GitOpsStep, JsonObject] = {}
    done: dict[GitOpsStep, JsonObject] = {}
    at: dict[GitOpsStep, datetime] = {}
    for entry in record.timeline:
        name = entry.data.get("gitops_step")
        if name is None or entry.data.get("intent") != intent_id:
            continue
        step, facts = GitOpsStep(str(name)), entry.data.get("facts")
        known = facts if isinstance(facts, dict) else {}
        at[step] = entry.at
        if entry.data.get("state") == "begun":
            begun[step] = begun.get(step, 0) + 1
            before[step] = known
        else:
            done[step] = known
    return Progress(begun=begun, before=before, done=done, at=at)


def step_note(
    intent: Intent,
    step: GitOpsStep,
    message: str,
    at: datetime,
    *,
    done: bool,
    facts: JsonObject | None = None,
) -> Note:
    """The record of a step, begun or done."""
    return Note(
        at=at,
        stage=Stage.UNDO if intent.undoes else Stage.EXECUTE,
        message=message,
        data={
            "intent": intent.id,
            "gitops_step": step,
            "state": "done" if done else "begun",
            "facts": facts or {},
        },
    )


def application_of(action: Action) -> ApplicationRef | None:
    """The application through which an action is carried out; None for one on the cluster itself."""
    named = action.parameters.get(APPLICATION)
    return ApplicationRef.parse(named) if isinstance(named, str) else None


def text_of(action: Action, parameter: str) -> str:
    """A parameter as text."""
    return str(action.parameters.get(parameter, ""))


def carried(action: Action) -> dict[str, JsonScalar]:
    """The parameters by which an undo finds the original change."""
    return {name: action.parameters[name] for name in CARRIED if name in action.parameters}


def followed_up(record: IncidentRecord) -> Intent | None:
    """The rollback that helped and whose repository and policy are still to be put right; else None."""
    incident = record.incident
    verdict, seen = incident.verdict, incident.verification
    if incident.state is not IncidentState.VERIFYING or verdict is None or seen is None:
        return None
    if verdict.kind is not VerdictKind.RECOVERED or verdict.intent_id is None:
        return None
    if seen.intent_id != verdict.intent_id:
        return None
    intent = intent_by_id(record, verdict.intent_id)
    return intent if needs_follow_up(intent) else None


def needs_follow_up(intent: Intent) -> bool:
    """A rollback through an application leaves the repository behind."""
    done = intent.outcome is not None and intent.outcome.kind is OutcomeKind.DONE
    return done and intent.undoes is None and application_of(intent.action) is not None


def policy_left_off(record: IncidentRecord) -> str:
    """A sentence on automated sync that the agent switched off and not on again; empty if there is none."""
    said = ""
    for intent in record.intents:
        ref = application_of(intent.action)
        if ref is None or intent.undoes is not None:
            continue
        seen = progress(record, intent.id)
        undos = [progress(record, one.id) for one in record.intents if one.undoes == intent.id]
        restored = any("kept" not in one.done.get(GitOpsStep.RESTORE, {"kept": True}) for one in undos)
        if not seen.left_off or restored:
            continue
        said += (
            f" Automated sync of application {ref} was switched off by the agent: switch it on again once "
            f"the repository asks for revision {text_of(intent.action, GIT_REVISION)[:8]} or a better one."
        )
    return said


def is_switched_off(application: Application, intent_id: IntentId) -> bool:
    """Automated sync is off, by this intent."""
    return not application.automated and application.held_by == intent_id


def short(revision: str | None) -> str:
    """A commit as people write it."""
    return (revision or "unknown")[:8]
