"""Builds that break a promise after the end of an incident: in undos on request, or in the recovery watch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from app.agent import executor
from app.agent.evidence.restoration import Restoration
from app.agent.guardrails.limits import checks
from app.agent.guardrails.question import Question
from app.agent.identity.people import Person
from app.agent.ids import IncidentId
from app.agent.models import (
    ActionName,
    Decision,
    DecisionKind,
    Incident,
    Intent,
    Observation,
    Verification,
)
from app.agent.policy import Policy
from app.agent.responders import effect, recovery, undo, undo_request
from app.agent.responders.recovery import RecoveryWatch
from app.agent.responders.request import ResponderAct, ResponderRequest
from app.agent.verification.assessment import Assessment, Health
from app.agent.verification.verdict import advance
from app.api import blockers
from app.errors import AgentError
from app.store import budgets
from tests.simulation.mutant import Mutant, always

_decide, _over, _exceeded = Policy.decide, budgets.over, checks.exceeded
_look, _advance, _recovered = RecoveryWatch._look, advance, recovery.recovered


async def _undo_unasked_by_policy(self: Policy, question: Question) -> Decision:
    decision = await _decide(self, question)
    if question.action.name is not ActionName.RESTORE:
        return decision
    return replace(decision, kind=DecisionKind.ALLOW, terms=None)


def _undos_unlimited(proposed: Any, *rest: Any) -> Any:
    return () if proposed.action is ActionName.RESTORE else _exceeded(proposed, *rest)


def _begin_unlimited(connection: Any, incident: Incident, intent: Intent, *rest: Any) -> Any:
    return () if intent.undoes is not None else _over(connection, incident, intent, *rest)


def _restored_at_once(*_: Any, seen: Verification | None = None, **_options: Any) -> Restoration:
    verification = seen if seen is not None else _[2]
    return Restoration(restored=True, serving="2 of 2 replicas are available", seen=verification)


def _soaked(seen: Verification, health: Assessment, at: datetime, rules: Any) -> Verification:
    after = _advance(seen, health, at, rules)
    return replace(after, healthy_since=at - timedelta(hours=1))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Credulous:
    """A verifier that takes what it cannot measure for healthy."""

    sound: Any

    @property
    def rules(self) -> Any:
        return self.sound.rules

    async def look(self, incident: Incident, now: datetime) -> tuple[Observation, Assessment]:
        seen, health = await self.sound.look(incident, now)
        if health.health is Health.UNKNOWN:
            health = replace(health, health=Health.HEALTHY)
        return seen, health


async def _silence_is_health(self: RecoveryWatch, incident: Incident) -> None:
    sound = self.verifier
    self.verifier = _Credulous(sound=sound)  # type: ignore[assignment]  # it does what the watch needs
    try:
        await _look(self, incident)
    finally:
        self.verifier = sound


def _credited(*args: Any) -> Any:
    found = _recovered(*args)
    if found is None:
        return None
    after, note = found
    summary = after.summary.replace("The agent did nothing after the handover.", "The last action helped.")
    return replace(after, summary=summary), note


async def _has_it_undone(self: RecoveryWatch, incident: Incident) -> None:
    request = ResponderRequest(
        act=ResponderAct.UNDO,
        by=Person(name="the agent"),
        at=self.clock.now(),
        text="it did not help",
        owner=None,
    )
    try:
        await self.store.responders.respond(IncidentId(incident.id), request)
    except AgentError:
        await _look(self, incident)


AFTERWARDS_MUTANTS = (
    Mutant(
        name="undo-unlimited",
        promise=4,
        calm=True,
        afterwards=True,
        told="an undo on request spends nothing of the budgets that incidents share",
        swaps=[(checks.exceeded, _undos_unlimited), (budgets.over, _begin_unlimited)],
    ),
    Mutant(
        name="undo-without-policy",
        promise=7,
        afterwards=True,
        told="an undo on request is allowed whatever policy says",
        patches=[(Policy, "decide", _undo_unasked_by_policy)],
    ),
    Mutant(
        name="watch-without-soak",
        promise=8,
        afterwards=True,
        told="one healthy measurement ends an escalated incident",
        patches=[(recovery, "advance", _soaked)],
    ),
    Mutant(
        name="watch-over-silence",
        promise=8,
        afterwards=True,
        told="an escalated incident recovers while nothing is measured",
        patches=[(RecoveryWatch, "_look", _silence_is_health)],
    ),
    Mutant(
        name="watch-takes-credit",
        promise=10,
        afterwards=True,
        told="a recovery after an escalation is credited to the agent",
        patches=[(recovery, "recovered", _credited)],
    ),
    Mutant(
        name="watch-acts",
        promise=10,
        afterwards=True,
        told="the recovery watch has the last change undone, without a request",
        patches=[(RecoveryWatch, "_look", _has_it_undone)],
    ),
    Mutant(
        name="undone-twice",
        promise=10,
        calm=True,
        afterwards=True,
        told="an undo that took place is carried out again for the next request",
        patches=[
            (effect, "repeated", always(False)),
            (undo_request, "undone_intents", always(frozenset())),
            (executor, "not_to_undo", always(None)),
            (blockers, "not_to_undo", always(None)),
        ],
    ),
    Mutant(
        name="undo-of-others-work",
        promise=10,
        calm=True,
        afterwards=True,
        told="an undo on request overwrites what others changed since",
        patches=[(executor, "not_to_undo", always(None)), (blockers, "not_to_undo", always(None))],
    ),
    Mutant(
        name="undo-unverified",
        promise=10,
        calm=True,
        afterwards=True,
        told="an undo on request is called verified without a look at the replicas",
        patches=[(undo, "judge_restoration", _restored_at_once)],
    ),
    Mutant(
        name="undo-unbraked",
        promise=11,
        calm=True,
        afterwards=True,
        told="an undo on request is exempt from guardrails like the agent's own",
        patches=[(Intent, "own_undo", property(lambda self: self.undoes is not None))],
    ),
)
