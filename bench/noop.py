"""An ASGI application that reads a body and does nothing with it: what the stack alone costs."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 202 to every delivery, and 200 to everything else."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body", False):
        pass
    status = 202 if scope["method"] == "POST" else 200
    headers = [(b"content-length", b"2"), (b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
