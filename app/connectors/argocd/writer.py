"""Changes Applications: the sync policy, and rollbacks. Constructed only when `DRY_RUN=false`."""

from __future__ import annotations

import json
import re

from app.agent.gitops.application import ApplicationRef
from app.agent.ids import IntentId, JsonObject
from app.connectors.argocd.answers import MARK
from app.connectors.argocd.client import ArgoClient, application_path

_VERSION = re.compile(r"v?(\d+)\.(\d+)")
_KNOWS_ENABLED = (3, 1)
"""The first version in which `automated.enabled: false` switches automated sync off."""


class ArgoWriter:
    """`ApplicationWriter` over Argo CD's API."""

    def __init__(self, client: ArgoClient) -> None:
        self._client = client

    async def switch_off(self, ref: ApplicationRef, intent_id: IntentId) -> None:
        """In the form that this version understands: `enabled: false`, or `automated` removed."""
        version = await self._client.get("/api/version")
        newer = knows_enabled(str(version.get("Version", "")))
        off: JsonObject | None = {"enabled": False} if newer else None
        await self._patch(ref, intent_id, {"automated": off})

    async def roll_back(self, ref: ApplicationRef, history_id: int, *, prune: bool) -> None:
        body: JsonObject = {"name": ref.name, "id": history_id, "prune": prune, "dryRun": False}
        await self._client.write("POST", application_path(ref, "rollback"), {**body, **_namespace(ref)})

    async def restore(self, ref: ApplicationRef, policy: JsonObject) -> None:
        # A merge keeps what it does not name: `enabled` was perhaps not there before.
        automated: JsonObject = {"enabled": None, **policy}
        await self._patch(ref, None, {"automated": automated})

    async def _patch(self, ref: ApplicationRef, mark: str | None, policy: JsonObject) -> None:
        """One request for policy and mark."""
        patch: JsonObject = {"metadata": {"annotations": {MARK: mark}}, "spec": {"syncPolicy": policy}}
        body: JsonObject = {"name": ref.name, "patchType": "merge", "patch": json.dumps(patch)}
        await self._client.write("PATCH", application_path(ref), {**body, **_namespace(ref)})


def knows_enabled(version: str) -> bool:
    """Whether this version of Argo CD reads `automated.enabled`; an unreadable one is taken for a new one."""
    found = _VERSION.match(version)
    return found is None or (int(found[1]), int(found[2])) >= _KNOWS_ENABLED


def _namespace(ref: ApplicationRef) -> JsonObject:
    return {"appNamespace": ref.namespace} if ref.namespace else {}
