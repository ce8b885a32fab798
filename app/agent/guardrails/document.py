"""The input document of the policy engine: everything one decision depends on, as versioned JSON.

Built for every decision. Its schema is `docs/policy-input.schema.json`, described in
`docs/policy.md`. Incompatible changes increase `DOCUMENT_VERSION`; new fields may be
added under the same version. It contains no secrets (promise 12): values of
configuration never reach the agent's models.
"""

from __future__ import annotations

from datetime import datetime

from app.agent.guardrails.blast_radius import pods_taken, too_many
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.limits import LimitStatus, PastAction
from app.agent.guardrails.question import Guardrails, Question
from app.agent.ids import Json, JsonObject
from app.agent.models import (
    Action,
    Diagnosis,
    Incident,
    KillSwitch,
    Plan,
)
from app.agent.workload import ObjectRef, TargetState

DOCUMENT_VERSION = "2"

AGENT_NAME = "self-healing-devops-agent"

_RECENT_ACTIONS = 50
"""At most this many recent actions of the service are listed; the counts in `budgets` cover all."""


def document(question: Question, limits: Guardrails) -> JsonObject:
    """The versioned JSON document of one decision."""
    incident = question.incident
    return {
        "version": DOCUMENT_VERSION,
        "time": _moment(question.at),
        "environment": incident.key.environment,
        "service": incident.key.service,
        "dry_run": incident.dry_run,
        "actor": {"kind": "agent", "name": AGENT_NAME},
        "incident": _incident(incident),
        "diagnosis": None if incident.diagnosis is None else _diagnosis(incident.diagnosis),
        "plan": _plan(question.plan, incident),
        "action": _action(question.action),
        "target": None if question.target is None else _target(question.target),
        "target_problem": question.target_problem,
        "rehearsal": None
        if question.rehearsal is None
        else {"accepted": question.rehearsal.accepted, "message": question.rehearsal.message},
        "consent": {
            "refused_by": list(question.opt_out.refused_by),
            "given_by": list(question.opt_out.given_by),
            "unread": question.opt_out.unread,
        },
        "disruption": None
        if question.disruption is None
        else _disruption(question.action, question.disruption, limits.max_replica_share),
        "budgets": _budgets(question, limits),
        "recent_actions": _recent(question.standing),
        "brakes": {"kill_switch": None if question.brake is None else _brake(question.brake)},
        "guardrails": {
            "enabled_actions": [str(name) for name in sorted(limits.enabled_actions)],
            "allow_high_risk": limits.allow_high_risk,
            "max_actions_per_incident": limits.max_actions_per_incident,
            "approval_for_risks": [str(risk) for risk in sorted(limits.approval_for)],
            "max_replica_share": limits.max_replica_share,
            "require_opt_in": limits.require_opt_in,
        },
    }


def _incident(incident: Incident) -> JsonObject:
    return {
        "id": incident.id,
        "state": incident.state,
        "opened_at": _moment(incident.opened_at),
        "triggers": [str(trigger) for trigger in incident.triggers],
        "stale": incident.stale,
        "signals_joined": incident.joined,
        "requested_by": incident.requested_by,
    }


def _diagnosis(diagnosis: Diagnosis) -> JsonObject:
    best = diagnosis.best
    return {
        "cause": best.cause,
        "confidence": best.confidence,
        "rule": best.rule,
        "evidence_for": list(best.evidence_for),
        "evidence_against": list(best.evidence_against),
        "others": [
            {"cause": str(each.cause), "confidence": each.confidence} for each in diagnosis.hypotheses[1:]
        ],
        "at": _moment(diagnosis.at),
    }


def _plan(plan: Plan, incident: Incident) -> JsonObject:
    return {
        "runbook": plan.runbook,
        "runbook_hash": plan.runbook_hash,
        "hash": plan.hash,
        "actions": [str(action.name) for action in plan.actions],
        "position": incident.next_action,
    }


def _action(action: Action) -> JsonObject:
    return {
        "name": action.name,
        "risk": action.risk,
        "parameters": dict(action.parameters),
        "target": None if action.target is None else _object(action.target),
        "expected_effect": action.expected_effect,
        "undo": action.undo,
        "leaves": action.leaves,
        "reaches": action.reaches,
        "drifts_from": action.drifts_from,
    }


def _target(target: TargetState) -> JsonObject:
    return {
        **_object(target.ref),
        "uid": target.uid,
        "token": target.token,
        "resource_version": target.resource_version,
        "changed_by": target.changed_by,
    }


def _object(ref: ObjectRef) -> JsonObject:
    """A cluster without a name is left out."""
    named: JsonObject = {"kind": ref.kind, "namespace": ref.namespace, "name": ref.name}
    return named | {"cluster": ref.cluster} if ref.cluster else named


def _disruption(action: Action, disruption: Disruption, max_share: float) -> JsonObject:
    return {
        "replicas": disruption.replicas,
        "takes_away": pods_taken(action, disruption),
        "pod_disruption_budgets": [
            {
                "name": budget.name,
                "expected_pods": budget.expected_pods,
                "desired_healthy": budget.desired_healthy,
            }
            for budget in disruption.budgets
        ],
        "unread": disruption.unread,
        "too_many": list(too_many(action, disruption, max_share)),
    }


def _budgets(question: Question, limits: Guardrails) -> JsonObject:
    standing = question.standing
    return {
        "incident": {"taken": question.taken, "allowed": limits.max_actions_per_incident},
        "window_seconds": limits.shared.window.total_seconds(),
        "shared": [
            {"limit": str(each.limit), "spent": each.spent, "allowed": each.allowed}
            for each in standing.spending
        ],
        "exceeded": [{"limit": str(each.limit), "reason": each.reason} for each in standing.exceeded],
    }


def _recent(standing: LimitStatus) -> list[Json]:
    newest = sorted(standing.history.service, key=lambda past: (past.began_at, past.intent_id))
    return [_past(past) for past in newest[-_RECENT_ACTIONS:]]


def _past(past: PastAction) -> JsonObject:
    return {
        "intent": past.intent_id,
        "incident": past.incident_id,
        "action": past.action,
        "target": _object(past.target),
        "parameters": dict(past.parameters),
        "cause": past.cause,
        "began_at": _moment(past.began_at),
        "outcome": past.outcome,
        "helped": past.helped,
        "undoes": past.undoes,
    }


def _brake(brake: KillSwitch) -> JsonObject:
    return {"engaged": brake.engaged, "by": brake.by, "reason": brake.reason, "at": _moment(brake.at)}


def _moment(at: datetime) -> str:
    """RFC 3339."""
    return at.isoformat()
