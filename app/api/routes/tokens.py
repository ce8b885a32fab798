"""`/tokens`: administrators create and revoke API tokens.

Without configured identity, HTTP creates no tokens: any local caller could keep a
permanent credential. `heal token create` writes the first token to the database.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter
from starlette.requests import Request

from app.agent.identity import tokens
from app.agent.identity.people import CredentialId, Person, Scope
from app.api.bodies import read_model
from app.api.dependencies import ApiDependencies, ContainerDep, NoParameter
from app.api.openapi import json_body, problems
from app.api.problems import Problem
from app.api.security.access import needs
from app.errors import Conflict
from app.wire.identity import (
    NewTokenView,
    TokenList,
    TokenRequest,
    TokenView,
)

router = APIRouter(tags=["tokens"])


@router.get(
    "/tokens",
    response_model=TokenList,
    responses=problems(401, 403, 422, 429, 503),
    dependencies=[NoParameter, needs(Scope.ADMIN)],
    summary="List tokens without their secrets, newest first",
)
async def list_tokens(container: ContainerDep) -> TokenList:
    return TokenList(items=[TokenView.of(one) for one in await container.store.credentials.tokens()])


@router.post(
    "/tokens",
    status_code=201,
    response_model=NewTokenView,
    responses=problems(400, 401, 403, 409, 413, 415, 422, 429, 503, conflict="No identity is configured"),
    openapi_extra=json_body(TokenRequest),
    summary="Create a token; only this response contains its secret",
)
async def create_token(
    request: Request, container: ContainerDep, person: Annotated[Person, needs(Scope.ADMIN)]
) -> NewTokenView:
    wanted = await read_model(request, container.settings.max_body_bytes, TokenRequest)
    _refuse_the_unknown(container)
    issued = await tokens.create(
        container.store.credentials,
        wanted.name,
        scopes=wanted.scopes,
        roles=wanted.roles,
        lifetime=None if wanted.days is None else timedelta(days=wanted.days),
        reach=wanted.reach,
        by=person,
        at=container.clock.now(),
    )
    return NewTokenView.issued(issued)


@router.delete(
    "/tokens/{token_id}",
    response_model=TokenView,
    responses=problems(401, 403, 404, 409, 429, 503, conflict="Already revoked"),
    summary="Revoke a token or a session",
)
async def revoke_token(
    token_id: str, container: ContainerDep, person: Annotated[Person, needs(Scope.ADMIN)]
) -> TokenView:
    _refuse_the_unknown(container)
    found = await container.store.credentials.get(CredentialId(token_id))
    if found is None:
        raise Problem(
            status=404,
            kind="not-found",
            title="No such token",
            detail="No token has this id. GET /tokens lists all tokens.",
        )
    try:
        revoked = await tokens.revoke(
            container.store.credentials, found.id, by=person, at=container.clock.now()
        )
    except Conflict as error:
        raise Problem(
            status=409, kind="already-revoked", title="The token was already revoked", detail=f"{error}."
        ) from error
    return TokenView.of(revoked)


def _refuse_the_unknown(container: ApiDependencies) -> None:
    if container.settings.identity_required:
        return
    raise Problem(
        status=409,
        kind="no-identity",
        title="No identity is configured",
        detail="Authentication is disabled. Create the first token with `heal token create`, "
        "which writes to the database, and start the agent with REQUIRE_IDENTITY=true.",
    )
