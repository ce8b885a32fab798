"""Requests for Flux's custom resources over a connection to the API server."""

from __future__ import annotations

from enum import StrEnum

from app.agent.ids import JsonObject
from app.connectors.kubernetes.connection import EVERYWHERE, Connection, CustomResource, custom_resource
from app.connectors.kubernetes.errors import KubernetesCall
from app.connectors.kubernetes.fields import objects, text
from app.connectors.kubernetes.mapping import is_namespace_name, is_object_name
from app.connectors.text import shorten
from app.errors import Invalid, NotFound

_PAGE = "250"
_MOST_PAGES = 40


class FluxKind(StrEnum):
    """The kinds that are read."""

    KUSTOMIZATION = "Kustomization"
    GIT_REPOSITORY = "GitRepository"
    HELM_RELEASE = "HelmRelease"


_RESOURCES: dict[FluxKind, CustomResource] = {
    kind: custom_resource(f"{group}.toolkit.fluxcd.io", version, kind.value, plural)
    for kind, group, version, plural in (
        (FluxKind.KUSTOMIZATION, "kustomize", "v1", "kustomizations"),
        (FluxKind.GIT_REPOSITORY, "source", "v1", "gitrepositories"),
        (FluxKind.HELM_RELEASE, "helm", "v2", "helmreleases"),
    )
}


class FluxApi:
    """One connection; each call is one request, but for the pages of a list."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def dry_run(self) -> bool:
        """Whether a patch over it persists nothing."""
        return self._connection.dry_run

    async def get(self, kind: FluxKind, namespace: str, name: str) -> JsonObject:
        """One object; raises like every port."""
        self._check(kind, namespace, name)
        call = KubernetesCall(verb="get", what=f"{kind} {namespace}/{name}", effect=False)
        request = self._connection.prepare_read(_RESOURCES[kind], namespace, name)
        return await self._connection.exchange(call, request)

    async def everywhere(self, kind: FluxKind) -> list[JsonObject]:
        """The objects of all namespaces; none where the cluster does not know the kind."""
        call = KubernetesCall(verb="list", what=f"{kind} in all namespaces", effect=False)
        found: list[JsonObject] = []
        page = {"limit": _PAGE}
        for _ in range(_MOST_PAGES):
            request = self._connection.prepare_read(_RESOURCES[kind], EVERYWHERE, **page)
            try:
                answer = await self._connection.exchange(call, request)
            except NotFound:
                return found
            found += objects(answer, "items")
            following = text(answer, "metadata", "continue")
            if following is None:
                return found
            page["continue"] = following
        raise Invalid(f"more than {_MOST_PAGES} pages of {kind}")

    async def merge(self, kind: FluxKind, namespace: str, name: str, body: JsonObject) -> JsonObject:
        """Merge a change into an object; `UnknownOutcome` where it may have happened without an answer."""
        self._check(kind, namespace, name)
        call = KubernetesCall(verb="patch", what=f"{kind} {namespace}/{name}", effect=not self.dry_run)
        request = self._connection.prepare_merge(_RESOURCES[kind], namespace, name, body)
        return await self._connection.exchange(call, request)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._connection.close()

    @staticmethod
    def _check(kind: FluxKind, namespace: str, name: str) -> None:
        """`Invalid` for what cannot be the name of an object."""
        if not is_namespace_name(namespace) or not is_object_name(name):
            raise Invalid(f"{shorten(f'{namespace}/{name}', 80)!r} is not the name of a {kind}")
