"""Tokens as HTTP takes and answers them, and as `heal token list --json` prints them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.agent.identity.people import (
    Credential,
    Issued,
    Reach,
    Scope,
)
from app.wire.fields import DnsLabel, Person

MAX_DAYS = 3650
MAX_ROLES = 50
MAX_LIMITS = 100

_LIMITED_SCOPES = frozenset({Scope.INGEST, Scope.READ})

RoleName = Annotated[Person, Field(examples=["sre"])]


class TokenRequest(BaseModel):
    """A token to be made, for a program or a person."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Person = Field(
        description="Whose it is; two tokens of one name are one person where different people must agree.",
        examples=["deploy-pipeline"],
    )
    scopes: list[Annotated[Scope, Field(strict=False)]] = Field(min_length=1, max_length=len(Scope))
    roles: list[RoleName] = Field(default=[], max_length=MAX_ROLES)
    environments: list[DnsLabel] = Field(
        default=[],
        max_length=MAX_LIMITS,
        description="What it may report about; none: every environment.",
        examples=[["prod"]],
    )
    services: list[DnsLabel] = Field(
        default=[],
        max_length=MAX_LIMITS,
        description="What it may report about; none: every service.",
        examples=[["payments-api"]],
    )
    days: Annotated[float, Field(gt=0, le=MAX_DAYS, allow_inf_nan=False)] | None = Field(
        default=None, description="How long it holds; left out: until it is revoked."
    )

    @model_validator(mode="after")
    def _limits_what_it_reports(self) -> Self:
        if self.reach.limited and not set(self.scopes) <= _LIMITED_SCOPES:
            raise PydanticCustomError(
                "limits_too_little",
                "the scopes {scopes} cannot be limited to environments or services: only ingest and read can",
                {"scopes": ", ".join(sorted(set(self.scopes) - _LIMITED_SCOPES))},
            )
        return self

    @property
    def reach(self) -> Reach:
        return Reach(environments=frozenset(self.environments), services=frozenset(self.services))


class TokenView(BaseModel):
    """A token, without what proves it."""

    id: str
    name: str
    scopes: list[Scope]
    roles: list[str]
    environments: list[str] = Field(
        default=[], description="The environments that it may report about; empty: all."
    )
    services: list[str] = Field(default=[], description="The services that it may report about; empty: all.")
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    last_used_at: datetime | None = Field(description="To an hour or so.")

    @classmethod
    def of(cls, credential: Credential) -> Self:
        return cls(
            id=credential.id,
            name=credential.name,
            scopes=sorted(credential.scopes),
            roles=sorted(credential.roles),
            environments=sorted(credential.reach.environments),
            services=sorted(credential.reach.services),
            created_at=credential.created_at,
            created_by=credential.created_by,
            expires_at=credential.expires_at,
            revoked_at=credential.revoked_at,
            revoked_by=credential.revoked_by,
            last_used_at=credential.last_used_at,
        )


class NewTokenView(TokenView):
    """A token that was just made."""

    token: str = Field(description="What proves it. It is shown this once, and only its hash is kept.")

    @classmethod
    def issued(cls, issued: Issued) -> Self:
        return cls(token=issued.text, **TokenView.of(issued.credential).model_dump())


class TokenList(BaseModel):
    """Every token, newest first, those that hold no more included."""

    items: list[TokenView]
