"""Rollbacks of workloads that Flux owns: healed through the source, reverted in Git, given back to it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.agent.gitops.steps import GitOpsStep, progress
from app.agent.models import IncidentRecord, IncidentState, OutcomeKind
from app.agent.timeline import verify_chain
from tests.contract.flux_standin import KUSTOMIZATION, SOURCE, SPACE, FluxStandIn
from tests.flux_stories import flux_story
from tests.gitops_stories import Fuse, GitOpsStory
from tests.stories import NAMESPACE, SERVICE, messages

SUSPENDED = '{"suspend": true}'
RESTORED = '{"ref": {"commit": null}, "suspend": null}'
ONLY_RESUMED = '{"suspend": null}'
Told = GitOpsStory[FluxStandIn]


def pinned(commit: str) -> str:
    """The write that holds the source at a commit."""
    return json.dumps({"ref": {"commit": commit}, "suspend": False})


def _reverted(record: IncidentRecord) -> bool:
    return GitOpsStep.REVERT in progress(record, record.intents[0].id).done if record.intents else False


async def _healed(told: Told) -> IncidentRecord:
    """Release a bad version in Git, let the agent heal it, merge its revert, and wait for the end."""
    told.repository.release("shop:2-crash")
    await told.live_until(lambda record: _reverted(record) or record.incident.state.closed)
    for branch in told.repository.branches():
        told.repository.merge(branch)
    return await told.live_until_ended()


async def test_a_workload_of_a_kustomization_is_healed_through_its_source(tmp_path: Path) -> None:
    """Suspended, held, reverted, resumed: it stays healed, and nothing of the agent is left on the source."""
    async with flux_story(tmp_path) as told:
        good = told.repository.head()
        record = await _healed(told)
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        (intent,) = record.intents
        assert intent.outcome is not None
        assert intent.outcome.kind is OutcomeKind.DONE
        assert told.standin.writes == [SUSPENDED, pinned(good), RESTORED]
        assert told.repository.branches() == [f"heal/revert-{intent.id}"]
        assert told.repository.image("main") == "shop:1"
        assert verify_chain(record.incident.id, record.timeline)
        assert "No drift: Flux Kustomization flux-system/shop" in record.incident.summary
        await told.live(120)
        assert told.stage.image() == "shop:1"
        assert told.standin.source["spec"] == {
            "url": str(told.repository.bare),
            "ref": {"branch": "main"},
            "interval": "5s",
        }
        assert not told.standin.source["metadata"]["annotations"]


@pytest.mark.parametrize("call", ["flux.switch_off", "flux.roll_back", "git.open", "flux.restore"])
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_the_end_is_the_same_wherever_the_process_dies(tmp_path: Path, call: str, moment: str) -> None:
    """Killed before or after each call that writes to Flux or to Git: each call once, the same end."""
    async with flux_story(tmp_path, fuse=Fuse(point=f"{call}#1:{moment}")) as told:
        good = told.repository.head()
        record = await _healed(told)
        said = messages(record.timeline)
        assert told.fuse.point is None
        assert record.incident.state is IncidentState.RECOVERED, said
        assert told.standin.writes == [SUSPENDED, pinned(good), RESTORED], said
        assert len(told.repository.branches()) == 1
        assert told.standin.automated
        assert told.stage.image() == "shop:1"


async def test_without_flux_the_incident_is_escalated_with_its_owner(tmp_path: Path) -> None:
    """As before FLUX_ENABLED: the agent changes nothing behind the controller."""
    async with flux_story(tmp_path, connected=False) as told:
        told.repository.release("shop:2-crash")
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "managed by flux" in record.incident.summary
        assert told.standin.writes == []
        assert told.stage.image() == "shop:2-crash"


@pytest.mark.parametrize("case", ["shared", "rights", "suspended", "source"])
async def test_what_cannot_be_rolled_back_is_escalated_with_its_owner(tmp_path: Path, case: str) -> None:
    """One plain sentence that names the owner, and no write."""
    async with flux_story(tmp_path) as told:
        standin = told.standin
        told.repository.release("shop:2-crash")
        await told.live(10)
        reference = {"kind": "GitRepository", "name": "shop"}
        match case:
            case "shared":
                standin.add(f"kustomizations/{SPACE}/cart", {"sourceRef": reference})
                words = "is shared with Kustomization flux-system/cart"
            case "rights":
                standin.rights = {"get", "list"}
                words = "the agent may not patch GitRepository shop"
            case "suspended":
                standin.change(KUSTOMIZATION, {"suspend": True})
                words = "Flux Kustomization flux-system/shop is suspended"
            case _:
                standin.change(KUSTOMIZATION, {"sourceRef": {"kind": "OCIRepository", "name": "shop"}})
                words = "takes its manifests from OCIRepository shop"
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert words in record.incident.summary
        assert standin.writes == []


async def test_a_dry_run_writes_nothing_to_flux_or_git(tmp_path: Path) -> None:
    """Promise 5: it proposes the rollback through the Kustomization, rehearsed by the API server."""
    async with flux_story(tmp_path, dry_run=True) as told:
        told.repository.release("shop:2-crash")
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.PROPOSED
        (intent,) = record.intents
        assert intent.action.parameters["application"] == "flux-system/shop"
        assert intent.rehearsal is not None
        assert intent.rehearsal.accepted, intent.rehearsal.message
        assert (told.standin.writes, told.repository.branches()) == ([], [])


async def test_a_failed_apply_gives_the_source_back(tmp_path: Path) -> None:
    """The agent does not leave a source held for nothing."""
    async with flux_story(tmp_path) as told:
        good = told.repository.head()
        told.repository.release("shop:2-crash")
        await told.live(10)
        told.standin.applies_fail = True
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert told.standin.writes == [SUSPENDED, pinned(good), RESTORED], messages(record.timeline)
        assert told.standin.automated


async def test_a_rollback_that_does_not_help_is_undone_by_the_branch(tmp_path: Path) -> None:
    """The source follows its branch again, and Flux brings back what Git asks for."""
    async with flux_story(tmp_path) as told:
        told.stage.deploy("db", "db:1")
        told.stage.world.set_env(NAMESPACE, SERVICE, {"DEPENDENCY_URL": "http://db"})
        await told.live(240)
        told.repository.release("shop:2")
        await told.live(10)
        told.stage.world.set_replicas(NAMESPACE, "db", 0)
        record = await told.live_until_ended()
        said = messages(record.timeline)
        assert record.incident.state is IncidentState.ESCALATED, said
        assert told.standin.writes[-1] == RESTORED, said
        assert told.repository.branches() == []
        assert told.stage.image() == "shop:2"
        assert "Undo verified" in said


async def test_a_commit_elsewhere_does_not_resume_the_bad_version(tmp_path: Path) -> None:
    """The branch moves without the revert: the source stays held, and the time limit says so."""
    async with flux_story(tmp_path, git_merge_timeout_seconds=300) as told:
        told.repository.release("shop:2-crash")
        await told.live_until(_reverted)
        (told.repository.checkout / "README").write_text("Another change.\n")
        told.repository._push("Describe the shop")
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.ESCALATED
        assert "Automated sync of application flux-system/shop was switched off" in record.incident.summary
        assert not told.standin.automated
        assert told.stage.image() == "shop:1"


async def test_the_kill_switch_between_two_steps_gives_the_source_back(tmp_path: Path) -> None:
    """Promise 11: no further step begins, and the agent's own change is undone."""
    async with flux_story(tmp_path, fuse=Fuse(point="flux.switch_off#1:after")) as told:
        told.repository.release("shop:2-crash")
        while told.standin.automated:
            await told.live(5)
        await told.stage.brake(engaged=True)
        await told.live(120)
        assert told.standin.writes == [SUSPENDED, ONLY_RESUMED]
        assert told.stage.image() == "shop:2-crash"


async def test_a_source_that_a_person_takes_over_is_left_to_them(tmp_path: Path) -> None:
    """While the merge is awaited a person lets the source follow its branch: theirs stays."""
    async with flux_story(tmp_path) as told:
        told.repository.release("shop:2-crash")
        await told.live_until(_reverted)
        told.repository.merge(told.repository.branches()[0])
        before = list(told.standin.writes)
        told.standin.change(SOURCE, {"ref": {"commit": None}})
        record = await told.live_until_ended()
        assert record.incident.state is IncidentState.RECOVERED, messages(record.timeline)
        assert told.standin.writes == before
        assert "changed by others and left as it is" in messages(record.timeline)
