"""The connector of Flux over a stand-in that is built from its published resources; it is no Flux."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.register_assert_rewrite("tests.contract.gitops_suite")

from app.agent.gitops.application import Application, ApplicationRef  # noqa: E402 - after the rewrite
from app.agent.ports.gitops import GitOps  # noqa: E402 - as above
from app.agent.workload import ObjectRef, Revision, TargetState, WorkloadView  # noqa: E402 - as above
from app.config import Settings  # noqa: E402 - as above
from app.connectors.flux.reader import FluxReader  # noqa: E402 - as above
from app.connectors.flux.registration import KIND  # noqa: E402 - as above
from app.connectors.git.connect import connect_repositories  # noqa: E402 - as above
from app.errors import Forbidden, Invalid, TransientError, UnknownOutcome  # noqa: E402 - as above
from tests.contract.flux_standin import (  # noqa: E402 - as above
    KUSTOMIZATION,
    SOURCE,
    SPACE,
    FluxStandIn,
    kubeconfig_of,
)
from tests.contract.gitops_repository import GitRepository, git  # noqa: E402 - as above
from tests.contract.gitops_suite import FLUX, INTENT, GitOpsContract, GitOpsWorld  # noqa: E402 - as above
from tests.contract.loopback import Answer, Fate, loopback, status  # noqa: E402 - as above

NAMESPACE, NAME = "prod", "shop"
REF = ApplicationRef(namespace=SPACE, name="shop")


class _World:
    """The stand-in, the workload in its cluster, and the ports of two accounts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.images: list[tuple[str, datetime]] = []
        self.repository = GitRepository.create(folder, NAMESPACE, NAME)
        self.standin = FluxStandIn(
            repository=self.repository, live_image=self.live, deploy=self.deploy, now=self.now
        )
        self.repository.release("shop:1")
        self.standin.reconcile()

    def live(self) -> str | None:
        return self.images[-1][0] if self.images else None

    def now(self) -> datetime:
        """A minute passes before each apply: two commits within seconds cannot be distinguished."""
        return datetime.now(UTC) + len(self.images) * timedelta(minutes=1)

    def deploy(self, image: str) -> None:
        self.images.append((image, self.now() + timedelta(minutes=1)))

    def view(self, mark: str | None = f"Kustomization:{SPACE}/shop") -> WorkloadView:
        """As much of the workload as its owner and its history are found by."""
        ref = ObjectRef(kind="Deployment", namespace=NAMESPACE, name=NAME)
        first: dict[str, datetime] = {}
        for image, at in self.images:
            first.setdefault(image, at)
        last = {image: number for number, (image, _) in enumerate(self.images, 1)}
        revisions = [
            Revision(
                number=last[image],
                template_hash=image,
                code_hash=image,
                config_hash="",
                images=(image,),
                created_at=at,
                replicas=0,
                ready_replicas=0,
            )
            for image, at in first.items()
        ]
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
            revisions=tuple(sorted(revisions, key=lambda one: one.number, reverse=True)),
            pods=(),
            config_maps=(),
            managed_by="flux",
            managed_as=mark,
        )

    def ports(self, url: str, **more: Any) -> GitOps:
        settings = Settings(
            _env_file=None,
            **{
                "dry_run": False,
                "flux_enabled": True,
                "kubeconfig": kubeconfig_of(url, self.folder),
                "git_revert": "branch",
                "git_repositories": [str(self.repository.bare)],
                **more,
            },
        )
        return KIND.connect(settings, connect_repositories(settings)).ports


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[tuple[_World, GitOpsWorld]]:
    world = _World(tmp_path)
    weaker = replace(world.standin, rights={"get", "list"})
    async with loopback(world.standin.rule) as server, loopback(weaker.rule) as other:

        async def view() -> WorkloadView:
            return world.view()

        async def image() -> str | None:
            return world.live()

        async def close_window() -> None:
            world.standin.change(KUSTOMIZATION, {"suspend": True})

        async def change_behind(image: str) -> None:
            world.deploy(image)

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
                refusals=FLUX,
            ),
        )


class TestFluxStandIn(GitOpsContract):
    @pytest.fixture
    def world(self, made: tuple[_World, GitOpsWorld]) -> GitOpsWorld:
        return made[1]


def _applied(fields: dict[str, Any]) -> dict[str, Any]:
    return {"manager": "kustomize-controller", "operation": "Apply", "fieldsV1": {"f:spec": fields}}


def _also(kind: str, spec: dict[str, Any]) -> Any:
    return lambda standin: standin.add(f"{kind}/{SPACE}/other", spec)


