"""`/sign-on` and `/sign-off`: people prove who they are to an OpenID Connect issuer, and get a session.

Installed by `app.main` where OIDC_ISSUER is set. What must be known again when a
browser comes back from the issuer goes with it in a signed cookie of its own,
good for ten minutes, for these paths and for one sign-on: a callback that did
not begin in this browser, or comes twice, opens nothing. A session is a new
credential every time; what a browser brought is never taken over. Whatever goes
wrong is a plain page, without a session and without the issuer's words.
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

from app.agent.identity import (
    Credential,
    CredentialKind,
    Door,
    Issued,
    Person,
    SignedOn,
    SignOnAttempt,
    issue,
    presented,
    proves,
    scopes_of,
)
from app.agent.ports import IdentityProvider
from app.agent.trail import Deed, DeedKind
from app.api.dashboard import _message as message
from app.api.dependencies import Container, ContainerDep
from app.api.problems import Problem
from app.config import Settings
from app.errors import Conflict, Invalid, NotEntitled, NotFound, PermanentError, TransientError

if TYPE_CHECKING:
    from itsdangerous import URLSafeSerializer

log = logging.getLogger(__name__)

SESSION_COOKIE = "heal_session"
ATTEMPT_COOKIE = "heal_sign_on"
ATTEMPT_LASTS = timedelta(minutes=10)

_PATH = "/sign-on"
_CALLBACK = f"{_PATH}/callback"
_START_PAGE = "/dashboard"
_MAX_TO = 1_000
_MAX_CODE = 4_000
_AGAIN = "Begin again from the dashboard."
_NOT_STORED = {"Cache-Control": "no-store"}
_LOCAL = re.compile(r"/(?!/)[!-\[\]-~]*")
"""A path of this host: printable ASCII without a backslash, which some browsers read as a slash."""
_ERROR_WORD = re.compile(r"[a-z_]{1,40}")

router = APIRouter(include_in_schema=False)


class _Ticket(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the signed cookie holds between the two steps."""

    state: str
    nonce: str
    verifier: str
    to: str
    """The page that somebody came for."""
    until: float


class _WithoutCodes(logging.Filter):
    """Keeps the codes of sign-ons out of the server's access log (promise 12)."""

    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(
                _CALLBACK if isinstance(one, str) and one.startswith(_CALLBACK) else one
                for one in record.args
            )
        return True


_WITHOUT_CODES = _WithoutCodes()


def install(app: FastAPI) -> None:
    """Serve signing on and off."""
    app.include_router(router)
    logging.getLogger("uvicorn.access").addFilter(_WITHOUT_CODES)


def is_local(to: str) -> bool:
    """Whether a browser that is sent there stays with this agent."""
    return len(to) <= _MAX_TO and _LOCAL.fullmatch(to) is not None


@router.get(_PATH)
async def sign_on(request: Request, container: ContainerDep) -> Response:
    """Send the browser to the issuer; `to` is the page it came for."""
    to = request.query_params.getlist("to") or [_START_PAGE]
    if len(to) > 1 or not is_local(to[0]):
        return await message(
            container,
            400,
            "That is no page of this agent",
            f"Nobody is sent there after signing on. {_AGAIN}",
        )
    try:
        attempt = await _issuer(container).begin()
    except (TransientError, PermanentError) as error:
        return await _failed(container, error)
    answer = RedirectResponse(attempt.url, status_code=303, headers=_NOT_STORED)
    _set_cookie(answer, container.settings, ATTEMPT_COOKIE, _sealed(container, attempt, to[0]), ATTEMPT_LASTS)
    return answer


@router.get(_CALLBACK)
async def callback(request: Request, container: ContainerDep) -> Response:
    """Where the issuer sends the browser back to; the attempt is over, whatever comes of it."""
    answer = await _come_back(request, container)
    _forget_cookie(answer, container.settings, ATTEMPT_COOKIE)
    return answer


@router.post("/sign-off")
async def sign_off(request: Request, container: ContainerDep) -> Response:
    """End this browser's session; the issuer may still know the person."""
    try:
        session = await _session(request, container)
        if session is not None:
            by = _person(container.settings, session.name, session.roles)
            deed = Deed(at=container.clock.now(), by=by, kind=DeedKind.SIGNED_OFF, subject=session.id)
            await container.store.revoke(session.id, deed)
    except (Conflict, NotFound):
        pass  # it has ended already, which is what was asked for
    except TransientError as error:
        return await message(container, 503, "Not possible right now", f"{error}. Go back and try again.")
    answer = await message(
        container,
        200,
        "You are signed off",
        "The session of this browser has ended. The issuer may still know you: sign off there, too, "
        "on a machine that others use.",
    )
    _forget_cookie(answer, container.settings, SESSION_COOKIE)
    return answer


async def _come_back(request: Request, container: Container) -> Response:
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
        return await message(container, 400, "This sign-on is over already", f"It counted once. {_AGAIN}")
    except TransientError as failure:
        return await _failed(container, failure)
    answer = RedirectResponse(ticket.to, status_code=303, headers=_NOT_STORED)
    lifetime = timedelta(hours=container.settings.session_hours)
    _set_cookie(answer, container.settings, SESSION_COOKIE, session.text, lifetime)
    return answer


