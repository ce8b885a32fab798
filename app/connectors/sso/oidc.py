"""Sign-in with an OpenID Connect issuer: authorization code flow with PKCE, through authlib.

`IdentityProvider`, built by `app.bootstrap` where OIDC_ISSUER is set and loaded
only then. The issuer is not contacted before the first sign-in, so that the
agent starts while the issuer is down. authlib speaks the protocol; around it stand what
it leaves open: bounds on time and size, which signatures count, and the audience.
Errors name OIDC_ISSUER and never carry a code, a token or the client's secret
(promise 12); the reason of a failed validation is logged.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from authlib.integrations.starlette_client import OAuth, OAuthError
from authlib.oidc.core import CodeIDToken
from httpx2 import HTTPError
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry
from pydantic import SecretStr

from app.agent.identity.people import SignedOn, SignInAttempt
from app.clock import Clock
from app.config import Settings
from app.connectors.sso.claims import ClaimNames, Claims, subject_of
from app.connectors.sso.discovery import Published, read_discovery, read_keys
from app.connectors.sso.transport import IssuerTransport, reachable_safely
from app.errors import AgentError, ConfigurationError, Invalid, NotEntitled, PermanentError, TransientError

log = logging.getLogger(__name__)

CALLBACK_PATH = "/sign-on/callback"

_TIMEOUT_SECONDS = 5.0
_KNOWN_FOR = timedelta(hours=1)
_SILENT_FOR = timedelta(seconds=2)
"""Back-off after a failure, in which further sign-ins fail at once."""
_CLOCK_SKEW_SECONDS = 120
_MALFORMED = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError)
"""What an answer that is not of its promised shape makes of the libraries that read it."""


_NAMED = "the issuer (OIDC_ISSUER)"
_OAUTH_WORDS = ("invalid_request", "unsupported_grant_type", "invalid_scope", "access_denied", "server_error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """What the agent and its issuer agreed on."""

    issuer: str
    client_id: str
    client_secret: SecretStr | None
    redirect_uri: str
    scopes: str = "openid profile email"
    claims: ClaimNames = field(default_factory=ClaimNames)


@dataclass(frozen=True, slots=True, kw_only=True)
class _KnownIssuer:
    """An issuer as it published itself, and authlib's client for it."""

    published: Published
    keys: KeySet
    client: Any
    """authlib has no types."""
    until: datetime


