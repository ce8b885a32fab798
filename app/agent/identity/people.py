"""The people who use the agent: a name, the assigned roles, and the entry point. Pure.

Every entry point (API, command line, pages, chat) creates a `Person` from verified data; the code that
evaluates an answer reads only this value. A credential authenticates a token or a session; only the hash of
its secret is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

CredentialId = NewType("CredentialId", str)

_ID_HEX = 16
_SECRET_HEX = 64
_ANYONE = "*"
_WRITTEN = re.compile(rf"heal_((?:tok|ses)_[0-9a-f]{{{_ID_HEX}}})_([0-9a-f]{{{_SECRET_HEX}}})")


class Door(StrEnum):
    """The entry point through which a person reached the agent."""

    API = "api"
    CLI = "cli"
    PAGE = "page"
    SLACK = "slack"


class Scope(StrEnum):
    """The rights of a credential."""

    INGEST = "ingest"
    """Post events."""
    READ = "read"
    """See incidents, signals, approvals and guardrails."""
    APPROVE = "approve"
    """Answer approvals; READ goes with it."""
    OPERATE = "operate"
    """Run a pass of the loop, set the kill switch, close a circuit breaker; READ goes with it."""
    ADMIN = "admin"
    """Everything, tokens and the audit trail of people included."""


def effective(scopes: Iterable[Scope]) -> frozenset[Scope]:
    """The scopes, including implied ones."""
    given = frozenset(scopes)
    if Scope.ADMIN in given:
        return frozenset(Scope)
    return given | ({Scope.READ} if given & {Scope.APPROVE, Scope.OPERATE} else frozenset())


def scopes_of(roles: Iterable[str], granted: Mapping[str, Iterable[Scope]]) -> frozenset[Scope]:
    """The scopes of a person with these roles; a scope granted to `*` is granted to all."""
    return effective(scope for role in (*roles, _ANYONE) for scope in granted.get(role, ()))


class SenderKind(StrEnum):
    """The known identity of the sender of a signal."""

    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """The holder of a token or session of this agent."""
    WEBHOOK = "webhook"
    """A sender that knows the secret of a webhook."""
    ADDRESS = "address"
    """Only an address, without proof of identity."""
    STREAM = "stream"
    """A sender that may write to a stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """The sender of a signal, as far as known."""

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
    """The environments and services that a token may report about; an empty set means no limit."""

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
    """A person who answers a request, or changes a guardrail."""

    name: str
    roles: frozenset[str] = frozenset()
    """From the sign-in, the token or the configuration; never from the person's own input."""
    door: Door = Door.API
    verified: bool = False
    """Proved by a token, a sign-in or a signature; otherwise unauthenticated, on a loopback address."""
    scopes: frozenset[Scope] = frozenset(Scope)
    """Their rights; all scopes if no identity is configured."""
    token_id: CredentialId | None = None
    """The token or session that proves it."""
    reach: Reach = NO_LIMIT
    """The services that they may report about."""

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes


class CredentialKind(StrEnum):
    TOKEN = "token"  # noqa: S105 - a kind, not a secret
    """Made by an administrator, for a program or a person; holds until it expires or is revoked."""
    SESSION = "session"
    """Of a person who signed in, in a browser."""


