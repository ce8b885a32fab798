"""Policy: decide whether an action may run now on exactly this state.

`guard` is the built-in, pure part: enabled actions, risk gating, the budget per
incident, staleness, and the result of the rehearsal. `Policy` adds
the policy engine: embedded, or the configured server. The most restrictive
answer wins, and every reason is kept (promises 1, 4, 6, 7).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from app.agent.actions import ACTIONS
from app.agent.guardrails.blast_radius import too_many
from app.agent.guardrails.cordons import too_many_cordoned
from app.agent.guardrails.document import document
from app.agent.guardrails.drains import cannot_drain
from app.agent.guardrails.drift import drift_asks, drift_denied, drift_words
from app.agent.guardrails.limits import set_aside
from app.agent.guardrails.opt_out import withheld
from app.agent.guardrails.question import Guardrails, Question
from app.agent.identity.people import ApprovalTerms, combined
from app.agent.ids import ServiceKey
from app.agent.models import (
    Action,
    ActionName,
    Decision,
    DecisionKind,
    Intent,
    Risk,
)
from app.agent.ports.policy import PolicyAnswer, PolicyEngine
from app.agent.services.terms import Autonomy, autonomy_of
from app.agent.workload import TargetState


def forbidden_now(action: Action, key: ServiceKey, limits: Guardrails) -> list[str]:
    """Why the configuration forbids the action; checked again right before a write."""
    reasons: list[str] = []
    if ACTIONS[action.name].kinds and autonomy_of(limits.services, key) is Autonomy.OBSERVE:
        reasons.append(f"the autonomy of {key.service} is observe: actions are only proposed")
    # An undo that a person asks for is enabled with the action that it undoes.
    needed = action.parameters.get("undoes") if action.name is ActionName.RESTORE else action.name
    if needed not in limits.enabled_actions:
        reasons.append(f"{needed} is not among ENABLED_ACTIONS")
    if action.risk is Risk.HIGH and not limits.allow_high_risk:
        reasons.append(f"{action.words} is high risk: blocked unless ALLOW_HIGH_RISK_ACTIONS=true")
    drift = drift_denied(action, limits.drift)
    if drift is not None:
        reasons.append(drift)
    return reasons


def must_ask(action: Action, key: ServiceKey, limits: Guardrails) -> str | None:
    """Why the configuration requires an approval of the action; None if it does not.

    Checked again right before a write.
    """
    if action.risk in limits.approval_for:
        return f"{action.words} is {action.risk} risk, and APPROVAL_FOR_RISKS requires an approval"
    if ACTIONS[action.name].kinds and autonomy_of(limits.services, key) is Autonomy.ASK:
        return f"the autonomy of {key.service} is ask: every action requires an approval"
    return drift_asks(action, limits.drift)


def guard(question: Question, limits: Guardrails) -> tuple[str, ...]:
    """Why the built-in guardrails deny; empty if they allow."""
    action, incident = question.action, question.incident
    reasons = forbidden_now(action, incident.key, limits)
    if question.taken >= limits.max_actions_per_incident:
        reasons.append(
            f"the incident's budget is exhausted: {question.taken} of "
            f"MAX_ACTIONS_PER_INCIDENT={limits.max_actions_per_incident} taken"
        )
    reasons.extend(each.reason for each in question.standing.exceeded)
    if question.disruption is not None:
        reasons.extend(too_many(action, question.disruption, limits.max_replica_share))
    reasons.extend(too_many_cordoned(action, question.cordons, limits.cordons) if question.target else ())
    reasons.extend(cannot_drain(action, question.load) if question.target else ())
    if question.needed_by is not None:
        reasons.append(question.needed_by)
    objection = withheld(question.opt_out, opt_in=limits.require_opt_in) if question.target else None
    if objection is not None:
        reasons.append(objection)
    if question.brake is not None and question.brake.engaged:
        reasons.append(f"the kill switch was engaged by {question.brake.by}: {question.brake.reason}")
    if incident.stale and not incident.dry_run:
        reasons.append("every signal of the incident was stale on arrival: only a dry run is allowed")
    if ACTIONS[action.name].kinds and question.target is None and not incident.dry_run:
        reasons.append(f"the target of the action is unknown: {question.target_problem or 'no cluster'}")
    if question.rehearsal is not None and not question.rehearsal.accepted:
        reasons.append(f"the API server would reject it: {question.rehearsal.message}")
    return tuple(reasons)


def undo_decision(undone: Intent, target: TargetState, at: datetime) -> Decision:
    """Undoing the agent's own action is always allowed (promise 11), and recorded like any decision."""
    return Decision(
        kind=DecisionKind.ALLOW,
        reasons=(f"undoes {undone.action.name.words} of this incident, which did not help",),
        rules=("undo",),
        plan_hash=undone.decision.plan_hash,
        target_token=target.token,
        at=at,
    )


