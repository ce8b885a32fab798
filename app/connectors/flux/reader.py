"""Reads the Kustomization of a workload by the labels that Flux puts on it, and the source behind it."""

from __future__ import annotations

from dataclasses import replace

from app.agent.evidence.format import counted
from app.agent.gitops.application import Application, ApplicationRef
from app.agent.guardrails.limits.clusters import in_words
from app.agent.ids import JsonObject
from app.agent.models import Rehearsal
from app.agent.workload import WorkloadView
from app.connectors.flux.answers import (
    OWNER,
    TITLE,
    Deployed,
    application_from,
    images_at,
    lists,
    release_from,
    succeeded,
)
from app.connectors.flux.api import FluxApi, FluxKind
from app.connectors.flux.obstacles import others
from app.connectors.git.contents import RepositoryContents, Tip
from app.connectors.kubernetes.fields import name, text
from app.errors import Forbidden, Invalid, PermanentError

_MOST_NAMED = 3


class FluxReader:
    """`ApplicationReader` and `ApplicationRehearsal` over Flux's custom resources."""

    def __init__(self, api: FluxApi, contents: RepositoryContents | None) -> None:
        """`api` must come from a dry-run connection; `contents` compares commits, None without GIT_REVERT."""
        if not api.dry_run:
            raise ValueError("a rehearsal over a connection that persists")
        self._api = api
        self._contents = contents

    async def ping(self) -> str:
        """What is there; raises when the API server does not answer, or does not let the agent read it."""
        found = [await self._api.everywhere(kind) for kind in FluxKind]
        return f"with {counted(len(found[0]), 'Kustomization')}"

    async def owner_of(self, workload: WorkloadView) -> Application | None:
        target = workload.target.ref
        kind, _, rest = (workload.managed_as or "").partition(":")
        if workload.managed_by != OWNER or not rest:
            return None
        if target.cluster:
            # Clusters name their Kustomizations alike: that of another must not be rolled back.
            raise Invalid(
                f"the {TITLE} of {in_words(target.cluster)} is not connected: FLUX_ENABLED is about the "
                "cluster of KUBECONFIG alone; revert the change in Git"
            )
        ref = ApplicationRef.parse(rest)
        if kind == FluxKind.HELM_RELEASE:
            return release_from(await self._api.get(FluxKind.HELM_RELEASE, ref.namespace, ref.name))
        if kind != FluxKind.KUSTOMIZATION:
            return None
        found = await deployed(self._api, ref)
        if not lists(found.kustomization, target):
            raise Invalid(f"{TITLE} Kustomization {ref} does not list {target} in its inventory")
        read = application_from(found, None, await self._more(found))
        good = succeeded(found)
        history = tuple(
            replace(one, images=images_at(workload.revisions, one, newer) if one.revision in good else None)
            for one, newer in zip(read.history, (None, *read.history), strict=False)
        )
        return replace(read, history=history)

    async def application(self, ref: ApplicationRef, *, refresh: bool = False) -> Application:
        found = await deployed(self._api, ref)
        if not refresh:
            return application_from(found, None, await self._more(found))
        return application_from(found, await self._tip(found))

    async def rehearse(self, ref: ApplicationRef, history_id: int) -> Rehearsal:
        """The obstacles and the entry are checked, and the API server is asked with `dryRun=All`."""
        try:
            found = await deployed(self._api, ref)
            read = application_from(found, None, await self._more(found))
            problems = [*read.obstacles]
            entry = next((one for one in read.history if one.id == history_id), None)
            if entry is None:
                problems.append(f"its history has no entry {history_id}")
            elif not problems:
                await self._try(found, entry.revision)
        except PermanentError as error:
            problems = [str(error)]
        if problems:
            return Rehearsal(accepted=False, message="; ".join(problems))
        checked = (
            "its source and the history were checked, and the API server accepts the change of the source"
        )
        return Rehearsal(accepted=True, message=f"{read.in_words} would be rolled back: {checked}")

    async def _try(self, found: Deployed, commit: str | None) -> None:
        space, named = text(found.source, "metadata", "namespace") or "", name(found.source)
        reference: JsonObject = {"commit": commit}
        change: JsonObject = {"spec": {"ref": reference}} if commit is not None else {"metadata": {}}
        await self._api.merge(FluxKind.GIT_REPOSITORY, space, named, change)

    async def _more(self, found: Deployed) -> list[str]:
        """Obstacles beyond the two objects: who else takes the source, rights, and the repository."""
        if not found.source:
            return []
        kustomization = f"{TITLE} Kustomization {text(found.kustomization, 'metadata', 'namespace')}/"
        kustomization += name(found.kustomization)
        repository = f"GitRepository {name(found.source)} of {kustomization}"
        more = []
        sharing = others(
            found.kustomization, found.source, *[await self._api.everywhere(kind) for kind in _SHARING]
        )
        if sharing:
            also = ", ".join(sharing[:_MOST_NAMED]) + (" and others" if len(sharing) > _MOST_NAMED else "")
            more.append(
                f"{repository} is shared with {also}, which would be rolled back as well: revert it in Git"
            )
        if self._contents is None or not self._contents.allows(found.repository):
            setting = (
                "GIT_REVERT is not set" if self._contents is None else "GIT_REPOSITORIES does not list it"
            )
            more.append(
                f"the agent may not read the repository of {kustomization} ({setting}), and could not tell "
                "when Git asks for what runs: revert it in Git"
            )
        try:
            await self._try(found, None)
        except Forbidden as error:
            more.append(f"the agent may not patch {repository}: revert it in Git ({error})")
        return more

    async def _tip(self, found: Deployed) -> Tip | None:
        """What the branch asks for, compared with the commit that the source is held at."""
        if found.pinned is None or self._contents is None:
            return None
        return await self._contents.tip(found.repository, found.branch, found.path, found.pinned)


_SHARING = (FluxKind.KUSTOMIZATION, FluxKind.HELM_RELEASE, FluxKind.GIT_REPOSITORY)


async def deployed(api: FluxApi, ref: ApplicationRef) -> Deployed:
    """A Kustomization with its source, as they are now."""
    kustomization = await api.get(FluxKind.KUSTOMIZATION, ref.namespace, ref.name)
    if text(kustomization, "spec", "sourceRef", "kind") != FluxKind.GIT_REPOSITORY:
        return Deployed(kustomization=kustomization, source={})
    space = text(kustomization, "spec", "sourceRef", "namespace") or ref.namespace
    named = text(kustomization, "spec", "sourceRef", "name") or ""
    return Deployed(kustomization=kustomization, source=await api.get(FluxKind.GIT_REPOSITORY, space, named))
