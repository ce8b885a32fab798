"""Counts and times every request by its route. Plain ASGI, installed by `app.main`.

A request that matches no route counts as `other`, so that a scanner cannot add
label values.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.dependencies import ApiDependencies

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMeasures:
    """The middleware; requests before the agent has started are not counted."""

    def __init__(self, app: ASGIApp, *, paths: Collection[str] = ()) -> None:
        """`paths` are answered before a route is looked for, and count by themselves."""
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        began, status = time.perf_counter(), 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            container: ApiDependencies | None = getattr(scope["app"].state, "container", None)
            if container is not None:
                route = path if path in self._paths else getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                container.measures.note_request(method, route, status, time.perf_counter() - began)