class OidcIssuer:
    """`IdentityProvider` over one issuer."""

    def __init__(
        self, registration: Registration, clock: Clock, *, timeout_seconds: float = _TIMEOUT_SECONDS
    ) -> None:
        """Raises `ConfigurationError` for an issuer that is neither https nor on this machine."""
        if not reachable_safely(registration.issuer) or "?" in registration.issuer:
            raise ConfigurationError(
                "OIDC_ISSUER must be an address with https, such as https://login.example.com, or with http "
                "on this machine"
            )
        self._registration = registration
        self._clock = clock
        self._transport = IssuerTransport(timeout_seconds=timeout_seconds)
        self._known: _KnownIssuer | None = None
        self._asking = asyncio.Lock()
        self._failure: tuple[datetime, TransientError | PermanentError] | None = None

    @staticmethod
    def from_settings(settings: Settings, clock: Clock) -> OidcIssuer:
        """Raises `ConfigurationError` when OIDC_ISSUER or what it needs is not set or cannot be used."""
        if settings.oidc_issuer is None or settings.oidc_client_id is None or settings.public_url is None:
            raise ConfigurationError("OIDC_ISSUER needs OIDC_CLIENT_ID and PUBLIC_URL")
        return OidcIssuer(
            Registration(
                issuer=settings.oidc_issuer,
                client_id=settings.oidc_client_id,
                client_secret=settings.oidc_client_secret,
                redirect_uri=settings.public_url.rstrip("/") + CALLBACK_PATH,
                scopes=settings.oidc_scopes,
                claims=ClaimNames(name=settings.oidc_name_claim, roles=settings.oidc_roles_claim),
            ),
            clock,
        )

    async def begin(self) -> SignInAttempt:
        """Where to send a browser, with fresh secrets."""
        with self._explained("starting a sign-in"):
            known = await self._issuer()
            made = await known.client.create_authorization_url(self._registration.redirect_uri)
            return SignInAttempt(
                url=made["url"], state=made["state"], nonce=made["nonce"], verifier=made["code_verifier"]
            )

    async def finish(self, *, code: str, nonce: str, verifier: str) -> SignedOn:
        """Who the issuer says it was; nothing is believed that it did not sign for this attempt."""
        with self._explained("finishing a sign-in"):
            known = await self._issuer()
            token = await self._token(known, code, verifier)
            claims = await self._signed_claims(known, token, nonce)
            more = await self._userinfo(known, token, claims)
            return self._registration.claims.person(claims, more, self._registration.issuer)

    async def _token(self, known: _KnownIssuer, code: str, verifier: str) -> Mapping[str, Any]:
        try:
            token = await known.client.fetch_access_token(
                redirect_uri=self._registration.redirect_uri, code=code, code_verifier=verifier
            )
        except OAuthError as error:
            if error.error == "invalid_grant":
                raise Invalid("the code was used already, or is too old") from None
            raise
        return cast("Mapping[str, Any]", token)

    async def _signed_claims(self, known: _KnownIssuer, token: Mapping[str, Any], nonce: str) -> Claims:
        """What the id token says, once signature, issuer, audience, nonce and times are right."""
        text = token.get("id_token")
        if not isinstance(text, str):
            raise PermanentError("it sent no id token")
        registry = JWSRegistry(algorithms=list(known.published.algorithms), strict_check_header=False)
        try:
            signed = jwt.decode(text, key=known.keys, registry=registry)
        except InvalidKeyIdError:  # it may have new keys
            keys = read_keys(await self._transport.get_json(known.published.jwks_uri))
            signed = jwt.decode(text, key=keys, registry=registry)
            self._known = replace(known, keys=keys)
        claims = CodeIDToken(
            signed.claims,
            signed.header,
            {
                "iss": {"essential": True, "value": self._registration.issuer},
                "aud": {"essential": True, "value": self._registration.client_id},
                "nonce": {"essential": True, "value": nonce},
            },
            {
                "nonce": nonce,
                "client_id": self._registration.client_id,
                "access_token": token.get("access_token"),
            },
        )
        claims.validate(leeway=_CLOCK_SKEW_SECONDS)
        return dict(signed.claims)

    async def _userinfo(self, known: _KnownIssuer, token: Mapping[str, Any], claims: Claims) -> Claims:
        """The userinfo claims, requested only where the id token is not sufficient."""
        if known.published.userinfo_endpoint is None or not self._registration.claims.missing(claims):
            return {}
        userinfo = dict(await known.client.userinfo(token=dict(token)))
        if userinfo.get("sub") != subject_of(claims):
            raise PermanentError("its userinfo is for another subject than the id token")
        return userinfo

    async def _issuer(self) -> _KnownIssuer:
        """The issuer as it published itself within the last hour; many who ask at once ask it once."""
        async with self._asking:
            now = self._clock.now()
            if self._known is not None and now < self._known.until:
                return self._known
            if self._failure is not None and now < self._failure[0]:
                raise self._failure[1]
            try:
                self._known = await self._ask()
            except (TransientError, PermanentError) as error:
                self._failure = (self._clock.now() + _SILENT_FOR, error.with_traceback(None))
                raise
            self._failure = None
            return self._known

    async def _ask(self) -> _KnownIssuer:
        wanted = self._registration
        published = read_discovery(
            await self._transport.get_json(wanted.issuer.rstrip("/") + "/.well-known/openid-configuration"),
            wanted.issuer,
        )
        keys = read_keys(await self._transport.get_json(published.jwks_uri))
        secret = wanted.client_secret
        client = OAuth().register(
            "issuer",
            client_id=wanted.client_id,
            client_secret=None if secret is None else secret.get_secret_value(),
            authorize_url=published.authorization_endpoint,
            access_token_url=published.token_endpoint,
            userinfo_endpoint=published.userinfo_endpoint,
            client_kwargs={
                **self._transport.options(),
                "scope": wanted.scopes,
                "code_challenge_method": "S256",
                "token_endpoint_auth_method": "none" if secret is None else published.secret_sent_as,
                "leeway": 0,  # an access token is used at once, however short it lives
            },
        )
        return _KnownIssuer(
            published=published, keys=keys, client=client, until=self._clock.now() + _KNOWN_FOR
        )

    @contextmanager
    def _explained(self, purpose: str) -> Iterator[None]:
        """Map failures to the agent's errors and log them; the only place that does.

        After an answer that is not believed, what was learned of the issuer is learned
        again at the next attempt: it may have new keys under an old name.
        """
        failure: AgentError
        try:
            yield
        except TransientError as error:
            failure = TransientError(f"{_NAMED} does not answer: {error}")
        except Invalid as error:
            failure = Invalid(f"{_NAMED} rejected the code: {error}")
        except NotEntitled as error:
            log.warning("sign-in failed: %s", error)
            raise
        except (PermanentError, OAuthError, JoseError, HTTPError, *_MALFORMED) as error:
            failure = PermanentError(f"{_NAMED} failed validation: {_reason(error)}")
            self._known = None
        else:
            return
        log.warning("%s (%s)", failure, purpose)
        raise failure


def _reason(error: Exception) -> str:
    """What is wrong, without anything that the issuer said in its own words."""
    if isinstance(error, PermanentError):
        return str(error)
    if isinstance(error, OAuthError):
        word = error.error
        if word in ("invalid_client", "unauthorized_client"):
            return f"it answered {word}; check OIDC_CLIENT_ID and OIDC_CLIENT_SECRET"
        return f"it answered {word if word in _OAUTH_WORDS else 'with an error'}"
    if isinstance(error, JoseError):
        claim = getattr(error, "claim", None)
        return f"the id token is not valid: {type(error).__name__}" + (
            f" ({claim})" if claim in CodeIDToken.REGISTERED_CLAIMS else ""
        )
    return f"it sent an unreadable response: {type(error).__name__}"
