"""How many nodes the agent may cordon, and whose cordon it leaves alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from msgspec import structs

from app.agent.actions.restore import restore_of
from app.agent.guardrails.cordons import (
    CordonLimits,
    NodeCordons,
    frees_node,
    still_needed,
    too_many_cordoned,
)
from app.agent.ids import IncidentId
from app.agent.models import Action, ActionName, Incident, IncidentState, Plan, Risk
from app.agent.workload import ObjectRef
from tests.contract.store_values import NOW, key

NODE = ObjectRef(kind="Node", namespace="", name="node-9")
CORDON = Action(
    name=ActionName.CORDON,
    risk=Risk.MEDIUM,
    target=NODE,
    parameters={},
    expected_effect="no more pods",
    undo="uncordon the node",
    leaves="schedulable",
    reaches="cordoned",
)
UNCORDON = replace(CORDON, name=ActionName.UNCORDON, leaves="cordoned", reaches="schedulable")
UNDO = restore_of(CORDON)


def found(nodes: int, *, own: tuple[str, ...] = (), others: tuple[str, ...] = ()) -> NodeCordons:
    return NodeCordons(nodes=nodes, cordoned=(*own, *others), own=own)


@pytest.mark.parametrize(
    ("action", "cordons", "limits", "said"),
    [
        (CORDON, found(10), CordonLimits(), None),
        (CORDON, found(10, own=("node-1",)), CordonLimits(), "MAX_CORDONED_NODES=1"),
        (CORDON, found(10, own=("node-1",)), CordonLimits(own=2), None),
        (CORDON, found(10, own=("node-9",)), CordonLimits(), None),
        (CORDON, found(10, others=("node-1",)), CordonLimits(share=0.2), None),
        (CORDON, found(10, others=("node-1", "node-2")), CordonLimits(share=0.2), "2 of 10 nodes"),
        (CORDON, found(3, others=("node-1",)), CordonLimits(share=0.2), "MAX_CORDONED_SHARE=0.2 allows 1"),
        (CORDON, found(3), CordonLimits(share=0.2), None),
        (CORDON, NodeCordons(nodes=0, unread="forbidden"), CordonLimits(), "cannot be counted: forbidden"),
        (CORDON, None, CordonLimits(), "cannot be counted"),
        (UNCORDON, found(10, own=("node-1", "node-9")), CordonLimits(), None),
    ],
)
def test_nodes_are_cordoned_only_within_the_limits(
    action: Action, cordons: NodeCordons | None, limits: CordonLimits, said: str | None
) -> None:
    """The agent's own cordons count by number, all of them by share; what cannot be counted is refused."""
    reasons = too_many_cordoned(action, cordons, limits)
    assert bool(reasons) is (said is not None)
    assert said is None or said in "; ".join(reasons)


@pytest.mark.parametrize(
    ("action", "other", "needed"),
    [
        (UNCORDON, CORDON, True),
        (UNDO, CORDON, True),
        (UNCORDON, UNCORDON, False),
        (UNCORDON, replace(CORDON, target=structs.replace(NODE, name="node-1")), False),
        (CORDON, CORDON, False),
    ],
)
def test_a_cordon_that_another_incident_plans_on_stays(
    action: Action | None, other: Action, needed: bool
) -> None:
    """Neither the action nor the undo removes it; the agent's own plan is no obstacle."""
    assert action is not None
    mine = Incident(
        id=IncidentId("inc_mine"),
        key=key(1),
        state=IncidentState.EXECUTING,
        opened_at=NOW,
        triggers=(),
        stale=False,
        dry_run=False,
    )
    theirs = replace(
        mine,
        id=IncidentId("inc_other"),
        plan=Plan(runbook="one@1", runbook_hash="h", actions=(other,), rejected=(), hash="p", at=NOW),
    )
    why = still_needed(action, mine.id, [mine, theirs])
    assert (why is not None) is needed
    assert why is None or "inc_other" in why
    assert still_needed(action, theirs.id, [mine, theirs]) is None
    assert frees_node(action) is (action is not CORDON)
