"""Signing on in a real browser, at the stand-in issuer: from a page that was wanted back to that page."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from pydantic import SecretStr

from app.agent.identity.people import presented, proves
from app.api.pages.sign_in import ATTEMPT_COOKIE
from app.api.security.cookies import SESSION_COOKIE
from tests.browser.conftest import Served, Watched, serving
from tests.contract.oidc_standin import OidcStandIn, oidc_standin
from tests.contract.sign_on_harness import ANN, CLIENT_ID, CLIENT_SECRET, SESSION_SECRET, USERS

pytestmark = pytest.mark.browser


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[Served]:
    """An agent under a name of its own, beside an issuer at another."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        public = f"http://localhost:{listening.getsockname()[1]}"
        made = OidcStandIn(
            users=USERS,
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            redirect_uri=f"{public}/sign-on/callback",
        )
        with (
            oidc_standin(made) as issuer,
            serving(
                tmp_path,
                listening=listening,
                public_url=public,
                oidc_issuer=issuer.issuer,
                oidc_client_id=CLIENT_ID,
                oidc_client_secret=SecretStr(CLIENT_SECRET),
                session_secret=SecretStr(SESSION_SECRET),
            ) as served,
        ):
            yield served


def test_a_person_signs_on_and_lands_where_they_wanted_to_go(signing: Served, watched: Watched) -> None:
    """The browser keeps a session that scripts cannot see, and nothing of the way there."""
    page, public = watched.page, signing.container.settings.public_url
    page.goto(f"{public}/sign-on?to=/dashboard%3Fservice=payments-api")
    page.get_by_label("Username").fill(ANN.username)
    page.get_by_label("Password").fill(ANN.password)
    page.get_by_role("button", name="Login").click()
    expect(page).to_have_url(f"{public}/dashboard?service=payments-api")
    expect(page.get_by_role("heading", name="Incidents")).to_be_visible()
    kept = {cookie["name"]: cookie for cookie in page.context.cookies(f"{public}/sign-on")}
    assert ATTEMPT_COOKIE not in kept
    cookie = kept[SESSION_COOKIE]
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Lax"
    assert page.evaluate("document.cookie") == ""
    shown = presented(cookie["value"])
    assert shown is not None
    session = signing.run(signing.container.store.credentials.get(shown[0]))
    assert session is not None
    assert proves(shown[1], session)
    assert (session.name, sorted(session.roles)) == (ANN.email, ["responder", "sre"])
    assert watched.faults == []


def test_who_declines_gets_that_answer(signing: Served, watched: Watched) -> None:
    """And may begin again."""
    page, public = watched.page, signing.container.settings.public_url
    page.goto(f"{public}/sign-on")
    page.get_by_role("button", name="Decline").click()
    expect(page.get_by_role("heading", name="Sign-in refused")).to_be_visible()
    assert SESSION_COOKIE not in {cookie["name"] for cookie in page.context.cookies()}
