"""A service account of the bed's cluster as the identity of an agent."""

from __future__ import annotations

from pathlib import Path

import yaml

from testbed.kubeapi import Api
from testbed.rbac import ADMIN
from testbed.world import TestBed


async def kubeconfig_of(
    account: str, namespace: str, api: Api, bed: TestBed, folder: Path, context: str | None = None
) -> Path:
    """A kubeconfig with a token of the account; `context`: the name of its one context."""
    answer = await api.request(
        "POST",
        f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token",
        {"spec": {"expirationSeconds": 7200}},
    )
    answer.raise_for_status()
    config = yaml.safe_load(bed.control_plane.kubeconfig(ADMIN).read_text())
    for user in config["users"]:
        user["user"] = {"token": answer.json()["status"]["token"]}
    if context is not None:
        config["current-context"] = config["contexts"][0]["name"] = context
    path = folder / f"{account}.kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path
