"""Sign-in against an issuer that errs or lies, and against attackers who misuse the flow."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import CredentialKind, Person, issue
from app.api.pages.local_path import is_local
from app.api.pages.sign_in import ATTEMPT_COOKIE, ATTEMPT_LASTS
from app.api.security.cookies import SESSION_COOKIE
from app.main import create_app
from app.web.pages import render
from tests.api.harness import assert_problem, harness, make_settings
from tests.contract.oidc_standin import Claims, OidcStandIn, Reply, new_key, oidc_standin
from tests.contract.sign_on_harness import (
    ANN,
    BEN,
    CLIENT_ID,
    CLIENT_SECRET,
    REDIRECT_URI,
    USERS,
    Visit,
    oidc_settings,
    visiting,
)

KEY = new_key("first")


@pytest.fixture
def issuer() -> Iterator[OidcStandIn]:
    made = OidcStandIn(
        users=USERS, client_id=CLIENT_ID, client_secret=CLIENT_SECRET, redirect_uri=REDIRECT_URI, key=KEY
    )
    with oidc_standin(made) as one:
        yield one


@pytest.fixture
def visit(issuer: OidcStandIn, tmp_path: Path) -> Iterator[Visit]:
    with visiting(oidc_settings(tmp_path, issuer.issuer)) as one:
        yield one


def assert_nobody(visit: Visit) -> None:
    """No session was opened, by any name."""
    assert visit.session() is None
    assert visit.cookies.get(SESSION_COOKIE) is None
    assert visit.trail() == ()


# ---------------------------------------------------------------- where it leads

ELSEWHERE = [
    "https://evil.example",
    "https:evil.example",
    "//evil.example",
    "///evil.example",
    "/\\evil.example",
    "\\\\evil.example",
    "/\t/evil.example",
    "/\n/evil.example",
    "/\x00",
    " /dashboard",
    "/dash board",
    "javascript:alert(1)",
    "evil.example",
    "dashboard",
    "",
    "/\u2044evil.example",
    "/" + "a" * 1_000,
]


@pytest.mark.parametrize("to", ELSEWHERE)
def test_no_one_is_sent_elsewhere_after_signing_in(visit: Visit, issuer: OidcStandIn, to: str) -> None:
    """What is no path of this agent is refused before anything is asked of the issuer."""
    answer = visit.request("GET", f"/sign-on?to={quote(to, safe='')}")
    assert answer.status_code == 400
    assert ATTEMPT_COOKIE not in visit.cookies
    assert issuer.asked == []


@pytest.mark.parametrize(
    "to", ["/", "/dashboard", "/dashboard/incidents/inc_1", "/approvals/apr_1/page?a=b%2F%2Fc"]
)
def test_pages_of_the_agent_are_local(to: str) -> None:
    """With whatever query."""
    assert is_local(to)


def test_two_places_to_go_are_none(visit: Visit) -> None:
    """It would be left to chance which counts."""
    assert visit.request("GET", "/sign-on?to=/dashboard&to=/approvals").status_code == 400


def test_the_longest_way_back_still_fits_into_a_cookie(visit: Visit) -> None:
    """Browsers drop a cookie of more than 4,096 bytes."""
    answer = visit.request("GET", f"/sign-on?to=/{'a' * 999}")
    assert answer.status_code == 303
    assert len(answer.headers["set-cookie"]) < 4_096


def test_the_issuer_is_asked_for_a_code_with_pkce(issuer: OidcStandIn, tmp_path: Path) -> None:
    """Fresh secrets each time; the way back is PUBLIC_URL's, whatever name the request came by."""
    settings = oidc_settings(tmp_path, issuer.issuer, host="0.0.0.0", oidc_scopes="openid groups")  # noqa: S104  (any name is answered)
    with visiting(settings) as visit:
        seen = []
        for _ in range(2):
            answer = visit.request(
                "GET", "/sign-on", headers={"Host": "evil.example", "X-Forwarded-Host": "evil.example"}
            )
            assert answer.status_code == 303
            assert answer.headers["cache-control"] == "no-store"
            url = urlsplit(answer.headers["location"])
            assert f"{url.scheme}://{url.netloc}{url.path}" == f"{issuer.issuer}/authorize"
            seen.append({name: values[0] for name, values in parse_qs(url.query).items()})
    for asked in seen:
        assert asked["response_type"] == "code"
        assert asked["client_id"] == CLIENT_ID
        assert asked["redirect_uri"] == REDIRECT_URI
        assert asked["scope"] == "openid groups"
        assert asked["code_challenge_method"] == "S256"
    for secret in ("state", "nonce", "code_challenge"):
        assert len({asked[secret] for asked in seen}) == 2
        assert all(len(asked[secret]) >= 20 for asked in seen)


