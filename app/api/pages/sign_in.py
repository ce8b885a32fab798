"""`/sign-on`: people sign in with an OpenID Connect issuer and get a session.

`app.main` installs it when OIDC_ISSUER is set. A signed cookie holds the state of
one sign-in for ten minutes, for these paths only: a callback that started in
another browser, or a repeated callback, opens no session. Every session is a new
credential; a credential of the browser is never reused. Every failure shows a
page without a session and without text of the issuer.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import (
    CredentialKind,
    Door,
    Issued,
    SignedOn,
    SignInAttempt,
    issue,
)
from app.agent.identity.tokens import holder
from app.agent.ports.people import IdentityProvider
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.pages.local_path import HOME, is_local
from app.api.pages.pages import Pages
from app.api.problems import Problem
from app.api.security.cookies import SESSION_COOKIE, forget_cookie, set_cookie
from app.config import Settings
from app.errors import Conflict, Invalid, NotEntitled, PermanentError, TransientError

if TYPE_CHECKING:
    from itsdangerous import URLSafeSerializer

log = logging.getLogger(__name__)

ATTEMPT_COOKIE = "heal_sign_on"
ATTEMPT_LASTS = timedelta(minutes=10)

_PATH = "/sign-on"
_CALLBACK = f"{_PATH}/callback"
_MAX_CODE = 4_000
_AGAIN = "Start again from the dashboard."
_NOT_STORED = {"Cache-Control": "no-store"}
_ERROR_WORD = re.compile(r"[a-z_]{1,40}")

router = APIRouter(include_in_schema=False)


class _Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The content of the signed cookie between the two steps."""

    state: str
    nonce: str
    verifier: str
    to: str
    """The page to open after sign-in."""
    until: float


