"""Which action of an incident still needs a verdict, and which changes stand: pure, on records."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from app.agent.execution.undo import not_undone_note, since_then, together
from app.agent.guardrails.document import AGENT_NAME as AGENT
from app.agent.guardrails.question import TargetLook
from app.agent.guardrails.target_token import workload_token
from app.agent.ids import IncidentId, ServiceKey
from app.agent.intents import (
    awaits_completion,
    in_place,
    index_behind,
    not_undone,
    rest_to_undo,
    unverified,
)
from app.agent.memory import failed_revision, lesson
from app.agent.models import (
    ActionName,
    Cause,
    Diagnosis,
    Hypothesis,
    Incident,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Note,
    OutcomeKind,
    Plan,
    Stage,
    TimelineEntry,
    Verdict,
    VerdictKind,
)
from app.agent.notes import (
    nothing_written,
    still_in_place,
    symptoms_ended,
    why_escalated,
    why_recovered,
    why_recovered_alone,
)
from app.agent.stages.order import NextStage, next_stage
from app.agent.stages.retries import noted_recently
from app.agent.workload import TargetState
from tests.contract.store_values import NOW, intent, outcome
from tests.unit.scenes import OLD, released

INCIDENT = Incident(
    id=IncidentId("inc_1"),
    key=ServiceKey(environment="prod", service="shop"),
    state=IncidentState.OPEN,
    opened_at=NOW,
    triggers=(),
    stale=False,
    dry_run=False,
)


def done(
    number: int,
    name: ActionName = ActionName.ROLLBACK,
    *,
    kind: OutcomeKind = OutcomeKind.DONE,
    completed_later: bool = False,
    undoes: Intent | None = None,
) -> Intent:
    """An intent that ended so."""
    one = intent(INCIDENT, number, undoes=undoes.id if undoes is not None else None)
    action = replace(one.action, name=one.action.name if undoes else name, then_verify=not completed_later)
    return replace(one, action=action, state=IntentState.FINISHED, outcome=outcome(kind))


def record(*intents: Intent, judged: Intent | None = None, next_action: int = 0) -> IncidentRecord:
    """An open incident with these, whose plan they follow; `judged` has the last verdict."""
    actions = tuple(i.action for i in intents if i.undoes is None)
    plan = Plan(runbook="r@1", runbook_hash="r", actions=actions, rejected=(), hash="abc", at=NOW)
    verdict = None
    if judged is not None:
        verdict = Verdict(kind=VerdictKind.NOT_RECOVERED, reasons=("errors",), at=NOW, intent_id=judged.id)
    incident = replace(INCIDENT, plan=plan, verdict=verdict, next_action=next_action)
    return IncidentRecord(incident=incident, intents=intents, timeline=())


FIRST, REVERT = done(0), done(2, ActionName.REVERT_CONFIG, completed_later=True)
UNDO = done(1, undoes=FIRST)
RESTART = done(3, ActionName.RESTART)
REFUSED = done(3, ActionName.RESTART, kind=OutcomeKind.REFUSED)
SCALE = done(4, ActionName.SCALE)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (record(), None),
        (record(FIRST), FIRST),
        (record(FIRST, judged=FIRST), None),
        (record(FIRST, UNDO), None),
        (record(FIRST, UNDO, REVERT, judged=FIRST), REVERT),
        (record(FIRST, UNDO, REVERT, REFUSED, judged=FIRST), REVERT),
        (record(FIRST, UNDO, REVERT, RESTART, judged=FIRST), REVERT),
        (record(FIRST, UNDO, REVERT, RESTART, judged=RESTART), None),
        (record(FIRST, UNDO, REVERT, RESTART, judged=REVERT), None),
        (record(FIRST, UNDO, REVERT, done(4, undoes=REVERT), judged=FIRST), None),
        (record(REVERT, REFUSED, SCALE, judged=REVERT), SCALE),
        (record(REVERT, done(3, undoes=REVERT), SCALE, judged=REVERT), SCALE),
    ],
)
def test_a_verdict_stands_for_its_own_action_only(found: IncidentRecord, expected: Intent | None) -> None:
    """The last action is verified by a verdict on it or on what completes it, or by its undo."""
    assert unverified(found) == expected


def test_a_verdict_of_an_older_version_names_no_action_and_stands_for_none() -> None:
    """The action is verified once more; nothing is left unverified."""
    found = record(FIRST, judged=FIRST)
    assert found.incident.verdict is not None
    unnamed = replace(found.incident, verdict=replace(found.incident.verdict, intent_id=None))
    assert unverified(replace(found, incident=unnamed)) == FIRST


def test_a_step_completes_only_an_action_directly_before_it_that_was_not_verified() -> None:
    """A later step that did not help is undone itself, whatever became of the first one."""
    after_a_refusal = record(REVERT, REFUSED, SCALE, judged=SCALE)
    assert rest_to_undo(after_a_refusal, SCALE) == [SCALE]
    completed = record(REVERT, RESTART, judged=RESTART)
    assert rest_to_undo(completed, RESTART) == [REVERT, RESTART]
    alone = replace(completed, timeline=(_entry(0, intent=REVERT.id), _entry(1, intent_id=RESTART.id)))
    assert rest_to_undo(alone, RESTART) == [RESTART]
    together = replace(completed, timeline=(_entry(0, intent_id=RESTART.id), _entry(1, intent=REVERT.id)))
    assert rest_to_undo(together, RESTART) == [REVERT, RESTART]


def _entry(sequence: int, **data: str) -> TimelineEntry:
    """An entry of the verification of an action, or of another record of it."""
    stage = Stage.VERIFY if "intent" in data else Stage.EXECUTE
    return TimelineEntry(sequence=sequence, at=NOW, stage=stage, message="m", data=dict(data), hash="h")


def test_what_took_place_is_verified_before_anything_but_its_completion() -> None:
    """However the plan went on: denied, failed, withdrawn, at its end or without a plan."""
    half = record(REVERT, RESTART, next_action=1)
    begun = replace(half, intents=(REVERT,))
    assert awaits_completion(begun)
    unplanned = replace(half, incident=replace(half.incident, plan=None, next_action=0))
    for stopped in (
        replace(half, intents=(REVERT, REFUSED), incident=replace(half.incident, next_action=2)),
        replace(unplanned, intents=(REVERT,)),
        record(FIRST, next_action=1),
    ):
        assert not awaits_completion(stopped)
        assert next_stage(stopped) is NextStage.BEGIN_VERIFICATION


def test_the_end_of_a_summary_names_what_stands() -> None:
    """What was undone is not named; a restart only where its effect is unknown."""
    assert still_in_place(record(FIRST, UNDO, judged=FIRST)) == ""
    assert (
        still_in_place(record(FIRST, judged=FIRST)) == f" Still in place: rollback of {REVERT.action.target}."
    )
    assert still_in_place(record(FIRST)).endswith(" The effect of rollback was not verified.")
    failed = done(1, undoes=FIRST, kind=OutcomeKind.FAILED)
    assert in_place(record(FIRST, failed, judged=FIRST)) == (FIRST,)
    lone = replace(RESTART, action=replace(RESTART.action, undo=None))
    assert in_place(record(lone, judged=lone)) == ()
    assert in_place(record(lone)) == (lone,)


def test_a_recovery_by_itself_names_what_was_tried_before() -> None:
    """Undone or still in place; nothing was tried in most incidents."""
    target = FIRST.action.target
    assert why_recovered_alone(record()) == "Recovered without any action."
    assert why_recovered_alone(record(FIRST, UNDO, judged=FIRST)) == (
        f"Recovered by itself: rollback of {target} did not help and was undone."
    )
    assert why_recovered_alone(record(FIRST, judged=FIRST)) == (
        f"Recovered by itself: rollback of {target} did not help."
    )


def test_the_end_of_a_summary_claims_only_what_is_known() -> None:
    """What a person changed since, and what an undo may have put back, is not called in place."""
    target = FIRST.action.target
    unclear = record(FIRST, done(1, undoes=FIRST, kind=OutcomeKind.UNKNOWN), judged=FIRST)
    assert in_place(unclear) == ()
    assert still_in_place(unclear) == f" Unknown whether rollback of {target} is still in place."
    assert why_recovered_alone(unclear) == f"Recovered by itself: rollback of {target} did not help."
    assert target is not None
    now = TargetState(ref=target, uid="u", resource_version="2", token="other", changed_by="bob")
    refused = not_undone_note(FIRST, "w", TargetLook(target=now), "", NOW)
    entry = TimelineEntry(
        sequence=0, at=NOW, stage=refused.stage, message=refused.message, data=refused.data, hash="h"
    )
    changed = replace(record(FIRST, judged=FIRST), timeline=(entry,))
    assert in_place(changed) == ()
    assert still_in_place(changed) == f" Not undone: rollback of {target}, changed since by bob."


def test_a_recovery_names_what_helped_and_what_did_not() -> None:
    """Also where the plan was dropped, as records of an older version are."""
    found = record(FIRST, UNDO, SCALE, judged=SCALE)
    target = FIRST.action.target
    assert why_recovered(_recovered(found)) == "Runbook r@1 helped: fine."
    unplanned = replace(found, incident=replace(found.incident, plan=None))
    assert why_recovered(_recovered(unplanned)) == f"scale of {target} helped: fine."
    left = _recovered(record(FIRST, SCALE, judged=SCALE))
    assert why_recovered(left) == (
        f"Runbook r@1 helped: fine. Before that, rollback of {target} did not help."
    )
    assert still_in_place(left) == f" Still in place: rollback of {target}."
    assert not_undone(_recovered(record(REVERT, RESTART, judged=REVERT))) == ()


def test_no_sentence_denies_an_action_that_took_place() -> None:
    """Symptoms that ended, and a dry run, after a real action; also one that was undone."""
    assert symptoms_ended(record()) == "The symptoms ended before any action"
    assert symptoms_ended(record(REFUSED)) == "The symptoms ended before any action"
    assert symptoms_ended(record(FIRST, UNDO, judged=FIRST)) == "The symptoms ended"
    assert nothing_written(record(REFUSED)) == "Dry run: no action taken."
    assert nothing_written(record(FIRST, UNDO)) == "Dry run now: no further action taken."


def _recovered(found: IncidentRecord) -> IncidentRecord:
    """The same with a verdict of recovery."""
    assert found.incident.verdict is not None
    verdict = replace(found.incident.verdict, kind=VerdictKind.RECOVERED, reasons=("fine",))
    return replace(found, incident=replace(found.incident, verdict=verdict))


def test_an_action_that_failed_has_no_verdict() -> None:
    """The verdict on the step before it says nothing about it."""
    failed = done(2, ActionName.SCALE, kind=OutcomeKind.FAILED)
    assert "scale was not executed" in why_escalated(record(FIRST, UNDO, failed, judged=FIRST))
    undone = "rollback did not help: errors. The agent undid it."
    assert why_escalated(record(FIRST, UNDO, judged=FIRST)) == undone
    assert why_escalated(record(FIRST, judged=FIRST)) == "rollback did not help: errors."


def test_a_summary_names_the_evidence_as_such() -> None:
    """For a named cause; of an unknown one there is none."""
    best = Hypothesis(
        cause=Cause.NODE_FAILURE, confidence=0.8, rule="node", evidence_for=("node n-1 is lost", "b", "c")
    )
    known = Diagnosis(at=NOW, hypotheses=(best,))
    found = replace(record(), incident=replace(INCIDENT, diagnosis=known))
    assert why_escalated(found).endswith(", node failure. Evidence: node n-1 is lost; b.")
    unknown = replace(best, cause=Cause.UNKNOWN)
    found = replace(record(), incident=replace(INCIDENT, diagnosis=replace(known, hypotheses=(unknown,))))
    assert "Evidence" not in why_escalated(found)


def test_only_the_rollback_that_helped_condemns_the_revision_that_it_left() -> None:
    """A rollback that did not help, and could not be undone, is not what a later action made good."""
    view = released()
    rolled_back = replace(FIRST, applied_token=view.target.token)
    scaled = done(1, ActionName.SCALE)
    found = record(rolled_back, scaled, judged=rolled_back)
    failed = failed_revision(found, rolled_back, view, NOW)
    assert failed is not None
    assert failed.number == OLD.number
    assert failed_revision(found, scaled, view, NOW) is None


def _token(template: str, *, uid: str = "u") -> str:
    return workload_token(uid, generation=1, template=template, paused=False, replicas=3, rest="r")


def target_look(template: str, *, by: str = "ann", uid: str = "u") -> TargetLook:
    assert FIRST.action.target is not None
    token = _token(template, uid=uid)
    target = TargetState(ref=FIRST.action.target, uid=uid, resource_version="9", token=token, changed_by=by)
    return TargetLook(target=target)


ROLLED_BACK = replace(FIRST, applied_token=_token("old"))
RESTARTED = replace(
    RESTART,
    action=replace(RESTART.action, target=FIRST.action.target, undo=None),
    decision=replace(RESTART.decision, target_token=_token("old")),
    applied_token=_token("old, restarted"),
)
LATER = replace(RESTARTED, decision=replace(RESTARTED.decision, target_token=_token("new")))
"""A restart after another person had changed the template."""
TARGET = FIRST.action.target


@pytest.mark.parametrize(
    ("intents", "look", "said"),
    [
        ((ROLLED_BACK,), target_look("old"), f" Still in place: rollback of {TARGET}."),
        ((ROLLED_BACK,), target_look("new"), f" Not undone: rollback of {TARGET}, changed since by ann."),
        (
            (ROLLED_BACK,),
            target_look("old", uid="another"),
            f" Not undone: rollback of {TARGET}, changed since by ann.",
        ),
        (
            (ROLLED_BACK,),
            TargetLook(gone=True),
            f" Not undone: rollback of {TARGET}, which no longer exists.",
        ),
        (
            (ROLLED_BACK,),
            TargetLook(problem="403"),
            f" Unknown whether rollback of {TARGET} is still in place.",
        ),
        (
            (ROLLED_BACK, RESTARTED),
            target_look("old, restarted", by=AGENT),
            f" Still in place: rollback of {TARGET}.",
        ),
        (
            (ROLLED_BACK, RESTARTED),
            target_look("new"),
            f" Not undone: rollback of {TARGET}, changed since by ann.",
        ),
        (
            (ROLLED_BACK, LATER),
            target_look("old, restarted", by=AGENT),
            f" Not undone: rollback of {TARGET}, changed since by someone else.",
        ),
    ],
)
def test_the_end_of_a_summary_says_what_the_target_shows(
    intents: tuple[Intent, ...], look: TargetLook, said: str
) -> None:
    """The agent's own later change is none by others, and a restart is not called in place."""
    found = record(*intents, judged=intents[-1])
    since = together(since_then(found, one, look) for one in intents)
    assert still_in_place(found, since) == said


