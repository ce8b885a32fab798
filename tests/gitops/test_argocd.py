"""The connector of Argo CD over the real servers, on a real control plane with a real repository."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract.gitops_suite")

from testbed.argocd import ArgoCd  # noqa: E402 - after the rewrite is registered
from testbed.git_http import GitHttpServer  # noqa: E402 - as above
from testbed.world import TestBed  # noqa: E402 - as above
from tests.contract.gitops_suite import GitOpsContract, GitOpsWorld  # noqa: E402 - as above
from tests.gitops.applications import RealApplication  # noqa: E402 - as above

pytestmark = pytest.mark.real


class TestArgoCd(GitOpsContract):
    @pytest.fixture
    async def world(
        self, testbed_world: TestBed, argocd: ArgoCd, git_server: GitHttpServer, git_root: Path
    ) -> AsyncIterator[GitOpsWorld]:
        made = await asyncio.to_thread(RealApplication, testbed_world, argocd, git_server, git_root)
        try:
            await asyncio.to_thread(made.create)
            yield await made.world()
        finally:
            await made.close()