_REFERENCE = {"kind": "GitRepository", "name": "shop"}
OBSTACLES = {
    "a source of another kind": (
        lambda s: s.change(KUSTOMIZATION, {"sourceRef": {"kind": "OCIRepository", "name": "shop"}}),
        "takes its manifests from OCIRepository shop",
    ),
    "a bucket": (
        lambda s: s.change(KUSTOMIZATION, {"sourceRef": {"kind": "Bucket", "name": "shop"}}),
        "takes its manifests from Bucket shop",
    ),
    "a suspended Kustomization": (lambda s: s.change(KUSTOMIZATION, {"suspend": True}), "is suspended"),
    "a suspended source": (lambda s: s.change(SOURCE, {"suspend": True}), "is suspended"),
    "another cluster": (
        lambda s: s.change(KUSTOMIZATION, {"kubeConfig": {"secretRef": {"name": "x"}}}),
        "another cluster",
    ),
    "force": (lambda s: s.change(KUSTOMIZATION, {"force": True}), "spec.force"),
    "a tag": (lambda s: s.change(SOURCE, {"ref": {"tag": "v1"}}), "follows a tag"),
    "a range": (lambda s: s.change(SOURCE, {"ref": {"semver": ">1"}}), "follows a semver"),
    "a commit": (lambda s: s.change(SOURCE, {"ref": {"commit": "a" * 40}}), "is pinned to a commit"),
    "an include": (
        lambda s: s.change(SOURCE, {"include": [{"repository": {"name": "base"}}]}),
        "includes other",
    ),
    "a generated source": (
        lambda s: s.source["metadata"].update(
            ownerReferences=[{"kind": "ResourceSet", "name": "apps", "uid": "u", "controller": True}]
        ),
        "is generated by ResourceSet apps",
    ),
    "a field that Git sets": (
        lambda s: s.source["metadata"].update(managedFields=[_applied({"f:suspend": {}})]),
        "kustomize-controller sets spec.suspend",
    ),
    "a commit that Git sets": (
        lambda s: s.source["metadata"].update(managedFields=[_applied({"f:ref": {"f:commit": {}}})]),
        "kustomize-controller sets spec.suspend or spec.ref.commit",
    ),
    "a shared source": (
        _also("kustomizations", {"sourceRef": _REFERENCE}),
        "shared with Kustomization flux-system/other",
    ),
    "a chart from it": (
        _also("helmreleases", {"chart": {"spec": {"sourceRef": _REFERENCE}}}),
        "shared with HelmRelease flux-system/other",
    ),
    "included elsewhere": (
        _also("gitrepositories", {"include": [{"repository": {"name": "shop"}}]}),
        "shared with GitRepository flux-system/other",
    ),
    "a dependency": (
        lambda s: s.kustomization["status"].update(
            conditions=[{"type": "Ready", "status": "False", "reason": "DependencyNotReady"}]
        ),
        "waits for a Kustomization that it depends on",
    ),
    "a deletion": (
        lambda s: s.kustomization["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z"),
        "is being deleted",
    ),
}


@pytest.mark.parametrize("case", OBSTACLES)
async def test_what_forbids_a_rollback_is_named(made: tuple[_World, GitOpsWorld], case: str) -> None:
    """One sentence each, a rehearsal that is refused, and no write."""
    world, contract = made
    change, words = OBSTACLES[case]
    assert (await contract.owner()).obstacles == ()
    change(world.standin)
    found = await contract.owner()
    assert words in " ".join(found.obstacles)
    rehearsed = await contract.ports.rehearsal.rehearse(REF, found.history[0].id if found.history else 0)
    assert not rehearsed.accepted
    assert world.standin.writes == []


async def test_a_source_that_another_kustomization_deploys_is_no_obstacle(
    made: tuple[_World, GitOpsWorld],
) -> None:
    """An apply reverts the fields that it names alone, and this one names neither."""
    made[0].standin.source["metadata"]["managedFields"] = [_applied({"f:url": {}, "f:ref": {"f:branch": {}}})]
    assert (await made[1].owner()).obstacles == ()


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"git_revert": None}, "GIT_REVERT is not set"), ({"git_repositories": ["/else"]}, "does not list it")],
)
async def test_a_repository_that_may_not_be_read_is_an_obstacle(
    made: tuple[_World, GitOpsWorld], settings: dict[str, Any], words: str
) -> None:
    """Flux holds the source at a commit: only the repository says what its branch asks for."""
    world = made[0]
    async with loopback(world.standin.rule) as server:
        found = await world.ports(server.url, **settings).reader.owner_of(world.view())
    assert found is not None
    assert words in found.obstacles[0]


async def test_a_dry_run_reads_and_has_no_writer(made: tuple[_World, GitOpsWorld]) -> None:
    """Promise 5: the writing connection is not opened."""
    world = made[0]
    async with loopback(world.standin.rule) as server:
        ports = world.ports(server.url, dry_run=True)
        found = await ports.reader.owner_of(world.view())
    assert found is not None
    assert (ports.writer, ports.repository, found.obstacles) == (None, None, ())
    assert world.standin.writes == []


