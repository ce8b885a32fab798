"""A verification ends where someone else changed what the agent had changed, and only there. Pure."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from app.agent.execution.undo import since_then, together
from app.agent.guardrails.document import AGENT_NAME as AGENT
from app.agent.guardrails.question import TargetLook
from app.agent.intents import Since
from app.agent.models import ActionName, VerdictKind
from app.agent.verification.assessment import Assessment, Health
from app.agent.verification.superseded import by_whom, comparable, superseded_verdict
from tests.contract.store_values import NOW
from tests.unit.test_intents import LATER, RESTARTED, ROLLED_BACK, TARGET, record, target_look

COMPLETED = replace(ROLLED_BACK, action=replace(ROLLED_BACK.action, then_verify=False))


@pytest.mark.parametrize(
    ("look", "what"),
    [
        (target_look("old"), None),
        (target_look("old", by="ann"), None),
        (TargetLook(problem="503"), None),
        (target_look("new", by="ann"), f"{TARGET} was changed since by ann"),
        (target_look("new", by=AGENT), f"{TARGET} was changed since by someone else"),
        (TargetLook(gone=True), f"{TARGET} no longer exists"),
    ],
)
def test_only_another_state_of_what_the_agent_changed_supersedes_it(
    look: TargetLook, what: str | None
) -> None:
    """An object that cannot be read is no evidence, nor is the name of its last writer."""
    found = record(ROLLED_BACK)
    compared = comparable(found, ROLLED_BACK)
    assert by_whom(compared, together(since_then(found, one, look) for one in compared)) == what


def test_a_node_that_its_platform_removed_supersedes_nothing() -> None:
    """A failed node is replaced while the pods that left it start elsewhere."""
    assert TARGET is not None
    on_node = replace(ROLLED_BACK.action, target=structs.replace(TARGET, kind="Node", name="n1"))
    cordoned = replace(ROLLED_BACK, action=on_node)
    assert by_whom([cordoned], Since(gone=frozenset({cordoned.id}))) is None
    assert by_whom([cordoned], Since(changed_by={cordoned.id: "ann"})) is not None


def test_the_agents_own_completing_step_supersedes_nothing() -> None:
    """A restart completes the change before it: both are compared with what the restart left."""
    found = record(COMPLETED, RESTARTED)
    compared = comparable(found, COMPLETED)
    assert compared == [COMPLETED, RESTARTED]
    look = target_look("old, restarted", by=AGENT)
    assert by_whom(compared, together(since_then(found, one, look) for one in compared)) is None
    between = record(COMPLETED, LATER)
    compared = comparable(between, COMPLETED)
    assert by_whom(compared, together(since_then(between, one, look) for one in compared)) is not None


def test_what_a_controller_carries_on_with_is_not_compared() -> None:
    """A Rollout moves on, a failed Job is cleaned up, a GitOps controller changes what it rolls back."""
    promoted = replace(ROLLED_BACK, action=replace(ROLLED_BACK.action, name=ActionName.PROMOTE_ROLLOUT))
    through = {**ROLLED_BACK.action.parameters, "application": "argocd/shop"}
    synced = replace(ROLLED_BACK, action=replace(ROLLED_BACK.action, parameters=through))
    unanswered = replace(ROLLED_BACK, applied_token=None)
    repeated = replace(ROLLED_BACK, action=replace(ROLLED_BACK.action, name=ActionName.RERUN_JOB))
    for one in (promoted, synced, unanswered, repeated):
        assert comparable(record(one), one) == []


def test_the_verdict_is_about_the_action_and_says_that_its_effect_is_unknown() -> None:
    """Neither a success nor a failure of the action."""
    now = Assessment(health=Health.UNHEALTHY, reasons=("error rate 40.0%",))
    verdict = superseded_verdict(ROLLED_BACK, f"{TARGET} was changed since by ann", now, NOW)
    assert (verdict.kind, verdict.intent_id) == (VerdictKind.CANNOT_TELL, ROLLED_BACK.id)
    assert verdict.reasons == (
        f"rollback is superseded: {TARGET} was changed since by ann",
        "error rate 40.0%",
    )
