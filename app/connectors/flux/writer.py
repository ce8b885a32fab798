"""Suspends a source, holds it at a commit, and gives it back. Constructed only when `DRY_RUN=false`.

Each is one merge patch of the GitRepository with the version that it was read in: a
request that was cut off and arrives late is refused by the API server.
"""

from __future__ import annotations

from collections.abc import Callable

from app.agent.gitops.application import ApplicationRef
from app.agent.ids import IntentId, JsonObject
from app.connectors.flux.answers import MARK, Deployed, application_from
from app.connectors.flux.api import FluxApi, FluxKind
from app.connectors.flux.reader import deployed
from app.connectors.kubernetes.fields import name, text
from app.errors import Conflict, Invalid

_ATTEMPTS = 5
"""Controllers write the status of a source at any time: a refused version is read again."""


class FluxWriter:
    """`ApplicationWriter` over Flux's custom resources."""

    def __init__(self, api: FluxApi) -> None:
        self._api = api

    async def switch_off(self, ref: ApplicationRef, intent_id: IntentId) -> None:
        """The source fetches no further commits, and carries the mark of the intent."""

        def change(found: Deployed) -> JsonObject:
            free = not found.suspended and found.pinned is None  # a mark that is left means nothing then
            if not free and found.mark != intent_id:
                by = "someone else" if found.mark is None else "another action of the agent"
                raise Invalid(f"the source of {ref} is suspended or pinned by {by}")
            return {"metadata": {"annotations": {MARK: intent_id}}, "spec": {"suspend": True}}

        await self._patch(ref, change)

    async def roll_back(self, ref: ApplicationRef, history_id: int, *, prune: bool) -> None:  # noqa: ARG002 - the Kustomization says whether it prunes
        """The source serves the commit of the entry, and the Kustomization applies it."""

        def change(found: Deployed) -> JsonObject:
            if found.mark is None or not found.suspended or found.pinned is not None:
                raise Invalid(
                    f"the source of {ref} is not suspended by the agent, so that it is not rolled back"
                )
            history = application_from(found).history
            entry = next((one for one in history if one.id == history_id), None)
            if entry is None:
                raise Invalid(f"the history of {ref} has no entry {history_id}")
            return {"spec": {"suspend": False, "ref": {"commit": entry.revision}}}

        await self._patch(ref, change)

    async def restore(self, ref: ApplicationRef, policy: JsonObject) -> None:
        """The recorded values, without the mark: the source follows its branch again."""

        def change(found: Deployed) -> JsonObject:
            reference: JsonObject = {"ref": {"commit": policy.get("commit")}} if found.pinned else {}
            spec: JsonObject = {"suspend": policy.get("suspend"), **reference}
            return {"metadata": {"annotations": {MARK: None}}, "spec": spec}

        await self._patch(ref, change)

    async def _patch(self, ref: ApplicationRef, change: Callable[[Deployed], JsonObject]) -> None:
        for attempt in range(1, _ATTEMPTS + 1):
            found = await deployed(self._api, ref)
            body = change(found)
            metadata = body.get("metadata")
            version: JsonObject = {"resourceVersion": text(found.source, "metadata", "resourceVersion")}
            body["metadata"] = {**(metadata if isinstance(metadata, dict) else {}), **version}
            space = text(found.source, "metadata", "namespace") or ""
            try:
                await self._api.merge(FluxKind.GIT_REPOSITORY, space, name(found.source), body)
            except Conflict:
                if attempt == _ATTEMPTS:
                    raise
            else:
                return
