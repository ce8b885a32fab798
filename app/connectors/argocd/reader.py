"""Reads the Application of a workload: by configuration, by its tracking mark, else by its resources."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from app.agent.gitops.application import Application, ApplicationRef
from app.agent.ids import JsonObject
from app.agent.models import Rehearsal
from app.agent.workload import ObjectRef, WorkloadView
from app.connectors.argocd.answers import OWNER, application_from, destined, images_in, may_sync, owns
from app.connectors.argocd.client import TITLE, ArgoClient, application_path, in_namespace
from app.errors import Invalid, PermanentError, TransientError

_REVISIONS_RENDERED = 5
"""At most this many revisions of the history are rendered, to compare their images."""
_LISTED = "items.metadata.name,items.metadata.namespace,items.spec.destination,items.status.resources"
_NEEDED = ("update", "sync")
"""The actions on an Application that a rollback takes."""


class ArgoReader:
    """`ApplicationReader` and `ApplicationRehearsal` over Argo CD's API."""

    def __init__(
        self,
        client: ArgoClient,
        applications: Mapping[str, str],
        destinations: Mapping[str, str] | None = None,
    ) -> None:
        """`applications` maps `namespace/deployment` to `namespace/application`.

        `destinations` are the servers or names by which Argo CD knows the named clusters.
        """
        self._client = client
        self._applications = applications
        self._destinations = destinations or {}

    async def ping(self) -> str:
        """The version; raises when Argo CD does not answer, or not with an account."""
        version = await self._client.get("/api/version")
        who = await self._client.get("/api/v1/session/userinfo")
        if who.get("loggedIn") is not True:
            raise Invalid(f"{TITLE} (ARGOCD_URL) does not accept ARGOCD_TOKEN")
        return str(version.get("Version", "unknown"))

    async def owner_of(self, workload: WorkloadView) -> Application | None:
        target = workload.target.ref
        named = self._applications.get(f"{target.namespace}/{target.name}")
        if named is None and workload.managed_by != OWNER:
            return None
        if target.cluster and target.cluster not in self._destinations:
            raise Invalid(
                f"which {TITLE} application deploys {target} is unknown: set argocd_destination of "
                f"CLUSTERS.{target.cluster} to the server or name by which {TITLE} knows that cluster"
            )
        ref = ApplicationRef.parse(named) if named else tracked(workload.managed_as, target)
        if ref is None:
            ref = await self._search(target)
        if ref is None:
            return None
        body = await self._body(ref)
        if not destined(body, target.cluster, self._destinations):
            if named is not None and workload.managed_by != OWNER:
                return None  # named for the workload of another cluster
            raise Invalid(f"{TITLE} application {ref} deploys to another cluster than that of {target}")
        if not owns(body, target):
            raise Invalid(f"{TITLE} application {ref} does not list {target} among its resources")
        found = await self._checked(application_from(body), body)
        missing = [right for right in _NEEDED if not await self._may(right, body)]
        if missing:
            lacking = f"ARGOCD_TOKEN may not {' and '.join(missing)} {found.in_words}: revert it in Git"
            found = replace(found, obstacles=(*found.obstacles, lacking))
        return await self._with_images(found, target)

    async def application(self, ref: ApplicationRef, *, refresh: bool = False) -> Application:
        body = await self._body(ref, refresh=refresh)
        found = application_from(body)
        return found if refresh else await self._checked(found, body)

    async def rehearse(self, ref: ApplicationRef, history_id: int) -> Rehearsal:
        """Rights, windows and the entry are checked, and the entry is rendered.

        Argo CD's own dry run of a rollback is an operation on the application, which is a
        write, and is refused under automated sync.
        """
        try:
            body = await self._body(ref)
            found = await self._checked(application_from(body), body)
            problems = [*found.obstacles]
            lacking = [right for right in _NEEDED if not await self._may(right, body)]
            problems += [f"ARGOCD_TOKEN may not {right} it" for right in lacking]
            if all(one.id != history_id for one in found.history):
                problems.append(f"its history has no entry {history_id}")
            if not problems:
                revision = next(one.revision for one in found.history if one.id == history_id)
                await self._render(found.ref, revision)
        except PermanentError as error:
            problems = [str(error)]
        if problems:
            return Rehearsal(accepted=False, message="; ".join(problems))
        checked = "rights, sync windows and the history were checked, and its manifests rendered"
        return Rehearsal(accepted=True, message=f"{found.in_words} would be rolled back: {checked}")

    async def _render(self, ref: ApplicationRef, revision: str) -> JsonObject:
        return await self._client.get(
            application_path(ref, "manifests"), {**in_namespace(ref), "revision": revision}
        )

    async def _body(self, ref: ApplicationRef, *, refresh: bool = False) -> JsonObject:
        params = in_namespace(ref) | ({"refresh": "normal"} if refresh else {})
        return await self._client.get(application_path(ref), params)

    async def _checked(self, found: Application, body: JsonObject) -> Application:
        """With the sync windows among the obstacles."""
        windows = await self._client.get(application_path(found.ref, "syncwindows"), in_namespace(found.ref))
        if may_sync(windows):
            return found
        project = _project(body)
        closed = f"a sync window of project {project} forbids syncs of {found.in_words} now"
        return replace(found, obstacles=(*found.obstacles, closed))

    async def _may(self, action: str, body: JsonObject) -> bool:
        metadata = body.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else ""
        answer = await self._client.get(
            f"/api/v1/account/can-i/applications/{action}/{_project(body)}/{name}"
        )
        return answer.get("value") == "yes"

    async def _search(self, target: ObjectRef) -> ApplicationRef | None:
        """The one application that lists the object; several are not guessed between."""
        listed = await self._client.get("/api/v1/applications", {"fields": _LISTED})
        items = listed.get("items")
        each = [one for one in items if isinstance(one, dict)] if isinstance(items, list) else []
        refs = sorted(
            str(_ref(one))
            for one in each
            if owns(one, target) and destined(one, target.cluster, self._destinations)
        )
        if len(refs) > 1:
            raise Invalid(f"{target} is listed by several {TITLE} applications: {', '.join(refs)}")
        return ApplicationRef.parse(refs[0]) if refs else None

    async def _with_images(self, found: Application, target: ObjectRef) -> Application:
        """The history with the images that each revision gives the workload."""
        wanted = list(dict.fromkeys(one.revision for one in found.history if one.revision))
        images: dict[str, tuple[str, ...] | None] = {}
        rendered = await asyncio.gather(
            *(self._images(found.ref, revision, target) for revision in wanted[:_REVISIONS_RENDERED])
        )
        images.update(zip(wanted, rendered, strict=False))
        return replace(
            found, history=tuple(replace(one, images=images.get(one.revision)) for one in found.history)
        )

    async def _images(self, ref: ApplicationRef, revision: str, target: ObjectRef) -> tuple[str, ...] | None:
        """None where the revision cannot be rendered any more."""
        try:
            body = await self._render(ref, revision)
        except (PermanentError, TransientError):
            return None
        return images_in(body, target)


def tracked(mark: str | None, target: ObjectRef) -> ApplicationRef | None:
    """The application that a tracking mark names.

    A tracking id names its object too: one that was copied from another object does not
    count. Otherwise the mark is the value of an instance label.
    """
    if not mark:
        return None
    name, separator, rest = mark.partition(":")
    if separator and rest != f"apps/{target.kind}:{target.namespace}/{target.name}":
        return None
    namespace, _, short = name.rpartition("_")
    return ApplicationRef(namespace=namespace, name=short)


def _ref(body: JsonObject) -> ApplicationRef:
    metadata = body.get("metadata")
    known = metadata if isinstance(metadata, dict) else {}
    return ApplicationRef(namespace=str(known.get("namespace", "")), name=str(known.get("name", "")))


def _project(body: JsonObject) -> str:
    spec = body.get("spec")
    return str(spec.get("project", "default")) if isinstance(spec, dict) else "default"
