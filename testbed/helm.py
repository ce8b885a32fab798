"""A real Helm, built from its Go module: renders the shipped chart in tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from testbed import TestbedError
from testbed.go_tool import GoTool

HELM = GoTool(name="helm", module="helm.sh/helm/v4", package="helm.sh/helm/v4/cmd/helm")
_SECONDS = 120.0


def helm(*arguments: str | Path) -> str:
    """The output of `helm ARGUMENTS`; raises `TestbedError` with what it said when it fails."""
    done = subprocess.run(
        [str(HELM.ensure()), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
    )
    if done.returncode != 0:
        raise TestbedError(f"helm {arguments[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
