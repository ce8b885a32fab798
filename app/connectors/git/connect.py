"""Constructs what may write to repositories, from the settings; nothing in a dry run (promise 5)."""

from __future__ import annotations

from app.agent.ports.gitops import RepositoryWriter
from app.config import Settings
from app.connectors.git.branch import BranchWriter
from app.connectors.git.contents import RepositoryContents
from app.connectors.git.program import GitAccess, GitProgram
from app.connectors.git.pull_requests import GITHUB, GITLAB, PullRequestWriter
from app.connectors.http import HttpPeer
from app.errors import ConfigurationError
from app.settings.entries import RevertWay

_PUBLIC_API = {RevertWay.GITHUB: "https://api.github.com", RevertWay.GITLAB: "https://gitlab.com"}


def connect_repositories(settings: Settings) -> RepositoryWriter | None:
    """None in a dry run and without GIT_REVERT.

    Raises `ConfigurationError` for settings that cannot work.
    """
    way = settings.git_revert
    if way is None:
        return None
    if settings.dry_run and settings.git_repositories:
        return None
    branches = BranchWriter(_program(settings))
    if way is RevertWay.BRANCH:
        return branches
    forge = GITHUB if way is RevertWay.GITHUB else GITLAB
    peer = HttpPeer(
        name=forge.title,
        setting="GIT_API_URL",
        url=settings.git_api_url or _PUBLIC_API[way],
        timeout_seconds=settings.git_timeout_seconds,
        bearer_token=settings.git_token,
    )
    return PullRequestWriter(forge, peer, branches)


def connect_contents(settings: Settings) -> RepositoryContents | None:
    """What reads the same repositories, in a dry run too; None without GIT_REVERT.

    Raises `ConfigurationError` for settings that cannot work.
    """
    return None if settings.git_revert is None else RepositoryContents(_program(settings))


def _program(settings: Settings) -> GitProgram:
    if not settings.git_repositories:
        raise ConfigurationError("GIT_REVERT needs GIT_REPOSITORIES: the repositories that may be written")
    return GitProgram(
        GitAccess(
            repositories=settings.git_repositories,
            username=settings.git_username,
            token=settings.git_token,
            timeout_seconds=settings.git_timeout_seconds,
        )
    )