_PREFIX = {CredentialKind.TOKEN: "tok_", CredentialKind.SESSION: "ses_"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """A token or a session as stored: without its secret."""

    id: CredentialId
    kind: CredentialKind
    name: str
    """The name of the holder; part of every record of its use."""
    digest: str = field(repr=False)
    """SHA-256 of the secret in hex: 256 random bits need no slower hash."""
    roles: frozenset[str]
    scopes: frozenset[Scope]
    """The scopes of a token. The rights of a session follow from its roles, as configured when it is used."""
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
        """Why it is not valid at that time; None while it is valid."""
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
class SignInAttempt:
    """The values that a browser takes to the issuer, and the values needed when it returns."""

    url: str
    """Where the browser is sent."""
    state: str
    """Returns with the browser, and must be unchanged."""
    nonce: str = field(repr=False)
    """A part of what the issuer signs, so that its answer is valid for this attempt only."""
    verifier: str = field(repr=False)
    """PKCE: without it the code that the browser carries cannot be used."""


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
    text: tuple[CredentialId, str] | None = None,
) -> Issued:
    """A credential with a fresh secret, or with the identifier and the secret of `text` (`presented`)."""
    identifier, secret = text or (
        CredentialId(_PREFIX[kind] + secrets.token_hex(_ID_HEX // 2)),
        secrets.token_hex(_SECRET_HEX // 2),
    )
    credential = Credential(
        id=identifier,
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
    """The id and the secret of a presented credential; None if it is not a credential of this agent."""
    found = _WRITTEN.fullmatch(text)
    return None if found is None else (CredentialId(found[1]), found[2])


def proves(secret: str, credential: Credential) -> bool:
    """Whether the secret matches the credential, compared in constant time."""
    return hmac.compare_digest(digest(secret), credential.digest)


def digest(secret: str) -> str:
    """The stored form of a secret: SHA-256 in hex."""
    return hashlib.sha256(secret.encode("utf-8", "backslashreplace")).hexdigest()


_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff]"
)
"""What Unicode lets a display leave out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EscalationStep:
    """Without an answer for this long, further people are notified and may answer too."""

    after: timedelta
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalTerms:
    """The requirements for an approval. The defaults require one approval by any person."""

    roles: tuple[str, ...] = ()
    """The roles of which an answer needs one; none: every person who may answer approvals."""
    people: int = 1
    """So many different people must say yes. One no is enough."""
    not_by: tuple[str, ...] = ()
    """Who may not say yes: those who asked for the action, or sent a signal that it rests on."""
    escalation: tuple[EscalationStep, ...] = ()

    def roles_at(self, waited: timedelta) -> frozenset[str] | None:
        """The roles that may answer after that time; None where any may."""
        if not self.roles:
            return None
        reached = (step.roles for step in self.escalation if step.after <= waited)
        return frozenset(self.roles).union(*reached)

    @property
    def every_role(self) -> frozenset[str]:
        """The roles that may answer at first, and the roles of its escalation."""
        return frozenset(self.roles).union(*(step.roles for step in self.escalation))

    def met_by(self, other: ApprovalTerms, said_yes: Iterable[str] = ()) -> bool:
        """Whether an approval on `other` terms, by these approvers, satisfies these terms.

        The new terms must not exclude a person who approved; a request without an answer satisfies them
        while it excludes the same people.
        """
        roles = not self.roles or (bool(other.roles) and other.every_role <= self.every_role)
        agreed = tuple(said_yes)
        barred = any(same_person(name, yes) for name in self.not_by for yes in agreed)
        kept = not barred if agreed else set(other.not_by) >= set(self.not_by)
        return roles and other.people >= self.people and kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one person said."""

    by: str
    approve: bool
    at: datetime
    comment: str = ""
    roles: tuple[str, ...] = ()
    door: Door = Door.API
    verified: bool = False


def same_person(one: str, other: str) -> bool:
    """Names as people read them: case, width, spaces and invisible characters are ignored."""
    return _folded(one) == _folded(other)


def _folded(name: str) -> str:
    seen = _INVISIBLE.sub("", unicodedata.normalize("NFKC", name))
    return " ".join(seen.casefold().split())


def combined(own: ApprovalTerms, policy: ApprovalTerms | None) -> ApprovalTerms:
    """The configured terms with those of a policy: the policy sets the roles, the higher number applies."""
    if policy is None:
        return own
    return ApprovalTerms(
        roles=policy.roles or own.roles,
        people=max(own.people, policy.people),
        not_by=tuple(sorted({*own.not_by, *policy.not_by})),
        escalation=policy.escalation or own.escalation,
    )


def wanted(terms: ApprovalTerms) -> str:
    """Who must answer, as the end of the sentence that asks; empty where any one person may answer."""
    if not terms.roles and terms.people == 1 and not terms.not_by:
        return ""
    who = f"{terms.people} different people" if terms.people > 1 else "a person"
    roles = f" with one of the roles {', '.join(terms.roles)}" if terms.roles else ""
    but = f", not {', '.join(terms.not_by)}" if terms.not_by else ""
    return f", by {who}{roles}{but}"
