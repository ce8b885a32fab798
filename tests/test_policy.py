"""What policy allows, rule by rule (promises 1, 4, 6, 7)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.agent.approvals.state import as_answered
from app.agent.guardrails.disruption import Disruption
from app.agent.guardrails.document import document
from app.agent.guardrails.limits import Excess, LimitName, LimitStatus
from app.agent.guardrails.opt_out import OptOut
from app.agent.guardrails.question import Guardrails, Question
from app.agent.ids import (
    ApprovalId,
    IncidentId,
    IntentId,
    JsonObject,
    ServiceKey,
)
from app.agent.models import (
    Action,
    ActionName,
    Approval,
    ApprovalState,
    Decision,
    DecisionKind,
    Deploy,
    DeployStatus,
    Incident,
    IncidentState,
    Intent,
    IntentState,
    KillSwitch,
    Plan,
    Rehearsal,
    Risk,
    Trigger,
)
from app.agent.policy import Policy, guard, undo_decision
from app.agent.ports.policy import PolicyAnswer
from app.agent.workload import ObjectRef, TargetState
from tests.stories import NAMESPACE, SERVICE, story

AT = datetime(2026, 2, 20, 17, tzinfo=UTC)
REF = ObjectRef(kind="Deployment", namespace="prod", name="shop")
TARGET = TargetState(ref=REF, uid="u", resource_version="7", token="u/3", changed_by="kubectl")
ROLLBACK = Action(
    name=ActionName.ROLLBACK,
    risk=Risk.HIGH,
    target=REF,
    parameters={"revision": 1},
    expected_effect="the older revision runs",
    undo="put the template back",
)
RESTART = replace(ROLLBACK, name=ActionName.RESTART, risk=Risk.MEDIUM, parameters={}, undo=None)
LIMITS = Guardrails(
    enabled_actions=frozenset({ActionName.ROLLBACK, ActionName.RESTART}),
    allow_high_risk=True,
    max_actions_per_incident=2,
)
QUESTION = Question(
    incident=Incident(
        id=IncidentId("inc_1"),
        key=ServiceKey(environment="prod", service="shop"),
        state=IncidentState.OPEN,
        opened_at=AT,
        triggers=(Trigger.CRASH_LOOP,),
        stale=False,
        dry_run=False,
    ),
    plan=Plan(runbook="r@1", runbook_hash="h", actions=(ROLLBACK,), rejected=(), hash="plan-hash", at=AT),
    action=ROLLBACK,
    target=TARGET,
    target_problem=None,
    rehearsal=Rehearsal(accepted=True, message="ok"),
    taken=0,
    at=AT,
)


def test_an_enabled_action_within_its_limits_is_allowed() -> None:
    """Nothing is against it."""
    assert guard(QUESTION, LIMITS) == ()


@pytest.mark.parametrize("risky", [ActionName.ROLLBACK, ActionName.REVERT_CONFIG])
def test_high_risk_is_blocked_until_allowed(risky: ActionName) -> None:
    """Promise 6."""
    question = replace(QUESTION, action=replace(ROLLBACK, name=risky))
    limits = replace(LIMITS, allow_high_risk=False, enabled_actions=frozenset(ActionName))
    assert "ALLOW_HIGH_RISK_ACTIONS" in " ".join(guard(question, limits))
    assert guard(question, replace(limits, allow_high_risk=True)) == ()


def test_the_shipped_actions_are_rated_as_promised() -> None:
    """Promise 6 names rollback and revert_config; the catalogue must agree."""
    from app.agent.actions import ACTIONS

    assert ACTIONS[ActionName.ROLLBACK].risk is Risk.HIGH
    assert ACTIONS[ActionName.REVERT_CONFIG].risk is Risk.HIGH


def test_an_action_that_is_not_enabled_is_denied() -> None:
    """ENABLED_ACTIONS is a closed list."""
    reasons = guard(replace(QUESTION, action=replace(RESTART, name=ActionName.SCALE)), LIMITS)
    assert reasons == ("scale is not among ENABLED_ACTIONS",)


def test_a_spent_budget_denies() -> None:
    """Promise 4."""
    assert guard(replace(QUESTION, taken=1), LIMITS) == ()
    assert "MAX_ACTIONS_PER_INCIDENT" in " ".join(guard(replace(QUESTION, taken=2), LIMITS))


def test_a_stale_incident_leads_to_no_real_action() -> None:
    """Old news opens an incident; it does not justify a write."""
    stale = replace(QUESTION, incident=replace(QUESTION.incident, stale=True))
    assert "stale" in " ".join(guard(stale, LIMITS))
    dry = replace(stale, incident=replace(stale.incident, dry_run=True))
    assert guard(dry, LIMITS) == ()


def test_an_unknown_target_denies_a_real_action() -> None:
    """What cannot be seen is not acted on; the reason it cannot is given."""
    blind = replace(QUESTION, target=None, target_problem="forbidden: get deployments")
    assert "forbidden: get deployments" in " ".join(guard(blind, LIMITS))


def test_what_the_api_server_would_refuse_is_denied() -> None:
    """The rehearsal's answer is part of the decision."""
    refused = replace(QUESTION, rehearsal=Rehearsal(accepted=False, message="forbidden"))
    assert guard(refused, LIMITS) == ("the API server would reject it: forbidden",)


