"""An incident that went through all six stages, written through the store's own port."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from app.agent.guardrails.limits import Budget
from app.agent.identity.people import ApprovalTerms, Person
from app.agent.ids import (
    ApprovalId,
    IncidentId,
    IntentId,
    ServiceKey,
)
from app.agent.intake.signals import new_signal
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    Cause,
    Decision,
    DecisionKind,
    Deploy,
    DeployStatus,
    Diagnosis,
    Hypothesis,
    IncidentRecord,
    IncidentState,
    Intent,
    IntentState,
    Lesson,
    MetricSample,
    Note,
    Outcome,
    OutcomeKind,
    Plan,
    Rehearsal,
    RejectedRunbook,
    Risk,
    Snapshot,
    Stage,
    Verdict,
    VerdictKind,
)
from app.agent.ports.store.claims import Claim
from app.agent.ports.store.intents import Begun
from app.agent.workload import ObjectRef
from app.bootstrap import Container

DEPLOYMENT = ObjectRef(kind="Deployment", namespace="payments", name="payments-api")
STALE_AFTER = timedelta(minutes=15)


async def opened(container: Container, service: str = "payments-api", version: str = "1.15.0") -> IncidentId:
    """A failed deploy opens an incident, a bad metric joins it."""
    key, now = ServiceKey(environment="prod", service=service), container.clock.now()
    accepted = await container.intake.accept(
        [
            new_signal(
                key=key,
                source="http",
                observed_at=now,
                received_at=now,
                payload=payload,
                stale_after=STALE_AFTER,
            )
            for payload in (
                Deploy(version=version, status=DeployStatus.FAILED, commit_sha="d1e2f3a"),
                MetricSample(error_rate=0.13, p95_latency_ms=1450.0, crash_looping=True),
            )
        ]
    )
    incident_id = accepted[0].disposition.incident_id
    assert incident_id is not None
    return incident_id


async def proposed(
    container: Container, *, service: str = "payments-api", text: str = "1.15.0"
) -> IncidentId:
    """A whole dry run that ends as proposed; `text` appears wherever outside text can appear."""
    incident_id = await opened(container, service, text)
    store, now = container.store, container.clock.now()
    claim = await store.claims.take(incident_id, "story", timedelta(minutes=1), now)
    record = await store.incidents.get(incident_id)
    assert claim is not None
    assert record is not None
    incident = await store.incidents.save(
        claim,
        replace(record.incident, diagnosis=_diagnosis(text, now), plan=_plan(text, now)),
        [
            _note(now, 1, Stage.DIAGNOSE, f"Most likely bad release (88%): {text} failed 40 s before."),
            _note(now, 1, Stage.PLAN, "Runbook roll-back-bad-release@2: rollback, then restart."),
        ],
    )
    plan = incident.plan
    assert plan is not None
    for sequence, action in enumerate(plan.actions):
        denied = action.risk is Risk.HIGH
        intent = _intent(incident_id, sequence, action, plan.hash, denied, now, text)
        note = _note(now, 2, Stage.POLICY, f"{action.name} ({action.risk} risk): {intent.decision.kind}.")
        incident = await store.intents.add(claim, replace(incident, next_action=sequence + 1), intent, [note])
    ended = now + timedelta(minutes=10)
    await store.incidents.save(
        claim,
        replace(
            incident,
            state=IncidentState.PROPOSED,
            closed_at=ended,
            verdict=Verdict(
                kind=VerdictKind.NOT_RECOVERED, reasons=(f"error rate 13% of {text}, limit 5%",), at=ended
            ),
            lesson=Lesson(
                cause=Cause.BAD_RELEASE,
                runbook="roll-back-bad-release@2",
                actions=(),
                worked=None,
                recovered_alone=False,
                seconds_to_recover=None,
                at=ended,
            ),
            summary=f"Dry run: would roll back {text}; nothing was changed.",
        ),
        [
            _note(now, 600, Stage.VERIFY, f"Verdict: not recovered: Error rate 13% of {text}, limit 5%."),
            Note(
                at=ended,
                stage=Stage.LEARN,
                message="Closed: proposed. Nothing was done, so nothing was learnt about an action.",
                data={"state": "proposed", text: text},
            ),
        ],
    )
    await store.claims.release(claim)
    return incident_id


async def awaiting(
    container: Container,
    *,
    service: str = "payments-api",
    text: str = "1.15.0",
    terms: ApprovalTerms | None = None,
) -> ApprovalId:
    """An incident that waits until a person says whether to roll back; the approval it waits for."""
    incident_id = await opened(container, service, text)
    store, now = container.store, container.clock.now()
    claim = await store.claims.take(incident_id, "story", timedelta(minutes=1), now)
    record = await store.incidents.get(incident_id)
    assert claim is not None
    assert record is not None
    plan = _plan(text, now)
    incident = await store.incidents.save(
        claim, replace(record.incident, dry_run=False, diagnosis=_diagnosis(text, now), plan=plan), []
    )
    approval = Approval(
        id=ApprovalId(f"apr_{incident_id.removeprefix('inc_')}"),
        incident_id=incident_id,
        action_index=0,
        action=ActionName.ROLLBACK,
        plan_hash=plan.hash,
        target_token="uid-7/3",
        reasons=(f"rollback of {text} is high risk, and APPROVAL_FOR_RISKS requires an approval",),
        requested_at=now,
        expires_at=now + timedelta(hours=4),
        terms=terms or ApprovalTerms(),
    )
    asking = _note(now, 2, Stage.POLICY, f"rollback of {text} (high risk) needs an approval.")
    waiting = replace(incident, state=IncidentState.AWAITING_APPROVAL)
    await store.approvals.request(claim, waiting, approval, [asking])
    await store.claims.release(claim, approval.expires_at)
    return approval.id


async def failed_often(container: Container, service: str = "payments-api", times: int = 3) -> None:
    """Incidents one after another whose action did not help, each handed to a person."""
    store = container.store
    for number in range(times):
        approval_id = await awaiting(container, service=service, text=f"1.{number}.0")
        ann = Person(name="ann")
        await store.approvals.answer(approval_id, approve=True, by=ann, comment="", at=container.clock.now())
        await used(container, approval_id)
        claim, record, now = await _held(container, approval_id)
        [intent] = record.intents
        assert intent.action.target is not None
        snapshot = Snapshot(ref=intent.action.target, token="uid-7/3", body={})
        budget = Budget(per_incident=5)
        assert (await store.intents.begin(claim, intent.id, snapshot, budget, now)).begun is Begun.YES
        ended = Outcome(kind=OutcomeKind.DONE, message="changed as planned", at=now)
        await store.intents.finish(claim, intent.id, ended, "uid-7/4", [])
        given = await store.incidents.get(claim.incident_id)
        assert given is not None
        closed = replace(given.incident, state=IncidentState.ESCALATED, closed_at=now)
        await store.incidents.save(claim, closed, [_note(now, 0, Stage.LEARN, "It did not help.")])


async def given_up(container: Container, approval_id: ApprovalId) -> None:
    """The incident moves on without the approval, and without its plan."""
    claim, record, now = await _held(container, approval_id)
    dropped = replace(record.incident, state=IncidentState.OPEN, plan=None)
    await container.store.incidents.save(claim, dropped, [_note(now, 0, Stage.PLAN, "Re-evaluating.")])
    await container.store.claims.release(claim, now)


async def escalated(container: Container, approval_id: ApprovalId) -> None:
    """The agent hands the incident to people."""
    claim, record, now = await _held(container, approval_id)
    ended = replace(record.incident, state=IncidentState.ESCALATED, closed_at=now)
    await container.store.incidents.save(claim, ended, [_note(now, 0, Stage.LEARN, "Closed: escalated.")])


async def used(container: Container, approval_id: ApprovalId) -> None:
    """The action that was approved is decided, which uses the approval up."""
    claim, record, now = await _held(container, approval_id)
    plan = record.incident.plan
    assert plan is not None
    intent = replace(
        _intent(record.incident.id, 0, plan.actions[0], plan.hash, False, now),
        dry_run=False,
        state=IntentState.DECIDED,
        outcome=None,
        approval=approval_id,
    )
    acting = replace(record.incident, state=IncidentState.EXECUTING)
    await container.store.intents.add(claim, acting, intent, [_note(now, 0, Stage.POLICY, "allow")])
    await container.store.claims.release(claim, now)


async def _held(container: Container, approval_id: ApprovalId) -> tuple[Claim, IncidentRecord, datetime]:
    store, now = container.store, container.clock.now()
    approval = await store.approvals.get(approval_id)
    assert approval is not None
    claim = await store.claims.take(approval.incident_id, "story", timedelta(minutes=1), now)
    record = await store.incidents.get(approval.incident_id)
    assert claim is not None
    assert record is not None
    return claim, record, now


def _note(now: datetime, after: int, stage: Stage, message: str) -> Note:
    return Note(at=now + timedelta(seconds=after), stage=stage, message=message, data={"story": True})


def _diagnosis(text: str, at: datetime) -> Diagnosis:
    return Diagnosis(
        hypotheses=(
            Hypothesis(
                cause=Cause.BAD_RELEASE,
                confidence=0.88,
                rule="bad_release",
                evidence_for=(
                    f"release {text} failed 40 s before the first symptom",
                    "only pods of the new revision crash; the old ones serve",
                ),
                evidence_against=("latency rose a little before the release",),
            ),
            Hypothesis(
                cause=Cause.DEPENDENCY_FAILURE,
                confidence=0.2,
                rule="dependency_failure",
                evidence_for=("payments-db answers slowly",),
                evidence_against=(f"no incident is open for what {text} calls",),
            ),
        ),
        at=at,
    )


def _plan(text: str, at: datetime) -> Plan:
    rollback = Action(
        name=ActionName.ROLLBACK,
        risk=Risk.HIGH,
        target=DEPLOYMENT,
        parameters={"to_revision": 7},
        expected_effect="Only pods of revision 7 run, and errors fall below 5%.",
        undo="Put back the template that ran before.",
    )
    restart = Action(
        name=ActionName.RESTART,
        risk=Risk.LOW,
        target=DEPLOYMENT,
        parameters={"reason": text},
        expected_effect="Fresh pods of the same revision.",
        undo=None,
    )
    return Plan(
        runbook="roll-back-bad-release@2",
        runbook_hash="8fa167f2826d9d99",
        actions=(rollback, restart),
        rejected=(
            RejectedRunbook(runbook="scale-for-surge@1", reason=f"traffic did not rise with {text}"),
            RejectedRunbook(runbook="revert-bad-config@1", reason="no configuration changed lately"),
        ),
        hash="3a1f5c0e9b7d4a6281c2d3e4f5061728394a5b6c7d8e9f00112233445566778",
        at=at,
    )


def _intent(
    incident_id: IncidentId,
    sequence: int,
    action: Action,
    plan_hash: str,
    denied: bool,
    at: datetime,
    text: str = "",
) -> Intent:
    kind = DecisionKind.DENY if denied else DecisionKind.ALLOW
    reason = "rollback is high risk and ALLOW_HIGH_RISK_ACTIONS is false" if denied else f"restart of {text}"
    outcome = OutcomeKind.REFUSED if denied else OutcomeKind.REHEARSED
    return Intent(
        id=IntentId(f"int_{sequence:03x}{incident_id[-29:]}"),
        incident_id=incident_id,
        sequence=sequence,
        action=action,
        dry_run=True,
        decision=Decision(
            kind=kind, reasons=(reason, "1 of 2 actions used"), plan_hash=plan_hash, target_token=None, at=at
        ),
        rehearsal=Rehearsal(accepted=True, message=f"Deployment payments/payments-api would change: {text}"),
        state=IntentState.FINISHED,
        outcome=Outcome(kind=outcome, message=f"the API server answered about {text}", at=at),
    )
