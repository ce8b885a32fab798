"""Queries on an incident's intents. Pure.

Shared by the executor, the soak, the closing and the lesson, so that all use the same
definition of done, begun and undone.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from app.agent.guardrails.workload_kinds import mutes
from app.agent.ids import IntentId
from app.agent.models import (
    Action,
    ActionName,
    Incident,
    IncidentRecord,
    Intent,
    IntentState,
    OutcomeKind,
    Stage,
    VerdictKind,
)
from app.agent.responders.request import ResponderAct


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """What became of the agent's changes since, by intent id, as far as their targets were read."""

    changed_by: dict[str, str] = field(default_factory=dict)
    """The party that changed the fields of the action."""
    gone: frozenset[str] = frozenset()
    """The object no longer exists."""
    unread: frozenset[str] = frozenset()
    """The object could not be read."""
    handled_by: dict[str, str] = field(default_factory=dict)
    """The person who took over the incident after the change: their changes are not visible on its object."""

    def knows(self, intent: Intent) -> bool:
        """Whether the state that the agent left has changed, or this is unknown."""
        return intent.id in self.changed_by or intent.id in self.gone or intent.id in self.unread

    def doubts(self, intent: Intent) -> bool:
        """Whether something else than the change may have helped."""
        return self.knows(intent) or intent.id in self.handled_by

    def fate(self, intent: Intent) -> str:
        """What became of such a change, in words."""
        target = intent.action.target
        if intent.id in self.changed_by:
            return f"{target} was changed since by {self.changed_by[intent.id]}"
        if intent.id in self.handled_by and not self.knows(intent):
            return f"{self.handled_by[intent.id]} has handled the incident since"
        return f"{target} no longer exists" if intent.id in self.gone else f"{target} could not be read"


NOT_READ = Since()
"""No target was read: the timeline holds the known facts."""


def begun_intents(record: IncidentRecord) -> tuple[Intent, ...]:
    """The intents that began and are not undos: the budget counts these."""
    return tuple(i for i in record.intents if i.started_at is not None and i.undoes is None)


def intent_by_id(record: IncidentRecord, intent_id: IntentId) -> Intent:
    """The incident's intent of that id; KeyError if it has none."""
    return {i.id: i for i in record.intents}[intent_id]


def done_intents(record: IncidentRecord) -> tuple[Intent, ...]:
    """The intents that took place and undo nothing, oldest first, whether or not they were undone since."""
    return tuple(
        i
        for i in record.intents
        if i.undoes is None and i.outcome is not None and i.outcome.kind is OutcomeKind.DONE
    )


def tried(record: IncidentRecord) -> tuple[ActionName, ...]:
    """The actions that took effect or failed, without undos and actions whose reason was withdrawn before."""
    return tuple(
        dict.fromkeys(
            i.action.name
            for i in record.intents
            if i.undoes is None
            and i.state is IntentState.FINISHED
            and i.outcome is not None
            and i.outcome.kind in (OutcomeKind.DONE, OutcomeKind.FAILED)
            and not i.outcome.look_anew  # its reason was withdrawn before it took effect
        )
    )


def proposed_intents(record: IncidentRecord) -> tuple[Intent, ...]:
    """The intents of a dry run; an incident may have real ones from before the setting was changed."""
    return tuple(i for i in record.intents if i.dry_run)


def is_undone(record: IncidentRecord, intent: Intent) -> bool:
    """Whether an undo of it was decided, with any outcome, or a requested undo has begun."""
    return any(i.undoes == intent.id and (i.own_undo or i.started_at is not None) for i in record.intents)


def unverified(record: IncidentRecord) -> Intent | None:
    """The last action that took place, if it has neither a verdict nor an undo; None otherwise.

    A verdict on an earlier action does not apply to a later one. If several actions are verified together,
    the first represents all.
    """
    groups = _judged_together(record)
    if not groups:
        return None
    last, verdict = groups[-1], record.incident.verdict
    judged = verdict is not None and any(verdict.intent_id == each.id for each in last)
    return None if judged or any(is_undone(record, each) for each in last) else last[0]


def index_behind(incident: Incident, action: Action, outcome: OutcomeKind) -> int:
    """The action of the plan after `action`, which was the next one until now.

    Where it did not take place, what only completes it is left out: a restart after a
    revert that was refused would start pods with the configuration that fails. What heals
    does not depend on a silence.
    """
    index = incident.next_action + 1
    if outcome not in (OutcomeKind.REFUSED, OutcomeKind.FAILED):
        return index
    planned = () if incident.plan is None else incident.plan.actions
    completed_later = not action.then_verify and not mutes(action)
    while completed_later:
        completed_later = index < len(planned) and not planned[index].then_verify
        index += 1
    return index


def awaits_completion(record: IncidentRecord) -> bool:
    """Whether the next action of the plan completes the last one that took place: both share one verdict."""
    plan, index = record.incident.plan, record.incident.next_action
    done = done_intents(record)
    if plan is None or not done or not 0 < index < len(plan.actions):
        return False
    last, before = done[-1], plan.actions[index - 1]
    return not before.then_verify and (last.action, last.decision.plan_hash) == (before, plan.hash)