def test_every_reason_is_given_not_just_the_first() -> None:
    """A person who lifts one obstacle wants to know of the next."""
    limits = Guardrails(enabled_actions=frozenset(), allow_high_risk=False, max_actions_per_incident=0)
    assert len(guard(QUESTION, limits)) == 3


@dataclass(frozen=True)
class Engine:
    """A policy engine with a configured answer, which keeps the questions."""

    kind: DecisionKind
    asked: list[JsonObject]

    async def decide(self, document: JsonObject) -> PolicyAnswer:
        self.asked.append(document)
        return PolicyAnswer(kind=self.kind, reasons=(f"engine: {self.kind}",))


@pytest.mark.parametrize(
    ("allow_high_risk", "engine", "expected"),
    [
        (True, DecisionKind.ALLOW, DecisionKind.ALLOW),
        (True, DecisionKind.NEEDS_APPROVAL, DecisionKind.NEEDS_APPROVAL),
        (True, DecisionKind.DENY, DecisionKind.DENY),
        (False, DecisionKind.ALLOW, DecisionKind.DENY),
        (False, DecisionKind.NEEDS_APPROVAL, DecisionKind.DENY),
    ],
)
async def test_the_stricter_of_guardrails_and_engine_wins(
    allow_high_risk: bool, engine: DecisionKind, expected: DecisionKind
) -> None:
    """Neither can loosen the other."""
    asked: list[JsonObject] = []
    policy = Policy(limits=replace(LIMITS, allow_high_risk=allow_high_risk), engine=Engine(engine, asked))
    decision = await policy.decide(QUESTION)
    assert decision.kind is expected
    assert (f"engine: {engine}" in decision.reasons) is (
        engine is not DecisionKind.ALLOW or engine is expected
    )
    assert asked == [document(QUESTION, policy.limits)]


@pytest.mark.parametrize("own", list(DecisionKind))
@pytest.mark.parametrize("engine", list(DecisionKind))
async def test_why_one_side_would_allow_is_no_reason_for_a_stricter_decision(
    own: DecisionKind, engine: DecisionKind
) -> None:
    """A denial, and a question to people, stand on record with their own reasons only."""
    limits = replace(
        LIMITS,
        allow_high_risk=own is not DecisionKind.DENY,
        approval_for=frozenset({Risk.HIGH}) if own is DecisionKind.NEEDS_APPROVAL else frozenset(),
    )
    decision = await Policy(limits=limits, engine=Engine(engine, [])).decide(QUESTION)
    allows = [
        reason for reason in decision.reasons if "is an enabled action" in reason or reason == "engine: allow"
    ]
    assert decision.reasons
    assert bool(allows) is (decision.kind is DecisionKind.ALLOW)