@pytest.mark.parametrize("mark", [None, "shop", "OCIRepository:a/b"])
async def test_without_the_labels_there_is_no_owner(
    made: tuple[_World, GitOpsWorld], mark: str | None
) -> None:
    """The incident is escalated as before: managed by flux."""
    assert await made[1].ports.reader.owner_of(made[0].view(mark)) is None


async def test_labels_that_were_copied_do_not_count(made: tuple[_World, GitOpsWorld]) -> None:
    """The inventory of the Kustomization must list the workload."""
    world, contract = made
    world.standin.kustomization["status"]["inventory"] = {"entries": [{"id": "prod_other_apps_Deployment"}]}
    with pytest.raises(Invalid, match="does not list"):
        await contract.owner()


async def test_a_workload_of_another_cluster_has_no_owner_in_this_one(
    made: tuple[_World, GitOpsWorld],
) -> None:
    """Its labels name a Kustomization that this cluster has too, and lists a workload of that name."""
    world, contract = made
    view = world.view()
    ref = ObjectRef(kind="Deployment", namespace=NAMESPACE, name=NAME, cluster="east")
    with pytest.raises(Invalid, match="Flux of cluster east is not connected"):
        await contract.ports.reader.owner_of(replace(view, target=replace(view.target, ref=ref)))


@pytest.mark.parametrize("spec", [{"suspend": True}, {"ref": {"branch": "main", "commit": "a" * 40}}])
async def test_what_a_person_holds_is_not_taken_over(
    made: tuple[_World, GitOpsWorld], spec: dict[str, Any]
) -> None:
    """Suspended or pinned after the last look: the write that was refused once is not sent again."""
    standin = made[0].standin
    standin.change(SOURCE, spec)
    with pytest.raises(Invalid, match="suspended or pinned by someone else"):
        await made[1].writer.switch_off(REF, INTENT)
    assert standin.writes == []


async def test_a_helm_release_is_recognised_and_left_to_people(made: tuple[_World, GitOpsWorld]) -> None:
    """Its state and its charts stand in the sentence that hands it over."""
    world, contract = made
    history = [
        {"chartVersion": "1.3.0", "status": "failed"},
        {"chartVersion": "1.2.9", "status": "superseded"},
    ]
    ready = {"type": "Ready", "status": "False", "message": "upgrade failed"}
    world.standin.add("helmreleases/prod/shop", {}, history=history, conditions=[ready])
    found = await contract.ports.reader.owner_of(world.view("HelmRelease:prod/shop"))
    assert found is not None
    (why,) = found.obstacles
    assert "HelmRelease prod/shop (active, Degraded; charts 1.3.0 (failed), before 1.2.9 (superseded))" in why
    assert found.health_message == "upgrade failed"


@pytest.mark.parametrize(
    ("fate", "error"),
    [
        (Fate.SWALLOW, UnknownOutcome),
        (Fate.CLOSE, UnknownOutcome),
        (status(503, "no leader"), UnknownOutcome),
        (status(429, "slow down"), TransientError),
        (status(403, "cannot patch"), Forbidden),
        (status(422, "spec.ref is invalid"), Invalid),
    ],
)
async def test_a_write_says_whether_it_may_have_happened(
    made: tuple[_World, GitOpsWorld], fate: Any, error: type[Exception]
) -> None:
    """Only an answer that is a refusal says that nothing was changed."""
    made[0].standin.fates["PATCH"] = fate
    with pytest.raises(error) as found:
        await made[1].writer.switch_off(REF, INTENT)
    assert type(found.value) is error


async def test_a_status_that_moves_is_read_again(made: tuple[_World, GitOpsWorld]) -> None:
    """A refused version has no effect: the change is sent for the newer one, once."""
    standin = made[0].standin
    standin.fates["PATCH"] = status(409, "the object has been modified")
    await made[1].writer.switch_off(REF, INTENT)
    assert standin.writes == ['{"suspend": true}']


async def test_a_request_that_arrives_late_is_refused(made: tuple[_World, GitOpsWorld]) -> None:
    """Cut off and delivered after the source was given back: it names the version that it was decided on."""
    world = made[0]
    async with loopback(world.standin.rule) as server:
        writer = world.ports(server.url).writer
        assert writer is not None
        await writer.switch_off(REF, INTENT)
        (late,) = [one for one in server.requests if one.method == "PATCH"]
        await writer.restore(REF, {"suspend": None, "commit": None})
    before = list(world.standin.writes)
    answer = world.standin.rule(late)
    assert isinstance(answer, Answer)
    assert answer.code == 409
    assert (world.standin.writes, world.standin.automated) == (before, True)


