"""Authentication and authorization: a token or session identifies a `Person`; each route requires a scope.

Every route declares `needs(Scope...)`, except those in `OPEN`; a test compares the
two. Without configured identity, local callers are not authenticated (ADR 16).
"""

from __future__ import annotations

import hmac
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import Depends
from fastapi.security import HTTPBearer
from pydantic import SecretStr
from starlette.requests import Request

from app.agent.identity.people import (
    Door,
    Person,
    Scope,
    Sender,
    SenderKind,
    same_person,
)
from app.agent.identity.tokens import holder, proved
from app.agent.ids import ServiceKey
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.problems import FieldError, Problem, invalid
from app.api.security.cookies import SESSION_COOKIE
from app.api.security.lockout import Lockout
from app.connectors.registry import CHAT_PATHS

UNKNOWN = Person(name="")
"""The caller where no identity is required."""
"""A caller on this machine, where no identity is configured."""
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

OPEN = frozenset(
    {
        "/",
        "/docs",
        "/openapi.json",
        "/healthz",
        "/readyz",
        "/version",
        "/sign-on",
        "/sign-on/callback",
        "/sign-on/token",
        "/sign-off",
        *CHAT_PATHS,
        "/static",
        "/static/swagger",
    }
)
"""Paths without a scope: they show no incident data, or authenticate callers themselves."""

_bearer = HTTPBearer(
    scheme_name="token", description="An API token: heal_tok_...", auto_error=False
)  # declared for the API reference; the header itself is read below


class SignInNeeded(Exception):
    """An unauthenticated page request; the browser is redirected to sign in, then back to `to`."""

    def __init__(self, to: str) -> None:
        super().__init__("sign in first")
        self.to = to

    def location(self, *, by_token: bool) -> str:
        page = "/sign-on/token" if by_token else "/sign-on"
        return f"{page}?to={quote(self.to, safe='')}"


