"""The Kubernetes connector keeps the promises of the cluster ports on a real control plane."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

pytest.register_assert_rewrite("tests.contract.cluster_suite")

from testbed.world import TestBed  # noqa: E402 - after the rewrite is registered
from tests.contract.cluster_suite import *  # noqa: E402, F403 - the shared contract
from tests.contract.kubernetes_harness import KubernetesHarness  # noqa: E402 - as above

pytestmark = pytest.mark.real


@pytest.fixture
async def cluster(testbed_world: TestBed, namespace: str) -> AsyncIterator[KubernetesHarness]:
    """A fresh namespace."""
    harness = KubernetesHarness(testbed_world, namespace)
    yield harness
    await harness.close()
