"""How many pods a change takes away at once, and which budgets forbid it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.agent.guardrails.blast_radius import pods_taken, too_many
from app.agent.guardrails.disruption import (
    Disruption,
    DisruptionBudget,
)
from app.agent.ids import Json, JsonObject, JsonScalar
from app.agent.models import Action, ActionName, Risk
from app.agent.workload import ObjectRef
from app.connectors.kubernetes.views.disruption import disruption_of
from tests.unit.k8s_samples import CONFIG_REF, REF, deployment


def action(
    name: ActionName, target: ObjectRef | None = REF, parameters: Mapping[str, JsonScalar] | None = None
) -> Action:
    return Action(
        name=name,
        risk=Risk.MEDIUM,
        target=target,
        parameters=parameters or {},
        expected_effect="as told",
        undo=None,
    )


def budget(spec: Mapping[str, Json], **status: Json) -> JsonObject:
    """A PodDisruptionBudget; with a status its controller has seen it."""
    metadata: JsonObject = {"name": "shop-pdb", "namespace": "payments", "generation": 1}
    selector: JsonObject = {"matchLabels": {"app": "shop"}}
    seen: JsonObject = {"observedGeneration": 1, **status} if status else {}
    return {"metadata": metadata, "spec": {"selector": selector, **spec}, "status": seen}


@pytest.mark.parametrize(
    ("strategy", "replicas", "missing"),
    [
        ({}, 3, 0),
        ({}, 4, 1),
        ({}, 10, 2),
        ({"type": "Recreate"}, 5, 5),
        ({"rollingUpdate": {"maxUnavailable": 2, "maxSurge": 0}}, 5, 2),
        ({"rollingUpdate": {"maxUnavailable": "50%", "maxSurge": "50%"}}, 5, 2),
        ({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 0}}, 5, 1),
        ({"rollingUpdate": {"maxUnavailable": "1%", "maxSurge": 0}}, 5, 1),
        ({"rollingUpdate": {"maxUnavailable": 9}}, 5, 5),
        ({"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}, 1, 0),
    ],
)
def test_a_strategy_says_how_many_pods_may_be_missing(
    strategy: Mapping[str, Json], replicas: int, missing: int
) -> None:
    """Rounded as the Deployment controller rounds; never both nothing."""
    found = disruption_of(deployment(spec={"replicas": replicas, "strategy": {**strategy}}), [], None)
    assert (found.replicas, found.missing_at_once) == (replicas, missing)


@pytest.mark.parametrize(
    ("spec", "desired"),
    [
        ({"minAvailable": 3}, 3),
        ({"minAvailable": "50%"}, 3),
        ({"maxUnavailable": 1}, 4),
        ({"maxUnavailable": "30%"}, 3),
        ({}, 5),
        ({"maxUnavailable": 9}, 0),
        ({"minAvailable": "many"}, 0),
        ({"minAvailable": True}, 0),
    ],
)
def test_a_budget_without_a_status_counts_as_written(spec: Mapping[str, Json], desired: int) -> None:
    """Percentages are rounded up, as the disruption controller does."""
    [found] = disruption_of(deployment(spec={"replicas": 5}), [budget(spec)], None).budgets
    assert (found.expected_pods, found.desired_healthy) == (5, desired)


def test_a_budget_counts_as_its_controller_worked_it_out() -> None:
    """It may cover the pods of several workloads; an outdated status does not count."""
    shared = budget({"minAvailable": 1}, expectedPods=9, desiredHealthy=8)
    [found] = disruption_of(deployment(), [shared], None).budgets
    assert (found.expected_pods, found.desired_healthy) == (9, 8)
    outdated: JsonObject = {**shared, "metadata": {"name": "shop-pdb", "generation": 2}}
    [found] = disruption_of(deployment(), [outdated], None).budgets
    assert (found.expected_pods, found.desired_healthy) == (2, 1)


@pytest.mark.parametrize(
    ("selector", "covers"),
    [
        ({"matchLabels": {"app": "shop"}}, True),
        ({"matchLabels": {"app": "other"}}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["shop"]}]}, True),
        ({}, True),
        (None, False),
    ],
)
def test_only_budgets_that_cover_the_pods_count(selector: Json, covers: bool) -> None:
    """An empty selector covers every pod, a missing one none."""
    found = disruption_of(deployment(), [budget({"selector": selector, "minAvailable": 1})], None)
    assert bool(found.budgets) == covers


WHOLE = Disruption(replicas=4, missing_at_once=4)
ONE = Disruption(replicas=4, missing_at_once=1)


@pytest.mark.parametrize(
    ("asked", "disruption", "disturbed"),
    [
        (action(ActionName.RESTART), ONE, 1),
        (action(ActionName.ROLLBACK), WHOLE, 4),
        (action(ActionName.REVERT_CONFIG), ONE, 1),
        (action(ActionName.REVERT_CONFIG, CONFIG_REF), WHOLE, 0),
        (action(ActionName.RESUME), ONE, 1),
        (action(ActionName.PAUSE), WHOLE, 0),
        (action(ActionName.SCALE, parameters={"replicas": 6}), WHOLE, 0),
        (action(ActionName.SCALE, parameters={"replicas": 1}), ONE, 3),
        (action(ActionName.NOTIFY, None), WHOLE, 0),
    ],
)
def test_what_an_action_takes_away(asked: Action, disruption: Disruption, disturbed: int) -> None:
    """A rolling change what the strategy lets go, scaling down what is too many, the others nothing."""
    assert pods_taken(asked, disruption) == disturbed


def test_a_share_of_the_replicas_is_kept_to() -> None:
    """One pod may always go; all four at once only where the setting says so."""
    restart = action(ActionName.RESTART)
    [reason] = too_many(restart, WHOLE, 0.5)
    assert (
        reason == "restart may make 4 of 4 replicas unavailable at once, and MAX_REPLICA_SHARE=0.5 allows 2"
    )
    assert too_many(restart, WHOLE, 1.0) == ()
    assert too_many(restart, Disruption(replicas=1, missing_at_once=1), 0.1) == ()


def test_a_rollout_takes_nothing_away_where_nothing_serves() -> None:
    """A remedy is not refused for pods that are unavailable already; the last one that serves counts."""
    rollback = action(ActionName.ROLLBACK)
    assert too_many(rollback, replace(WHOLE, serving=0), 0.5) == ()
    assert too_many(rollback, replace(WHOLE, serving=1), 0.5) != ()
    assert too_many(rollback, replace(WHOLE, serving=None), 0.5) != ()


@pytest.mark.parametrize(
    ("status", "serving"),
    [
        ({}, None),
        ({"observedGeneration": 2, "availableReplicas": 2}, None),
        ({"observedGeneration": 3, "availableReplicas": 2}, 2),
        ({"observedGeneration": 3}, 0),
    ],
)
def test_a_status_says_how_many_replicas_serve(status: Mapping[str, Json], serving: int | None) -> None:
    """A zero is left out of it; one of an older specification says nothing."""
    assert disruption_of(deployment(status=status), [], None).serving == serving


def test_a_budget_is_respected_whatever_the_share() -> None:
    """A rolling change within what the budget leaves is fine; beyond it the reason names the budget."""
    wants = DisruptionBudget(name="shop-pdb", expected_pods=4, desired_healthy=4)
    [reason] = too_many(
        action(ActionName.ROLLBACK), Disruption(replicas=4, missing_at_once=1, budgets=(wants,)), 1.0
    )
    assert reason == "rollback may leave 3 pods, and PodDisruptionBudget shop-pdb requires 4"
    surging = Disruption(replicas=4, missing_at_once=0, budgets=(wants,))
    assert too_many(action(ActionName.ROLLBACK), surging, 1.0) == ()


@given(
    replicas=st.integers(0, 200),
    missing=st.integers(0, 200),
    share=st.floats(0.01, 1.0),
    desired=st.integers(0, 200),
)
def test_nothing_passes_that_takes_more_than_it_may(
    replicas: int, missing: int, share: float, desired: int
) -> None:
    """Whatever the numbers: what passes stays within the share, and leaves what the budget wants."""
    budgets = (DisruptionBudget(name="any", expected_pods=replicas, desired_healthy=desired),)
    found = Disruption(replicas=replicas, missing_at_once=missing, budgets=budgets)
    if too_many(action(ActionName.RESTART), found, share) == () and missing > 0:
        assert missing <= max(1, share * replicas)
        assert replicas - missing >= desired