GUARDRAILS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "enabled actions": ({}, {"enabled_actions": frozenset()}, "not among ENABLED_ACTIONS"),
    "high risk": ({}, {"allow_high_risk": False}, "ALLOW_HIGH_RISK_ACTIONS"),
    "budget of the incident": ({"taken": 2}, {}, "MAX_ACTIONS_PER_INCIDENT"),
    "shared limits": (
        {"standing": LimitStatus(exceeded=(Excess(limit=LimitName.COOLDOWN, reason="in cooldown"),))},
        {},
        "in cooldown",
    ),
    "disruption": (
        {"disruption": Disruption(replicas=3, missing_at_once=3)},
        {"max_replica_share": 0.5},
        "MAX_REPLICA_SHARE",
    ),
    "opt-out": ({"opt_out": OptOut(refused_by=("Namespace prod",))}, {}, "opts out"),
    "unreadable opt-out": ({"opt_out": OptOut(unread="forbidden")}, {}, "cannot be read"),
    "missing opt-in": ({}, {"require_opt_in": True}, "REQUIRE_OPT_IN"),
    "kill switch": (
        {"brake": KillSwitch(engaged=True, by="carol", reason="migration", at=AT)},
        {},
        "kill switch",
    ),
    "stale signals": ({"incident": replace(QUESTION.incident, stale=True)}, {}, "stale"),
    "unknown target": ({"target": None, "target_problem": "forbidden"}, {}, "forbidden"),
    "rehearsal": ({"rehearsal": Rehearsal(accepted=False, message="quota")}, {}, "quota"),
}


@pytest.mark.parametrize("name", GUARDRAILS)
async def test_no_policy_loosens_a_guardrail(name: str) -> None:
    """Each is decided in the agent: the engine allows, and the decision is deny, with one reason."""
    asked, limited, words = GUARDRAILS[name]
    engine = Engine(DecisionKind.ALLOW, [])
    policy = Policy(limits=replace(LIMITS, **limited), engine=engine)
    decision = await policy.decide(replace(QUESTION, **asked))
    assert decision.kind is DecisionKind.DENY
    assert decision.rules == ("guardrails",)
    [reason] = decision.reasons
    assert words in reason


async def test_no_policy_skips_an_approval_that_the_settings_require() -> None:
    """APPROVAL_FOR_RISKS holds with every policy."""
    policy = Policy(
        limits=replace(LIMITS, approval_for=frozenset({Risk.HIGH})), engine=Engine(DecisionKind.ALLOW, [])
    )
    decision = await policy.decide(QUESTION)
    assert (decision.kind, decision.rules) == (DecisionKind.NEEDS_APPROVAL, ("guardrails",))


async def test_a_denial_without_a_reason_says_who_gave_none() -> None:
    """An engine may deny with an empty list of reasons."""

    class Silent:
        async def decide(self, document: JsonObject) -> PolicyAnswer:
            return PolicyAnswer(kind=DecisionKind.DENY, reasons=())

    decision = await Policy(limits=LIMITS, engine=Silent()).decide(QUESTION)
    assert decision.reasons == ("denied by policy without a reason",)


def test_a_denial_by_people_does_not_keep_why_policy_would_allow() -> None:
    """A no that was said before policy came to allow the action stands, with its own reason only."""
    allowed = Decision(
        kind=DecisionKind.ALLOW, reasons=("restart is enabled",), plan_hash="p", target_token="t", at=AT
    )
    asked = Approval(
        id=ApprovalId("apr_1"),
        incident_id=IncidentId("inc_1"),
        action_index=0,
        action=ActionName.RESTART,
        plan_hash="p",
        target_token="t",
        reasons=(),
        requested_at=AT,
        expires_at=AT,
        state=ApprovalState.DENIED,
        answered_by="carol",
    )
    decision = as_answered(allowed, asked)
    assert (decision.kind, decision.reasons) == (DecisionKind.DENY, ("denied by carol",))


