"""The real tier's fixtures, for the contracts that run over the test bed too."""

from __future__ import annotations

from tests.e2e.conftest import control_plane, namespace, pytest_collection_finish, testbed_world

__all__ = ["control_plane", "namespace", "pytest_collection_finish", "testbed_world"]