@pytest.mark.parametrize(
    ("public_url", "secure"), [("http://localhost:8000", False), ("https://heal.example.com", True)]
)
def test_cookies_say_all_that_keeps_them(
    issuer: OidcStandIn, tmp_path: Path, public_url: str, secure: bool
) -> None:
    """Out of reach of scripts and of other sites' posts; over TLS only where there is TLS."""
    issuer.redirect_uri = f"{public_url}/sign-on/callback"
    with visiting(oidc_settings(tmp_path, issuer.issuer, public_url=public_url, session_hours=2)) as visit:
        begun = visit.request("GET", "/sign-on")
        done = visit.request("GET", visit.until_callback(ANN))
    assert _attributes(begun.headers["set-cookie"]) == {
        "max-age=600",
        "path=/sign-on",
        "httponly",
        "samesite=lax",
        *(["secure"] if secure else []),
    }
    session, attempt = sorted(done.headers.get_list("set-cookie"))
    assert session.startswith(f"{SESSION_COOKIE}=heal_ses_")
    assert _attributes(session) == {
        "max-age=7200",
        "path=/",
        "httponly",
        "samesite=lax",
        *(["secure"] if secure else []),
    }
    assert attempt.startswith(f'{ATTEMPT_COOKIE}=""')
    assert "max-age=0" in _attributes(attempt)


def _attributes(cookie: str) -> set[str]:
    return {part.strip().lower() for part in cookie.split(";")[1:]}


# ---------------------------------------------------------------- whose browser it is


def test_a_callback_that_did_not_begin_here_opens_nothing(visit: Visit) -> None:
    """Login CSRF: an attacker sends a victim the end of the attacker's own sign-in."""
    address = visit.until_callback(ANN)
    victim = Visit(api=visit.api)
    refused = victim.request("GET", address)
    assert refused.status_code == 400
    assert "did not start here" in refused.text
    assert_nobody(victim)
    victim.request("GET", "/sign-on")  # one of their own under way changes nothing
    assert victim.request("GET", address).status_code == 400
    assert_nobody(victim)


def test_a_session_that_was_there_before_is_not_taken_over(visit: Visit) -> None:
    """Session fixation: a cookie that an attacker planted is replaced by a fresh one."""
    visit.sign_in(BEN)
    planted = visit.cookies[SESSION_COOKIE]
    visit.cookies.set(SESSION_COOKIE, planted, domain="localhost.local", path="/")
    visit.sign_in(ANN)
    assert visit.cookies[SESSION_COOKIE] != planted
    session = visit.session()
    assert session is not None
    assert session.name == ANN.email


def test_a_callback_counts_once_even_where_codes_last(visit: Visit, issuer: OidcStandIn) -> None:
    """Replay: address and cookie were copied, and the issuer takes a code twice."""
    issuer.codes_last = True
    address = visit.until_callback(ANN)
    thief = Visit(api=visit.api)
    thief.cookies.set(
        ATTEMPT_COOKIE, visit.cookies[ATTEMPT_COOKIE], domain="localhost.local", path="/sign-on"
    )
    assert visit.request("GET", address).status_code == 303
    refused = thief.request("GET", address)
    assert refused.status_code == 400
    assert "was used already" in refused.text
    assert thief.session() is None
    assert len(visit.trail()) == 1


