"""`POST /sign-off`: sign out this browser, after a sign-in by issuer or token."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import Credential, CredentialKind, Door
from app.agent.identity.tokens import holder, proved
from app.api.dependencies import ApiDependencies, ContainerDep
from app.api.pages.pages import Pages
from app.api.security.cookies import SESSION_COOKIE, forget_cookie
from app.errors import Conflict, NotFound, TransientError

router = APIRouter(include_in_schema=False)


@router.post("/sign-off")
async def sign_out(request: Request, container: ContainerDep) -> Response:
    """Revoke the session; a token is only removed from this browser."""
    pages = Pages(container=container)
    try:
        session = await _session(request, container)
        if session is not None:
            by = holder(session, container.settings.role_scopes, door=Door.PAGE)
            human_decision = HumanDecision(
                at=container.clock.now(), by=by, kind=HumanDecisionKind.SIGNED_OFF, subject=session.id
            )
            await container.store.credentials.revoke(session.id, human_decision)
    except (Conflict, NotFound):
        pass  # the session ended earlier
    except TransientError as error:
        return await pages.message(503, "Temporarily unavailable", f"{error}. Go back and retry.")
    answer = await pages.message(
        200,
        "You are signed out",
        "The session of this browser has ended. The issuer may keep its own session: on a shared "
        "machine, sign out there as well.",
    )
    forget_cookie(answer, container.settings, SESSION_COOKIE)
    return answer


async def _session(request: Request, container: ApiDependencies) -> Credential | None:
    """The valid session of the cookie of the browser, if any."""
    credential = await proved(container.store.credentials, request.cookies.get(SESSION_COOKIE, ""))
    if credential is None or credential.kind is not CredentialKind.SESSION:
        return None
    return credential if credential.refusal(container.clock.now()) is None else None
