"""`HEAD` for every `GET`: the same status and headers, without the body.

A plain ASGI middleware, the outermost of `app.main`, so that routes, pages, static
files and errors handle `HEAD` exactly as `GET`.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEAD_ONLY = "head_only"
"""Set in the scope of such a request, for a response that would not end by itself."""


class HeadAsGet:
    """Calls the application with `GET`, and drops the body."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return
        # A copy: the server uses the method of its own scope when it writes the response.
        await self._app({**scope, "method": "GET", HEAD_ONLY: True}, receive, _without_body(send))


def _without_body(send: Send) -> Send:
    async def bodiless(message: Message) -> None:
        if message["type"] == "http.response.body":
            message = {**message, "body": b""}
        elif message["type"] == "http.response.pathsend":
            message = {"type": "http.response.body", "body": b"", "more_body": False}
        await send(message)

    return bodiless
