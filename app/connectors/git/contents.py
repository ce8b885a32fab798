"""Compares what the newest commit of a branch asks for with an earlier commit. Reads only.

The folder of an application counts, and the folders of the same repository that its
kustomizations refer to, however far.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.connectors.git.program import GitProgram
from app.errors import Invalid

_KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_OUTSIDE = re.compile(r"(?:\./)?\.\./[^\s\"'#,\]]*|\.\.(?=[\s\"'#,\]]|$)")
"""A path in a kustomization that leaves its folder."""
_MOST_FOLDERS = 200
_MOST_BYTES = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The newest commit of a branch."""

    commit: str
    same: bool
    """It asks for the same content as the commit that it was compared with."""


class RepositoryContents:
    """Compares commits in the repositories of GIT_REPOSITORIES."""

    def __init__(self, git: GitProgram) -> None:
        self._git = git
        self._known: dict[tuple[str, str, str, str], Tip] = {}

    def allows(self, repository: str) -> bool:
        """Whether the agent may read a repository."""
        return self._git.allows(repository)

    async def tip(self, repository: str, branch: str, path: str, commit: str) -> Tip:
        """The newest commit of the branch, compared with `commit`; raises like every port."""
        self._git.check(repository, branch, path, commit)
        wanted = f"refs/heads/{branch}"
        named = await self._git.run(["ls-remote", "--heads", "--", repository, wanted])
        # git lists every branch whose name ends so as well.
        lines = (line.partition("\t") for line in named.splitlines())
        head = next((commit for commit, _, ref in lines if ref == wanted), None)
        if head is None:
            raise Invalid(f"{repository} has no branch {branch}")
        asked = (repository, branch, path, commit)
        known = self._known.get(asked)
        if known is None or known.commit != head:
            known = Tip(commit=head, same=await self._same(*asked, head))
            self._known = {asked: known}
        return known

    async def _same(self, repository: str, branch: str, path: str, commit: str, head: str) -> bool:
        with tempfile.TemporaryDirectory(prefix="heal-compare-") as folder:
            cloning = ["clone", "--quiet", "--no-tags", "--single-branch", "--no-checkout"]
            await self._git.run([*cloning, "--branch", branch, "--", repository, folder])
            for one in (commit, head):
                await self._git.run(["checkout", "--quiet", one], folder)
                counted = folders_of(Path(folder), path)
                different = await self._git.run(["diff", "--name-only", commit, head, "--", *counted], folder)
                if different.strip():
                    return False
        return True


def folders_of(root: Path, path: str) -> list[str]:
    """The folders whose content an application takes, below a checkout, as paths from its root."""
    top = root.resolve()
    found: dict[Path, None] = {}
    waiting = [(top / path).resolve()]
    while waiting:
        folder = waiting.pop()
        if folder in found or not folder.is_relative_to(top):
            continue
        found[folder] = None
        if len(found) > _MOST_FOLDERS:
            return ["."]
        waiting += [one for one in _referred(folder) if not any(one.is_relative_to(held) for held in found)]
    return [str(one.relative_to(top)) for one in found]


def _referred(folder: Path) -> Iterator[Path]:
    """What the kustomizations below a folder name outside of their own folders."""
    for name in _KUSTOMIZATIONS:
        for file in folder.rglob(name) if folder.is_dir() else ():
            if file.is_symlink() or file.stat().st_size > _MOST_BYTES:
                continue
            for outside in _OUTSIDE.findall(file.read_text(encoding="utf-8", errors="replace")):
                yield (file.parent / outside).resolve()