@pytest.mark.parametrize(
    ("look", "fate"),
    [
        (target_look("old"), ""),
        (target_look("new"), "was changed since by ann"),
        (TargetLook(gone=True), "no longer exists"),
        (TargetLook(problem="403"), "could not be read"),
    ],
)
def test_only_what_is_as_the_agent_left_it_gets_the_credit(look: TargetLook, fate: str) -> None:
    """After a recovery: the sentence, and whether the lesson says that it worked."""
    found = _recovered(record(ROLLED_BACK, judged=ROLLED_BACK))
    since = since_then(found, ROLLED_BACK, look)
    learnt = lesson(found, NOW, since)
    assert (learnt.worked, learnt.recovered_alone) == (not fate, False)
    assert learnt.seconds_to_recover is not None
    helped = "Runbook r@1 helped: fine."
    doubtful = f"Recovered; unknown whether rollback of {TARGET} helped ({TARGET} {fate}): fine."
    assert why_recovered(found, since) == (doubtful if fate else helped)


def test_the_lesson_follows_the_verdict_and_not_the_end() -> None:
    """A change that stands ends as escalated, whatever helped in the end."""
    later = replace(SCALE, applied_token=_token("old"))
    helped = lesson(_recovered(record(ROLLED_BACK, later, judged=later)), NOW)
    assert (helped.worked, helped.recovered_alone) == (True, False)
    failed = lesson(record(ROLLED_BACK, judged=ROLLED_BACK), NOW)
    assert (failed.worked, failed.recovered_alone, failed.seconds_to_recover) == (False, False, None)
    alone = _recovered(record(ROLLED_BACK, judged=ROLLED_BACK))
    assert alone.incident.verdict is not None
    by_itself = replace(alone.incident, verdict=replace(alone.incident.verdict, intent_id=None))
    learnt = lesson(replace(alone, incident=by_itself), NOW)
    assert (learnt.worked, learnt.recovered_alone) == (False, True)


