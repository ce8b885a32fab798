"""Reverts as pull requests at GitHub and merge requests at GitLab, over their published REST APIs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.agent.ids import IntentId
from app.agent.ports.gitops import RevertRequest
from app.connectors.git.branch import BranchWriter, branch_of
from app.connectors.git.program import GitAccess, GitProgram
from app.connectors.git.pull_requests import GITHUB, GITLAB, Forge, PullRequestWriter
from app.connectors.http import HttpPeer
from app.errors import Forbidden, Invalid, UnknownOutcome
from tests.contract.gitops_repository import FOLDER, GitRepository
from tests.contract.loopback import Answer, Fate, Loopback, Request, loopback

REPOSITORY = "https://forge.example.com/team/shop.git"


class _Branches:
    """Keeps what was pushed; the branch itself is tested over a real repository."""

    def __init__(self) -> None:
        self.pushed: list[str] = []

    async def find(self, request: RevertRequest) -> str | None:
        return branch_of(request) if self.pushed else None

    async def open(self, request: RevertRequest) -> str:
        self.pushed.append(branch_of(request))
        return branch_of(request)


def request(**changes: str) -> RevertRequest:
    values = {
        "repository": REPOSITORY,
        "target_revision": "main",
        "path": FOLDER,
        "good": "a" * 40,
        "bad": "b" * 40,
        "title": "Revert apps/shop",
        "body": "The service recovered.",
        **changes,
    }
    return RevertRequest(intent_id=IntentId("int_1"), **values)


def writer(forge: Forge, server: Loopback, branches: _Branches) -> PullRequestWriter:
    peer = HttpPeer(name=forge.title, setting="GIT_API_URL", url=server.url, timeout_seconds=60)
    return PullRequestWriter(forge, peer, branches)


@pytest.mark.parametrize(
    ("forge", "path", "fields"),
    [
        (GITHUB, "/repos/team/shop/pulls", {"head": "heal/revert-int_1", "base": "main"}),
        (
            GITLAB,
            "/api/v4/projects/team%2Fshop/merge_requests",
            {"source_branch": "heal/revert-int_1", "target_branch": "main"},
        ),
    ],
    ids=["github", "gitlab"],
)
async def test_one_request_is_opened_however_often_it_is_tried(
    forge: Forge, path: str, fields: dict[str, str]
) -> None:
    """The branch is pushed once; an answer that was lost is found by the list of open requests."""
    made: list[dict[str, str]] = []
    lost = True

    def rule(one: Request) -> Fate | Answer:
        nonlocal lost
        assert one.target.partition("?")[0] == path
        found = [{forge.address: "https://forge.example.com/1"} for _ in made]
        if one.method == "GET":
            return Answer(code=200, body=json.dumps(found).encode())
        made.append(json.loads(one.body))
        if lost:
            lost = False
            return Fate.CLOSE
        return Answer(code=201, body=json.dumps({forge.address: "https://forge.example.com/1"}).encode())

    branches = _Branches()
    async with loopback(rule) as server:
        connected = writer(forge, server, branches)
        with pytest.raises(UnknownOutcome):
            await connected.open(request())
        assert await connected.open(request()) == f"{forge.title} request https://forge.example.com/1"
    assert branches.pushed == ["heal/revert-int_1"]
    (sent,) = made
    assert {key: sent[key] for key in fields} == fields


async def test_a_refusal_is_an_error_of_its_kind() -> None:
    """A token without the right, and a request that the service rejects."""
    for status, error in ((403, Forbidden), (422, Invalid)):
        answer = Answer(code=status, body=b"{}")
        async with loopback(lambda _, said=answer: said) as server:  # type: ignore[misc] # bound now
            with pytest.raises(error):
                await writer(GITHUB, server, _Branches()).open(request())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"repository": "--upload-pack=x"}, "GIT_REPOSITORIES"),
        ({"repository": REPOSITORY}, "GIT_REPOSITORIES"),
        ({"good": "--output=x"}, "names no commit"),
        ({"target_revision": "--force"}, "names no commit"),
        ({"path": "../other"}, "is not a path"),
        ({"path": "docs"}, "refused|failed|lies outside"),
    ],
)
async def test_what_an_application_names_becomes_no_option(
    tmp_path: Path, changes: dict[str, str], words: str
) -> None:
    """Repository, commit, branch and path are checked before git runs, and nothing is pushed."""
    repository = GitRepository.create(tmp_path, "prod", "shop")
    good = repository.release("shop:1")
    repository.release("shop:2")
    access = GitAccess(repositories=(str(tmp_path),), username="git", token=None, timeout_seconds=60)
    values = {"repository": str(repository.bare), "good": good, **changes}
    with pytest.raises((Invalid, Forbidden), match=words):
        await BranchWriter(GitProgram(access)).open(request(**values))
    assert repository.branches() == []
