"""The revert as a branch: one commit, made and pushed with the local `git` program.

The branch is named after the intent, so that a second attempt finds the first one. The
commit gives the application's path the content of the good revision, on top of the
branch that the application follows; that branch itself is never written. Credentials
are sent to the repositories of GIT_REPOSITORIES alone.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from app.agent.ports.gitops import RevertRequest
from app.bounds.deadline import deadline
from app.connectors.text import shorten
from app.errors import ConfigurationError, Forbidden, Invalid, TransientError, UnknownOutcome
from app.redaction import remember

_COMMIT = re.compile("[0-9a-f]{40}")
_BRANCH = re.compile(r"(?!-)(?!.*\.\.)[A-Za-z0-9._/-]{1,200}")
_PATH = re.compile(r"(?!-)(?!.*\.\.)[^\0\n:*?\[]{1,500}")
_MAX_OUTPUT = 4_000
_AUTHOR = "Self-Healing DevOps Agent"
_REFUSED = ("403", "401", "Authentication failed", "could not read Username", "denied", "rejected")
"""How git says that the repository refuses, and is not merely unreachable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GitAccess:
    """How repositories are reached."""

    repositories: tuple[str, ...]
    """The addresses that may be written, or what they begin with, up to a slash."""
    username: str
    token: SecretStr | None
    timeout_seconds: float

    def allows(self, repository: str) -> bool:
        """Whether the agent may write to a repository."""
        plain = repository.removesuffix("/").removesuffix(".git")
        return any(
            plain == one or plain.startswith(f"{one}/")
            for one in (each.removesuffix("/").removesuffix(".git") for each in self.repositories)
        )


class BranchWriter:
    """`RepositoryWriter` that pushes a branch; a person merges it."""

    def __init__(self, access: GitAccess) -> None:
        """Raises `ConfigurationError` without the program `git`."""
        self._git = git_program()
        self._access = access
        if access.token is not None:
            remember([access.token.get_secret_value()])

    async def find(self, request: RevertRequest) -> str | None:
        self._check(request)
        branch = branch_of(request)
        found = await self._run(["ls-remote", "--heads", "--", request.repository, f"refs/heads/{branch}"])
        return _words(request) if found.strip() else None

    async def open(self, request: RevertRequest) -> str:
        self._check(request)
        with tempfile.TemporaryDirectory(prefix="heal-revert-") as folder:
            await self._committed(request, Path(folder))
            branch = branch_of(request)
            await self._run(["push", "origin", f"HEAD:refs/heads/{branch}"], folder, writes=True)
        return _words(request)

    async def _committed(self, request: RevertRequest, folder: Path) -> None:
        """The commit of the revert, checked out in `folder`."""
        here = str(folder)
        branch, path = request.target_revision, request.path or "."
        cloning = ["clone", "--quiet", "--no-tags", "--single-branch"]
        named = [] if branch == "HEAD" else ["--branch", branch]
        await self._run([*cloning, *named, "--", request.repository, here])
        await self._run(["rm", "-r", "--quiet", "--ignore-unmatch", "--", path], here)
        await self._run(["checkout", "--quiet", request.good, "--", path], here)
        changed = await self._run(["status", "--porcelain"], here)
        if not changed.strip():
            raise Invalid(
                f"{path} is the same in {request.good[:8]} and on {branch}: the change lies outside of it"
            )
        message = f"{request.title}\n\n{request.body}"
        await self._run(["commit", "--quiet", "--no-verify", "-m", message], here)

    def _check(self, request: RevertRequest) -> None:
        """Nothing from outside becomes an option, an address or a path that is not meant."""
        if not self._access.allows(request.repository) or request.repository.startswith("-"):
            raise Forbidden(f"GIT_REPOSITORIES does not list {shorten(request.repository, 200)}")
        if not _COMMIT.fullmatch(request.good) or not _BRANCH.fullmatch(request.target_revision):
            raise Invalid("the application follows no branch, or its history names no commit")
        if request.path and not _PATH.fullmatch(request.path):
            raise Invalid(f"{shorten(request.path, 200)!r} is no path of a repository")

    async def _run(self, arguments: Sequence[str], folder: str | None = None, *, writes: bool = False) -> str:
        """The output of git; `UnknownOutcome` where a push was cut off."""
        late: type[TransientError | UnknownOutcome] = UnknownOutcome if writes else TransientError
        process = await asyncio.create_subprocess_exec(
            self._git,
            *arguments,
            cwd=folder,
            env=self._environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        seconds = self._access.timeout_seconds
        try:
            async with deadline(seconds, lambda: late(f"git {arguments[0]} took longer than {seconds:g} s")):
                out, said = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode == 0:
            return out.decode("utf-8", "replace")[:_MAX_OUTPUT]
        words = shorten(said.decode("utf-8", "replace"), 300)
        if any(one in words for one in _REFUSED):
            raise Forbidden(f"git {arguments[0]} was refused: {words}")
        if arguments[0] in ("clone", "ls-remote", "push"):
            raise late(f"git {arguments[0]} failed: {words}")
        raise Invalid(f"git {arguments[0]} failed: {words}")

    def _environment(self) -> Mapping[str, str]:
        """No prompt, no configuration and no hook of this machine; the token in no argument."""
        settings = {
            "core.hooksPath": os.devnull,
            "user.name": _AUTHOR,
            "user.email": "self-healing-devops-agent@localhost",
            "commit.gpgSign": "false",
            "http.followRedirects": "false",
            "protocol.ext.allow": "never",
        }
        if self._access.token is not None:
            pair = f"{self._access.username}:{self._access.token.get_secret_value()}"
            encoded = base64.b64encode(pair.encode()).decode()
            settings |= {
                f"http.{one}.extraHeader": f"Authorization: Basic {encoded}"
                for one in self._access.repositories
            }
        numbered = {
            name: value
            for index, (key, held) in enumerate(settings.items())
            for name, value in ((f"GIT_CONFIG_KEY_{index}", key), (f"GIT_CONFIG_VALUE_{index}", held))
        }
        return {
            "PATH": os.defpath,
            "HOME": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_CONFIG_COUNT": str(len(settings)),
            **numbered,
        }


def git_program() -> str:
    """The path of git; raises `ConfigurationError` where it is not installed."""
    program = shutil.which("git")
    if program is None:
        raise ConfigurationError("GIT_REVERT needs the program git: install it (image: PACKAGES=git)")
    return program


def branch_of(request: RevertRequest) -> str:
    """The branch of an intent's revert."""
    return f"heal/revert-{request.intent_id}"


def _words(request: RevertRequest) -> str:
    return f"branch {branch_of(request)} of {request.repository}"
