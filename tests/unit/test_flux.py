"""A Kustomization and its source as the agent reads them, in the states that pass by."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.agent.gitops.application import OperationPhase, SyncedRevision
from app.agent.ids import Json, JsonObject
from app.connectors.flux.answers import Deployed, application_from, commit_of, history_id, images_at
from app.connectors.git.contents import Tip
from app.connectors.kubernetes.fields import mapping
from tests.unit.scenes import revision

GOOD, BAD = "a" * 40, "b" * 40
AT = "2026-03-01T12:00:00Z"
SAME = Tip(commit=BAD, same=True)


def entry(commit: str, status: str = "ReconciliationSucceeded") -> dict[str, Any]:
    return {
        "digest": f"sha256:{commit}",
        "firstReconciled": AT,
        "lastReconciledStatus": status,
        "metadata": {"revision": f"main@sha1:{commit}"},
    }


def deployed(
    *,
    applied: str = BAD,
    attempted: str = BAD,
    artifact: str = BAD,
    ready: str = "True",
    pinned: str | None = None,
    suspended: bool = False,
    observed: int = 2,
    source_ready: str = "True",
) -> Deployed:
    """By default the newest commit of the branch is applied."""
    reference: dict[str, Any] = {"branch": "main", **({"commit": pinned} if pinned else {})}
    return Deployed(
        kustomization={
            "metadata": {"name": "shop", "namespace": "flux-system", "generation": 1},
            "spec": {"path": "./apps/shop/", "sourceRef": {"kind": "GitRepository", "name": "shop"}},
            "status": {
                "lastAppliedRevision": f"main@sha1:{applied}",
                "lastAttemptedRevision": f"main@sha1:{attempted}",
                "conditions": [
                    {"type": "Ready", "status": ready, "message": "said", "lastTransitionTime": AT}
                ],
                "history": [entry(applied)],
            },
        },
        source={
            "metadata": {"name": "shop", "namespace": "flux-system", "generation": 2},
            "spec": {"url": "https://git.example.com/shop", "ref": reference, "suspend": suspended},
            "status": {
                "observedGeneration": observed,
                "artifact": {"revision": f"main@sha1:{artifact}", "lastUpdateTime": AT},
                "conditions": [
                    {"type": "Ready", "status": source_ready, "message": "no commit", "observedGeneration": 2}
                ],
            },
        },
    )


@pytest.mark.parametrize(
    ("found", "tip", "wanted"),
    [
        (deployed(), None, (True, "Synced", BAD, False)),
        (deployed(suspended=True), None, (False, "Unknown", BAD, False)),
        (deployed(observed=1), None, (True, "OutOfSync", BAD, True)),
        (deployed(applied=GOOD, attempted=GOOD), None, (True, "OutOfSync", BAD, True)),
        (deployed(applied=GOOD, ready="Unknown"), None, (True, "OutOfSync", BAD, True)),
        (deployed(pinned=GOOD), SAME, (False, "OutOfSync", BAD, True)),
        (deployed(pinned=GOOD, artifact=GOOD), SAME, (False, "OutOfSync", BAD, True)),
        (
            deployed(pinned=GOOD, artifact=GOOD, attempted=GOOD, ready="Unknown"),
            SAME,
            (False, "OutOfSync", BAD, True),
        ),
        (
            deployed(pinned=GOOD, artifact=GOOD, attempted=GOOD, applied=GOOD),
            None,
            (False, "OutOfSync", None, False),
        ),
        (
            deployed(pinned=GOOD, artifact=GOOD, attempted=GOOD, applied=GOOD),
            SAME,
            (False, "Synced", BAD, False),
        ),
        (
            deployed(pinned=GOOD, artifact=GOOD, attempted=GOOD, applied=GOOD),
            Tip(commit=BAD, same=False),
            (False, "OutOfSync", BAD, False),
        ),
    ],
)
def test_it_matches_git_only_when_every_part_has_arrived(
    found: Deployed, tip: Tip | None, wanted: tuple[bool, str, str | None, bool]
) -> None:
    """Source fetched, Kustomization applied and ready, and the branch asks for the same."""
    read = application_from(found, tip)
    assert (read.automated, read.sync, read.desired, read.busy) == wanted


@pytest.mark.parametrize(
    ("found", "revision", "phase"),
    [
        (deployed(), BAD, OperationPhase.SUCCEEDED),
        (deployed(ready="Unknown"), BAD, OperationPhase.RUNNING),
        (deployed(ready="False"), BAD, OperationPhase.FAILED),
        (deployed(pinned=GOOD, artifact=GOOD, attempted=BAD, ready="False"), BAD, OperationPhase.RUNNING),
        (deployed(pinned=GOOD, artifact=GOOD, attempted=GOOD), GOOD, OperationPhase.RUNNING),
        (deployed(pinned=GOOD, source_ready="False"), GOOD, OperationPhase.FAILED),
    ],
)
def test_an_apply_has_ended_only_for_the_commit_that_the_source_serves(
    found: Deployed, revision: str, phase: OperationPhase
) -> None:
    """A condition of an earlier commit says nothing about the rollback; a commit that is gone has failed."""
    operation = application_from(found).operation
    assert operation is not None
    assert (operation.revision, operation.phase) == (revision, phase)


def test_two_applies_are_distinguished() -> None:
    """The rollback is another operation than the one before it."""
    before = application_from(deployed()).operation
    after = application_from(deployed(pinned=GOOD, artifact=GOOD, attempted=GOOD)).operation
    assert before is not None
    assert after is not None
    assert before.started_at != after.started_at


def test_a_commit_that_is_being_applied_is_the_newest_entry() -> None:
    """Flux records it only after its health checks, which a bad release fails for minutes."""
    found = deployed(applied=GOOD, ready="Unknown")
    newest, older = application_from(found).history
    assert (newest.revision, older.revision) == (BAD, GOOD)
    state = mapping(found.kustomization, "status")
    history: list[Json] = [entry(BAD, "HealthCheckFailed"), entry(GOOD)]
    recorded: JsonObject = {**found.kustomization, "status": {**state, "history": history}}
    later = application_from(Deployed(kustomization=recorded, source=found.source)).history
    assert [one.id for one in later] == [newest.id, older.id] == [history_id(BAD), history_id(GOOD)]


@pytest.mark.parametrize(
    ("written", "commit"),
    [
        (f"main@sha1:{GOOD}", GOOD),
        (f"sha1:{GOOD}", GOOD),
        (f"main/{GOOD}", GOOD),
        ("latest@sha256:" + "c" * 64, None),
        ("v1.2.3", None),
        (None, None),
    ],
)
def test_the_commit_of_a_revision(written: str | None, commit: str | None) -> None:
    """In each form in which Flux writes it; a digest of another kind of source is no commit."""
    assert commit_of(written) == commit


def test_the_folder_is_a_path_from_the_root() -> None:
    """As git takes it."""
    assert application_from(deployed()).path == "apps/shop"


def test_images_are_those_of_the_newest_template_at_that_time() -> None:
    """And unknown where a template was used again after it, or was there before any."""

    def at(minute: int) -> datetime:
        return datetime(2026, 3, 1, 12, minute, tzinfo=UTC)

    def synced(minute: int) -> SyncedRevision:
        return SyncedRevision(id=1, revision=GOOD, at=at(minute))

    first = replace(revision(1, 0), images=("shop:1",), created_at=at(0))
    second = replace(revision(2, 0), images=("shop:2",), created_at=at(10))
    assert images_at((second, first), synced(0)) == ("shop:1",)
    assert images_at((second, first), synced(11)) == ("shop:2",)
    again = replace(first, number=3)
    assert images_at((again, second), synced(5)) == ("shop:1",)
    assert images_at((again, second), synced(11)) is None
    assert images_at((second,), synced(5)) is None


@pytest.mark.parametrize(
    ("created", "next_at", "known"),
    [(0, 60, True), (1, 60, True), (3, 60, False), (1, 3, False), (0, 3, True)],
)
def test_a_template_that_may_be_of_the_next_commit_is_not_that_of_an_entry(
    created: int, next_at: int, known: bool
) -> None:
    """Two commits within seconds: a rollback to the first must not be taken for one to the second."""
    start = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
    first = replace(revision(1, 0), images=("shop:1",), created_at=start - timedelta(minutes=1))
    second = replace(revision(2, 0), images=("shop:2",), created_at=start + timedelta(seconds=created))
    entry = SyncedRevision(id=1, revision=GOOD, at=start)
    following = SyncedRevision(id=2, revision=BAD, at=start + timedelta(seconds=next_at))
    assert images_at((second, first), entry) == ("shop:2",)
    assert images_at((second, first), entry, following) == (("shop:2",) if known else None)
