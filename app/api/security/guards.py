"""Middlewares in front of every route: they protect a local agent from requests of a browser.

Without configured identity, the loopback address is the only protection of the agent.
These middlewares refuse cross-site posts, DNS rebinding, connections on other
addresses, and proxies or tunnels on this machine. Both are plain ASGI;
`app.main` installs them.
"""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import Problem
from app.api.security.access import SAFE_METHODS
from app.wire.headers import SANDBOX_HEADER
from app.wire.loopback import is_loopback

_PROVED_BY_THEMSELVES = "/webhooks/"
"""Requests to these paths carry a signature or their own token."""
_PROBES = frozenset({"/healthz", "/readyz"})
_WHERE_FROM = frozenset({"forwarded", "foreign-host"})
"""Refusals that do not apply to probes."""
_FORWARDING_PREFIXES = ("x-forwarded", "x-original-", "x-envoy-external", "cf-connecting-")
_FORWARDING = frozenset(
    {
        "forwarded",
        "forwarded-for",
        "via",
        "x-real-ip",
        "x-client-ip",
        "x-cluster-client-ip",
        "x-remote-addr",
        "x-remote-ip",
        "x-host",
        "true-client-ip",
        "fastly-client-ip",
        "fly-client-ip",
        "x-proxyuser-ip",
        "x-azure-clientip",
        "x-appengine-user-ip",
    }
)
"""Headers that proxies add."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
_NOT_STORED = (b"cache-control", b"no-store")
"""Pages, data and exports name services and people: no browser keeps them after a sign-out."""
_FILES = "/static/"
"""Files of the program, which name no service and no person."""
_SANDBOX = {SANDBOX_HEADER: "simulated-cluster"}


@lru_cache(maxsize=1024)
def _host_name(host_header: str) -> str | None:
    """The name in a Host header without its port; None where it is malformed."""
    try:
        parts = urlsplit(f"//{host_header}")
        if parts.username is not None or parts.path or parts.query or parts.fragment:
            return None
        _ = parts.port  # raises ValueError for an invalid port
    except ValueError:
        return None
    return parts.hostname


def security_headers(*, sandbox: bool) -> tuple[tuple[bytes, bytes], ...]:
    """The headers that `SecurityHeaders` adds."""
    added = _HEADERS | (_SANDBOX if sandbox else {})
    return tuple((name.lower().encode(), value.encode()) for name, value in added.items())


class SecurityHeaders:
    """Adds headers that forbid foreign content, framing, sniffing and storing, and label the sandbox."""

    def __init__(self, app: ASGIApp, *, sandbox: bool = False) -> None:
        self._app = app
        self._headers = security_headers(sandbox=sandbox)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        # No browser stores the answer to a write on its own.
        read = scope["method"] in SAFE_METHODS and not scope["path"].startswith(_FILES)
        added = (*self._headers, _NOT_STORED) if read else self._headers

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.get("headers", ())
                given = {name for name, _ in headers}
                message["headers"] = [*headers, *(each for each in added if each[0] not in given)]
            await send(message)

        await self._app(scope, receive, with_headers)


class BrowserGuard:
    """Refuses cross-site writes; without identity also every request from another machine.

    `loopback_only`: no identity is configured. A request must then arrive on a
    loopback address or a socket file, name this machine, and carry no header that
    a proxy adds. Webhooks authenticate themselves; probes get the status only.
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
        elif problem.kind in _WHERE_FROM and _is_probe(scope):
            await _status_only(self._app, scope, receive, send)
        else:
            await problem.response(scope["path"])(scope, receive, send)

    def _refusal(self, scope: Scope) -> Problem | None:
        headers = Headers(scope=scope)
        if self._loopback_only:
            refusal = _not_of_this_machine(scope, headers)
            if refusal is not None:
                return refusal
        if scope["method"] not in SAFE_METHODS and not _from_same_origin(headers):
            return Problem(
                status=403,
                kind="cross-site",
                title="Cross-site request refused",
                detail="The browser reports that another site sent this request. Send it from the pages of "
                "the agent, or from a program that sets neither Sec-Fetch-Site nor Origin.",
            )
        return None


@lru_cache(maxsize=1024)
def is_plainly_local(server: str | None, client: str | None, host_header: str) -> bool:
    """Whether a request that has no header of a proxy or of a browser comes from this machine.

    `BrowserGuard` lets every such request pass.
    """
    arrived_here = server is None or server.startswith("/") or is_loopback(server)
    return arrived_here and (not client or is_loopback(client)) and is_loopback(_host_name(host_header))


def is_local(scope: Scope) -> bool:
    """Whether connection and headers show that a request comes from this machine."""
    headers = Headers(scope=scope)
    return _arrived_here(scope) and not _forwarded(scope, headers) and _names_loopback(headers)


def _not_of_this_machine(scope: Scope, headers: Headers) -> Problem | None:
    """The refusal of a request that may come from another machine, without configured identity."""
    if not _arrived_here(scope):
        return _no_identity("no-identity", "The request arrived on an address that other machines can reach.")
    if scope["path"].startswith(_PROVED_BY_THEMSELVES):
        return None
    if _forwarded(scope, headers):
        return _no_identity("forwarded", "A proxy forwarded the request.")
    if not _names_loopback(headers):
        return Problem(
            status=421,
            kind="foreign-host",
            title="Unknown host name",
            detail="Authentication is disabled: use the host localhost, 127.0.0.1 or [::1].",
        )
    return None


def _no_identity(kind: str, why: str) -> Problem:
    return Problem(
        status=403,
        kind=kind,
        title="Localhost connections only",
        detail=f"{why} Authentication is disabled, so the agent accepts localhost connections only. "
        "Set REQUIRE_IDENTITY=true, and create a token with `heal token create`.",
    )


def _arrived_here(scope: Scope) -> bool:
    """Whether the connection arrived on a loopback address or a socket file."""
    server = scope.get("server")
    arrived_on = server[0] if server else None
    return arrived_on is None or arrived_on.startswith("/") or is_loopback(arrived_on)


def _forwarded(scope: Scope, headers: Headers) -> bool:
    """Whether a proxy forwarded it: by headers, or by the address that the server took from them."""
    client = scope.get("client")
    further_away = client is not None and bool(client[0]) and not is_loopback(client[0])
    return further_away or any(
        name in _FORWARDING or name.startswith(_FORWARDING_PREFIXES) for name in headers
    )


def _is_probe(scope: Scope) -> bool:
    """Whether it is a complete probe request: one without a host is malformed."""
    whole = "host" in Headers(scope=scope)
    return whole and scope["path"] in _PROBES and scope["method"] in SAFE_METHODS


async def _status_only(app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer a probe with its status, without details of the agent and its dependencies."""
    status = 503

    async def take_status(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]

    await app(scope, receive, take_status)
    word = "ok" if status < 400 else "unavailable"
    headers = {"Retry-After": "5"} if status == 503 else {}
    await JSONResponse({"status": word}, status_code=status, headers=headers)(scope, receive, send)


def _names_loopback(headers: Headers) -> bool:
    """Whether the host is this machine; a request that names several hosts may be meant for another."""
    hosts = headers.getlist("host")
    return bool(hosts) and all(is_loopback(_host_name(host)) for host in hosts)


def _from_same_origin(headers: Headers) -> bool:
    """Whether the browser reports the same origin; requests of programs pass.

    Schemes are not compared: behind a proxy that ends TLS they differ.
    """
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site in {"same-origin", "none"}
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host", "")
