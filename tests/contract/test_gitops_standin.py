"""The connector of Argo CD over a stand-in that is built from the published API; it is no Argo CD."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

pytest.register_assert_rewrite("tests.contract.gitops_suite")

from app.agent.gitops.application import ApplicationRef  # noqa: E402 - after the rewrite is registered
from app.agent.ports.gitops import GitOps  # noqa: E402 - as above
from app.agent.workload import ObjectRef, TargetState, WorkloadView  # noqa: E402 - as above
from app.config import Settings  # noqa: E402 - as above
from app.connectors.argocd.registration import KIND  # noqa: E402 - as above
from app.connectors.git.connect import connect_repositories  # noqa: E402 - as above
from app.errors import Forbidden, Invalid, TransientError, UnknownOutcome  # noqa: E402 - as above
from tests.contract.argocd_standin import TOKEN, ArgoStandIn, refusal  # noqa: E402 - as above
from tests.contract.gitops_repository import GitRepository  # noqa: E402 - as above
from tests.contract.gitops_suite import ARGO_CD, INTENT, GitOpsContract, GitOpsWorld  # noqa: E402 - as above
from tests.contract.loopback import Fate, loopback  # noqa: E402 - as above

NAMESPACE, NAME = "prod", "shop"
REF = ApplicationRef(namespace="argocd", name="shop")


def workload(mark: str | None = f"shop:apps/Deployment:{NAMESPACE}/{NAME}") -> WorkloadView:
    """As much of the workload as its owner is found by."""
    ref = ObjectRef(kind="Deployment", namespace=NAMESPACE, name=NAME)
    return WorkloadView(
        target=TargetState(ref=ref, uid="u", resource_version="1", token="u/generation=1"),
        observed_at=datetime.now(UTC),
        desired_replicas=2,
        updated_replicas=2,
        ready_replicas=2,
        available_replicas=2,
        paused=False,
        rollout_complete=True,
        progress_deadline_exceeded=False,
        current_revision=1,
        revisions=(),
        pods=(),
        config_maps=(),
        managed_by="argocd",
        managed_as=mark,
    )


class _World:
    """The stand-in, the image in its cluster, and the ports of two accounts."""

    def __init__(self, folder: Path) -> None:
        self.live: str | None = None
        self.repository = GitRepository.create(folder, NAMESPACE, NAME)
        self.standin = ArgoStandIn(
            repository=self.repository, live_image=lambda: self.live, deploy=self._deploy
        )
        self.repository.release("shop:1")
        self.standin.reconcile()

    def _deploy(self, image: str) -> None:
        self.live = image

    def ports(self, url: str) -> GitOps:
        settings = Settings(
            _env_file=None,
            dry_run=False,
            argocd_url=url,
            argocd_token=TOKEN,
            git_revert="branch",
            git_repositories=[str(self.repository.bare)],
        )
        return KIND.connect(settings, connect_repositories(settings)).ports


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[tuple[_World, GitOpsWorld]]:
    world = _World(tmp_path)
    weaker = replace(world.standin, rights={"get", "sync"})
    async with loopback(world.standin.rule) as server, loopback(weaker.rule) as other:

        async def view() -> WorkloadView:
            return workload()

        async def image() -> str | None:
            return world.live

        async def change_behind(image: str) -> None:
            world.live = image

        async def close_window() -> None:
            world.standin.can_sync = False

        yield (
            world,
            GitOpsWorld(
                ports=world.ports(server.url),
                limited=world.ports(other.url),
                ref=REF,
                repository=world.repository,
                address=str(world.repository.bare),
                view=view,
                image=image,
                change_behind=change_behind,
                close_window=close_window,
                refusals=ARGO_CD,
            ),
        )


class TestArgoCdStandIn(GitOpsContract):
    @pytest.fixture
    def world(self, made: tuple[_World, GitOpsWorld]) -> GitOpsWorld:
        return made[1]


async def test_older_versions_have_automated_sync_removed(made: tuple[_World, GitOpsWorld]) -> None:
    """`enabled` is not known before 3.1; the recorded policy comes back whole."""
    standin, world = made[0].standin, made[1]
    standin.version = "v2.14.3+abc"
    await world.writer.switch_off(REF, INTENT)
    assert standin.automated is None
    await world.writer.restore(REF, {"prune": True, "selfHeal": True})
    assert standin.automated == {"prune": True, "selfHeal": True}


@pytest.mark.parametrize(
    ("fate", "error"),
    [
        (Fate.SWALLOW, UnknownOutcome),
        (Fate.CLOSE, UnknownOutcome),
        (refusal(14, "upstream connect error"), UnknownOutcome),
        (refusal(8, "rate limited"), TransientError),
        (refusal(9, "another operation is already in progress"), Invalid),
        (refusal(16, "no session information"), Forbidden),
    ],
)
async def test_a_write_says_whether_it_may_have_happened(
    made: tuple[_World, GitOpsWorld], fate: object, error: type[Exception]
) -> None:
    """Only an answer that is a refusal says that nothing was changed."""
    made[0].standin.fates["PATCH shop"] = fate  # type: ignore[assignment] # a fate or an answer
    with pytest.raises(error) as found:
        await made[1].writer.switch_off(REF, INTENT)
    assert type(found.value) is error


@pytest.mark.parametrize("mark", ["shop", None, "other:apps/Deployment:else/where"])
async def test_an_application_is_found_without_its_tracking_id(
    made: tuple[_World, GitOpsWorld], mark: str | None
) -> None:
    """By an instance label, or by the resources that applications list; a copied mark does not count."""
    found = await made[1].ports.reader.owner_of(workload(mark))
    assert found is not None
    assert found.ref == REF


async def test_the_token_is_sent_to_listed_repositories_alone(
    made: tuple[_World, GitOpsWorld], tmp_path: Path
) -> None:
    """An application may name any repository; the agent writes to those of GIT_REPOSITORIES."""
    world = made[1]
    settings = Settings(
        _env_file=None, dry_run=False, git_revert="branch", git_repositories=[str(tmp_path / "other")]
    )
    elsewhere = replace(world, ports=replace(world.ports, repository=connect_repositories(settings)))
    with pytest.raises(Forbidden, match="GIT_REPOSITORIES does not list"):
        await GitOpsContract()._revert_and_merge(elsewhere, world.repository.head(), world.repository.head())
