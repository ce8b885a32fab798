"""What a connector of a GitOps controller must do, over an application with automated sync and self-heal.

A world is a controller with a repository and a cluster. The stand-ins and the real Argo
CD and Flux run the same tests, so that no stand-in can drift from the servers.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from app.agent.gitops.application import Application, ApplicationRef, OperationPhase
from app.agent.ids import IntentId
from app.agent.ports.gitops import ApplicationWriter, GitOps, RevertRequest
from app.agent.workload import WorkloadView
from app.errors import Forbidden, Invalid, PermanentError
from tests.contract.eventually import eventually
from tests.contract.gitops_repository import FOLDER, GitRepository

INTENT = IntentId("int_0123456789abcdef")
UNKNOWN = ApplicationRef(namespace="argocd", name="nothing-of-this-name")
NO_ENTRY = 999


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusals:
    """How a controller and its connector word what they refuse."""

    automated: str
    """A rollback under automated sync."""
    unknown: str
    """An application that does not exist."""
    right: str
    """The obstacle of an account without the right."""
    closed: str
    """A rehearsal after `close_window`."""


ARGO_CD = Refusals(
    automated="auto-sync is enabled",
    unknown="does not exist, or the account",
    right="may not update",
    closed="sync window",
)
FLUX = Refusals(
    automated="not suspended by the agent", unknown="not found", right="may not patch", closed="is suspended"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GitOpsWorld:
    """One Deployment that an application owns; its first release is deployed already."""

    ports: GitOps
    limited: GitOps
    """The same, for an account that may read and sync and not update."""
    ref: ApplicationRef
    repository: GitRepository
    address: str
    """The repository as the application names it."""
    view: Callable[[], Awaitable[WorkloadView]]
    """The workload as the cluster connector reads it."""
    image: Callable[[], Awaitable[str | None]]
    """What the Deployment in the cluster asks for."""
    change_behind: Callable[[str], Awaitable[None]]
    """A person sets the image in the cluster, past Git."""
    close_window: Callable[[], Awaitable[None]]
    """From now on people forbid every sync: a sync window, or a suspended Kustomization."""
    refusals: Refusals

    @property
    def writer(self) -> ApplicationWriter:
        assert self.ports.writer is not None
        return self.ports.writer

    async def owner(self) -> Application:
        found = await self.ports.reader.owner_of(await self.view())
        assert found is not None
        return found

    async def until(self, holds: Callable[[Application], bool], what: str) -> Application:
        """The application once it is so."""

        async def ask() -> Application | None:
            found = await self.ports.reader.application(self.ref, refresh=True)
            return found if holds(found) else None

        return await eventually(ask, what)

    async def released(self, image: str) -> Application:
        """A release in Git, synced by the controller."""
        commit = self.repository.release(image)
        return await self.until(
            lambda a: (
                bool(a.history) and a.history[0].revision == commit and a.sync == "Synced" and not a.busy
            ),
            f"{image} to be synced",
        )


class GitOpsContract:
    """Subclass it as `TestSomething` and give it a `world` fixture with shop:1 synced."""

    async def test_the_owner_of_a_workload_is_read(self, world: GitOpsWorld) -> None:
        """By its tracking mark, with health, sync state, policy and the images of its history."""
        good = world.repository.head()
        await world.released("shop:2")
        found = await world.owner()
        assert found.ref == world.ref
        assert (found.automated, found.prunes, found.sync) == (True, True, "Synced")
        assert found.obstacles == ()
        assert found.held_by is None
        newest, older = found.history[:2]
        assert (newest.images, older.images) == (("shop:2",), ("shop:1",))
        assert (newest.revision, older.revision) == (world.repository.head(), good)
        assert newest.id != older.id
        assert (found.repository, found.path, found.target_revision) == (world.address, FOLDER, "main")

    async def test_drift_is_healed_under_automated_sync(self, world: GitOpsWorld) -> None:
        """Why the agent never changes such a workload behind its controller."""
        await world.change_behind("shop:9")

        async def healed() -> bool:
            await world.ports.reader.application(world.ref, refresh=True)
            return await world.image() == "shop:1"

        await eventually(healed, "the drift to be healed")

    async def test_refusals_are_errors_of_their_kind(self, world: GitOpsWorld) -> None:
        """A rollback under automated sync, an unknown entry, an unknown application, a missing right."""
        await world.released("shop:2")
        first = (await world.owner()).history[-1]
        with pytest.raises(Invalid, match=world.refusals.automated):
            await world.writer.roll_back(world.ref, first.id, prune=True)
        with pytest.raises(PermanentError, match=world.refusals.unknown):
            await world.ports.reader.application(UNKNOWN)
        assert world.limited.writer is not None
        with pytest.raises(Forbidden):
            await world.limited.writer.switch_off(world.ref, INTENT)
        powerless = await world.limited.reader.owner_of(await world.view())
        assert powerless is not None
        assert world.refusals.right in powerless.obstacles[0]
        await world.writer.switch_off(world.ref, INTENT)
        with pytest.raises(Invalid):
            await world.writer.roll_back(world.ref, NO_ENTRY, prune=True)
        assert await world.image() == "shop:2"

    async def test_a_rehearsal_checks_and_changes_nothing(self, world: GitOpsWorld) -> None:
        """Accepted under automated sync; refused without the right, the entry, or within a window."""
        await world.released("shop:2")
        before = await world.owner()
        first = before.history[-1].id
        accepted = await world.ports.rehearsal.rehearse(world.ref, first)
        assert accepted.accepted, accepted.message
        assert not (await world.ports.rehearsal.rehearse(world.ref, NO_ENTRY)).accepted
        assert not (await world.limited.rehearsal.rehearse(world.ref, first)).accepted
        await world.close_window()
        closed = await world.ports.rehearsal.rehearse(world.ref, first)
        assert world.refusals.closed in closed.message
        after = await world.owner()
        assert (after.policy, after.history, await world.image()) == (before.policy, before.history, "shop:2")

    async def test_a_rollback_holds_until_git_follows(self, world: GitOpsWorld) -> None:
        """Off with the mark, back, revert on a branch, merged, on again: no drift, and it stays."""
        good = world.repository.head()
        await world.released("shop:2")
        before = await world.owner()
        bad, entry = before.history[0], next(one for one in before.history if one.revision == good)
        await world.writer.switch_off(world.ref, INTENT)
        off = await world.ports.reader.application(world.ref)
        assert (off.automated, off.held_by) == (False, INTENT)
        await world.writer.roll_back(world.ref, entry.id, prune=True)

        def rolled_back(found: Application) -> bool:
            operation = found.operation
            done = operation is not None and operation.phase is OperationPhase.SUCCEEDED
            return done and operation is not None and operation.revision == good and not found.busy

        after = await world.until(rolled_back, "the rollback to end")
        assert await world.image() == "shop:1"
        assert after.history[0].revision == good
        out = await world.until(lambda a: a.sync == "OutOfSync", "the difference to Git")
        assert out.desired == bad.revision
        await self._revert_and_merge(world, good, bad.revision)
        await world.until(
            lambda a: a.sync == "Synced" and a.desired == world.repository.head(), "Git to ask for what runs"
        )
        assert before.policy is not None
        await world.writer.restore(world.ref, before.policy)
        restored = await world.ports.reader.application(world.ref)
        assert (restored.policy, restored.held_by) == (before.policy, None)
        await world.change_behind("shop:9")

        async def healed() -> bool:
            await world.ports.reader.application(world.ref, refresh=True)
            return await world.image() == "shop:1"

        await eventually(healed, "self-heal to bring back what Git asks for")

    async def _revert_and_merge(self, world: GitOpsWorld, good: str, bad: str) -> None:
        repository = world.ports.repository
        assert repository is not None
        request = RevertRequest(
            intent_id=INTENT,
            repository=world.address,
            target_revision="main",
            path=FOLDER,
            good=good,
            bad=bad,
            title="Revert apps/shop",
            body="The service recovered after the rollback.",
        )
        assert await repository.find(request) is None
        where = await repository.open(request)
        assert await repository.find(request) == where
        (branch,) = world.repository.branches()
        assert world.repository.image(world.repository.merge(branch)) == "shop:1"