async def test_the_doctor_reads_every_kind(made: tuple[_World, GitOpsWorld]) -> None:
    """A missing right is found before an incident needs it."""
    world = made[0]
    async with loopback(world.standin.rule) as server:
        reader = world.ports(server.url).reader
        assert isinstance(reader, FluxReader)
        assert await reader.ping() == "with 1 Kustomization"
        world.standin.rights = set()
        with pytest.raises(Forbidden, match="Kustomization in all namespaces"):
            await reader.ping()


async def test_a_source_of_another_intent_is_not_taken_over(made: tuple[_World, GitOpsWorld]) -> None:
    """Two incidents never hold one source."""
    standin = made[0].standin
    standin.source["metadata"]["annotations"] = {"self-healing-devops-agent/intent": "int_other"}
    standin.change(SOURCE, {"suspend": True})
    with pytest.raises(Invalid, match="another action of the agent"):
        await made[1].writer.switch_off(REF, INTENT)
    assert standin.writes == []
    standin.change(SOURCE, {"suspend": None})
    await made[1].writer.switch_off(REF, INTENT)
    assert standin.writes == ['{"suspend": true}']


async def _held(world: _World, contract: GitOpsWorld) -> Application:
    """shop:2 is released and rolled back."""
    good = world.repository.head()
    await contract.released("shop:2")
    entry = next(one for one in (await contract.owner()).history if one.revision == good)
    await contract.writer.switch_off(REF, INTENT)
    await contract.writer.roll_back(REF, entry.id, prune=True)
    return await contract.until(lambda a: not a.busy, "the rollback")


async def test_another_commit_is_not_the_revert(made: tuple[_World, GitOpsWorld]) -> None:
    """A commit elsewhere in the repository does not end the wait, and after the revert it does not hinder."""
    world, contract = made
    good = world.repository.head()
    await _held(world, contract)
    (world.repository.checkout / "README").write_text("Another change.\n")
    world.repository._push("Describe the shop")
    waiting = await contract.ports.reader.application(REF, refresh=True)
    assert (waiting.sync, waiting.desired) == ("OutOfSync", world.repository.head())
    world.repository.release("shop:1")
    (world.repository.checkout / "README").write_text("And another.\n")
    world.repository._push("Describe the shop again")
    reverted = await contract.ports.reader.application(REF, refresh=True)
    assert (reverted.sync, reverted.desired) == ("Synced", world.repository.head())
    assert good != reverted.desired


async def test_a_base_outside_of_the_folder_counts(made: tuple[_World, GitOpsWorld]) -> None:
    """What the kustomization refers to belongs to what Git asks for."""
    world, contract = made
    base = world.repository.checkout / "base"
    base.mkdir()
    (base / "kustomization.yaml").write_text("resources: []\n")
    (world.repository.checkout / "apps/shop/kustomization.yaml").write_text(
        "resources:\n- deployment.yaml\n- ../../base\n"
    )
    world.repository.release("shop:1")
    world.standin.reconcile()
    await _held(world, contract)
    (base / "kustomization.yaml").write_text("resources: []\nnamePrefix: x-\n")
    world.repository.release("shop:1")
    assert (await contract.ports.reader.application(REF, refresh=True)).sync == "OutOfSync"
    (base / "kustomization.yaml").write_text("resources: []\n")
    world.repository._push("Revert the base")
    assert (await contract.ports.reader.application(REF, refresh=True)).sync == "Synced"


async def test_a_template_that_was_used_again_says_nothing_about_its_time(
    made: tuple[_World, GitOpsWorld],
) -> None:
    """The images of an entry are only named where the workload's own history is in order."""
    world, contract = made
    await contract.released("shop:2")
    view = world.view()
    newest, older = view.revisions
    swapped = replace(view, revisions=(replace(older, number=newest.number + 1), newest))
    found = await contract.ports.reader.owner_of(swapped)
    assert found is not None
    assert found.history[0].images is None


async def test_a_commit_that_was_not_healthy_is_none_to_go_back_to(made: tuple[_World, GitOpsWorld]) -> None:
    """Its images are not named, so that no rollback finds it."""
    world, contract = made
    await contract.released("shop:2")
    world.standin.kustomization["status"]["history"][1]["lastReconciledStatus"] = "HealthCheckFailed"
    newest, older = (await contract.owner()).history
    assert (newest.images, older.images) == (("shop:2",), None)


async def test_the_branch_is_the_one_of_exactly_that_name(made: tuple[_World, GitOpsWorld]) -> None:
    """git lists `a/refs/heads/main` for `refs/heads/main` too, and before it."""
    world, contract = made
    good = world.repository.head()
    await _held(world, contract)
    git(world.repository.bare, "update-ref", "refs/heads/a/refs/heads/main", good)
    found = await contract.ports.reader.application(REF, refresh=True)
    assert (found.desired, found.sync) == (world.repository.head(), "OutOfSync")