def not_undone(record: IncidentRecord) -> tuple[Intent, ...]:
    """The changes that took place, did not help as far as is known, and have no undo that succeeded.

    Oldest first; an action without an undo, such as a restart, only if not verified. A silence changes
    nothing of the service, and ends with the incident.
    """
    undone = undone_intents(record)
    helped = _helped(record)
    first = unverified(record)
    return tuple(
        i
        for i in done_intents(record)
        if i.action.target is not None
        and not mutes(i.action)
        and i.id not in undone
        and i.id not in helped
        and (i.action.undo is not None or (first is not None and i.sequence >= first.sequence))
    )


def in_place(record: IncidentRecord, since: Since = NOT_READ) -> tuple[Intent, ...]:
    """The part of `not_undone` that is known to be in place: no later change, no undo of unknown outcome."""
    changed, unclear = changed_since(record), unclear_undos(record)
    return tuple(
        i for i in not_undone(record) if i.id not in changed and i.id not in unclear and not since.knows(i)
    )


def handled_since(record: IncidentRecord, intent: Intent) -> str | None:
    """The person who took over the incident since the action began; None if no person did.

    The outcome of the action may be known only later: a person may take over during the write.
    """
    began = intent.started_at
    people = (
        str(entry.data.get("person"))
        for entry in record.timeline
        if entry.data.get("act") == ResponderAct.TAKE_OVER and began is not None and entry.at >= began
    )
    return next(people, None)


def credited(record: IncidentRecord) -> tuple[Intent, ...]:
    """The changes after which the service recovered; none where it recovered without an action."""
    helped = _helped(record)
    return tuple(i for i in done_intents(record) if i.id in helped and i.action.target is not None)


def has_silenced(record: IncidentRecord) -> bool:
    """Whether a write that silences alerts began in this incident, regardless of its outcome."""
    return any(mutes(one.action) and one.started_at is not None for one in record.intents)


def undone_intents(record: IncidentRecord) -> set[IntentId | None]:
    """The ids of the intents whose undo succeeded."""
    return _undos(record, OutcomeKind.DONE)


def undo_of(record: IncidentRecord, changed: Intent) -> Intent | None:
    """The undo of an intent, if it succeeded."""
    for one in reversed(record.intents):
        if one.undoes == changed.id and one.outcome is not None and one.outcome.kind is OutcomeKind.DONE:
            return one
    return None


def unclear_undos(record: IncidentRecord) -> set[IntentId | None]:
    """The ids of the intents whose undo has an unknown outcome."""
    return _undos(record, OutcomeKind.UNKNOWN)


def changed_since(record: IncidentRecord) -> dict[str, str]:
    """By whom the target was changed after an action, by intent id: why the action was not undone."""
    return {
        str(entry.data["undoes"]): str(entry.data["changed_by"])
        for entry in record.timeline
        if entry.data.get("undoes") and entry.data.get("changed_by")
    }


def _undos(record: IncidentRecord, kind: OutcomeKind) -> set[IntentId | None]:
    return {i.undoes for i in record.intents if i.outcome is not None and i.outcome.kind is kind} - {None}


def _helped(record: IncidentRecord) -> set[IntentId]:
    """The ids of the actions after which the service recovered."""
    verdict = record.incident.verdict
    if verdict is None or verdict.kind is not VerdictKind.RECOVERED:
        return set()
    return {
        each.id
        for group in _judged_together(record)
        if any(verdict.intent_id == i.id for i in group)
        for each in group
    }


def to_undo(record: IncidentRecord, judged: IntentId) -> Intent | None:
    """The first intent to undo after an action that did not help; None if nothing of it can be undone."""
    rest = rest_to_undo(record, intent_by_id(record, judged))
    return rest[0] if rest else None


def judged_with(record: IncidentRecord, judged: Intent) -> list[Intent]:
    """The actions that took place and get one verdict with this one, itself included, oldest first."""
    return next((group for group in _judged_together(record) if judged in group), [])


def rest_to_undo(record: IncidentRecord, judged: Intent) -> list[Intent]:
    """The intents verified together with this one that can still be undone, in the order of their undo.

    This is the order of execution: pods that were restarted to read a configuration are replaced again
    after it was restored, not before.
    """
    return [i for i in judged_with(record, judged) if i.action.undo is not None and not is_undone(record, i)]


def _judged_together(record: IncidentRecord) -> list[list[Intent]]:
    """What took place, oldest first; an action and those that complete it are one. A silence is in none.

    A step completes an action only directly after it, and only if the action was not verified separately
    before.
    """
    groups: list[list[Intent]] = []
    before: Intent | None = None
    for intent in record.intents:
        if mutes(intent.action):
            continue
        done = intent.outcome is not None and intent.outcome.kind is OutcomeKind.DONE
        if intent.undoes is None and done:
            if before is not None and groups and _completes(record, groups[-1], before, intent):
                groups[-1].append(intent)
            else:
                groups.append([intent])
        before = intent
    return groups


def _completes(record: IncidentRecord, group: list[Intent], before: Intent, intent: Intent) -> bool:
    """Whether it completes the group that ends with `before`, the attempt directly before it."""
    return (
        before is group[-1]
        and not before.action.then_verify
        and before.decision.plan_hash == intent.decision.plan_hash
        and not _verified_before(record, group, intent)
    )


def _verified_before(record: IncidentRecord, group: list[Intent], intent: Intent) -> bool:
    """Whether a verification of one of the group began before anything was recorded of the intent."""
    known = {each.id for each in group}
    for entry in record.timeline:
        if intent.id in (entry.data.get("intent"), entry.data.get("intent_id")):
            return False
        if entry.stage is Stage.VERIFY and entry.data.get("intent") in known:
            return True
    return False
