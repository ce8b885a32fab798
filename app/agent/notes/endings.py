"""The reason for the end of an incident, and the changes that it left in place."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from app.agent.actions import ACTIONS
from app.agent.evidence.format import in_words
from app.agent.guardrails.workload_kinds import mutes
from app.agent.intents import (
    NOT_READ,
    Since,
    changed_since,
    credited,
    done_intents,
    in_place,
    not_undone,
    unclear_undos,
    undo_of,
    undone_intents,
    unverified,
)
from app.agent.models import (
    Cause,
    DecisionKind,
    Diagnosis,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Lesson,
    Note,
    OutcomeKind,
    Stage,
    TimelineEntry,
)
from app.agent.notes.plans import why_no_action
from app.durations import span

_EVIDENCE_NAMED = 2
"""How many pieces of evidence a summary repeats; the timeline has all of them."""


def why_escalated(record: IncidentRecord) -> str:
    """One sentence: why the incident is escalated to a person."""
    incident = record.incident
    if not record.intents:
        cause = incident.diagnosis.best.cause if incident.diagnosis is not None else "unknown"
        if incident.diagnosis is not None and cause is Cause.TELEMETRY_OUTAGE:
            said = "; ".join(incident.diagnosis.best.evidence_for)
            return f"No action taken because of a telemetry outage: {said}."
        why = why_no_action(cause, incident.plan)
        return f"{why}{_what_is_wrong(incident.diagnosis)}{to_inspect(record.timeline)}"
    last = [i for i in record.intents if i.undoes is None][-1]
    outcome = last.outcome.message if last.outcome is not None else "not finished"
    if last.decision.kind is not DecisionKind.ALLOW:
        reasons = "; ".join(last.decision.reasons)
        return f"{last.action.words} not executed ({last.decision.kind.words}): {reasons}"
    if incident.verdict is not None and unverified(record) is None and last in done_intents(record):
        undone = " The agent undid it." if undo_of(record, last) is not None else ""
        return f"{last.action.words} did not help: {'; '.join(incident.verdict.reasons)}.{undone}"
    if last.outcome is not None and last.outcome.kind is OutcomeKind.DONE:
        return f"{last.action.words} did not help, and no other action is available"
    return f"{in_words(last.action.name)} was not executed: {outcome}"


def _what_is_wrong(diagnosis: Diagnosis | None) -> str:
    """The strongest evidence for a named cause, as a sentence."""
    if diagnosis is None or diagnosis.best.cause is Cause.UNKNOWN or not diagnosis.best.evidence_for:
        return ""
    return f" Evidence: {'; '.join(diagnosis.best.evidence_for[:_EVIDENCE_NAMED])}."


def to_inspect(notes: Sequence[Note | TimelineEntry]) -> str:
    """The first command of the newest handover among these, as a sentence; empty without one."""
    for entry in reversed(notes):
        commands = entry.data.get("commands")
        if isinstance(commands, list) and commands:
            return f" To inspect: {commands[0]}"
    return ""


def why_returning(times: int, within: timedelta) -> str:
    """One sentence: the symptoms ended by themselves again, and come back."""
    return (
        f"The symptoms ended without an action {times} times within {span(within)}, "
        "and keep returning: the cause is still there."
    )


def why_recovered_alone(record: IncidentRecord) -> str:
    """One sentence: the service recovered by itself, and which actions were taken before and undone."""
    done = [i for i in done_intents(record) if i.action.target is not None and not mutes(i.action)]
    if not done:
        return "Recovered without any action."
    known = undone_intents(record)
    undone = [i for i in done if i.id in known]
    kept = [i for i in done if i not in undone]
    said = [f"{named_actions(undone)} did not help and {_was(undone)} undone"] if undone else []
    said += [f"{named_actions(kept)} did not help"] if kept else []
    return f"Recovered by itself: {'; '.join(said)}."


def symptoms_ended(record: IncidentRecord) -> str:
    """That the service is healthy at a diagnosis, without a full stop."""
    return "The symptoms ended" if done_intents(record) else "The symptoms ended before any action"


def nothing_written(record: IncidentRecord) -> str:
    """The actions of a dry run; an incident may have real actions from before the setting was changed."""
    return "Dry run now: no further action taken." if done_intents(record) else "Dry run: no action taken."


def why_recovered(record: IncidentRecord, since: Since = NOT_READ) -> str:
    """The runbook or action that helped, the proof, and the changes that did not help and were not undone.

    If `since` says that the helpful change was replaced before the end, or that a person handled the
    incident in between, no action gets the credit.
    """
    plan, verdict = record.incident.plan, record.incident.verdict
    helped = named_actions(
        [i for i in done_intents(record) if verdict is not None and i.id == verdict.intent_id]
    )
    done = f"Runbook {plan.runbook}" if plan is not None and plan.runbook is not None else helped
    proof = "; ".join(verdict.reasons) if verdict is not None else ""
    left = not_undone(record)
    before = f" Before that, {named_actions(left)} did not help." if left else ""
    fates = "; ".join(since.fate(i) for i in credited(record) if since.doubts(i))
    if fates:
        return f"Recovered; unknown whether {helped} helped ({fates}): {proof}.{before}"
    return f"{done} helped: {proof}.{before}"


def still_in_place(record: IncidentRecord, since: Since = NOT_READ) -> str:
    """Sentences on the changes that took place and were not undone, for the end of a summary; or empty.

    A restart leaves nothing that could be undone.
    """
    left = not_undone(record)
    stands = [i for i in in_place(record, since) if ACTIONS[i.action.name].undo is not None]
    changed, unclear = {**since.changed_by, **changed_since(record)}, unclear_undos(record)
    said = f" Still in place: {named_actions(stands)}." if stands else ""
    for one in left:
        if ACTIONS[one.action.name].undo is None:
            continue
        if one.id in changed:
            said += f" Not undone: {named_actions([one])}, changed since by {changed[one.id]}."
        elif one.id in since.gone:
            said += f" Not undone: {named_actions([one])}, which no longer exists."
        elif one.id in unclear or one.id in since.unread:
            said += f" Unknown whether {named_actions([one])} is still in place."
    known = unverified(record)
    if known is not None and known in left:
        said += f" The effect of {in_words(known.action.name)} was not verified."
    return said


def unknown_effects(record: IncidentRecord) -> str:
    """A sentence on the writes in progress, for an end that does not wait for them; or empty."""
    begun = [i for i in record.intents if i.state is IntentState.EXECUTING and i.action.target is not None]
    return f" Unknown whether {named_actions(begun)} took effect." if begun else ""


def named_actions(intents: Sequence[Intent]) -> str:
    """The actions with their targets: `rollback of Deployment prod/shop, restart of ...`."""
    return ", ".join(f"{i.action.words} of {i.action.target}" for i in intents)


def _was(intents: Sequence[Intent]) -> str:
    return "was" if len(intents) == 1 else "were"


def ending_note(end: IncidentState, why: str, learnt: Lesson, at: datetime) -> Note:
    """How the incident ended, and the lesson that was recorded."""
    return Note(
        at=at,
        stage=Stage.LEARN,
        message=f"Closed: {in_words(end)}. {why}",
        data={
            "state": end,
            "cause": learnt.cause,
            "worked": learnt.worked,
            "seconds_to_recover": learnt.seconds_to_recover,
        },
    )
