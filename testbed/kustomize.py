"""A real Kustomize, built from its Go module: builds the shipped manifests in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed import TestbedError
from testbed.go_tool import GoTool

KUSTOMIZE = GoTool(
    name="kustomize",
    module="sigs.k8s.io/kustomize/kustomize/v5",
    package="sigs.k8s.io/kustomize/kustomize/v5",
)
_SECONDS = 120.0


def kustomize(folder: Path) -> str:
    """What `kubectl apply -k FOLDER` would send; raises `TestbedError` with what it said when it fails."""
    done = subprocess.run(
        [str(KUSTOMIZE.ensure()), "build", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        raise TestbedError(f"kustomize build {folder} failed:\n{done.stderr}")
    return done.stdout