def test_a_failure_that_comes_and_goes_has_few_notes() -> None:
    """One of each message within a quarter of an hour, and four of any."""
    note = Note(at=NOW, stage=Stage.OBSERVE, message="Stage decide failed: x. Retrying.")

    def noted(*messages: str, minutes: float = 1) -> bool:
        before = tuple(
            replace(
                _entry(0),
                at=NOW - timedelta(minutes=minutes),
                message=message,
                data={"retrying": "decide"},
            )
            for message in messages
        )
        return noted_recently(replace(record(), timeline=before), note)

    assert not noted()
    assert noted(note.message)
    assert not noted(note.message, minutes=16)
    assert not noted("a", "b", "c")
    assert noted("a", "b", "c", "d")


@pytest.mark.parametrize(
    ("kind", "completed_later", "expected"),
    [
        (OutcomeKind.REFUSED, True, 3),
        (OutcomeKind.FAILED, True, 3),
        (OutcomeKind.REHEARSED, True, 2),
        (OutcomeKind.DONE, True, 2),
        (OutcomeKind.REFUSED, False, 2),
        (OutcomeKind.FAILED, False, 2),
    ],
)
def test_what_completes_an_action_that_did_not_take_place_is_left_out(
    kind: OutcomeKind, completed_later: bool, expected: int
) -> None:
    """A dry run proposes both steps; an attempt that was refused, or failed, leaves nothing to complete."""
    last = done(2, ActionName.REVERT_CONFIG, kind=kind, completed_later=completed_later)
    at_it = replace(INCIDENT, next_action=1)
    assert index_behind(at_it, last.action, kind) == expected


def test_every_step_that_completes_it_is_left_out_and_none_behind_them() -> None:
    """A restart may be completed by another one; what is for itself comes next."""
    revert = done(0, ActionName.REVERT_CONFIG, kind=OutcomeKind.FAILED, completed_later=True)
    restart = done(1, ActionName.RESTART, completed_later=True)
    found = record(revert, restart, done(2, ActionName.RESTART), SCALE)
    assert index_behind(found.incident, revert.action, OutcomeKind.FAILED) == 3
