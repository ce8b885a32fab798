"""Guards in front of every route: the browser may not be turned against a local agent.

The agent has no identities yet, so a loopback address is its only fence. Two
holes in that fence are closed here: a web page that posts across sites, and a
name that an attacker points at 127.0.0.1 (DNS rebinding). Both middlewares are
plain ASGI and are installed by `app.main`.
"""

from __future__ import annotations

import ipaddress
import logging
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import Problem

log = logging.getLogger(__name__)

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
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


def is_loopback(host: str | None) -> bool:
    """Whether an address, or a host name as a browser would send it, means this machine only."""
    if not host:
        return False
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool(address.is_loopback or (mapped is not None and mapped.is_loopback))


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
    """Refuses cross-site writes and, on a loopback address, foreign Host names.

    `configured_host` is the HOST setting. The Host header is checked when that
    is loopback and the connection really arrived on a loopback address; a
    connection from further away is warned about once, because nothing else
    than the network then decides who may talk to the agent.
    """

    def __init__(self, app: ASGIApp, *, configured_host: str) -> None:
        self._app = app
        self._expects_loopback = is_loopback(configured_host)
        self._warned = False

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
        if self._expects_loopback and is_loopback(arrived_on):
            if not is_loopback(_host_name(headers.get("host", ""))):
                return Problem(
                    status=421,
                    kind="foreign-host",
                    title="This agent is not known by that name",
                    detail="It listens on a loopback address and answers to localhost, 127.0.0.1 and [::1] "
                    "only. Use one of these names, or set HOST to the address it should serve.",
                )
        elif self._expects_loopback and arrived_on and not self._warned and not arrived_on.startswith("/"):
            self._warned = True
            log.warning(
                "serving on %s although HOST is a loopback address: there is no authentication yet, "
                "so anyone who can reach this address can post events and trigger passes of the loop",
                arrived_on,
            )
        if scope["method"] not in _SAFE_METHODS and not _from_same_origin(headers):
            return Problem(
                status=403,
                kind="cross-site",
                title="A web page of another site may not do this",
                detail="The browser says that another site sent this request. Send it from the agent's own "
                "pages, or from a program that sets neither Sec-Fetch-Site nor Origin.",
            )
        return None


def _from_same_origin(headers: Headers) -> bool:
    """What the browser says of the sender; programs say nothing and pass.

    Schemes are not compared: behind a proxy that ends TLS they differ.
    """
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")
