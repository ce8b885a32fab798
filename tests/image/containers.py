"""The image of the product, built by buildah and run by podman: no engine has to be running.

The base image is a Debian of the release that the Dockerfile names, made by mmdebstrap and
imported under the name that it uses: it stands for the published one, which is not fetched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "image" / "Dockerfile"
BASE = Path.home() / ".cache" / "heal-testbed" / "python3-trixie.tar"
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
TAG = "self-healing-devops-agent:test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """A store of images and containers in a folder of its own."""

    folder: Path

    @property
    def _store(self) -> tuple[str, ...]:
        folders = ("--root", str(self.folder / "images"), "--runroot", str(self.folder / "run"))
        return (*folders, "--storage-driver", "vfs")

    def podman(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Runs podman; with `check` its failure raises with what it printed."""
        engine = ("--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file")
        return _run("podman", *self._store, *engine, *arguments, check=check)

    def build(self) -> None:
        """The image of the working copy, as TAG."""
        (name,) = [
            line.partition("=")[2]
            for line in DOCKERFILE.read_text().splitlines()
            if line.startswith("ARG PYTHON_IMAGE=")
        ]
        self.podman("import", str(_base()), name)
        policy = self.folder / "policy.json"
        policy.write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
        options = ("--isolation", "chroot", "--pull-never", "--format", "docker")
        mounts = ("--volume", f"{CERTIFICATES}:{CERTIFICATES}:ro") if Path(CERTIFICATES).exists() else ()
        where = ("--signature-policy", str(policy), "-f", str(DOCKERFILE), "-t", TAG, str(ROOT))
        _run("buildah", *self._store, "bud", *options, *mounts, *where)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[str]:
        """A container as documented: read-only, without capabilities; on the host's network."""
        limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
        hardened = ("--read-only", "--cap-drop=all", "--security-opt=no-new-privileges", "--tmpfs=/tmp")
        started = self.podman("run", "-d", "--network", "host", *limits, *hardened, *arguments, TAG)
        name = started.stdout.strip().splitlines()[-1]
        try:
            yield name
        finally:
            self.podman("rm", "-f", name, check=False)


def _base() -> Path:
    if not BASE.exists():
        BASE.parent.mkdir(parents=True, exist_ok=True)
        made = BASE.with_suffix(f".{os.getpid()}.tar")
        packages = "--include=python3,python3-venv,ca-certificates"
        _run("mmdebstrap", "--variant=minbase", packages, "trixie", str(made))
        made.rename(BASE)
    return BASE


def _run(*command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, (command, done.stdout[-2000:], done.stderr[-4000:])
    return done
