"""Runs the local `git` program for the repositories of GIT_REPOSITORIES, and for no others.

Without hooks, prompts and configuration of the machine. Credentials are sent to these
repositories alone, whatever an application names.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import SecretStr

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


def git_program() -> str:
    """The path of git; raises `ConfigurationError` where it is not installed."""
    program = shutil.which("git")
    if program is None:
        raise ConfigurationError("GIT_REVERT needs the program git: install it (image: PACKAGES=git)")
    return program


class GitProgram:
    """Runs commands of git, with the access of the settings."""

    def __init__(self, access: GitAccess) -> None:
        """Raises `ConfigurationError` without the program `git`."""
        self._git = git_program()
        self._access = access
        if access.token is not None:
            remember([access.token.get_secret_value()])

    def allows(self, repository: str) -> bool:
        """Whether the agent may use a repository."""
        return self._access.allows(repository)

    def check(self, repository: str, branch: str, path: str, commit: str) -> None:
        """Nothing from outside becomes an option, an address or a path that is not meant."""
        if not self._access.allows(repository) or repository.startswith("-"):
            raise Forbidden(f"GIT_REPOSITORIES does not list {shorten(repository, 200)}")
        if not _COMMIT.fullmatch(commit) or not _BRANCH.fullmatch(branch):
            raise Invalid("the application follows no branch, or its history names no commit")
        if path and not _PATH.fullmatch(path):
            raise Invalid(f"{shorten(path, 200)!r} is not a path in a repository")

    async def run(self, arguments: Sequence[str], folder: str | None = None, *, writes: bool = False) -> str:
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