async def test_a_decision_is_bound_to_plan_and_live_state() -> None:
    """Promise 1: hash and token are part of the record."""
    decision = await Policy(limits=LIMITS).decide(QUESTION)
    assert (decision.plan_hash, decision.target_token) == ("plan-hash", "u/3")


def test_an_undo_is_allowed_and_recorded() -> None:
    """Promise 11: no guardrail stops an undo of the agent's own change."""
    done = Intent(
        id=IntentId("int_1"),
        incident_id=IncidentId("inc_1"),
        sequence=0,
        action=ROLLBACK,
        dry_run=False,
        decision=Decision(
            kind=DecisionKind.ALLOW, reasons=(), plan_hash="plan-hash", target_token="u/3", at=AT
        ),
        rehearsal=None,
        state=IntentState.FINISHED,
    )
    decision = undo_decision(done, TARGET, AT)
    assert decision.kind is DecisionKind.ALLOW
    assert decision.target_token == "u/3"


async def test_an_approval_that_policy_asks_for_is_not_skipped(tmp_path: Path) -> None:
    """An engine may ask for a person where the settings do not: the incident waits for one."""
    engine = Engine(DecisionKind.NEEDS_APPROVAL, [])
    async with story(
        tmp_path,
        connected=lambda world: replace(world, policy_engine=engine),
        dry_run=False,
        allow_high_risk_actions=True,
    ) as stage:
        stage.deploy()
        await stage.live(180)
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        approval = await stage.live_until_asked()
        assert "engine: needs_approval" in approval.reasons
        await stage.live(300)
        record = await stage.newest()
        assert record is not None
        assert record.incident.state is IncidentState.AWAITING_APPROVAL
        assert record.intents == ()
        assert stage.image() == "shop:2-crash"


@pytest.mark.parametrize(
    ("asked_for", "expected"),
    [
        (frozenset[Risk](), DecisionKind.ALLOW),
        (frozenset({Risk.LOW, Risk.MEDIUM}), DecisionKind.ALLOW),
        (frozenset({Risk.HIGH}), DecisionKind.NEEDS_APPROVAL),
    ],
)
async def test_risks_that_ask_for_a_person_are_settings(
    asked_for: frozenset[Risk], expected: DecisionKind
) -> None:
    """APPROVAL_FOR_RISKS names them; the others go ahead."""
    decision = await Policy(limits=replace(LIMITS, approval_for=asked_for)).decide(QUESTION)
    assert decision.kind is expected


async def test_no_approval_is_asked_for_what_is_denied_anyway() -> None:
    """A person's yes could not lift it, so no person is asked."""
    limits = replace(LIMITS, approval_for=frozenset({Risk.HIGH}), allow_high_risk=False)
    assert (await Policy(limits=limits).decide(QUESTION)).kind is DecisionKind.DENY


@pytest.mark.parametrize("engaged", [True, False])
def test_an_engaged_kill_switch_denies_and_says_who_and_why(engaged: bool) -> None:
    """Promise 11; a released one says nothing."""
    brake = KillSwitch(engaged=engaged, by="carol", reason="migration", at=AT)
    reasons = guard(replace(QUESTION, brake=brake), LIMITS)
    assert reasons == (("the kill switch was engaged by carol: migration",) if engaged else ())


async def test_policy_is_asked_before_every_action_and_given_what_matters(tmp_path: Path) -> None:
    """The document names version, action, target and rehearsal, and no secret."""
    engine = Engine(DecisionKind.ALLOW, [])
    async with story(tmp_path, connected=lambda world: replace(world, policy_engine=engine)) as stage:
        stage.deploy()
        await stage.live(120)
        await stage.tell(Deploy(version="2", status=DeployStatus.FAILED))
        stage.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        record = await stage.live_until_ended()
        assert len(engine.asked) == len(record.intents)
        asked = engine.asked[0]
        assert asked["version"] == "2"
        assert asked["dry_run"] is True
