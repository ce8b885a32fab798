"""Maps an issuer's claims to a name and roles. Pure; `app.connectors.sso.oidc` verifies the claims.

The claims are from outside: a name becomes part of every record of a person's
actions, and roles decide their permissions, so anything that is not plainly usable
is refused (the name) or counts as nothing (the roles).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from app.agent.identity.people import SignedOn
from app.errors import NotEntitled, PermanentError

_EMAIL, _EMAIL_VERIFIED = "email", "email_verified"
_MAX_NAME = 200
_MAX_ROLE = 200
_MAX_ROLES = 256
_MAX_SUBJECT = 255

Claims = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """Where an issuer puts what the agent wants to know."""

    name: str = _EMAIL
    roles: str = "groups"

    def missing(self, claims: Claims) -> bool:
        """Whether a claim is missing here and may be in userinfo."""
        return not (self._names(claims) and self.roles in claims)

    def _names(self, claims: Claims) -> bool:
        """Whether the name and its verification are present, both from the same source."""
        return self.name in claims and (self.name != _EMAIL or _EMAIL_VERIFIED in claims)

    def person(self, claims: Claims, more: Claims, issuer: str) -> SignedOn:
        """The person named by the signed claims, or by `more` where these are incomplete.

        Raises `NotEntitled` with words for the person if the claims name no person.
        """
        return SignedOn(
            name=self._name(claims if self._names(claims) or self.name not in more else more),
            roles=roles_in(claims[self.roles] if self.roles in claims else more.get(self.roles)),
            issuer=issuer,
            subject=subject_of(claims),
        )

    def _name(self, claims: Claims) -> str:
        value = claims.get(self.name)
        if value is None:
            raise NotEntitled(
                f"The issuer did not say who you are: it sends no claim {self.name!r}. An administrator "
                "of the agent can have it sent, or name another claim in OIDC_NAME_CLAIM"
            )
        if (
            not isinstance(value, str)
            or not 1 <= len(name := value.strip()) <= _MAX_NAME
            or not name.isprintable()
        ):
            raise NotEntitled(
                f"The name that the issuer gives you cannot be used: the claim {self.name!r} must be "
                f"printable text of 1 to {_MAX_NAME} characters"
            )
        if self.name == _EMAIL and claims.get(_EMAIL_VERIFIED) is not True:
            raise NotEntitled(
                "The issuer has not verified your email address, so it cannot identify you here. "
                "Verify it there, then sign in again"
            )
        return name


def roles_in(value: object) -> frozenset[str]:
    """A list of texts, or one text, as roles; anything else, and more than could be meant, is none."""
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or len(listed) > _MAX_ROLES:
        return frozenset()
    if not all(isinstance(one, str) for one in listed):
        return frozenset()
    return frozenset(one for one in listed if 1 <= len(one) <= _MAX_ROLE and one.isprintable())


def subject_of(claims: Claims) -> str:
    """The issuer's subject identifier; `PermanentError` where there is none."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 1 <= len(subject) <= _MAX_SUBJECT or not subject.isprintable():
        raise PermanentError("it names no subject that can be kept")
    return subject
