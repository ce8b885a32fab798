"""The real tier's fixtures, for the contracts that run over the test bed too."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from testbed.kubeapi import Api
from testbed.rbac import ADMIN
from testbed.world import TestBed
from tests.e2e.conftest import control_plane, namespace, pytest_collection_finish, testbed_world

__all__ = ["control_plane", "namespace", "pytest_collection_finish", "testbed_world"]


@pytest.fixture
async def api(testbed_world: TestBed) -> AsyncIterator[Api]:
    """The API server as its administrator sees it."""
    connected = Api(testbed_world.control_plane.kubeconfig(ADMIN))
    yield connected
    await connected.close()
