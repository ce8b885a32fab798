"""Who says something to the agent: a name, the roles it was given, and by which door it came. Pure.

Every door (API, command line, pages, chat) makes a `Person` of what it knows for
certain; whatever weighs an answer reads that, and nothing else. A credential is
what a token or a session proves itself with; only the hash of its secret is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

CredentialId = NewType("CredentialId", str)

_ID_HEX = 16
_SECRET_HEX = 64
_EVERYBODY = "*"
_WRITTEN = re.compile(rf"heal_((?:tok|ses)_[0-9a-f]{{{_ID_HEX}}})_([0-9a-f]{{{_SECRET_HEX}}})")


class Door(StrEnum):
    """By which way a person speaks to the agent."""

    API = "api"
    CLI = "cli"
    PAGE = "page"
    SLACK = "slack"


class Scope(StrEnum):
    """What a credential is good for."""

    INGEST = "ingest"
    """Post events."""
    READ = "read"
    """See incidents, signals, approvals and brakes."""
    APPROVE = "approve"
    """Answer approvals; READ goes with it."""
    OPERATE = "operate"
    """Run a pass of the loop, set the kill switch, close a circuit breaker; READ goes with it."""
    ADMIN = "admin"
    """Everything, tokens and the audit trail of people included."""


def effective(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes with those that go with them."""
    given = frozenset(scopes)
    if Scope.ADMIN in given:
        return frozenset(Scope)
    return given | ({Scope.READ} if given & {Scope.APPROVE, Scope.OPERATE} else frozenset())


def scopes_of(roles: Iterable[str], granted: Mapping[str, Iterable[Scope]]) -> frozenset[Scope]:
    """What somebody with these roles may do; what is granted to `*` is granted to all."""
    return effective(scope for role in (*roles, _EVERYBODY) for scope in granted.get(role, ()))


class SenderKind(StrEnum):
    """What is known of whoever sent a signal."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """The holder of a token or session of this agent."""
    WEBHOOK = "webhook"
    """Whoever knows the secret of a webhook."""
    ADDRESS = "address"
    """An address, and nothing that proves who it is."""
    STREAM = "stream"
    """Whoever may write to a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Who sent a signal, as far as it is known."""

    kind: SenderKind
    name: str
    """Of the token's holder, of the webhook, of the stream; of an address the address itself."""
    token_id: CredentialId | None = None
    address: str | None = None
    """The peer that the request came from; None behind a socket file, and for streams."""

    @property
    def person(self) -> str | None:
        """Whose name is proved, and barred from approving what rests on the signal."""
        return self.name if self.kind is SenderKind.TOKEN else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What a token may report about; an empty set is no limit."""

    environments: frozenset[str] = frozenset()
    services: frozenset[str] = frozenset()

    def covers(self, environment: str, service: str) -> bool:
        """Whether a signal about this service is within it."""
        return (not self.environments or environment in self.environments) and (
            not self.services or service in self.services
        )

    @property
    def limited(self) -> bool:
        return bool(self.environments or self.services)

    def __str__(self) -> str:
        parts = [
            f"{what} {', '.join(sorted(names))}"
            for what, names in (("environments", self.environments), ("services", self.services))
            if names
        ]
        return " and ".join(parts) or "everything"


NO_LIMIT = Reach()


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who answers, brakes or releases."""

    name: str
    roles: frozenset[str] = frozenset()
    """What the sign-on, the token or the configuration gives them; never what they say themselves."""
    door: Door = Door.API
    verified: bool = False
    """Proved by a token, a sign-on or a signature; otherwise taken at their word, on a loopback address."""
    scopes: frozenset[Scope] = frozenset(Scope)
    """What they may do; everything where no identity is configured."""
    token_id: CredentialId | None = None
    """The token or session that proves it."""
    reach: Reach = NO_LIMIT
    """What they may report about."""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


class CredentialKind(StrEnum):
    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """Made by an administrator, for a program or a person; holds until it expires or is revoked."""
    SESSION = "session"
    """Of a person who signed on, in a browser."""


_PREFIX = {CredentialKind.TOKEN: "tok_", CredentialKind.SESSION: "ses_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token or a session as it is kept: without its secret."""

    id: CredentialId
    kind: CredentialKind
    name: str
    """Whose it is; stands in every record of what is done with it."""
    digest: str = field(repr=False)
    """SHA-256 of the secret in hex: 256 random bits need no slower hash."""
    roles: frozenset[str]
    scopes: frozenset[Scope]
    """Of a token. What a session may do follows from its roles, as they are configured when it is used."""
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    revoked_by: str | None = None
    last_used_at: datetime | None = None
    """To an hour or so."""
    reach: Reach = NO_LIMIT
    """What its holder may report about."""

    def refusal(self, at: datetime) -> str | None:
        """Why it is good for nothing at that time; None while it holds."""
        if self.revoked_at is not None:
            return f"it was revoked at {self.revoked_at:%Y-%m-%d %H:%M:%S} UTC"
        if self.expires_at is not None and at >= self.expires_at:
            return f"it expired at {self.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A new credential, and the only copy of the text that proves it."""

    credential: Credential
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignOnAttempt:
    """What a browser takes to the issuer, and what must be known again when it comes back."""

    url: str
    """Where the browser is sent."""
    state: str
    """Comes back with the browser, and must be the one that left with it."""
    nonce: str = field(repr=False)
    """Stands in what the issuer signs, so that it is good for this attempt only."""
    verifier: str = field(repr=False)
    """PKCE: without it nobody can use the code that the browser carries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedOn:
    """Whom the issuer vouches for."""

    name: str
    roles: frozenset[str]
    issuer: str
    subject: str
    """The issuer's own, lasting name for them."""


def issue(
    kind: CredentialKind,
    name: str,
    *,
    roles: Iterable[str],
    scopes: Iterable[Scope],
    by: str,
    at: datetime,
    lifetime: timedelta | None,
    reach: Reach = NO_LIMIT,
) -> Issued:
    """A credential with a fresh secret."""
    identifier, secret = _PREFIX[kind] + secrets.token_hex(_ID_HEX // 2), secrets.token_hex(_SECRET_HEX // 2)
    credential = Credential(
        id=CredentialId(identifier),
        kind=kind,
        name=name,
        digest=digest(secret),
        roles=frozenset(roles),
        scopes=frozenset(scopes),
        created_at=at,
        created_by=by,
        expires_at=None if lifetime is None else at + lifetime,
        reach=reach,
    )
    return Issued(credential=credential, text=f"heal_{identifier}_{secret}")


def presented(text: str) -> tuple[CredentialId, str] | None:
    """The id and the secret of what somebody presents; None when it is no credential of this agent."""
    found = _WRITTEN.fullmatch(text)
    return None if found is None else (CredentialId(found[1]), found[2])


def proves(secret: str, credential: Credential) -> bool:
    """Whether the secret is the credential's, in a time that does not tell how much of it is right."""
    return hmac.compare_digest(digest(secret), credential.digest)


def digest(secret: str) -> str:
    """What is kept of a secret: SHA-256 in hex."""
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()