async def _begin_session(container: Container, known: SignedOn, ticket: _Ticket) -> Issued:
    """A session of their own, on record with the deed; `Conflict` when this attempt had one before."""
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
    deed = Deed(
        at=now,
        by=_person(container.settings, known.name, known.roles),
        kind=DeedKind.SIGNED_ON,
        subject=session.credential.id,
        data={"issuer": known.issuer, "issuer_subject": known.subject, "roles": [*sorted(known.roles)]},
    )
    await container.store.add_credential(session.credential, deed, nonce=f"sign-on {ticket.state}")
    return session


async def _session(request: Request, container: Container) -> Credential | None:
    """The session that the browser's cookie proves, if it holds."""
    shown = presented(request.cookies.get(SESSION_COOKIE, ""))
    if shown is None:
        return None
    credential = await container.store.credential(shown[0])
    if credential is None or credential.kind is not CredentialKind.SESSION:
        return None
    if not proves(shown[1], credential) or credential.refusal(container.clock.now()) is not None:
        return None
    return credential


async def _not_from_here(container: Container) -> Response:
    return await message(
        container,
        400,
        "This sign-on did not begin here",
        "It began in another browser or under another address, took longer than ten minutes, or is over. "
        f"Begin again at {container.settings.public_url}.",
    )


async def _turned_away(container: Container, error: str) -> Response:
    """The issuer sent the browser back without a code; its own words may be anybody's, and are not shown."""
    log.warning(
        "the issuer (OIDC_ISSUER) sent a browser back with %s",
        f"the error {error}" if _ERROR_WORD.fullmatch(error) else "neither a code nor a known error",
    )
    if error == "access_denied":
        return await message(
            container, 403, "You were not signed on", f"You declined, or may not use this agent. {_AGAIN}"
        )
    if error in ("temporarily_unavailable", "server_error"):
        return await _failed(container, TransientError(error))
    return await message(
        container, 400, "You were not signed on", f"The issuer did not complete it. {_AGAIN}"
    )


async def _failed(container: Container, error: TransientError | PermanentError) -> Response:
    """What somebody can do about it; why, is in the log."""
    match error:
        case TransientError():
            answer = await message(
                container,
                503,
                "Nobody can sign on right now",
                "The issuer or the agent's database does not answer. Try again in a moment; "
                "tokens need no issuer.",
            )
            answer.headers["Retry-After"] = "5"
            return answer
        case NotEntitled():
            return await message(container, 403, "You were not signed on", f"{error}.")
        case Invalid():
            return await message(
                container, 400, "This sign-on is over", f"It took too long, or was used already. {_AGAIN}"
            )
        case _:
            return await message(
                container,
                503,
                "Nobody was signed on",
                "What the issuer said cannot be believed. Try once more; if it stays so, whoever runs the "
                "agent finds the reason in its log.",
            )


def _person(settings: Settings, name: str, roles: frozenset[str]) -> Person:
    return Person(
        name=name,
        roles=roles,
        door=Door.PAGE,
        verified=True,
        scopes=scopes_of(roles, settings.role_scopes),
    )


def _issuer(container: Container) -> IdentityProvider:
    if container.sign_on is None:
        raise Problem(
            status=404, kind="not-found", title="Nobody signs on here", detail="OIDC_ISSUER is not set."
        )
    return container.sign_on


def _sealed(container: Container, attempt: SignOnAttempt, to: str) -> str:
    ticket = _Ticket(
        state=attempt.state,
        nonce=attempt.nonce,
        verifier=attempt.verifier,
        to=to,
        until=(container.clock.now() + ATTEMPT_LASTS).timestamp(),
    )
    sealed = _seal(container.settings).dumps(msgspec.to_builtins(ticket))
    return sealed if isinstance(sealed, str) else sealed.decode()


def _ticket(request: Request, container: Container) -> _Ticket | None:
    """What this browser began, if it did and in time."""
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
            status=404, kind="not-found", title="Nobody signs on here", detail="SESSION_SECRET is not set."
        )
    return URLSafeSerializer(
        settings.session_secret.get_secret_value(),
        salt="self-healing-devops-agent sign-on",
        signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
    )


def _set_cookie(answer: Response, settings: Settings, name: str, value: str, lifetime: timedelta) -> None:
    answer.set_cookie(
        name,
        value,
        max_age=int(lifetime.total_seconds()),
        path=_cookie_path(name),
        secure=_over_tls(settings),
        httponly=True,
        samesite="lax",
    )


def _forget_cookie(answer: Response, settings: Settings, name: str) -> None:
    answer.delete_cookie(
        name, path=_cookie_path(name), secure=_over_tls(settings), httponly=True, samesite="lax"
    )


def _cookie_path(name: str) -> str:
    return _PATH if name == ATTEMPT_COOKIE else "/"


def _over_tls(settings: Settings) -> bool:
    return settings.public_url is not None and settings.public_url.startswith("https:")
