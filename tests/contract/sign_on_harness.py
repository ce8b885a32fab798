"""The whole application with an issuer, and a browser in front of both, for the contract of sign-in."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx2
from pydantic import SecretStr

from app.agent.identity.audit_log import AuditLogEntry
from app.agent.identity.people import Credential, presented, proves
from app.api.security.cookies import SESSION_COOKIE
from app.config import Settings
from testbed.oidc import OidcUser
from tests.api.harness import Harness, harness, make_settings

PUBLIC_URL = "http://localhost:8000"
CLIENT_ID, CLIENT_SECRET = "heal", "not-a-real-secret-of-the-client"
SESSION_SECRET = "not-a-real-secret-of-the-sessions"
REDIRECT_URI = f"{PUBLIC_URL}/sign-on/callback"

ANN = OidcUser(username="ann", password="correct horse", email="ann@example.com", groups=("responder", "sre"))
BEN = OidcUser(username="ben", password="battery staple", email="ben@example.com")
LEA = OidcUser(
    username="lea", password="tr0ub4dor", email="lea@example.com", email_verified=False, groups=("admin",)
)
USERS = (ANN, BEN, LEA)

_MAX_STEPS = 10
_UNUSED_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nothing here speaks TLS, and reading the machine's authorities for each request takes long."""
_FORM = re.compile(r'<form[^>]*action="([^"]*)"')
_HIDDEN = re.compile(r'<input type="hidden" name="([^"]*)" value="([^"]*)"')


def oidc_settings(folder: Path, issuer: str, **changes: Any) -> Settings:
    values: dict[str, Any] = {
        "public_url": PUBLIC_URL,
        "oidc_issuer": issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
        "session_secret": SecretStr(SESSION_SECRET),
    }
    return make_settings(folder, **{**values, **changes})


@dataclass(slots=True, kw_only=True)
class Visit:
    """A browser with cookies of its own, in front of the application and of the real network."""

    api: Harness
    cookies: httpx2.Cookies = field(default_factory=httpx2.Cookies)

    @property
    def home(self) -> str:
        """Where people reach the agent."""
        public = self.api.container.settings.public_url
        assert public is not None
        return public

    def request(self, method: str, url: str, **kwargs: Any) -> httpx2.Response:
        """One request; redirects are the test's to follow."""
        return self.api.run(self._request(method, urljoin(self.home, url), **kwargs))

    async def _request(self, method: str, url: str, **kwargs: Any) -> httpx2.Response:
        async with httpx2.AsyncClient(
            mounts={self.home: self.api.transport},
            trust_env=False,
            verify=_UNUSED_TLS,
            cookies=self.cookies,
            timeout=120,
        ) as client:
            answer = await client.request(method, url, **kwargs)
            self.cookies = client.cookies
            return answer

    def go(self, url: str) -> httpx2.Response:
        """Open a page as a browser does, to where it leads."""
        return self.follow(self.request("GET", url))

    def follow(self, answer: httpx2.Response, *, but: str | None = None) -> httpx2.Response:
        """Where redirects lead; `but` names the start of an address that is not opened any more."""
        for _ in range(_MAX_STEPS):
            if not answer.is_redirect:
                return answer
            there = urljoin(str(answer.url), answer.headers["location"])
            if but is not None and there.startswith(but):
                return answer
            answer = self.request("GET", there)
        raise AssertionError("redirected without end")

    def log_in(self, form: httpx2.Response, user: OidcUser, password: str | None = None) -> httpx2.Response:
        """Fill in the issuer's form; the answer to it."""
        action, fields = _FORM.search(form.text), dict(_HIDDEN.findall(form.text))
        assert action is not None, form.text
        fields |= {"username": user.username, "password": password or user.password}
        return self.request("POST", urljoin(str(form.url), action[1]), data=fields)

    def sign_in(self, user: OidcUser, to: str = "/dashboard") -> httpx2.Response:
        """All of it; where the person arrives."""
        return self.follow(self.log_in(self.go(f"/sign-on?to={to}"), user))

    def until_callback(self, user: OidcUser) -> str:
        """The address that the issuer sends this browser to, not opened yet."""
        answer = self.follow(self.log_in(self.go("/sign-on"), user), but=f"{self.home}/sign-on/callback")
        return str(answer.headers["location"])

    def session(self) -> Credential | None:
        """What the browser's cookie proves, as the store knows it."""
        shown = presented(self.cookies.get(SESSION_COOKIE) or "")
        if shown is None:
            return None
        found = self.api.run(self.api.container.store.credentials.get(shown[0]))
        return found if found is not None and proves(shown[1], found) else None

    def trail(self) -> tuple[AuditLogEntry, ...]:
        return self.api.run(self.api.container.store.audit_log.entries(after=-1, limit=100))


@contextmanager
def visiting(settings: Settings) -> Iterator[Visit]:
    """The application over a fresh store, and a browser that has been nowhere yet."""
    with harness(settings) as api:
        yield Visit(api=api)