@pytest.mark.parametrize("spoil", ["altered", "unsigned", "another secret", "nonsense"])
def test_a_forged_attempt_is_none(
    visit: Visit, issuer: OidcStandIn, tmp_path_factory: pytest.TempPathFactory, spoil: str
) -> None:
    """Only what this agent signed counts."""
    address = visit.until_callback(ANN)
    sealed = visit.cookies[ATTEMPT_COOKIE]
    if spoil == "another secret":
        folder = tmp_path_factory.mktemp("another")
        with visiting(oidc_settings(folder, issuer.issuer, session_secret="x" * 32)) as another:
            address = another.until_callback(ANN)
            sealed = another.cookies[ATTEMPT_COOKIE]
    body, _, signature = sealed.rpartition(".")
    last = "A" if body[-1] != "A" else "B"
    value = {"altered": f"{body[:-1]}{last}.{signature}", "unsigned": body, "nonsense": "x.y"}.get(
        spoil, sealed
    )
    visit.cookies.delete(ATTEMPT_COOKIE)
    visit.cookies.set(ATTEMPT_COOKIE, value, domain="localhost.local", path="/sign-on")
    assert visit.request("GET", address).status_code == 400
    assert_nobody(visit)


def test_an_attempt_lasts_ten_minutes(visit: Visit) -> None:
    """Whatever the browser thinks of the cookie's age."""
    address = visit.until_callback(ANN)
    visit.api.run(visit.api.clock.advance(ATTEMPT_LASTS.total_seconds()))
    refused = visit.request("GET", address)
    assert refused.status_code == 400
    assert "longer than ten minutes" in refused.text
    assert_nobody(visit)


@pytest.mark.parametrize(
    "change",
    [
        lambda query: query | {"state": "wrong"},
        lambda query: query | {"state": ""},
        lambda query: query | {"state": "ü"},
        lambda query: {"code": query["code"]},
        lambda query: query | {"code": [query["code"], "another"]},
        lambda query: query | {"state": [query["state"], "another"]},
        lambda query: query | {"error": ["access_denied", "x"]},
    ],
)
def test_a_callback_with_a_wrong_state_is_refused(
    visit: Visit, issuer: OidcStandIn, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Missing, different or twice; the code is not even shown to the issuer."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(visit.until_callback(ANN)).query).items()}
    assert visit.request("GET", "/sign-on/callback", params=change(query)).status_code == 400
    assert "/token" not in issuer.asked
    assert_nobody(visit)


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"error": "access_denied", "error_description": "<b>call 555</b>"}, 403),
        ({"error": "access_denied", "code": "stolen"}, 403),
        ({"error": "invalid_scope"}, 400),
        ({"error": "<script>alert(1)</script>"}, 400),
        ({"error": "temporarily_unavailable"}, 503),
        ({"error": ""}, 400),
        ({}, 400),
        ({"code": ""}, 400),
        ({"code": "x" * 4_001}, 400),
        ({"code": "made-up"}, 400),
        ({"code": "\r\nHost: evil"}, 400),
    ],
)
def test_the_issuer_may_say_no(visit: Visit, told: dict[str, str], status: int) -> None:
    """The page says what to do in the agent's own words; the attempt is over."""
    state = parse_qs(urlsplit(visit.request("GET", "/sign-on").headers["location"]).query)["state"][0]
    answer = visit.request("GET", "/sign-on/callback", params={**told, "state": state})
    assert answer.status_code == status
    assert "text/html" in answer.headers["content-type"]
    for words in ("555", "alert", "made-up", state):
        assert words not in answer.text
    assert ATTEMPT_COOKIE not in visit.cookies
    assert_nobody(visit)


# ---------------------------------------------------------------- what the issuer signs


def _hs256_with_public_key(claims: Claims) -> str:
    return jwt.encode({"alg": "HS256", "kid": "first"}, claims, OctKey.import_key(KEY.as_pem(private=False)))


def _unsigned(claims: Claims) -> str:
    header, payload, _ = jwt.encode({"alg": "RS256"}, claims, KEY).split(".")
    none = "eyJhbGciOiJub25lIn0"
    assert header
    return f"{none}.{payload}."


