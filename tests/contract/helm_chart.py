"""A chart of one Deployment, released by a real Helm."""

from __future__ import annotations

import json
from pathlib import Path

from testbed.helm import helm


class Releases:
    """Releases of one chart in one namespace."""

    def __init__(self, folder: Path, kubeconfig: Path, namespace: str) -> None:
        (folder / "templates").mkdir(parents=True)
        (folder / "Chart.yaml").write_text("apiVersion: v2\nname: shop\nversion: 1.0.0\n")
        self._folder = folder
        self._where = ("--kubeconfig", kubeconfig, "--namespace", namespace)

    def release(self, image: str, *options: str) -> None:
        """Install or upgrade the release `store`."""
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": "shop",
                "labels": {"app.kubernetes.io/name": "shop", "app.kubernetes.io/managed-by": "Helm"},
            },
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {
                    "metadata": {"labels": {"app": "shop"}},
                    "spec": {"containers": [{"name": "app", "image": image}]},
                },
            },
        }
        (self._folder / "templates" / "shop.yaml").write_text(json.dumps(body))
        helm("upgrade", "store", self._folder, "--install", *self._where, *options)
