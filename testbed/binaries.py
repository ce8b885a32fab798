"""Finds the control plane's programs, or builds them from their Go modules into a cache folder.

Called by `testbed.controlplane` and `python -m testbed build`. The versions are
those of `binaries/go.mod`, which go.sum pins by content.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from testbed import TestbedError

MODULE = Path(__file__).parent / "binaries"
GO_FOLDER = "/usr/local/go/bin"
"""Where Go's installer puts it; often not on PATH."""
PACKAGES = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Versions:
    """What go.mod asks for, such as `v1.36.3`."""

    kubernetes: str
    etcd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Binaries:
    """Where the four programs are."""

    folder: Path

    def path(self, name: str) -> str:
        return str(self.folder / name)


def pinned_versions() -> Versions:
    """The versions in `binaries/go.mod`."""
    text = (MODULE / "go.mod").read_text()

    def required(module: str) -> str:
        found = re.search(rf"^\s*{re.escape(module)} (v\S+)$", text, re.MULTILINE)
        if found is None:
            raise TestbedError(f"{MODULE / 'go.mod'} does not require {module}")
        return found.group(1)

    return Versions(kubernetes=required("k8s.io/kubernetes"), etcd=required(PACKAGES["etcd"]))


def cache_folder() -> Path:
    """Where built programs are kept, one folder for each pair of versions."""
    root = os.environ.get("HEAL_TESTBED_CACHE")
    versions = pinned_versions()
    name = f"k8s-{versions.kubernetes}-etcd-{versions.etcd}"
    return (Path(root) if root else Path.home() / ".cache" / "heal-testbed") / name


def ensure_binaries(tell: Callable[[str], None] = print) -> Binaries:
    """The programs: from `KUBEBUILDER_ASSETS`, else from the cache, else built now (some ten minutes).

    Raises `TestbedError` when a folder that was named lacks one, when Go is
    missing, or when the build fails.
    """
    assets = os.environ.get("KUBEBUILDER_ASSETS")
    if assets:
        missing = _missing(Path(assets))
        if missing:
            raise TestbedError(f"KUBEBUILDER_ASSETS={assets} lacks {', '.join(missing)}")
        return Binaries(folder=Path(assets))
    folder = cache_folder()
    if _missing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock"):
            for name in _missing(folder):  # again: another process may have built them meanwhile
                _build(name, folder, tell)
    return Binaries(folder=folder)


def _missing(folder: Path) -> tuple[str, ...]:
    return tuple(name for name in PACKAGES if not os.access(folder / name, os.X_OK))


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Only one process at a time within; the others wait."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def go_program() -> str:
    """Where Go is; raises `TestbedError` with the fix when it is not installed."""
    go = shutil.which("go") or shutil.which("go", path=GO_FOLDER)
    if go is None:
        raise TestbedError(
            "the control plane's programs are not built yet and Go is not installed: install Go "
            "(https://go.dev/dl), or point KUBEBUILDER_ASSETS at a folder with " + ", ".join(PACKAGES)
        )
    return go


def _build(name: str, folder: Path, tell: Callable[[str], None]) -> None:
    go = go_program()
    version = pinned_versions().kubernetes
    major, minor = version.removeprefix("v").split(".")[:2]
    stamp = "k8s.io/component-base/version"
    flags = f"-s -w -X {stamp}.gitVersion={version} -X {stamp}.gitMajor={major} -X {stamp}.gitMinor={minor}"
    tell(f"building {name} into {folder}; this happens once")
    unfinished = folder / f".{name}.building"
    try:
        done = subprocess.run(
            [go, "build", "-trimpath", "-ldflags", flags, "-o", str(unfinished), PACKAGES[name]],
            cwd=MODULE,
            env={**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise TestbedError(f"go build {PACKAGES[name]} failed:\n{done.stdout[-4000:]}")
        unfinished.replace(folder / name)
    finally:
        unfinished.unlink(missing_ok=True)
