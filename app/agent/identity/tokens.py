"""Tokens and sessions: created, verified and revoked, each with an entry in the audit trail.

The API and the `heal` command both end here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import (
    NO_LIMIT,
    Credential,
    CredentialId,
    CredentialKind,
    Door,
    Issued,
    Person,
    Reach,
    Scope,
    effective,
    issue,
    presented,
    proves,
    scopes_of,
)
from app.agent.ids import JsonObject
from app.agent.ports.store.people import CredentialRepository
from app.errors import ConfigurationError, Conflict


async def create(
    credentials: CredentialRepository,
    name: str,
    *,
    scopes: Iterable[Scope],
    roles: Iterable[str],
    lifetime: timedelta | None,
    by: Person,
    at: datetime,
    reach: Reach = NO_LIMIT,
    noted: JsonObject | None = None,
    text: tuple[CredentialId, str] | None = None,
) -> Issued:
    """A new token, durable when this returns; the text that proves it is in no other place.

    `text` is the identifier and the secret of a token whose text was chosen by the caller.

    `noted` is added to the entry of the audit trail: how it was made, where that is unusual.
    """
    issued = issue(
        CredentialKind.TOKEN,
        name,
        roles=roles,
        scopes=scopes,
        by=by.name,
        at=at,
        lifetime=lifetime,
        reach=reach,
        text=text,
    )
    made = issued.credential
    human_decision = HumanDecision(
        at=at,
        by=by,
        kind=HumanDecisionKind.TOKEN_CREATED,
        subject=made.id,
        data={
            "name": name,
            "scopes": [*sorted(made.scopes)],
            "roles": [*sorted(made.roles)],
            "expires_at": None if made.expires_at is None else made.expires_at.isoformat(),
            **_limits(made.reach),
            **(noted or {}),
        },
    )
    await credentials.add(made, human_decision, nonce=None if text is None else issued.text)
    return issued


def administrators(tokens: Iterable[Credential], at: datetime) -> tuple[Credential, ...]:
    """The tokens that may administer the agent at that time."""
    return tuple(one for one in tokens if Scope.ADMIN in one.scopes and one.refusal(at) is None)


async def store_initial(credentials: CredentialRepository, text: str, at: datetime) -> bool:
    """Store the first administrator token of an installation; return whether it was stored now.

    Nothing is stored while an administrator token exists, or if this token existed before, revoked or not;
    of processes that start together only one stores it. Raises `ConfigurationError` for a text that is not
    a token.
    """
    parts = presented(text)
    if parts is None or not parts[0].startswith("tok_"):
        raise ConfigurationError(
            "INITIAL_ADMIN_TOKEN is not a valid token: write heal_tok_, 16 hexadecimal digits, _ and 64 more"
        )
    if administrators(await credentials.tokens(), at) or await credentials.get(parts[0]) is not None:
        return False
    try:
        await create(
            credentials,
            "initial administrator",
            scopes=[Scope.ADMIN],
            roles=[],
            lifetime=None,
            by=Person(name="INITIAL_ADMIN_TOKEN", door=Door.CLI),
            at=at,
            noted={"initial": True},
            text=parts,
        )
    except Conflict:
        return False
    return True


def _limits(reach: Reach) -> JsonObject:
    """What the entry of a limited token says besides; that of any other says what it always said."""
    if not reach.limited:
        return {}
    return {"environments": [*sorted(reach.environments)], "services": [*sorted(reach.services)]}


async def revoke(
    credentials: CredentialRepository, credential_id: CredentialId, *, by: Person, at: datetime
) -> Credential:
    """End it for every process at once; raises `NotFound`, or `Conflict` when it was revoked before."""
    human_decision = HumanDecision(at=at, by=by, kind=HumanDecisionKind.TOKEN_REVOKED, subject=credential_id)
    return await credentials.revoke(credential_id, human_decision)


async def proved(credentials: CredentialRepository, text: str) -> Credential | None:
    """The credential that the text proves, ended or not; None where it proves none."""
    parts = presented(text)
    if parts is None:
        return None
    credential = await credentials.get(parts[0])
    return credential if credential is not None and proves(parts[1], credential) else None


def holder(
    credential: Credential, role_scopes: Mapping[str, Iterable[Scope]], door: Door = Door.API
) -> Person:
    """The holder of a credential: a token has its own scopes, a session the scopes of its roles."""
    by_roles = credential.kind is CredentialKind.SESSION
    return Person(
        name=credential.name,
        roles=credential.roles,
        door=door,
        verified=True,
        scopes=scopes_of(credential.roles, role_scopes) if by_roles else effective(credential.scopes),
        token_id=credential.id,
        reach=credential.reach,
    )
