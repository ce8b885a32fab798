"""Reads an issuer's discovery document: endpoints and signing keys. Pure.

`app.connectors.sso.oidc` fetches the documents. Only what is listed here is taken
from them, so that no document can change how the agent's client behaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from joserfc.errors import JoseError
from joserfc.jwk import Key, KeySet, import_key

from app.connectors.sso.transport import reachable_safely
from app.errors import PermanentError

_SIGNED_WITH = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Signatures that only the issuer can make: neither `none` nor the client's own secret (HS256)."""
_SECRET_SENT_AS = ("client_secret_basic", "client_secret_post")
_MAX_KEYS = 100
_MAX_URL = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """The part of a discovery document that a sign-in needs, checked."""

    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None
    algorithms: tuple[str, ...]
    """With which it may sign an id token."""
    secret_sent_as: str
    """How the client proves itself, if it has a secret."""


def read_discovery(document: object, issuer: str) -> Published:
    """Raises `PermanentError` where it is not one, or another issuer's."""
    if not isinstance(document, Mapping):
        raise PermanentError("its discovery document is not a JSON object")
    if document.get("issuer") != issuer:
        raise PermanentError(
            "its discovery document is for another issuer: set OIDC_ISSUER to exactly that value "
            "as 'issuer', slash at the end included"
        )
    return Published(
        authorization_endpoint=_address(document, "authorization_endpoint"),
        token_endpoint=_address(document, "token_endpoint"),
        jwks_uri=_address(document, "jwks_uri"),
        userinfo_endpoint=_address(document, "userinfo_endpoint")
        if document.get("userinfo_endpoint")
        else None,
        algorithms=_algorithms(document),
        secret_sent_as=_secret_sent_as(document),
    )


def read_keys(document: object) -> KeySet:
    """The keys that can be used; what is not understood is left out. `PermanentError` where none is left."""
    listed = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(listed, list) or len(listed) > _MAX_KEYS:
        raise PermanentError("its key set is none, or too large")
    keys = [key for one in listed if (key := _key(one)) is not None]
    if not keys:
        raise PermanentError("its key set holds no key that can be used")
    return KeySet(keys)


def _key(one: object) -> Key | None:
    if not isinstance(one, dict) or one.get("kty") not in ("RSA", "EC", "OKP") or one.get("use") == "enc":
        return None
    try:
        return import_key(one)
    except (JoseError, ValueError, TypeError, KeyError):  # whatever a malformed key makes of the library
        return None


def _address(document: Mapping[object, object], name: str) -> str:
    found = document.get(name)
    if not isinstance(found, str) or len(found) > _MAX_URL or not reachable_safely(found):
        raise PermanentError(f"its discovery document has no {name} with https, or on this machine")
    return found


def _algorithms(document: Mapping[object, object]) -> tuple[str, ...]:
    named = _texts(document.get("id_token_signing_alg_values_supported"), ("RS256",))
    usable = tuple(name for name in named if name in _SIGNED_WITH)
    if not usable:
        raise PermanentError("it signs id tokens with no asymmetric algorithm")
    return usable


def _secret_sent_as(document: Mapping[object, object]) -> str:
    named = _texts(document.get("token_endpoint_auth_methods_supported"), _SECRET_SENT_AS[:1])
    return next((one for one in _SECRET_SENT_AS if one in named), _SECRET_SENT_AS[0])


def _texts(value: object, default: tuple[str, ...]) -> tuple[str, ...]:
    if value is None:
        return default
    return tuple(one for one in value if isinstance(one, str)) if isinstance(value, list) else ()
