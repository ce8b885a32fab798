"""Writes a release into `dist/`: sdist, wheel, chart, SBOM, release notes and checksums.

Run by `make release`, with the tools of `TOOLS` in an environment of their own. The wheel is built from the
sdist. The SBOM is CycloneDX, from `requirements.lock`, and is compared with it.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
TOOLS = ("build>=1.3,<2", "cyclonedx-bom>=7,<8", "setuptools>=77")
CHART = ROOT / "deploy" / "helm" / "self-healing-devops-agent"
LOCK = ROOT / "requirements.lock"
CHECKSUMS = "SHA256SUMS"

_PIN = re.compile(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)


class ReleaseError(Exception):
    """Why no release is written."""


def main() -> None:
    """Write everything; what was in the folder before is removed."""
    version = project_version()
    about = notes((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), version)
    commit_time = _output("git", "log", "-1", "--format=%ct")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": commit_time}  # the same files from the same commit
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    _run("-m", "build", "--no-isolation", "--outdir", str(DIST), str(ROOT), environment=environment)
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    name = f"self-healing-devops-agent-{version}"
    sbom = DIST / f"{name}.cdx.json"
    options = ("--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible", "--of", "JSON")
    _run("-m", "cyclonedx_py", "requirements", str(LOCK), *options, "-o", str(sbom), environment=environment)
    check_sbom(json.loads(sbom.read_text()), LOCK.read_text())
    _pack_chart(DIST / f"{name}-chart.tgz", int(commit_time))
    (DIST / "RELEASE_NOTES.md").write_text(about, encoding="utf-8")
    sums = checksums(DIST)
    (DIST / CHECKSUMS).write_text(sums)
    print(sums, end="")


def project_version() -> str:
    """The version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def notes(changelog: str, version: str) -> str:
    """The section of the changelog about one version; `ReleaseError` without it."""
    found = re.search(rf"^## \[{re.escape(version)}\].*?(?=^## \[|\Z)", changelog, re.MULTILINE | re.DOTALL)
    if found is None:
        raise ReleaseError(f"CHANGELOG.md has no section [{version}]; rename [Unreleased] to it")
    return found[0].strip() + "\n"


def check_sbom(sbom: dict[str, object], lock: str) -> None:
    """`ReleaseError` where the SBOM does not name exactly what the lock file pins."""
    components = sbom.get("components", [])
    assert isinstance(components, list)  # noqa: S101 - the format of CycloneDX
    named = {(_normal(str(one["name"])), str(one["version"])) for one in components}
    pinned = {(_normal(name), version) for name, version in _PIN.findall(lock)}
    if named != pinned:
        raise ReleaseError(f"SBOM and lock file differ: {sorted(named ^ pinned)}")


def checksums(folder: Path) -> str:
    """What `sha256sum --check` reads: each file of the folder, in order."""
    files = sorted(path for path in folder.iterdir() if path.name != CHECKSUMS)
    return "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n" for path in files)


def _pack_chart(target: Path, at: int) -> None:
    """The chart as `helm install` takes it, with the same times and owners everywhere."""

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = at, 0, 0, "", ""
        return entry

    packed = gzip.GzipFile(target, "wb", mtime=at)
    with packed, tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(CHART, CHART.name, filter=plain)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(*arguments: str, environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise ReleaseError(done.stdout + done.stderr)


def _output(*command: str) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    try:
        main()
    except ReleaseError as error:
        sys.exit(str(error))
