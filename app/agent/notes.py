"""The sentences of the timeline, built from the values that the loop's stages return.

Pure. The message is for the on-call engineer; the structured values are in each
note's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.actions import ACTIONS
from app.agent.evidence.cluster.handover import handover
from app.agent.evidence.cluster.log_patterns import pattern_facts
from app.agent.evidence.conditions import impact_of
from app.agent.evidence.format import confidence, counted, in_words, span
from app.agent.evidence.onset.patience import Patience
from app.agent.evidence.restoration import Restoration
from app.agent.ids import JsonObject
from app.agent.intents import (
    NOT_READ,
    Since,
    changed_since,
    credited,
    done_intents,
    in_place,
    not_undone,
    proposed_intents,
    unclear_undos,
    undone_intents,
    unverified,
)
from app.agent.models import (
    Cause,
    DecisionKind,
    Diagnosis,
    Evidence,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Lesson,
    Note,
    Outcome,
    OutcomeKind,
    Plan,
    RejectedRunbook,
    Stage,
    Verdict,
    Verification,
)
from app.agent.verifier import Assessment, dated_in_future


def evidence_note(evidence: Evidence, missing: Sequence[str], at: datetime) -> Note:
    """The evidence that was collected, and the sources that were unavailable."""
    workload = evidence.workload
    said = [
        counted(len(evidence.signals), "signal"),
        f"{counted(sum(c.key == evidence.key for c in evidence.changes), 'recent change')} to the service",
    ]
    if workload is not None:
        said.append(
            f"revision {workload.current_revision} with {workload.available_replicas} of "
            f"{workload.desired_replicas} replicas available"
        )
    message = f"Evidence: {', '.join(said)}."
    logs = pattern_facts(evidence.log_patterns)
    if logs:
        message += f" Patterns of logs: {'; '.join(logs)}."
    if missing:
        message += f" Unavailable: {'; '.join(missing)}."
    return Note(
        at=at,
        stage=Stage.OBSERVE,
        message=message,
        data={
            "conditions": [str(c) for c in evidence.conditions],
            "missing": list(missing),
            "log_patterns": [*logs],
            "impact": None if workload is None else str(impact_of(workload)),
        },
    )


def diagnosis_note(diagnosis: Diagnosis, at: datetime) -> Note:
    """The most likely cause, with the evidence for and against it."""
    best = diagnosis.best
    named = best.cause is not Cause.UNKNOWN
    opening = (
        f"Most likely {in_words(best.cause)} ({confidence(best.confidence)})" if named else "Cause unknown"
    )
    message = f"{opening}: {'; '.join(best.evidence_for)}."
    if best.evidence_against:
        message += f" Evidence against: {'; '.join(best.evidence_against)}."
    ranked: list[JsonObject] = [
        {"cause": h.cause, "confidence": h.confidence, "rule": h.rule} for h in diagnosis.hypotheses
    ]
    return Note(at=at, stage=Stage.DIAGNOSE, message=message, data={"hypotheses": [*ranked]})


_LESS_LIKELY = 2
"""At most this many other causes are listed."""


def handover_note(evidence: Evidence, diagnosis: Diagnosis, at: datetime) -> Note | None:
    """What a person who takes over needs, where no action is planned; None without a workload."""
    found = handover(evidence, diagnosis.best.cause)
    if found is None:
        return None
    message = f"Handover: {'; '.join(found.facts)}."
    if found.warnings:
        message += f" Warnings of the cluster: {'; '.join(found.warnings)}."
    others = less_likely(diagnosis)
    if others:
        message += f" Less likely: {'; '.join(others)}."
    message += f" To inspect: {found.commands[0]}"
    return Note(
        at=at,
        stage=Stage.PLAN,
        message=message,
        data={
            "facts": list(found.facts),
            "warnings": list(found.warnings),
            "commands": list(found.commands),
            "less_likely": [*others],
        },
    )


def less_likely(diagnosis: Diagnosis) -> list[str]:
    """The other causes that were examined, with the finding that speaks most against each."""
    return [
        f"{in_words(one.cause)} ({confidence(one.confidence)}), because {one.evidence_against[0]}"
        for one in diagnosis.hypotheses[1:]
        if one.evidence_against and one.cause is not Cause.UNKNOWN
    ][:_LESS_LIKELY]


def wait_note(wait: Patience, at: datetime) -> Note:
    """Nothing is decided while the symptom may end by itself."""
    return Note(
        at=at,
        stage=Stage.DIAGNOSE,
        message=f"{wait.why[:1].upper()}{wait.why[1:]} until {wait.until:%H:%M:%S} UTC.",
        data={"waits_for": wait.waits_for, "until": wait.until.isoformat()},
    )


def plan_note(plan: Plan, at: datetime) -> Note:
    """The chosen runbook and its actions; the rejected runbooks are in the data."""
    if plan.actions:
        steps = ", then ".join(
            f"{in_words(a.name)} {a.target}" if a.target is not None else in_words(a.name)
            for a in plan.actions
        )
        message = f"Runbook {plan.runbook}: {steps}."
    elif plan.handover:
        message = f"Runbook {plan.runbook} hands the incident to a person. {' '.join(plan.handover)}"
    else:
        message = "No runbook selected; no action planned."
    return Note(
        at=at,
        stage=Stage.PLAN,
        message=message,
        data={
            "hash": plan.hash,
            **({"handover": list(plan.handover)} if plan.handover else {}),
            "rejected": [{"runbook": r.runbook, "reason": r.reason} for r in plan.rejected],
        },
    )


def verdict_note(verdict: Verdict) -> Note:
    """The verdict and its reasons."""
    return Note(
        at=verdict.at,
        stage=Stage.VERIFY,
        message=f"Verdict: {in_words(verdict.kind)}: {'; '.join(verdict.reasons)}.",
        data={"verdict": verdict.kind},
    )


def turning_points(before: Verification, after: Verification, health: Assessment, at: datetime) -> list[Note]:
    """A note for the first observation and for each change between healthy and not healthy."""
    notes = [_restarted(before, at)] if dated_in_future(before, at) else []
    began = before.healthy_since is None and after.healthy_since is not None
    ended = before.healthy_since is not None and after.healthy_since is None
    if not (began or ended or before.last_observed_at is None):
        return notes
    reasons = "; ".join(health.reasons)
    return [
        *notes,
        Note(
            at=at,
            stage=Stage.VERIFY,
            message=f"Service {health.health}: {reasons}.",
            data={"health": health.health},
        ),
    ]


def _restarted(before: Verification, at: datetime) -> Note:
    """Why a verification restarts."""
    return Note(
        at=at,
        stage=Stage.VERIFY,
        message=f"Verification restarted: its start {before.started_at:%Y-%m-%d %H:%M:%S} UTC or its "
        "last observation is in the future; the clock went back.",
        data={"started_at": before.started_at.isoformat()},
    )


def why_escalated(record: IncidentRecord) -> str:
    """One sentence: why the incident is escalated to a person."""
    incident = record.incident
    if not record.intents:
        cause = incident.diagnosis.best.cause if incident.diagnosis is not None else "unknown"
        if incident.diagnosis is not None and cause is Cause.TELEMETRY_OUTAGE:
            said = "; ".join(incident.diagnosis.best.evidence_for)
            return f"No action taken because of a telemetry outage: {said}."
        why = why_no_action(cause, incident.plan)
        return f"{why}{_what_is_wrong(incident.diagnosis)}{_to_inspect(record)}"
    last = [i for i in record.intents if i.undoes is None][-1]
    outcome = last.outcome.message if last.outcome is not None else "not finished"
    if last.decision.kind is not DecisionKind.ALLOW:
        reasons = "; ".join(last.decision.reasons)
        return f"{in_words(last.action.name)} not executed ({last.decision.kind.words}): {reasons}"
    if incident.verdict is not None and unverified(record) is None and last in done_intents(record):
        return f"{in_words(last.action.name)} did not help: {'; '.join(incident.verdict.reasons)}"
    if last.outcome is not None and last.outcome.kind is OutcomeKind.DONE:
        return f"{in_words(last.action.name)} did not help, and no other action is available"
    return f"{in_words(last.action.name)} was not executed: {outcome}"


def _what_is_wrong(diagnosis: Diagnosis | None) -> str:
    """The strongest evidence for a named cause, as a sentence."""
    if diagnosis is None or diagnosis.best.cause is Cause.UNKNOWN or not diagnosis.best.evidence_for:
        return ""
    return f" {diagnosis.best.evidence_for[0]}."


def _to_inspect(record: IncidentRecord) -> str:
    """The first command of the newest handover."""
    for entry in reversed(record.timeline):
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
    done = [i for i in done_intents(record) if i.action.target is not None]
    if not done:
        return "Recovered without any action."
    known = undone_intents(record)
    undone = [i for i in done if i.id in known]
    kept = [i for i in done if i not in undone]
    said = [f"{_named(undone)} did not help and {_was(undone)} undone"] if undone else []
    said += [f"{_named(kept)} did not help"] if kept else []
    return f"Recovered by itself: {'; '.join(said)}."


def symptoms_ended(record: IncidentRecord) -> str:
    """That the service is healthy at a diagnosis, without a full stop."""
    return "The symptoms ended" if done_intents(record) else "The symptoms ended before any action"


def nothing_written(record: IncidentRecord) -> str:
    """What a dry run did; an incident may have real actions from before the setting was changed."""
    return "Dry run now: no further action taken." if done_intents(record) else "Dry run: no action taken."


def why_recovered(record: IncidentRecord, since: Since = NOT_READ) -> str:
    """Which runbook or action helped, the proof, and which changes did not help and were not undone.

    Where `since` says that what helped was changed before the end, or that a person
    handled the incident meanwhile, no action gets the credit.
    """
    plan, verdict = record.incident.plan, record.incident.verdict
    helped = _named([i for i in done_intents(record) if verdict is not None and i.id == verdict.intent_id])
    done = f"Runbook {plan.runbook}" if plan is not None and plan.runbook is not None else helped
    proof = "; ".join(verdict.reasons) if verdict is not None else ""
    left = not_undone(record)
    before = f" Before that, {_named(left)} did not help." if left else ""
    fates = "; ".join(since.fate(i) for i in credited(record) if since.doubts(i))
    if fates:
        return f"Recovered, but it is not known whether {helped} helped ({fates}): {proof}.{before}"
    return f"{done} helped: {proof}.{before}"


def still_in_place(record: IncidentRecord, since: Since = NOT_READ) -> str:
    """Sentences on the changes that took place and were not undone, for the end of a summary; or empty.

    A restart leaves nothing that could be undone.
    """
    left = not_undone(record)
    stands = [i for i in in_place(record, since) if ACTIONS[i.action.name].undo is not None]
    changed, unclear = {**since.changed_by, **changed_since(record)}, unclear_undos(record)
    said = f" Still in place: {_named(stands)}." if stands else ""
    for one in left:
        if ACTIONS[one.action.name].undo is None:
            continue
        if one.id in changed:
            said += f" Not undone: {_named([one])}, changed since by {changed[one.id]}."
        elif one.id in since.gone:
            said += f" Not undone: {_named([one])}, which no longer exists."
        elif one.id in unclear or one.id in since.unread:
            said += f" It is not known whether {_named([one])} is still in place."
    known = unverified(record)
    if known is not None and known in left:
        said += f" The effect of {in_words(known.action.name)} was not verified."
    return said


def unknown_effects(record: IncidentRecord) -> str:
    """A sentence on the writes that are under way, for an end that does not wait for them; or empty."""
    begun = [i for i in record.intents if i.state is IntentState.EXECUTING and i.action.target is not None]
    return f" It is not known whether {_named(begun)} took effect." if begun else ""


def _named(intents: Sequence[Intent]) -> str:
    return ", ".join(f"{in_words(i.action.name)} of {i.action.target}" for i in intents)


def _was(intents: Sequence[Intent]) -> str:
    return "was" if len(intents) == 1 else "were"


def why_no_action(cause: str, plan: Plan | None) -> str:
    """Why the plan has no action: no runbook applies, or the one that does hands the incident over."""
    rejected = () if plan is None else plan.rejected
    if plan is None or not plan.handover or any(one.addresses_cause for one in rejected):
        return why_no_runbook(cause, rejected)
    return f"No action taken: runbook {plan.runbook} hands {in_words(cause)} to a person."


def why_no_runbook(cause: str, rejected: Sequence[RejectedRunbook]) -> str:
    """Each runbook that addresses the cause, with the reason for its rejection."""
    if cause == Cause.UNKNOWN:
        return "No action taken: no cause reached the required confidence."
    candidates = [one for one in rejected if one.addresses_cause]
    if not candidates:
        return f"No action taken: no approved runbook addresses the cause, {in_words(cause)}."
    named = (
        one.reason if one.runbook.partition("@")[0] in one.reason else f"{one.runbook}: {one.reason}"
        for one in candidates
    )
    return f"No action taken: the cause is {in_words(cause)}, but {'; '.join(named)}."


def undo_not_done_note(undo: Intent, outcome: Outcome, changed_by: str | None, at: datetime) -> Note:
    """The undo failed or was denied; `changed_by` changed its target after the action, if that is known."""
    note = _about_undo(undo, f"The undo was not executed: {outcome.message}.", at)
    return note if changed_by is None else replace(note, data={**note.data, "changed_by": changed_by})


def undo_begun_note(undo: Intent, undone: Intent, at: datetime) -> Note:
    """One of several actions is undone; the replicas are checked after the last one."""
    return _about_undo(
        undo,
        f"Undo of {in_words(undone.action.name)}: {undo.action.target} has its previous specification.",
        at,
    )


def undo_note(undo: Intent, undone: Intent, found: Restoration, *, asks: bool, at: datetime) -> Note:
    """Whether the undo is verified: the specification is as before, and as many replicas run."""
    done = in_words(undone.action.name)
    if not asks:
        message = (
            f"Undo not verified: {undo.action.target} does not have its specification from before {done}. "
            f"{found.serving}."
        )
    elif found.restored:
        message = (
            f"Undo verified: {undo.action.target} has its specification from before {done}, "
            f"and {found.serving}."
        )
    else:
        message = (
            f"Undo not verified: {undo.action.target} has its specification from before {done}, "
            f"but {found.serving}."
        )
    return _about_undo(undo, message, at)


def why_not_restored(undo: Intent, undone: Intent, found: Restoration, *, asks: bool) -> str:
    """One sentence: why the incident is escalated after an undo."""
    differs = "" if asks else f"{undo.action.target} does not have its previous specification, and "
    return (
        f"{in_words(undone.action.name)} did not help, and undoing it did not restore the service: "
        f"{differs}{found.serving}"
    )


def no_undo_notes(record: IncidentRecord, at: datetime) -> list[Note]:
    """Reports an executed action that cannot be undone (a restart)."""
    done = done_intents(record)
    why = ACTIONS[done[-1].action.name].no_undo_note if done else None
    if why is None:
        return []
    message = why.format(name=in_words(done[-1].action.name), target=done[-1].action.target)
    return [Note(at=at, stage=Stage.UNDO, message=message, data={"intent": done[-1].id})]


def _about_undo(undo: Intent, message: str, at: datetime) -> Note:
    return Note(at=at, stage=Stage.UNDO, message=message, data={"intent": undo.id, "undoes": undo.undoes})


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


def why_proposed(record: IncidentRecord) -> str:
    """The actions that a dry run proposes, with the policy decision on each."""
    proposed = []
    for intent in proposed_intents(record):
        allowed = intent.decision.kind is DecisionKind.ALLOW
        name = in_words(intent.action.name)
        proposed.append(name if allowed else f"{name} {_policy_said(intent.decision.kind)}")
    written = "Dry run, nothing was written." if not done_intents(record) else "Dry run now."
    return f"{written} Proposed: {'; then '.join(proposed)}."


def _policy_said(kind: DecisionKind) -> str:
    return "denied by policy" if kind is DecisionKind.DENY else "needs approval"
