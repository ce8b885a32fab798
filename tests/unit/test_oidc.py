"""What an issuer can do to the agent that only waits, and what of its claims counts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from app.config import Settings
from app.connectors.sso.claims import ClaimNames, roles_in
from app.connectors.sso.issuer import connect_issuer
from app.connectors.sso.oidc import OidcIssuer, Registration
from app.connectors.sso.transport import reachable_safely
from app.errors import ConfigurationError, NotEntitled, PermanentError, TransientError
from app.settings.entries import Role
from app.testing import VirtualClock
from tests.unit.loopback import Behaviour, Loopback, drip, flood, hang, loopback, raw, reply

VERIFIED = {"sub": "1", "email": "ann@example.com", "email_verified": True}


@asynccontextmanager
async def facing(
    behaviour: Behaviour, *, timeout_seconds: float = 0.3
) -> AsyncIterator[tuple[OidcIssuer, Loopback, VirtualClock]]:
    """An issuer that behaves like that."""
    clock = VirtualClock()
    async with loopback(behaviour) as server:
        registration = Registration(
            issuer=server.url,
            client_id="heal",
            client_secret=SecretStr("not-a-real-secret"),
            redirect_uri="http://localhost:8000/sign-on/callback",
        )
        yield OidcIssuer(registration, clock, timeout_seconds=timeout_seconds), server, clock


@pytest.mark.parametrize("behaviour", [hang, drip, raw(b"HTTP/1.1 200 OK\r\n"), raw(b"\x16\x03nonsense")])
async def test_a_silent_issuer_is_waited_for_so_long_and_no_longer(behaviour: Behaviour) -> None:
    """The whole answer has one deadline; a broken one is no answer."""
    async with facing(behaviour) as (issuer, _, _), asyncio.timeout(120):
        with pytest.raises(TransientError, match="OIDC_ISSUER"):
            await issuer.begin()


async def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """Half a megabyte is more than any of its documents needs."""
    async with facing(flood, timeout_seconds=10) as (issuer, _, _):
        with pytest.raises(PermanentError, match="more than"):
            await issuer.begin()


async def test_a_compressed_answer_is_not_unpacked() -> None:
    """A small one could become large."""
    async with facing(reply(200, b"\x1f\x8b", Content_Encoding="gzip")) as (issuer, _, _):
        with pytest.raises(PermanentError, match="compressed"):
            await issuer.begin()


async def test_a_crowd_asks_a_silent_issuer_once() -> None:
    """Every caller gets the error after one deadline; a moment later the issuer is asked again."""
    async with facing(hang) as (issuer, server, clock), asyncio.timeout(120):
        said = await asyncio.gather(*(issuer.begin() for _ in range(50)), return_exceptions=True)
        assert {type(one) for one in said} == {TransientError}
        assert len(server.requests) == 1
        await clock.advance(timedelta(seconds=2).total_seconds())
        with pytest.raises(TransientError):
            await issuer.begin()
        assert len(server.requests) == 2


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversation between agent and issuer stays private."""
    async with loopback(reply(200, {})) as proxy:
        for name in ("HTTP_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        async with facing(reply(404)) as (issuer, server, _):
            with pytest.raises(PermanentError):
                await issuer.begin()
            assert len(server.requests) == 1
        assert proxy.requests == []


@pytest.mark.parametrize(
    "url",
    [
        "https://login.example.com",
        "https://login.example.com/realms/x/",
        "http://127.0.0.1:9",
        "http://localhost:9",
        "http://[::1]:9",
    ],
)
def test_these_addresses_are_safe(url: str) -> None:
    """TLS anywhere, and plain HTTP on this machine."""
    assert reachable_safely(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://login.example.com",
        "http://10.0.0.1",
        "http://localhost.evil.example",
        "ftp://localhost",
        "https://",
        "",
        "https://user@login.example.com",
        "https://login.example.com#x",
        "http://127.0.0.1.evil.example",
        "//login.example.com",
        "http://[",
        "https://login.example.com:99999",
    ],
)
def test_these_addresses_are_not(url: str) -> None:
    """Such an issuer stops the start, by the setting's name."""
    assert not reachable_safely(url)
    registration = Registration(
        issuer=url, client_id="heal", client_secret=None, redirect_uri="http://localhost"
    )
    with pytest.raises(ConfigurationError, match="OIDC_ISSUER"):
        OidcIssuer(registration, VirtualClock())