LIES: dict[str, Callable[[Claims], Claims]] = {
    "another issuer": lambda said: said | {"iss": "https://evil.example"},
    "no issuer": lambda said: _without(said, "iss"),
    "another audience": lambda said: said | {"aud": "another"},
    "another audience, for this party": lambda said: said | {"aud": "another", "azp": CLIENT_ID},
    "other audiences": lambda said: said | {"aud": ["another", "third"], "azp": CLIENT_ID},
    "many audiences, for nobody": lambda said: said | {"aud": [CLIENT_ID, "another"]},
    "many audiences, for another": lambda said: said | {"aud": [CLIENT_ID, "another"], "azp": "another"},
    "no audience": lambda said: _without(said, "aud"),
    "audience of numbers": lambda said: said | {"aud": [1]},
    "another nonce": lambda said: said | {"nonce": "another"},
    "no nonce": lambda said: _without(said, "nonce"),
    "nonce of a list": lambda said: said | {"nonce": [said["nonce"]] * 2},
    "expired": lambda said: said | {"exp": said["iat"] - 200},
    "never expires": lambda said: _without(said, "exp"),
    "expires at nonsense": lambda said: said | {"exp": "tomorrow"},
    "expires at no number": lambda said: said | {"exp": float("nan")},
    "from the future": lambda said: said | {"iat": said["iat"] + 1_000},
    "not yet": lambda said: said | {"nbf": said["iat"] + 1_000},
    "no subject": lambda said: _without(said, "sub"),
    "subject of a number": lambda said: said | {"sub": 1},
    "empty subject": lambda said: said | {"sub": ""},
    "endless subject": lambda said: said | {"sub": "x" * 256},
    "hash of another token": lambda said: said | {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
    "hash of nonsense": lambda said: said | {"at_hash": ["x"]},
}


def _without(said: Claims, name: str) -> Claims:
    return {key: value for key, value in said.items() if key != name}


@pytest.mark.parametrize("lie", LIES)
def test_an_id_token_that_is_not_for_this_sign_on_is_not_believed(
    visit: Visit, issuer: OidcStandIn, lie: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Signed by the issuer, and yet for another person or client."""
    issuer.alter = LIES[lie]
    refused = visit.sign_in(ANN)
    assert refused.status_code == 503
    assert "is not valid" in refused.text
    assert_nobody(visit)
    assert "OIDC_ISSUER" in caplog.text
    issuer.alter = dict
    assert visit.sign_in(ANN).status_code == 200


FORGERIES: dict[str, Callable[[Claims], str]] = {
    "not at all": _unsigned,
    "with the client's secret": lambda said: jwt.encode(
        {"alg": "HS256"}, said, OctKey.import_key(CLIENT_SECRET)
    ),
    "with the public key as a secret": _hs256_with_public_key,
    "with another key of the same name": lambda said: jwt.encode(
        {"alg": "RS256", "kid": "first"}, said, new_key("first")
    ),
    "with a key that is not published": lambda said: jwt.encode(
        {"alg": "RS256", "kid": "second"}, said, new_key("second")
    ),
    "with a key that it brings along": lambda said: jwt.encode(
        {"alg": "RS256", "jwk": KEY.as_dict(private=False)}, said, new_key("third")
    ),
    "as nonsense": lambda said: "nonsense",
    "as three empty parts": lambda said: "..",
    "as no text": lambda said: [said],  # type: ignore[return-value,dict-item]  # what JSON allows
    "as text of another alphabet": lambda said: "ä.ö.ü",
}


@pytest.mark.parametrize("discovery_says", ["RS256 only", "everything"])
@pytest.mark.parametrize("forgery", FORGERIES)
def test_only_the_issuer_s_own_signature_counts(
    visit: Visit, issuer: OidcStandIn, forgery: str, discovery_says: str
) -> None:
    """Whatever the token says of how it is signed, and even where the issuer says it signs like that."""
    if discovery_says == "everything":
        algorithms = ["none", "HS256", "RS256"]
        issuer.publish = lambda document: document | {"id_token_signing_alg_values_supported": algorithms}
    issuer.sign = FORGERIES[forgery]
    refused = visit.sign_in(ANN)
    assert refused.status_code == 503
    assert_nobody(visit)


def test_clocks_may_differ_a_little(visit: Visit, issuer: OidcStandIn) -> None:
    """A minute either way is no lie."""
    issuer.alter = lambda said: said | {"iat": said["iat"] + 60, "nbf": said["iat"] + 60}
    assert visit.sign_in(ANN).status_code == 200
    issuer.alter = lambda said: said | {"exp": said["iat"] - 60}
    assert visit.sign_in(BEN).status_code == 200
    assert len(visit.trail()) == 2


def test_new_keys_are_learned(visit: Visit, issuer: OidcStandIn) -> None:
    """Under a new name at once; under the old name by the next who tries."""
    assert visit.sign_in(ANN).status_code == 200
    issuer.key = new_key("second")
    assert visit.sign_in(ANN).status_code == 200
    issuer.key = new_key("second")
    assert visit.sign_in(ANN).status_code == 503
    assert visit.sign_in(ANN).status_code == 200


def test_the_issuer_s_own_description_is_asked_for_once_an_hour(visit: Visit, issuer: OidcStandIn) -> None:
    """For any number of sign-ins."""
    for _ in range(3):
        visit.sign_in(ANN)
    documents = ("/.well-known/openid-configuration", "/keys")
    assert [path for path in issuer.asked if path in documents] == [*documents]
    visit.api.run(visit.api.clock.advance(3_600))
    visit.sign_in(ANN)
    assert [path for path in issuer.asked if path in documents] == [*documents, *documents]


# ---------------------------------------------------------------- what it answers


def _garbage(path: str, body: object, status: int = 200) -> Callable[[OidcStandIn], None]:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return lambda issuer: issuer.replies.update({path: Reply(status=status, body=raw)})


def _published(**changes: object) -> Callable[[OidcStandIn], None]:
    return lambda issuer: setattr(issuer, "publish", lambda document: document | changes)


DEEP = b"[" * 100_000

FAULTS: dict[str, Callable[[OidcStandIn], None]] = {
    "discovery fails": _garbage("/.well-known/openid-configuration", {}, 500),
    "discovery is gone": _garbage("/.well-known/openid-configuration", {}, 404),
    "discovery redirects": lambda issuer: issuer.replies.update(
        {
            "/.well-known/openid-configuration": Reply(
                status=302, headers=(("Location", "https://evil.example"),)
            )
        }
    ),
    "discovery is no JSON": _garbage("/.well-known/openid-configuration", b"<html>"),
    "discovery is deep": _garbage("/.well-known/openid-configuration", DEEP),
    "discovery is a list": _garbage("/.well-known/openid-configuration", []),
    "discovery is endless": _garbage("/.well-known/openid-configuration", b" " * 600_000),
    "discovery of another issuer": _published(issuer="https://evil.example"),
    "authorization without TLS": _published(authorization_endpoint="http://evil.example/authorize"),
    "authorization by script": _published(authorization_endpoint="javascript:alert(1)"),
    "token without TLS": _published(token_endpoint="http://evil.example/token"),
    "no token endpoint": _published(token_endpoint=None),
    "keys without TLS": _published(jwks_uri="http://evil.example/keys"),
    "keys as a number": _published(jwks_uri=5),
    "no signature but none": _published(id_token_signing_alg_values_supported=["none", "HS256"]),
    "signatures as a text": _published(id_token_signing_alg_values_supported="RS256"),
    "keys are no JSON": _garbage("/keys", b"\xff"),
    "keys are none": _garbage("/keys", {"keys": []}),
    "keys are a list": _garbage("/keys", [1]),
    "keys are nonsense": _garbage("/keys", {"keys": [1, None, {"kty": "RSA"}, {"kty": [], "n": {}}]}),
    "keys are secrets": _garbage("/keys", {"keys": [{"kty": "oct", "k": "AAAA", "kid": "first"}]}),
    "token fails": _garbage("/token", {}, 500),
    "token is overloaded": _garbage("/token", {}, 429),
    "token knows no such client": _garbage("/token", {"error": "invalid_client"}, 401),
    "token is odd": _garbage("/token", {"error": [1], "error_description": "secret"}, 400),
    "token is no JSON": _garbage("/token", b"<html>"),
    "token is a list": _garbage("/token", [1]),
    "token is empty": _garbage("/token", {}),
    "token is deep": _garbage("/token", DEEP),
    "token without an id token": _garbage("/token", {"access_token": "x", "token_type": "Bearer"}),
    "token that lives oddly": _garbage(
        "/token", {"access_token": "x", "expires_in": "soon", "id_token": "x"}
    ),
    "token that lives for ever": _garbage("/token", b'{"expires_in": Infinity, "id_token": "x"}'),
    "userinfo fails": _garbage("/userinfo", {}, 500),
    "userinfo refuses": _garbage("/userinfo", {}, 401),
    "userinfo of another": _garbage(
        "/userinfo", {"sub": "id-ben", "email": "x@example.com", "email_verified": True}
    ),
    "userinfo of nobody": _garbage("/userinfo", {"email": "x@example.com", "email_verified": True}),
    "userinfo is a list": _garbage("/userinfo", [1]),
    "userinfo is no JSON": _garbage("/userinfo", b"ey.ey.ey"),
    "userinfo without TLS": _published(userinfo_endpoint="http://evil.example/userinfo"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_issuer_that_answers_wrongly_opens_no_session(
    visit: Visit, issuer: OidcStandIn, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A plain page without internals, a reason in the log without secrets; afterwards it works again."""
    issuer.told_in_id_token = False
    FAULTS[fault](issuer)
    answer = visit.go("/sign-on")
    if answer.status_code == 200:
        answer = visit.follow(visit.log_in(answer, ANN))
    assert answer.status_code == 503
    assert "text/html" in answer.headers["content-type"]
    assert_nobody(visit)
    for told in (answer.text, caplog.text):
        for secret in (CLIENT_SECRET, "evil.example", "Traceback", "code=", "ey.ey"):
            assert secret not in told
    assert "OIDC_ISSUER" in caplog.text
    issuer.replies.clear()
    issuer.publish = dict
    visit.api.run(visit.api.clock.advance(2))
    assert visit.sign_in(ANN).status_code == 200


def test_the_agent_starts_while_the_issuer_is_down(tmp_path: Path) -> None:
    """The issuer gets no request before the first sign-in; then a person sees an error, the rest works."""
    with visiting(oidc_settings(tmp_path, "http://127.0.0.1:1")) as visit:
        assert visit.request("GET", "/healthz").status_code == 200
        refused = visit.request("GET", "/sign-on")
        assert refused.status_code == 503
        assert refused.headers["retry-after"]
        assert "tokens work without the issuer" in refused.text


def test_what_the_id_token_lacks_userinfo_holds(visit: Visit, issuer: OidcStandIn) -> None:
    """Name and roles may come from either; it is asked only where it is needed."""
    visit.sign_in(ANN)
    assert "/userinfo" not in issuer.asked
    issuer.told_in_id_token = False
    visit.sign_in(ANN)
    assert "/userinfo" in issuer.asked
    session = visit.session()
    assert session is not None
    assert (session.name, sorted(session.roles)) == (ANN.email, ["responder", "sre"])


def test_other_claims_may_name_people_and_roles(issuer: OidcStandIn, tmp_path: Path) -> None:
    """OIDC_NAME_CLAIM and OIDC_ROLES_CLAIM; a name other than an email needs no verification."""
    issuer.alter = lambda said: said | {"email_verified": False, "team": "lead"}
    settings = oidc_settings(tmp_path, issuer.issuer, oidc_name_claim="name", oidc_roles_claim="team")
    with visiting(settings) as visit:
        assert visit.sign_in(ANN).status_code == 200
        session = visit.session()
        assert session is not None
        assert (session.name, sorted(session.roles)) == ("ann", ["lead"])


# ---------------------------------------------------------------- signing off, and what is not there


def test_signing_off_ends_only_a_session(visit: Visit) -> None:
    """A token in the cookie, a wrong secret and nonsense end nothing, and are taken away all the same."""
    now = visit.api.clock.now()
    token = issue(CredentialKind.TOKEN, "ci", roles=(), scopes=(), by="ann", at=now, lifetime=None)
    visit.sign_in(ANN)
    session = visit.session()
    assert session is not None
    human_decision = HumanDecision(
        at=now, by=Person(name="ann"), kind=HumanDecisionKind.TOKEN_CREATED, subject=token.credential.id
    )
    visit.api.run(visit.api.container.store.credentials.add(token.credential, human_decision))
    for value in (token.text, visit.cookies[SESSION_COOKIE][:-4] + "0000", "nonsense", ""):
        other = Visit(api=visit.api)
        other.cookies.set(SESSION_COOKIE, value, domain="localhost.local", path="/")
        assert other.request("POST", "/sign-off").status_code == 200
        assert other.cookies.get(SESSION_COOKIE) is None
    kept = [
        visit.api.run(visit.api.container.store.credentials.get(one.id))
        for one in (token.credential, session)
    ]
    assert [one.revoked_at for one in kept if one is not None] == [None, None]


def test_another_site_cannot_sign_anyone_out(visit: Visit) -> None:
    """The form is a post, and posts of other sites are refused."""
    visit.sign_in(ANN)
    refused = visit.request("POST", "/sign-off", headers={"Sec-Fetch-Site": "cross-site"})
    assert_problem(refused, 403)
    session = visit.session()
    assert session is not None
    assert session.revoked_at is None


def test_without_an_issuer_no_one_signs_in(tmp_path: Path) -> None:
    """The paths are not there, and what an extra brings is not loaded."""
    with harness(make_settings(tmp_path)) as api:
        sent = api.get("/sign-on?to=%2Fincidents")
        assert (sent.status_code, sent.headers["location"]) == (303, "/sign-on/token?to=%2Fincidents")
        assert_problem(api.get("/sign-on/callback?code=x&state=y"), 404)
    done = subprocess.run(
        [sys.executable, "-c", "import sys, app.main, app.bootstrap; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": ""},
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "fastapi" in loaded
    assert not loaded & {"authlib", "joserfc", "itsdangerous"}


def test_the_access_log_keeps_no_codes(visit: Visit, caplog: pytest.LogCaptureFixture) -> None:
    """What the server writes of each request ends where the code would begin."""
    create_app(visit.api.container.settings)
    access = logging.getLogger("uvicorn.access")
    with caplog.at_level(logging.INFO, logger="uvicorn.access"):
        access.info(
            '%s - "%s %s HTTP/%s" %d',
            "127.0.0.1:1",
            "GET",
            "/sign-on/callback?code=abc&state=def",
            "1.1",
            303,
        )
        access.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:1", "GET", "/dashboard?service=shop", "1.1", 200)
    assert "abc" not in caplog.text
    assert "def" not in caplog.text
    assert '"GET /sign-on/callback HTTP/1.1" 303' in caplog.text
    assert "/dashboard?service=shop" in caplog.text


def test_paths_are_not_in_the_api_s_description(visit: Visit) -> None:
    """They are for browsers."""
    assert not [
        path for path in visit.request("GET", "/openapi.json").json()["paths"] if path.startswith("/sign-o")
    ]


def test_a_session_that_cannot_be_kept_is_none(visit: Visit) -> None:
    """Where the database does not answer, the browser gets a page and no cookie."""
    address = visit.until_callback(ANN)
    visit.api.run(visit.api.container.store.close())
    refused = visit.request("GET", address)
    assert refused.status_code == 503
    assert visit.cookies.get(SESSION_COOKIE) is None


def test_a_page_can_show_who_is_signed_on() -> None:
    """With the way out; the name is text, and absent for anonymous viewers."""
    shown = render("person.html", person=Person(name="<b>ann</b>"))
    assert "&lt;b&gt;ann" in shown
    assert 'method="post" action="/sign-off"' in shown
    assert render("person.html", person=None).strip() == render("person.html").strip() == ""
