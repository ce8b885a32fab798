"""The fixtures of the GitOps tier: one bed and one Argo CD for a session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from testbed.argocd import ArgoCd, ensure_argocd
from testbed.flux import Flux, ensure_flux
from testbed.git_http import GitHttpServer
from testbed.supervisor import Supervisor
from testbed.world import TestBed
from tests.e2e.conftest import control_plane, pytest_collection_finish, testbed_world

__all__ = ["control_plane", "pytest_collection_finish", "testbed_world"]


@pytest.fixture(scope="session")
def git_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("git")


@pytest.fixture(scope="session")
def git_server(git_root: Path) -> Iterator[GitHttpServer]:
    server = GitHttpServer(git_root)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def argocd(testbed_world: TestBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArgoCd]:
    ensure_argocd()
    supervisor = Supervisor()
    found = ArgoCd(
        control_plane=testbed_world.control_plane,
        supervisor=supervisor,
        folder=tmp_path_factory.mktemp("argocd"),
    )
    try:
        found.start()
        yield found
    finally:
        found.stop()
        supervisor.close()


@pytest.fixture(scope="session")
def flux(testbed_world: TestBed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flux]:
    ensure_flux()
    supervisor = Supervisor()
    found = Flux(
        control_plane=testbed_world.control_plane,
        supervisor=supervisor,
        folder=tmp_path_factory.mktemp("flux"),
    )
    try:
        found.start()
        yield found
    finally:
        found.stop()
        supervisor.close()
