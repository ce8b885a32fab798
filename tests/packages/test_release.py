"""A release: its notes, its bill of materials, one version everywhere, and a wheel that works anywhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.release import LOCK, ROOT, ReleaseError, check_sbom, checksums, notes, project_version

CHANGELOG = (
    "# Changelog\n\n## [Unreleased]\n\n- b\n\n## [0.2.0] - 2026-12-01\n\n- a\n\n## [0.1.0]\n\n- first\n"
)


def test_the_notes_are_the_section_of_the_version() -> None:
    """A version without a section is no release."""
    assert notes(CHANGELOG, "0.2.0") == "## [0.2.0] - 2026-12-01\n\n- a\n"
    with pytest.raises(ReleaseError, match=r"no section \[0\.3\.0\]"):
        notes(CHANGELOG, "0.3.0")


def test_a_bill_that_differs_from_the_lock_file_is_refused() -> None:
    """A package too few, too many, or of another version."""
    lock = "Zope_x[extra]==1.2 \\\n    --hash=sha256:ab\nyaml==6 ; python_version < '4'\n"
    same = [{"name": "zope.x", "version": "1.2"}, {"name": "yaml", "version": "6"}]
    check_sbom({"components": same}, lock)
    for other in (
        same[:1],
        [*same, {"name": "more", "version": "1"}],
        [same[0], {**same[1], "version": "5"}],
    ):
        with pytest.raises(ReleaseError, match="SBOM and lock file differ"):
            check_sbom({"components": other}, lock)
    assert len(re.findall(r"^[a-z].*==", LOCK.read_text(), re.MULTILINE)) > 30


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    """Of every file but the list itself."""
    (tmp_path / "b.whl").write_bytes(b"wheel")
    (tmp_path / "a.tar.gz").write_bytes(b"sdist")
    (tmp_path / "SHA256SUMS").write_text("old")
    (tmp_path / "SHA256SUMS").write_text(checksums(tmp_path))
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert checksums(tmp_path).count("\n") == 2


def test_one_version_stands_everywhere() -> None:
    """Image, compose file, chart and the installation page name the version of the package."""
    files = ("deploy/compose/compose.yaml", "deploy/image/Dockerfile", "docs/install.md")
    named = {
        (file, version)
        for file in files
        for version in re.findall(r"self-healing-devops-agent:(\d[\w.]*)", (ROOT / file).read_text())
    }
    assert named == {(file, project_version()) for file in files}
    chart = (ROOT / "deploy/helm/self-healing-devops-agent/Chart.yaml").read_text()
    assert re.findall(r"^(?:appVersion|version): (.*)$", chart, re.MULTILINE) == [project_version()] * 2


@pytest.mark.real
def test_the_wheel_works_from_any_folder(tmp_path: Path) -> None:
    """Built from the sdist, installed elsewhere: runbooks, policies, schemas and pages come with it."""
    quiet = ("--quiet", "--disable-pip-version-check", "--no-deps")
    pip = (sys.executable, "-m", "pip")
    source = tmp_path / "source"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        if name.startswith(("app/", "runbooks/", "policies/", "docs/policy-input")) or "/" not in name:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", build, tmp_path], cwd=source, check=True, capture_output=True)
    (sdist,) = tmp_path.glob("*.tar.gz")
    subprocess.run([*pip, "wheel", *quiet, "--no-build-isolation", "-w", tmp_path, sdist], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    there, elsewhere = tmp_path / "installed", tmp_path / "elsewhere"
    subprocess.run([*pip, "install", *quiet, "--target", there, wheel], check=True)
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(there), "DATABASE_URL": "sqlite:///heal.db"}

    def heal(*arguments: str) -> str:
        program = "import app, sys; from app.cli import main; print(app.__file__); sys.exit(main())"
        command = [sys.executable, "-P", "-c", program, *arguments]
        done = subprocess.run(
            command, cwd=elsewhere, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(str(there))
        return done.stdout

    assert project_version() in heal("version")
    assert "roll-back-bad-release" in heal("runbooks", "list")
    heal("policy", "check")
    heal("db", "upgrade")
    for shipped in ("app/web/static", "app/settings/services.schema.json", "app/store/migrations/versions"):
        assert (there / shipped).exists()
