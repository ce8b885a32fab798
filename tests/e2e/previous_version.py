"""The version of the product before its newest migration, laid out beside the present one.

It is the commit before the one that added the newest migration file: what a
rolling deploy replaces at the moment when the schema changes. PREVIOUS_VERSION names
another one, such as the tag of the release before. Its dependencies are
this environment's where its lock file asks for nothing else, otherwise those of a
virtual environment of its own, kept for later runs.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
MIGRATIONS = "app/store/migrations/versions"
_PINNED = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One version of the product, and how to run it."""

    tree: Path
    python: Path
    schema: str
    """The newest migration that it knows."""

    def command(self, module: str, *arguments: str) -> list[str]:
        """A module of this version's own tree, whatever is installed or lies in the present directory."""
        return ["env", "-C", str(self.tree), str(self.python), "-P", "-m", module, *arguments]

    def environment(self) -> dict[str, str]:
        return {"PYTHONPATH": str(self.tree), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(self, program: str, *arguments: str) -> str:
        """What a small program says under this version."""
        done = subprocess.run(
            [str(self.python), "-P", "-c", program, *arguments],
            cwd=self.tree,
            env={**os.environ, **self.environment()},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


def present_version() -> Version:
    return Version(tree=ROOT, python=Path(sys.executable), schema=_newest(ROOT)[0])


def previous_version(folder: Path) -> Version:
    """Laid out in `folder`, which is empty."""
    commit = os.environ.get("PREVIOUS_VERSION") or _commit_before(_newest(ROOT)[1])
    packed = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        archive.extractall(folder, filter="data")
    _describe(folder)
    version = Version(tree=folder, python=_python_for(folder), schema=_newest(folder)[0])
    told = version.run("import app, tests.soak.agent; print(app.__file__, tests.soak.agent.__file__)")
    assert told == f"{folder}/app/__init__.py {folder}/tests/soak/agent.py", told
    return version


def _describe(tree: Path) -> None:
    """The metadata of an installed distribution, by which the product knows its version."""
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    described = tree / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    )


def lend(version: Version, name: str) -> None:
    """Give it a test module that it does not have yet."""
    there = version.tree / name
    if not there.exists():
        there.write_bytes((ROOT / name).read_bytes())


def _newest(tree: Path) -> tuple[str, str]:
    """The revision and the path of the newest migration of a tree."""
    file = max((tree / MIGRATIONS).glob("v[0-9]*.py"))
    return file.name[1:5], f"{MIGRATIONS}/{file.name}"


def _commit_before(file: str) -> str:
    # Along the merged line alone: what stands in between on a branch was never deployed.
    added = _git("log", "--first-parent", "-m", "--diff-filter=A", "--format=%H", "-1", "--", file)
    return f"{added}^" if added else "HEAD"


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"the previous version comes from git: {done.stderr}"
    return done.stdout.strip()


def _python_for(tree: Path) -> Path:
    lock = tree / "requirements.lock"
    wanted = {_normal(name): version for name, version in _PINNED.findall(lock.read_text())}
    here = {_normal(one.name): one.version for one in metadata.distributions()}
    if wanted.items() <= here.items():
        return Path(sys.executable)
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    kept = Path.home() / ".cache" / "heal-testbed" / f"previous-{digest}"
    python = kept / "bin" / "python"
    if not (kept / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(kept)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "-r", str(lock)], check=True)
        (kept / "complete").touch()
    return python


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
