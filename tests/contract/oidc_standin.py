"""A small OpenID Connect provider over loopback: real HTTP, real RS256, PKCE checked, and faults on demand.

It stands in for the certified provider of the real tier (`testbed.oidc`): one suite
holds both to the same behaviour. A test changes what it signs, publishes or answers.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

from testbed.oidc import OidcUser

Claims = dict[str, Any]

_LIFETIME_SECONDS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer made up by a test."""

    status: int = 200
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)


def new_key(kid: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": kid, "use": "sig", "alg": "RS256"})


@dataclass(slots=True, kw_only=True)
class OidcStandIn:
    """A running provider; every field may be changed while it runs."""

    users: Sequence[OidcUser]
    client_id: str
    client_secret: str | None
    redirect_uri: str
    issuer: str = ""
    key: RSAKey = field(default_factory=lambda: new_key("first"))
    told_in_id_token: bool = True
    """Whether the id token carries email and groups, or only userinfo does."""
    codes_last: bool = False
    """A fault: a code may be used more than once."""
    alter: Callable[[Claims], Claims] = dict
    """What the id token says, given what it should say."""
    sign: Callable[[Claims], str] | None = None
    publish: Callable[[Claims], object] = dict
    """The discovery document, given what it should be."""
    replies: dict[str, Reply] = field(default_factory=dict)
    """By path, instead of the true answer."""
    asked: list[str] = field(default_factory=list)
    """The paths of every request, in order."""
    _attempts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    _codes: dict[str, tuple[Mapping[str, str], OidcUser]] = field(default_factory=dict)
    _tokens: dict[str, OidcUser] = field(default_factory=dict)

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request."""
        url = urlsplit(target)
        self.asked.append(url.path)
        if url.path in self.replies:
            return self.replies[url.path]
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        form = {name: values[-1] for name, values in parse_qs(body.decode()).items()}
        match method, url.path:
            case "GET", "/.well-known/openid-configuration":
                return _json(self.publish(self._published()))
            case "GET", "/keys":
                return _json({"keys": [self.key.as_dict(private=False)]})
            case "GET", "/authorize":
                return self._authorize(query)
            case "POST", "/login":
                return self._login(form)
            case "POST", "/token":
                return self._token(headers, form)
            case "GET", "/userinfo":
                return self._userinfo(headers)
            case _:
                return Reply(status=404)

    def claims(self, user: OidcUser) -> Claims:
        """The claims about a user besides the subject."""
        told: Claims = {"email": user.email, "email_verified": user.email_verified, "name": user.username}
        return told if user.groups is None else {**told, "groups": list(user.groups)}

    def _published(self) -> Claims:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "jwks_uri": f"{self.issuer}/keys",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "code_challenge_methods_supported": ["S256"],
        }

    def _authorize(self, query: Mapping[str, str]) -> Reply:
        if query.get("client_id") != self.client_id or query.get("redirect_uri") != self.redirect_uri:
            return _page(400, "unknown client, or not its redirect URI")
        wanted = {"response_type": "code", "code_challenge_method": "S256"}
        if any(query.get(name) != value for name, value in wanted.items()) or not query.get("code_challenge"):
            return self._back(query, error="invalid_request")
        if "openid" not in query.get("scope", "").split():
            return self._back(query, error="invalid_scope")
        attempt = secrets.token_urlsafe()
        self._attempts[attempt] = query
        return self._form(attempt)

    def _form(self, attempt: str, told: str = "") -> Reply:
        return _page(
            200,
            f'<p>{html.escape(told)}</p><form method="POST" action="/login">'
            f'<input type="hidden" name="id" value="{html.escape(attempt)}">'
            '<label>Username: <input name="username"></label>'
            '<label>Password: <input name="password" type="password"></label>'
            '<button type="submit">Login</button>'
            '<button type="submit" name="decline" value="yes">Decline</button></form>',
        )

    def _login(self, form: Mapping[str, str]) -> Reply:
        attempt = form.get("id", "")
        query = self._attempts.get(attempt)
        if query is None:
            return _page(400, "no such attempt")
        if "decline" in form:
            return self._back(query, error="access_denied", error_description="<b>no</b>")
        for user in self.users:
            if user.username == form.get("username") and user.password == form.get("password"):
                code = secrets.token_urlsafe()
                self._codes[code] = (query, user)
                return self._back(query, code=code)
        return self._form(attempt, "username or password wrong")

    def _back(self, query: Mapping[str, str], **told: str) -> Reply:
        target = f"{self.redirect_uri}?{urlencode({**told, 'state': query.get('state', '')})}"
        return Reply(status=302, headers=(("Location", target),))

    def _token(self, headers: Mapping[str, str], form: Mapping[str, str]) -> Reply:
        if not self._is_client(headers.get("authorization", ""), form):
            return _json({"error": "invalid_client"}, 401)
        known = self._codes.get(form.get("code", ""))
        if known is None:
            return _json({"error": "invalid_grant", "error_description": "it was used"}, 400)
        query, user = known
        if not self.codes_last:
            del self._codes[form["code"]]
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
        if challenge.rstrip(b"=").decode() != query["code_challenge"]:
            return _json({"error": "invalid_grant"}, 400)
        if (
            form.get("redirect_uri") != query["redirect_uri"]
            or form.get("grant_type") != "authorization_code"
        ):
            return _json({"error": "invalid_grant"}, 400)
        token = secrets.token_urlsafe()
        self._tokens[token] = user
        now = int(time.time())
        said: Claims = {
            "iss": self.issuer,
            "sub": user.subject,
            "aud": self.client_id,
            "iat": now,
            "exp": now + _LIFETIME_SECONDS,
            "nonce": query.get("nonce"),
            **(self.claims(user) if self.told_in_id_token else {}),
        }
        return _json(
            {
                "access_token": token,
                "token_type": "Bearer",
                "expires_in": _LIFETIME_SECONDS,
                "id_token": (self.sign or self.signed)(self.alter(said)),
            }
        )

    def signed(self, claims: Claims) -> str:
        """With the key that is published."""
        return jwt.encode({"alg": "RS256", "kid": self.key.kid}, claims, self.key)

    def _is_client(self, authorization: str, form: Mapping[str, str]) -> bool:
        if self.client_secret is None:
            return form.get("client_id") == self.client_id and "client_secret" not in form
        scheme, _, given = authorization.partition(" ")
        if scheme != "Basic":
            return False
        name, _, secret = base64.b64decode(given).decode().partition(":")
        return (unquote(name), unquote(secret)) == (self.client_id, self.client_secret)

    def _userinfo(self, headers: Mapping[str, str]) -> Reply:
        user = self._tokens.get(headers.get("authorization", "").removeprefix("Bearer "))
        if user is None:
            return Reply(status=401)
        return _json({"sub": user.subject, **self.claims(user)})


def _json(document: object, status: int = 200) -> Reply:
    return Reply(status=status, body=json.dumps(document).encode())


def _page(status: int, text: str) -> Reply:
    body = f"<!doctype html><html lang=en><title>Issuer</title><link rel=icon href=data:,>{text}"
    return Reply(status=status, body=body.encode(), headers=(("Content-Type", "text/html"),))


@contextmanager
def oidc_standin(made: OidcStandIn) -> Iterator[OidcStandIn]:
    """Serve it on a free port of loopback until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = made.answer(self.command, self.path, headers, body)
            self.send_response(reply.status)
            for name, value in reply.headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name for it
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.issuer = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, name="issuer", kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
