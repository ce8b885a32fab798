"""The Kubernetes connector keeps the promises of the cluster ports on a real control plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from lightkube.models.meta_v1 import LabelSelector, ObjectMeta
from lightkube.models.policy_v1 import PodDisruptionBudgetSpec
from lightkube.resources.policy_v1 import PodDisruptionBudget

pytest.register_assert_rewrite("tests.contract.cluster_suite")

from app.agent.guardrails.blast_radius import too_many  # noqa: E402 - after the rewrite is registered
from app.agent.models import ActionName  # noqa: E402 - as above
from testbed.world import TestBed  # noqa: E402 - after the rewrite is registered
from tests.contract.cluster_suite import *  # noqa: E402, F403 - the shared contract
from tests.contract.cluster_suite import action, deployment  # noqa: E402 - as above
from tests.contract.kubernetes_harness import KubernetesHarness  # noqa: E402 - as above

pytestmark = pytest.mark.real


async def test_disruption_budgets_are_read_and_hold_actions_back(cluster: KubernetesHarness) -> None:
    """Only those that cover the pods count; what they want is taken at its word until it is worked out."""
    await cluster.deploy("shop", service="shop", replicas=4)
    restart = action(ActionName.RESTART, deployment(cluster))
    for name, selector in (("shop", {"app": "shop"}), ("other", {"app": "other"})):
        await asyncio.to_thread(
            cluster.client.create,
            PodDisruptionBudget(
                metadata=ObjectMeta(name=f"{name}-pdb", namespace=cluster.namespace),
                spec=PodDisruptionBudgetSpec(
                    minAvailable="100%", selector=LabelSelector(matchLabels=selector)
                ),
            ),
        )
    found = await cluster.ports.reader.disruption(restart)
    assert found is not None
    assert (found.replicas, found.missing_at_once, found.unread) == (4, 1, None)
    assert [budget.name for budget in found.budgets] == ["shop-pdb"]
    [reason] = too_many(restart, found, 1.0)
    assert reason.endswith("PodDisruptionBudget shop-pdb requires 4")


@pytest.fixture
async def cluster(testbed_world: TestBed, namespace: str) -> AsyncIterator[KubernetesHarness]:
    """A fresh namespace."""
    harness = KubernetesHarness(testbed_world, namespace)
    yield harness
    await harness.close()
