"""The revert as a branch: one commit, made and pushed with the local `git` program.

The branch is named after the intent, so that a second attempt finds the first one. The
commit gives the application's path the content of the good revision, on top of the
branch that the application follows; that branch itself is never written. Credentials
are sent to the repositories of GIT_REPOSITORIES alone.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from app.agent.ports.gitops import RevertRequest
from app.connectors.git.program import GitProgram
from app.errors import Invalid


class BranchWriter:
    """`RepositoryWriter` that pushes a branch; a person merges it."""

    def __init__(self, git: GitProgram) -> None:
        self._git = git

    async def find(self, request: RevertRequest) -> str | None:
        self._check(request)
        branch = branch_of(request)
        found = await self._git.run(
            ["ls-remote", "--heads", "--", request.repository, f"refs/heads/{branch}"]
        )
        return _words(request) if found.strip() else None

    async def open(self, request: RevertRequest) -> str:
        self._check(request)
        with tempfile.TemporaryDirectory(prefix="heal-revert-") as folder:
            await self._committed(request, Path(folder))
            branch = branch_of(request)
            await self._git.run(["push", "origin", f"HEAD:refs/heads/{branch}"], folder, writes=True)
        return _words(request)

    async def _committed(self, request: RevertRequest, folder: Path) -> None:
        """The commit of the revert, checked out in `folder`."""
        here = str(folder)
        branch, path = request.target_revision, request.path or "."
        cloning = ["clone", "--quiet", "--no-tags", "--single-branch"]
        named = [] if branch == "HEAD" else ["--branch", branch]
        await self._git.run([*cloning, *named, "--", request.repository, here])
        await self._git.run(["rm", "-r", "--quiet", "--ignore-unmatch", "--", path], here)
        await self._git.run(["checkout", "--quiet", request.good, "--", path], here)
        changed = await self._git.run(["status", "--porcelain"], here)
        if not changed.strip():
            raise Invalid(
                f"{path} is the same in {request.good[:8]} and on {branch}: the change lies outside of it"
            )
        message = f"{request.title}\n\n{request.body}"
        await self._git.run(["commit", "--quiet", "--no-verify", "-m", message], here)

    def _check(self, request: RevertRequest) -> None:
        self._git.check(request.repository, request.target_revision, request.path, request.good)


def branch_of(request: RevertRequest) -> str:
    """The branch of an intent's revert."""
    return f"heal/revert-{request.intent_id}"


def _words(request: RevertRequest) -> str:
    return f"branch {branch_of(request)} of {request.repository}"