@pytest.mark.parametrize("module", ["authlib", "itsdangerous"])
def test_a_missing_extra_stops_the_start_with_its_fix(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where OIDC_ISSUER is set and people are served, and only there."""
    monkeypatch.setitem(sys.modules, module, None)
    plain: dict[str, Any] = {"_env_file": None}
    assert connect_issuer(Settings(**plain), VirtualClock()) is None
    with_issuer = Settings(
        **plain,
        oidc_issuer="https://login.example.com",
        oidc_client_id="heal",
        public_url="https://heal.example.com",
        session_secret=SecretStr("x" * 32),
    )
    with pytest.raises(ConfigurationError, match=r"pip install '\.\[oidc\]'"):
        connect_issuer(with_issuer, VirtualClock())
    worker = with_issuer.model_copy(update={"role": Role.WORKER})
    assert connect_issuer(worker, VirtualClock()) is None


# ---------------------------------------------------------------- claims


@pytest.mark.parametrize(
    ("told", "roles"),
    [
        (["sre", "lead"], {"sre", "lead"}),
        ("sre", {"sre"}),
        ("sre lead", {"sre lead"}),
        ([], set()),
        (None, set()),
        (5, set()),
        (True, set()),
        ({"sre": True}, set()),
        (["sre", 5], set()),
        ([["sre"]], set()),
        ("", set()),
        (["sre", "", "x" * 201, "le\nad", "\u202elead"], {"sre"}),
        (["x" * 200], {"x" * 200}),
        ([str(n) for n in range(256)], {str(n) for n in range(256)}),
        ([str(n) for n in range(257)], set()),
    ],
)
def test_roles_are_a_list_of_texts_or_one(told: object, roles: set[str]) -> None:
    """Anything else is none: no role is ever guessed."""
    assert roles_in(told) == roles


@pytest.mark.parametrize(
    ("claims", "more", "name"),
    [
        (VERIFIED, {}, "ann@example.com"),
        ({**VERIFIED, "email": " ann@example.com "}, {}, "ann@example.com"),
        ({"sub": "1"}, VERIFIED, "ann@example.com"),
        ({"sub": "1", "email": "old@example.com"}, VERIFIED, "ann@example.com"),
        ({**VERIFIED, "email": "x" * 200}, {}, "x" * 200),
    ],
)
def test_a_verified_email_names_a_person(
    claims: dict[str, object], more: dict[str, object], name: str
) -> None:
    """By the signed claims, or by userinfo where these do not tell."""
    assert ClaimNames().person(claims, more, "https://login.example.com").name == name


@pytest.mark.parametrize(
    ("claims", "more"),
    [
        ({"sub": "1"}, {}),
        ({**VERIFIED, "email_verified": False}, VERIFIED),
        ({**VERIFIED, "email_verified": "true"}, {}),
        ({**VERIFIED, "email_verified": 1}, {}),
        ({**VERIFIED, "email_verified": None}, {}),
        ({"sub": "1", "email": "ann@example.com"}, {"email_verified": True}),
        ({"sub": "1", "email_verified": True}, {"email": "ann@example.com"}),
        ({**VERIFIED, "email": ""}, {}),
        ({**VERIFIED, "email": "  "}, {}),
        ({**VERIFIED, "email": "x" * 201}, {}),
        ({**VERIFIED, "email": "ann\n@example.com"}, {}),
        ({**VERIFIED, "email": "\u202eann@example.com"}, {}),
        ({**VERIFIED, "email": ["ann@example.com"]}, {}),
        ({**VERIFIED, "email": None}, {}),
    ],
)
def test_anything_less_names_no_person(claims: dict[str, object], more: dict[str, object]) -> None:
    """Verification counts only for the email that came with it."""
    with pytest.raises(NotEntitled):
        ClaimNames().person(claims, more, "https://login.example.com")


def test_another_claim_needs_no_verification() -> None:
    """The issuer vouches for what it calls people itself."""
    person = ClaimNames(name="sub", roles="r").person(
        {"sub": "u-1", "r": "sre"}, {}, "https://login.example.com"
    )
    assert (person.name, person.subject, sorted(person.roles)) == ("u-1", "u-1", ["sre"])


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_CLAIMS = st.dictionaries(st.sampled_from(["sub", "email", "email_verified", "groups"]), _JSON)


@given(claims=_CLAIMS, more=_CLAIMS)
def test_whatever_is_claimed_a_name_is_usable_or_absent(
    claims: dict[str, object], more: dict[str, object]
) -> None:
    """No claims lead to another error, to a name of nothing, or to a role that is none."""
    try:
        person = ClaimNames().person(claims, more, "https://login.example.com")
    except (NotEntitled, PermanentError):
        return
    assert person.name.isprintable()
    assert 1 <= len(person.name) <= 200
    assert True in (claims.get("email_verified"), more.get("email_verified"))
    assert all(role.isprintable() and 1 <= len(role) <= 200 for role in person.roles)