class _WithoutCodes(logging.Filter):
    """Keeps sign-in codes out of the access log (promise 12)."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _CALLBACK if isinstance(one, str) and one.startswith(_CALLBACK) else one
                for one in record.args
            )
        return True


_WITHOUT_CODES = _WithoutCodes()


def install(app: FastAPI) -> None:
    """Serve sign-in with the issuer."""
    app.include_router(router)
    logging.getLogger("uvicorn.access").addFilter(_WITHOUT_CODES)


@router.get(_PATH)
async def sign_in(request: Request, container: ContainerDep) -> Response:
    """Redirect the browser to the issuer; `to` is the page to open after sign-in."""
    to = request.query_params.getlist("to") or [HOME]
    if len(to) > 1 or not is_local(to[0]):
        return await _message(
            container,
            400,
            "Not a page of this agent",
            f"The agent does not redirect to this address after sign-in. {_AGAIN}",
        )
    try:
        attempt = await _issuer(container).begin()
    except (TransientError, PermanentError) as error:
        return await _failed(container, error)
    answer = RedirectResponse(attempt.url, status_code=303, headers=_NOT_STORED)
    set_cookie(
        answer,
        container.settings,
        ATTEMPT_COOKIE,
        _sealed(container, attempt, to[0]),
        path=_PATH,
        lifetime=ATTEMPT_LASTS,
    )
    return answer


@router.get(_CALLBACK)
async def callback(request: Request, container: ContainerDep) -> Response:
    """The redirect URI of the issuer; it ends the attempt in every case."""
    answer = await _come_back(request, container)
    forget_cookie(answer, container.settings, ATTEMPT_COOKIE, path=_PATH)
    return answer


async def _come_back(request: Request, container: ApiDependencies) -> Response:
    given = request.query_params
    ticket = _ticket(request, container)
    if ticket is None or any(len(given.getlist(name)) > 1 for name in given):
        return await _not_from_here(container)
    if not hmac.compare_digest(ticket.state.encode(), given.get("state", "").encode("utf-8", "replace")):
        return await _not_from_here(container)
    code, error = given.get("code", ""), given.get("error")
    if error is not None or not 1 <= len(code) <= _MAX_CODE:
        return await _turned_away(container, error or "")
    try:
        known = await _issuer(container).finish(code=code, nonce=ticket.nonce, verifier=ticket.verifier)
    except (TransientError, PermanentError) as failure:
        return await _failed(container, failure)
    try:
        session = await _begin_session(container, known, ticket)
    except Conflict:
        return await _message(
            container, 400, "This sign-in was used already", f"A sign-in is valid once. {_AGAIN}"
        )
    except TransientError as failure:
        return await _failed(container, failure)
    answer = RedirectResponse(ticket.to, status_code=303, headers=_NOT_STORED)
    lifetime = timedelta(hours=container.settings.session_hours)
    set_cookie(answer, container.settings, SESSION_COOKIE, session.text, lifetime=lifetime)
    return answer


async def _begin_session(container: ApiDependencies, known: SignedOn, ticket: _Ticket) -> Issued:
    """A new session with its audit entry; `Conflict` when this attempt opened one before."""
    now = container.clock.now()
    session = issue(
        CredentialKind.SESSION,
        known.name,
        roles=known.roles,
        scopes=(),
        by=known.name,
        at=now,
        lifetime=timedelta(hours=container.settings.session_hours),
    )
    human_decision = HumanDecision(
        at=now,
        by=holder(session.credential, container.settings.role_scopes, door=Door.PAGE),
        kind=HumanDecisionKind.SIGNED_ON,
        subject=session.credential.id,
        data={"issuer": known.issuer, "issuer_subject": known.subject, "roles": [*sorted(known.roles)]},
    )
    await container.store.credentials.add(session.credential, human_decision, nonce=f"sign-on {ticket.state}")
    return session


async def _message(container: ApiDependencies, status: int, title: str, text: str) -> Response:
    return await Pages(container=container).message(status, title, text)


async def _not_from_here(container: ApiDependencies) -> Response:
    return await _message(
        container,
        400,
        "This sign-in did not start here",
        "It started in another browser or at another address, took longer than ten minutes, or has ended. "
        f"Start again at {container.settings.public_url}.",
    )


async def _turned_away(container: ApiDependencies, error: str) -> Response:
    """The issuer returned no code. Its text is not shown: anyone can put text into the URL."""
    log.warning(
        "the issuer (OIDC_ISSUER) returned %s",
        f"the error {error}" if _ERROR_WORD.fullmatch(error) else "neither a code nor a known error",
    )
    if error == "access_denied":
        return await _message(
            container,
            403,
            "Sign-in refused",
            f"You declined, or are not permitted to use this agent. {_AGAIN}",
        )
    if error in ("temporarily_unavailable", "server_error"):
        return await _failed(container, TransientError(error))
    return await _message(
        container, 400, "Sign-in failed", f"The issuer did not complete the sign-in. {_AGAIN}"
    )


async def _failed(container: ApiDependencies, error: TransientError | PermanentError) -> Response:
    """A page with the next step for the person; the log has the cause."""
    match error:
        case TransientError():
            answer = await _message(
                container,
                503,
                "Sign-in is unavailable",
                "The issuer or the database of the agent does not respond. Retry in a moment; "
                "tokens work without the issuer.",
            )
            answer.headers["Retry-After"] = "5"
            return answer
        case NotEntitled():
            return await _message(container, 403, "Sign-in refused", f"{error}.")
        case Invalid():
            return await _message(
                container, 400, "This sign-in has ended", f"It expired, or was used already. {_AGAIN}"
            )
        case _:
            return await _message(
                container,
                503,
                "Sign-in failed",
                "The response of the issuer is not valid. Retry once; if it fails again, the administrator "
                "finds the cause in the log of the agent.",
            )


def _issuer(container: ApiDependencies) -> IdentityProvider:
    if container.sign_in is None:
        raise Problem(
            status=404, kind="not-found", title="Sign-in is not configured", detail="OIDC_ISSUER is not set."
        )
    return container.sign_in


def _sealed(container: ApiDependencies, attempt: SignInAttempt, to: str) -> str:
    ticket = _Ticket(
        state=attempt.state,
        nonce=attempt.nonce,
        verifier=attempt.verifier,
        to=to,
        until=(container.clock.now() + ATTEMPT_LASTS).timestamp(),
    )
    sealed = _seal(container.settings).dumps(msgspec.to_builtins(ticket))
    return sealed if isinstance(sealed, str) else sealed.decode()


def _ticket(request: Request, container: ApiDependencies) -> _Ticket | None:
    """The sign-in that this browser started; None without one, and after it expired."""
    from itsdangerous import BadData

    try:
        opened = _seal(container.settings).loads(request.cookies.get(ATTEMPT_COOKIE, ""))
        ticket = msgspec.convert(opened, _Ticket)
    except (BadData, msgspec.ValidationError):
        return None
    return ticket if container.clock.now().timestamp() < ticket.until else None


def _seal(settings: Settings) -> URLSafeSerializer:
    from itsdangerous import URLSafeSerializer  # here: it comes with an extra, which start has checked

    if settings.session_secret is None:
        raise Problem(
            status=404,
            kind="not-found",
            title="Sign-in is not configured",
            detail="SESSION_SECRET is not set.",
        )
    return URLSafeSerializer(
        settings.session_secret.get_secret_value(),
        salt="self-healing-devops-agent sign-on",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )
