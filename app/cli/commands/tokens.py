"""`heal token`: a running agent creates and revokes tokens, or the command writes to its database.

The first token of an installation is made in the database, without a token. Once an
administrator's token exists, the database asks for it as well. Write access to the
database cannot be taken away from its owner, so the way back from a lock-out is an
explicit option, and the audit trail records it with the user of the operating system.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import httpx2
from pydantic import ValidationError

from app.agent.identity import tokens
from app.agent.identity.people import (
    CredentialId,
    Door,
    Person,
    Reach,
    Scope,
)
from app.agent.ports.store import Store
from app.cli.commands.agent_client import RunningAgent, running_agent
from app.cli.commands.errors import CommandFailed
from app.cli.commands.incidents import database
from app.cli.commands.speaker import shell_user, speaker, system_user
from app.config import Settings
from app.errors import Conflict
from app.wire.field_errors import field_errors, in_words
from app.wire.identity import (
    NewTokenView,
    TokenList,
    TokenRequest,
    TokenView,
)


def token_of(
    *,
    name: str,
    scopes: list[str],
    roles: list[str],
    days: float | None,
    environments: list[str] | None = None,
    services: list[str] | None = None,
) -> TokenRequest:
    """The token as it is asked for; `CommandFailed` names what does not fit."""
    try:
        return TokenRequest.model_validate(
            {
                "name": name,
                "scopes": scopes,
                "roles": roles,
                "days": days,
                "environments": environments or [],
                "services": services or [],
            }
        )
    except ValidationError as error:
        found = field_errors([dict(item) for item in error.errors(include_url=False)])
        raise CommandFailed(in_words(found)) from error


async def create(
    settings: Settings, url: str | None, wanted: TokenRequest, *, recover: bool = False
) -> NewTokenView:
    """Make one; with `recover` in the database and without HEAL_TOKEN, and on record as a recovery."""
    if recover and url is not None:
        raise CommandFailed("--recover writes to the database of DATABASE_URL: leave --url out")
    agent = None if recover else _asked(settings, url)
    reply = await agent.ask("/tokens", method="POST", body=wanted) if agent is not None else None
    if agent is not None and reply is not None and (url is not None or not _without_identity(reply)):
        return agent.parsed(NewTokenView, reply)
    async with database(settings, create=True) as store:
        by = _shell_person() if recover else await _administrator(settings, store)
        issued = await tokens.create(
            store.credentials,
            wanted.name,
            scopes=wanted.scopes,
            roles=wanted.roles,
            lifetime=None if wanted.days is None else timedelta(days=wanted.days),
            reach=wanted.reach,
            by=by,
            at=datetime.now(UTC),
            noted={"os_user": system_user(), **({"recovery": True} if recover else {})},
        )
    return NewTokenView.issued(issued)


async def list_tokens(settings: Settings, url: str | None) -> TokenList:
    """All of them."""
    agent = _asked(settings, url)
    reply = await agent.ask("/tokens") if agent is not None else None
    if agent is not None and reply is not None:
        return agent.parsed(TokenList, reply)
    async with database(settings) as store:
        return TokenList(items=[TokenView.of(one) for one in await store.credentials.tokens()])


async def revoke(settings: Settings, url: str | None, token_id: str) -> TokenView:
    """End one; `CommandFailed` when there is none, or it ended before."""
    agent = _asked(settings, url)
    if agent is not None:
        reply = await agent.ask(f"/tokens/{quote(token_id, safe='')}", method="DELETE")
        if reply is not None and reply.status_code == httpx2.codes.NOT_FOUND:
            raise _unknown(token_id)
        if reply is not None:
            return agent.parsed(TokenView, reply)
    async with database(settings) as store:
        found = await store.credentials.get(CredentialId(token_id))
        if found is None:
            raise _unknown(token_id)
        try:
            by = await _administrator(settings, store)
            return TokenView.of(await tokens.revoke(store.credentials, found.id, by=by, at=datetime.now(UTC)))
        except Conflict as error:
            raise CommandFailed(str(error)) from error


def line(token: TokenView) -> str:
    """One token as a person reads it."""
    if token.revoked_at is not None:
        holds = f"revoked {token.revoked_at:%Y-%m-%d} by {token.revoked_by}"
    elif token.expires_at is not None:
        holds = f"until {token.expires_at:%Y-%m-%d %H:%M} UTC"
    else:
        holds = "until revoked"
    held = [*token.scopes, *((f"roles {', '.join(token.roles)}",) if token.roles else ())]
    reach = Reach(environments=frozenset(token.environments), services=frozenset(token.services))
    about = f", about {reach} only" if reach.limited else ""
    used = f"last used {token.last_used_at:%Y-%m-%d}" if token.last_used_at is not None else "never used"
    return f"{token.id}  {token.name}: {', '.join(held)}{about}; {holds}; {used}"


def _without_identity(reply: httpx2.Response) -> bool:
    """The agent requires no identity yet and makes no tokens: the database takes them."""
    return reply.status_code == httpx2.codes.CONFLICT


def _asked(settings: Settings, url: str | None) -> RunningAgent | None:
    """Whether to call a running agent: if --url names one, or HEAL_TOKEN is set."""
    return running_agent(settings, url) if url is not None or settings.heal_token is not None else None


async def _administrator(settings: Settings, store: Store) -> Person:
    """The holder of HEAL_TOKEN; without one the user of this shell, while no administrator's token exists."""
    if settings.heal_token is not None:
        return await speaker(settings, store.credentials, None, Scope.ADMIN)
    existing = tokens.administrators(await store.credentials.tokens(), datetime.now(UTC))
    if existing:
        raise CommandFailed(
            f"an administrator's token exists ({existing[-1].id}, {existing[-1].name}): set HEAL_TOKEN to a "
            "token with the scope admin. If it is lost, `heal token create NAME --scope admin --recover` "
            "makes another in the database; the audit trail records that"
        )
    return _shell_person()


def _shell_person() -> Person:
    return Person(name=shell_user(), door=Door.CLI)


def _unknown(token_id: str) -> CommandFailed:
    return CommandFailed(f"no token {token_id!r} is known; `heal token list` lists them")