@dataclass(slots=True, kw_only=True)
class Policy:
    """Guardrails first, then the policy engine; both must allow."""

    limits: Guardrails
    """Replaced as a whole when settings change while the agent runs."""
    engine: PolicyEngine | None = None

    async def decide(self, question: Question) -> Decision:
        """The decision for one action, bound to the plan's hash and the target's state."""
        limits = self.limits  # the same for the whole decision
        kind, reasons = _own_answer(question, limits)
        rules: tuple[str, ...] = ("guardrails",)
        terms, policy_roles = limits.approval_terms, False
        if self.engine is not None:
            answer = await self.engine.decide(document(question, limits))
            reasons = _reasons(kind, reasons, answer)
            rules = _deciding(kind, answer)
            kind = _stricter(kind, answer.kind)
            terms = combined(terms, answer.terms)
            policy_roles = answer.terms is not None and bool(answer.terms.roles)
        return Decision(
            kind=kind,
            reasons=reasons,
            rules=rules,
            plan_hash=question.plan.hash,
            target_token=question.target.token if question.target is not None else None,
            at=question.at,
            terms=_without_interested(terms, question) if kind is DecisionKind.NEEDS_APPROVAL else None,
            policy_roles=policy_roles,
        )


def _own_answer(question: Question, limits: Guardrails) -> tuple[DecisionKind, tuple[str, ...]]:
    """The answer of the built-in guardrails, and its reasons."""
    denials = guard(question, limits)
    if denials:
        return DecisionKind.DENY, denials
    action, key = question.action, question.incident.key
    drift = drift_words(action)
    asks = must_ask(action, key, limits)
    if asks is not None:
        if drift is not None and action.risk in limits.approval_for:
            return DecisionKind.NEEDS_APPROVAL, (asks, drift)
        return DecisionKind.NEEDS_APPROVAL, (asks,)
    note = set_aside(question.standing.history, limits.shared, question.at)
    allowed = f"{action.name.words} is an enabled action of {action.risk} risk and within the budget"
    return DecisionKind.ALLOW, tuple(one for one in (allowed, drift, note) if one is not None)


def _without_interested(terms: ApprovalTerms, question: Question) -> ApprovalTerms:
    """Terms that exclude the person who requested the pass and the senders of the signals as approvers."""
    incident = question.incident
    requesters = {*incident.also_requested_by} | ({incident.requested_by} if incident.requested_by else set())
    if incident.undoing is not None:
        requesters.add(incident.undoing.by)
    return replace(terms, not_by=tuple(sorted({*terms.not_by, *requesters, *incident.reported_by})))


_STRICTNESS = (DecisionKind.ALLOW, DecisionKind.NEEDS_APPROVAL, DecisionKind.DENY)


def _stricter(one: DecisionKind, other: DecisionKind) -> DecisionKind:
    return max(one, other, key=_STRICTNESS.index)


def _reasons(own: DecisionKind, reasons: tuple[str, ...], answer: PolicyAnswer) -> tuple[str, ...]:
    """The reasons of the stricter side, and the other side's requirements.

    Reasons to allow are left out of a stricter decision. Identical reasons of both
    sides are listed once.
    """
    decided = _stricter(own, answer.kind)
    said = answer.reasons or (f"{answer.kind.words} by policy without a reason",)
    sides = ((own, reasons), (answer.kind, said))
    kept = (
        reason
        for kind, given in sides
        if kind is decided or kind is not DecisionKind.ALLOW
        for reason in given
    )
    return tuple(dict.fromkeys(kept))


def _deciding(own: DecisionKind, answer: PolicyAnswer) -> tuple[str, ...]:
    """The deciding rules: of the stricter side, or of both if they agree."""
    engine = tuple(f"policy: {rule}" for rule in answer.rules) or ("policy",)
    if own is answer.kind:
        return ("guardrails", *engine)
    return engine if _stricter(own, answer.kind) is answer.kind else ("guardrails",)
