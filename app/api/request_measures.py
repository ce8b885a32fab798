"""Counts and times every request by its route. Plain ASGI, installed by `app.main`.

A request that matches no route counts as `other`, so that a scanner cannot add
label values.
"""

from __future__ import annotations

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.dependencies import ApiDependencies

_METHODS = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class RequestMeasures:
    """The middleware; requests before the agent has started are not counted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
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
                route = getattr(scope.get("route"), "path", "other")
                method = scope["method"] if scope["method"] in _METHODS else "other"
                container.measures.note_request(method, route, status, time.perf_counter() - began)
