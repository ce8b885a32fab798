"""The notification engine of Argo CD as a program of its own, built once from its Go module.

`notifications/main.go` runs the engine's own command line, at the version that Argo CD requires.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from testbed.go_tool import GoTool

NOTIFICATIONS = GoTool(
    name="notifications",
    module="github.com/argoproj/notifications-engine",
    package=".",
)


def notifications(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What one command gives, errors included; it reads files alone, no cluster."""
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(_NOWHERE)
    return subprocess.run(
        [NOTIFICATIONS.ensure(), *arguments, "--kubeconfig", kubeconfig],
        env={**os.environ, "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
    )


_NOWHERE = """\
apiVersion: v1
kind: Config
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
contexts: [{name: none, context: {cluster: none, user: none, namespace: argocd}}]
current-context: none
users: [{name: none, user: {}}]
"""