class PageRefused(Exception):
    """A page request by a person without the required scope."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.title)
        self.problem = problem


def needs(scope: Scope) -> Any:  # Any: what FastAPI's own Depends returns
    """The dependency of an API route: the caller, with this scope."""

    async def admitted(
        request: Request, container: ContainerDep, _: Annotated[object, Depends(_bearer)]
    ) -> Person:
        return await admit(request, container, scope)

    return Depends(_named(admitted, scope))


def page_needs(scope: Scope) -> Any:  # Any: as above
    """The same for a page: redirects to sign in without authentication, shows a refusal as a page."""

    async def admitted(request: Request, container: ContainerDep) -> Person:
        try:
            person = await admit(request, container, scope)
        except Problem as problem:
            if problem.status == 401:
                raise SignInNeeded(_way_back(request)) from None
            raise PageRefused(problem) from None
        return replace(person, door=Door.PAGE)

    return Depends(_named(admitted, scope))


def _named(dependency: Callable[..., Any], scope: Scope) -> Callable[..., Any]:
    """Attach the scope to the dependency, for tests."""
    dependency.scope = scope  # type: ignore[attr-defined]  # a function may carry attributes
    return dependency


async def admit(request: Request, container: ApiDependencies, scope: Scope) -> Person:
    """The authenticated caller with this scope; raises `Problem` 401, 403 or 429."""
    if not container.settings.identity_required:
        return UNKNOWN
    person = await recognised(request, container)
    if not person.may(scope):
        raise Problem(
            status=403,
            kind="missing-scope",
            title="Missing scope",
            detail=f"{person.name} lacks the scope {scope}. A token gets its scopes when it is created; "
            "people get theirs from their roles (ROLE_SCOPES).",
        )
    return person


async def recognised(request: Request, container: ApiDependencies) -> Person:
    """The caller, by token or session; raises `Problem` 401, 403 or 429."""
    text = given_token(request)
    if text is None:
        text = request.cookies.get(SESSION_COOKIE)
        if not text:
            raise _unauthenticated("Send 'Authorization: Bearer heal_tok_...'; people sign in at /sign-on.")
        _refuse_unsaid_origin(request)
    return await recognised_token(request, container, text)


async def recognised_token(request: Request, container: ApiDependencies, text: str) -> Person:
    """The holder of a token or session cookie; a wrong one counts as a failed attempt of its address."""
    now = container.clock.now()
    credential = await proved(container.store.credentials, text)
    if credential is None:
        count_guess(request, container)
        raise _unauthenticated("Unknown token.")
    ended = credential.refusal(now)
    if ended is not None:
        raise _unauthenticated(f"The token is not valid: {ended}.")
    await container.store.credentials.touch(credential, now)
    return holder(credential, container.settings.role_scopes)


def given_token(request: Request) -> str | None:
    """The bearer token of the Authorization header; None without the header or with another scheme."""
    values = request.headers.getlist("authorization")
    if len(values) != 1:
        return None
    scheme, _, given = values[0].partition(" ")
    return given.strip() if scheme.lower() == "bearer" else None


def matches(given: str | None, secret: SecretStr | None) -> bool:
    """Whether a token is a configured one, compared in constant time."""
    if given is None or secret is None:
        return False
    return hmac.compare_digest(given.encode("latin-1", "replace"), secret.get_secret_value().encode())


def sender_of(request: Request, person: Person, *, webhook: str | None = None) -> Sender:
    """The sender of a request: the holder of a token, a webhook with its secret, or an address."""
    address = _address(request)
    if person.verified:
        return Sender(kind=SenderKind.TOKEN, name=person.name, token_id=person.token_id, address=address)
    if webhook is not None:
        return Sender(kind=SenderKind.WEBHOOK, name=webhook, address=address)
    return sender_at(address)


@lru_cache(maxsize=1024)
def sender_at(address: str | None) -> Sender:
    """The sender at an address, who proved nothing."""
    return Sender(kind=SenderKind.ADDRESS, name=address or "a socket file", address=address)


def out_of_reach(person: Person, keys: Iterable[ServiceKey]) -> Problem:
    """The 403 for a token that is not permitted to report for these services."""
    about = ", ".join(dict.fromkeys(str(key) for key in keys))
    return Problem(
        status=403,
        kind="beyond-the-token",
        title="The token is not permitted for this service",
        detail=f"The token of {person.name} is limited to {person.reach}; the request concerns {about}. "
        "Use another token, or create one with `heal token create --environment ... --service ...`.",
    )


def deciding_person(person: Person, by: str | None) -> Person:
    """The author of a decision: the authenticated person, else the given name; raises `Problem` 422."""
    if person.verified:
        if by is not None and not same_person(by, person.name):
            raise _unfit_name(by, f"is not {person.name}, the holder of the token or session")
        return person
    if by is None:
        raise _unfit_name(None, "is missing: the record requires a name")
    return replace(person, name=by)


def _unauthenticated(detail: str) -> Problem:
    return Problem(
        status=401,
        kind="not-authenticated",
        title="Not authenticated",
        detail=detail,
        headers={"WWW-Authenticate": 'Bearer realm="heal"'},
    )


def _unfit_name(by: str | None, message: str) -> Problem:
    fix = "send your name" if by is None else "omit it; the token or session gives the name"
    return invalid([FieldError(field="by", value=by, message=message, fix=fix)])


def count_guess(request: Request, container: ApiDependencies) -> None:
    """Count a wrong credential; raises `Problem` 429 after too many from the address.

    Valid credentials are checked first and are never locked out.
    """
    _refuse_locked(request, container)
    lockout: Lockout = request.app.state.lockout
    lockout.failed(_address(request), container.clock.now())


def _address(request: Request) -> str | None:
    client = request.scope.get("client")
    return client[0] if client else None


def _refuse_locked(request: Request, container: ApiDependencies) -> None:
    """Raise `Problem` 429 while the address of the sender is locked out."""
    lockout: Lockout = request.app.state.lockout
    left = lockout.locked_for(_address(request), container.clock.now())
    if left is None:
        return
    seconds = max(1, math.ceil(left.total_seconds()))
    raise Problem(
        status=429,
        kind="locked-out",
        title="Too many wrong credentials from this address",
        detail=f"Unknown credentials from this address are refused for another {seconds} s. "
        "Valid credentials are accepted.",
        headers={"Retry-After": str(seconds)},
    )


def _refuse_unsaid_origin(request: Request) -> None:
    """Browsers send cookies on every request: a write with a cookie must state its site."""
    if request.method in SAFE_METHODS:
        return
    if "sec-fetch-site" not in request.headers and "origin" not in request.headers:
        raise Problem(
            status=403,
            kind="cross-site",
            title="A write with a cookie must state its origin",
            detail="The request has neither Sec-Fetch-Site nor Origin. Programs must send a token instead.",
        )


def _way_back(request: Request) -> str:
    """The page to return to after sign-in; the dashboard after a form."""
    if request.method not in SAFE_METHODS:
        return "/dashboard"
    query = request.url.query
    return request.url.path + (f"?{query}" if query else "")
