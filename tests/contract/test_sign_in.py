"""One contract of signing on, over the stand-in provider and over a certified one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import pytest

from app.agent.identity.audit_log import HumanDecisionKind
from app.agent.identity.people import CredentialKind, Door
from app.api.pages.sign_in import ATTEMPT_COOKIE
from app.api.security.cookies import SESSION_COOKIE
from testbed.oidc import OidcServer
from testbed.supervisor import Supervisor
from tests.contract.oidc_standin import OidcStandIn, oidc_standin
from tests.contract.sign_on_harness import (
    ANN,
    BEN,
    CLIENT_ID,
    CLIENT_SECRET,
    LEA,
    REDIRECT_URI,
    USERS,
    Visit,
    oidc_settings,
    visiting,
)


class Provider(Protocol):
    @property
    def issuer(self) -> str: ...
    @property
    def client_secret(self) -> str | None: ...


REAL = pytest.mark.real


@pytest.fixture(
    params=[
        "stand-in",
        "stand-in, public client",
        pytest.param("certified", marks=REAL),
        pytest.param("certified, public client", marks=REAL),
    ]
)
def provider(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Provider]:
    """An issuer that knows the example's people; a public client has PKCE and no secret."""
    kind: str = request.param
    secret = None if kind.endswith("public client") else CLIENT_SECRET
    if kind.startswith("stand-in"):
        made = OidcStandIn(users=USERS, client_id=CLIENT_ID, client_secret=secret, redirect_uri=REDIRECT_URI)
        with oidc_standin(made) as standin:
            yield standin
        return
    supervisor = Supervisor()
    try:
        server = OidcServer(
            supervisor=supervisor,
            directory=tmp_path,
            users=USERS,
            client_id=CLIENT_ID,
            client_secret=secret,
            redirect_uri=REDIRECT_URI,
        )
        server.start()
        yield server
    finally:
        supervisor.close()


@pytest.fixture
def visit(provider: Provider, tmp_path: Path) -> Iterator[Visit]:
    secret = {} if provider.client_secret else {"oidc_client_secret": None}
    with visiting(oidc_settings(tmp_path, provider.issuer, **secret)) as one:
        yield one


def test_a_person_signs_on_and_lands_where_they_wanted_to_go(visit: Visit) -> None:
    """The session is theirs, with the issuer's groups as roles, and on the audit trail."""
    arrived = visit.sign_in(ANN, to="/dashboard%3Fservice=payments-api")
    assert (arrived.status_code, str(arrived.url)) == (
        200,
        "http://localhost:8000/dashboard?service=payments-api",
    )
    session = visit.session()
    assert session is not None
    assert session.kind is CredentialKind.SESSION
    assert session.name == ANN.email
    assert session.roles == {"responder", "sre"}
    assert session.scopes == frozenset()
    now = visit.api.clock.now()
    assert (session.created_at, session.expires_at) == (now, now + timedelta(hours=12))
    (entry,) = visit.trail()
    assert (entry.kind, entry.by, entry.door, entry.verified) == (
        HumanDecisionKind.SIGNED_ON,
        ANN.email,
        Door.PAGE,
        True,
    )
    assert entry.subject == session.id
    assert entry.data == {
        "issuer": visit.api.container.settings.oidc_issuer,
        "issuer_subject": ANN.subject,
        "roles": ["responder", "sre"],
    }


def test_a_person_without_groups_has_no_roles(visit: Visit) -> None:
    """They may do what is granted to every account."""
    visit.sign_in(BEN)
    session = visit.session()
    assert session is not None
    assert (session.name, session.roles) == (BEN.email, frozenset())


def test_a_wrong_password_opens_no_session(visit: Visit) -> None:
    """The issuer keeps the person; the agent hears nothing of it. The right one does afterwards."""
    form = visit.log_in(visit.go("/sign-on"), ANN, password="wrong")
    assert "password wrong" in form.text
    assert visit.session() is None
    assert visit.trail() == ()
    assert visit.follow(visit.log_in(form, ANN)).status_code == 200
    assert visit.session() is not None


def test_an_email_that_is_not_verified_names_no_person(visit: Visit) -> None:
    """Any person could have entered it; the page says what to do."""
    refused = visit.sign_in(LEA)
    assert refused.status_code == 403
    assert "not verified your email address" in refused.text
    assert LEA.email not in refused.text
    assert visit.session() is None
    assert visit.trail() == ()


def test_a_code_is_good_for_nothing_twice(visit: Visit) -> None:
    """Neither is the callback's address, even with the cookie that belonged to it."""
    address = visit.until_callback(ANN)
    attempt = visit.cookies[ATTEMPT_COOKIE]
    assert visit.request("GET", address).status_code == 303
    first = visit.cookies[SESSION_COOKIE]
    visit.cookies.set(ATTEMPT_COOKIE, attempt, domain="localhost.local", path="/sign-on")
    again = visit.request("GET", address)
    assert again.status_code == 400
    assert "This sign-in" in again.text
    assert visit.cookies[SESSION_COOKIE] == first
    assert len(visit.trail()) == 1


def test_signing_off_ends_the_session(visit: Visit) -> None:
    """Here and for a copied cookie; the audit trail says who did."""
    visit.sign_in(ANN)
    cookie = visit.cookies[SESSION_COOKIE]
    gone = visit.request("POST", "/sign-off")
    assert gone.status_code == 200
    assert "signed out" in gone.text
    assert visit.cookies.get(SESSION_COOKIE) is None
    visit.cookies.set(SESSION_COOKIE, cookie, domain="localhost.local", path="/")
    ended = visit.session()
    assert ended is not None
    assert ended.refusal(visit.api.clock.now()) is not None
    assert [(entry.kind, entry.by, entry.subject) for entry in visit.trail()] == [
        (HumanDecisionKind.SIGNED_ON, ANN.email, ended.id),
        (HumanDecisionKind.SIGNED_OFF, ANN.email, ended.id),
    ]
    assert visit.request("POST", "/sign-off").status_code == 200
    assert len(visit.trail()) == 2
