"""Guards in front of every route: the browser may not be turned against a local agent.

While no identity is configured a loopback address is the agent's only fence. Its
holes are closed here: a web page that posts across sites, a name that an attacker
points at 127.0.0.1 (DNS rebinding), and a server that was made to listen
elsewhere. Both middlewares are plain ASGI and are installed by `app.main`.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.access import SAFE_METHODS
from app.api.problems import Problem
from app.loopback import is_loopback

_PROVED_BY_THEMSELVES = "/webhooks/"
"""What arrives there carries a signature or a token of its own."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def _host_name(host_header: str) -> str | None:
    """The name in a Host header without its port; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host_header}")
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return None
        _ = parts.port  # raises ValueError when it is no port
    except ValueError:
        return None
    return parts.hostname


class SecurityHeaders:
    """Adds the headers that keep a browser from loading, framing or guessing anything."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, with_headers)


class BrowserGuard:
    """Refuses cross-site writes; without identity also foreign Host names, and whoever is further away.

    `loopback_only` says that no identity is configured: then the address that a
    connection arrived on decides, whatever the server was told to listen on.
    """

    def __init__(self, app: ASGIApp, *, loopback_only: bool) -> None:
        self._app = app
        self._loopback_only = loopback_only

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        problem = self._refusal(scope)
        if problem is None:
            await self._app(scope, receive, send)
            return
        await problem.response(scope["path"])(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        server = scope.get("server")
        arrived_on = server[0] if server else None
        local = arrived_on is None or arrived_on.startswith("/") or is_loopback(arrived_on)
        forwarded = _forwarded(scope) and not scope["path"].startswith(_PROVED_BY_THEMSELVES)
        if self._loopback_only and (not local or forwarded):
            return Problem(
                status=403,
                kind="no-identity",
                title="Only this machine is heard",
                detail="No identity is configured, so the agent cannot tell who asks, and answers on a "
                "loopback address only. Set REQUIRE_IDENTITY=true; `heal token create` makes a token.",
            )
        if self._loopback_only and is_loopback(arrived_on) and not _names_loopback(headers):
            return Problem(
                status=421,
                kind="foreign-host",
                title="This agent is not known by that name",
                detail="While no identity is configured it answers to localhost, 127.0.0.1 and [::1] only.",
            )
        if scope["method"] not in SAFE_METHODS and not _from_same_origin(headers):
            return Problem(
                status=403,
                kind="cross-site",
                title="A web page of another site may not do this",
                detail="The browser says that another site sent this request. Send it from the agent's own "
                "pages, or from a program that sets neither Sec-Fetch-Site nor Origin.",
            )
        return None


def _forwarded(scope: Scope) -> bool:
    """Whether a proxy on this machine brings it for somebody further away."""
    client = scope.get("client")
    return client is not None and bool(client[0]) and not is_loopback(client[0])


def _names_loopback(headers: Headers) -> bool:
    return is_loopback(_host_name(headers.get("host", "")))


def _from_same_origin(headers: Headers) -> bool:
    """What the browser says of the sender; programs say nothing and pass.

    Schemes are not compared: behind a proxy that ends TLS they differ.
    """
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")
