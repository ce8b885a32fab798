"""With identity required a request needs a token, and a token allows its scopes alone."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from pydantic import SecretStr
from starlette.routing import Mount, Route

from app.agent.identity.audit_log import HumanDecision, HumanDecisionKind
from app.agent.identity.people import (
    CredentialKind,
    Door,
    Person,
    Scope,
    issue,
)
from app.agent.ids import IncidentId
from app.api.security.access import OPEN
from app.connectors.registry import ALERT_FORMATS
from app.main import FOR_PEOPLE
from tests.api import stories
from tests.api.harness import DEPLOY, Harness, assert_problem, harness, make_settings
from tests.api.people import guarded, token

DELIVERIES = tuple(f"/webhooks/{one.name}" for one in ALERT_FORMATS)

REQUESTS: list[tuple[str, str, Scope, dict[str, Any]]] = [
    ("POST", "/events/deploy", Scope.INGEST, {"json": DEPLOY}),
    ("POST", "/events/metric", Scope.INGEST, {"json": {}}),
    *(("POST", path, Scope.INGEST, {"json": {}}) for path in DELIVERIES),
    ("GET", "/signals/sig_0", Scope.READ, {}),
    ("GET", "/incidents", Scope.READ, {}),
    ("GET", "/incidents/inc_0", Scope.READ, {}),
    ("GET", "/approvals", Scope.READ, {}),
    ("GET", "/approvals/apr_0", Scope.READ, {}),
    ("GET", "/brakes", Scope.READ, {}),
    ("GET", "/brakes/kill-switch", Scope.READ, {}),
    ("GET", "/audit/signals", Scope.READ, {}),
    ("GET", "/streams", Scope.READ, {}),
    ("GET", "/metrics", Scope.READ, {}),
    ("POST", "/approvals/apr_0", Scope.APPROVE, {"json": {"decision": "deny"}}),
    ("POST", "/agent/run-once?service=payments-api", Scope.OPERATE, {}),
    ("PUT", "/brakes/kill-switch", Scope.OPERATE, {"json": {"engaged": False}}),
    ("POST", "/brakes/circuits/close", Scope.OPERATE, {"json": {"reason": "x"}}),
    ("GET", "/tokens", Scope.ADMIN, {}),
    ("POST", "/tokens", Scope.ADMIN, {"json": {}}),
    ("DELETE", "/tokens/tok_0", Scope.ADMIN, {}),
    ("GET", "/audit/people", Scope.ADMIN, {}),
    *(
        ("POST", f"/v1/incidents/inc_0/{act}", Scope.APPROVE, {"json": {}})
        for act in ("acknowledge", "assign", "notes", "take-over", "hand-back", "resolve", "undo")
    ),
    ("GET", "/v1/incidents/inc_0/chart", Scope.READ, {}),
    ("GET", "/v1/incidents/inc_0/postmortem", Scope.READ, {}),
    ("GET", "/v1/changes", Scope.READ, {}),
    ("GET", "/v1/stats", Scope.READ, {}),
    ("GET", "/v1/stats.csv", Scope.READ, {}),
    ("GET", "/v1/services", Scope.READ, {}),
    ("GET", "/v1/services/env_0/svc_0", Scope.READ, {}),
    ("GET", "/v1/runbooks", Scope.READ, {}),
    ("GET", "/v1/policies", Scope.READ, {}),
]
OURS = {"Origin": "http://127.0.0.1:8000"}
"""What a browser says of a form on our own page."""
GOES_WITH = {Scope.APPROVE: {Scope.READ}, Scope.OPERATE: {Scope.READ}, Scope.ADMIN: set(Scope)}


def _scope_of(route: APIRoute) -> Scope | None:
    """What the route's dependencies ask for, however deep they stand."""
    left = [route.dependant]
    while left:
        one = left.pop()
        scope = getattr(one.call, "scope", None)
        if isinstance(scope, Scope):
            return scope
        left += one.dependencies
    return None


def _routes(api: Harness) -> list[APIRoute | Route | Mount]:
    """What the application serves by itself, and every route of every router."""
    own = [one for one in api.app.routes if isinstance(one, Route | Mount)]
    included = [one for module in FOR_PEOPLE for one in module.router.routes if isinstance(one, APIRoute)]
    return [*own, *included]


def test_every_route_names_its_scope_or_is_open_on_purpose(api: Harness) -> None:
    """A route that was forgotten fails here, not in production."""
    unguarded = {
        route.path for route in _routes(api) if not isinstance(route, APIRoute) or _scope_of(route) is None
    }
    assert unguarded - set(DELIVERIES) <= OPEN
    assert len(_routes(api)) > 25


def test_the_table_above_knows_every_guarded_route(api: Harness) -> None:
    """What is tried below is all there is, save the pages."""
    told = {
        (method, re.sub(r"\{[^}]*\}", "", route.path))
        for route in _routes(api)
        if isinstance(route, APIRoute) and route.include_in_schema and route.path not in OPEN
        for method in (route.methods or set()) - {"HEAD"}
    }
    tried = {
        (method, re.sub(r"(inc|env|svc)_0", "", path.partition("?")[0])) for method, path, *_ in REQUESTS
    }
    assert told == {(m, p.replace("sig_0", "").replace("apr_0", "").replace("tok_0", "")) for m, p in tried}


@pytest.mark.parametrize(("method", "path", "scope", "body"), REQUESTS, ids=lambda value: str(value)[:40])
def test_a_request_needs_its_scope(
    tmp_path: Path, method: str, path: str, scope: Scope, body: dict[str, Any]
) -> None:
    """401 without a token, 403 with every other scope, the route's own answer with the right one."""
    with guarded(tmp_path) as api:
        api.app.state.changes.close()  # its stream would not end by itself
        answer = api.request(method, path, **body)
        assert_problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        for given in Scope:
            headers = token(api, f"holder-of-{given}", given)
            status = api.request(method, path, headers=headers, **body).status_code
            allowed = given is scope or scope in GOES_WITH.get(given, set())
            assert (status not in {401, 403, 429}) is allowed, (given, status)


@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/version", "/docs", "/openapi.json", "/static/style.css"]
)
def test_probes_and_the_reference_stay_open(tmp_path: Path, path: str) -> None:
    """They tell nothing of incidents."""
    with guarded(tmp_path) as api:
        assert api.get(path).status_code == 200


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer heal_tok_0123456789abcdef_" + "0" * 64,
        "Basic YW5uOmFubg==",
        "Bearer " + "x" * 5000,
        "Bearer h\xe9al",
        "heal_tok_0123456789abcdef_" + "0" * 64,
    ],
)
def test_nonsense_is_not_known(tmp_path: Path, value: str) -> None:
    """Whatever stands in the header."""
    with guarded(tmp_path) as api:
        assert_problem(api.get("/incidents", headers={"Authorization": value.encode("latin-1")}), 401)


def test_two_authorizations_are_none(tmp_path: Path) -> None:
    """It would be left to chance which one counts."""
    with guarded(tmp_path) as api:
        good = token(api, "ann", Scope.READ)["Authorization"]
        headers = [("Authorization", good), ("Authorization", "Bearer other")]
        assert_problem(api.get("/incidents", headers=headers), 401)


def test_a_token_is_not_taken_from_the_address(tmp_path: Path) -> None:
    """Addresses stand in logs and histories."""
    with guarded(tmp_path) as api:
        text = token(api, "ann", Scope.READ)["Authorization"].removeprefix("Bearer ")
        assert api.get(f"/incidents?access_token={text}").status_code == 401


def test_an_expired_and_a_revoked_token_are_refused_at_once(tmp_path: Path) -> None:
    """The answer says which."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.ADMIN)
        short = token(api, "ann", Scope.READ, lifetime=timedelta(minutes=5))
        other = token(api, "ben", Scope.READ)
        assert api.get("/incidents", headers=short).status_code == 200
        api.run(api.clock.advance(300))
        assert "expired" in assert_problem(api.get("/incidents", headers=short), 401)["detail"]
        [ben] = [one for one in api.get("/tokens", headers=root).json()["items"] if one["name"] == "ben"]
        assert api.request("DELETE", f"/tokens/{ben['id']}", headers=root).status_code == 200
        assert "revoked" in assert_problem(api.get("/incidents", headers=other), 401)["detail"]


def test_an_administrator_makes_tokens_and_no_one_sees_them_again(tmp_path: Path) -> None:
    """The text is in the one answer; lists and records have the name, scopes and roles."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.ADMIN)
        wanted = {"name": "ci", "scopes": ["ingest"], "roles": ["sre"], "days": 30}
        made = api.post("/tokens", json=wanted, headers=root)
        assert made.status_code == 201
        text = made.json()["token"]
        headers = {"Authorization": f"Bearer {text}"}
        assert api.post("/events/deploy", json=DEPLOY, headers=headers).status_code == 202
        assert text.rpartition("_")[2] not in api.get("/tokens", headers=root).text
        trail = api.get("/audit/people", headers=root)
        assert text.rpartition("_")[2] not in trail.text
        newest = trail.json()["items"][-1]
        assert (newest["by"], newest["kind"], newest["verified"]) == ("root", "token_created", True)
        assert newest["data"]["name"] == "ci"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"name": "", "scopes": ["read"]}, "name"),
        ({"name": "ci"}, "scopes"),
        ({"name": "ci", "scopes": []}, "scopes"),
        ({"name": "ci", "scopes": ["everything"]}, "scopes[0]"),
        ({"name": "ci", "scopes": ["read"], "days": 0}, "days"),
        ({"name": "ci", "scopes": ["read"], "days": True}, "days"),
        ({"name": "c\u0007i", "scopes": ["read"]}, "name"),
        ({"name": "ci", "scopes": ["read"], "token": "mine"}, "token"),
    ],
)
def test_an_unfit_token_is_refused_by_field(tmp_path: Path, body: dict[str, Any], field: str) -> None:
    """The problem document names the field and the fix."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.ADMIN)
        problem = assert_problem(api.post("/tokens", json=body, headers=root), 422)
        assert field in {error["field"] for error in problem["errors"]}
        assert len(api.get("/tokens", headers=root).json()["items"]) == 1


def test_without_identity_no_one_gets_a_key_for_later(api: Harness) -> None:
    """A caller at the loopback address today must not keep a token for the day when one is needed."""
    problem = assert_problem(api.post("/tokens", json={"name": "eve", "scopes": ["admin"]}), 409)
    assert "heal token create" in problem["detail"]
    assert api.get("/tokens").json() == {"items": []}


def test_the_holder_of_the_token_is_who_answers(tmp_path: Path) -> None:
    """Their name and roles count; another name in the body is refused, and what they say is in the trail."""
    with guarded(tmp_path, approval_roles=frozenset({"sre"})) as api:
        approval_id = api.run(stories.awaiting(api.container))
        ann = token(api, "ann", Scope.APPROVE, roles=["sre"])
        path = f"/approvals/{approval_id}"
        lie = assert_problem(api.post(path, json={"decision": "approve", "by": "ben"}, headers=ann), 422)
        assert lie["errors"][0]["field"] == "by"
        said = api.post(path, json={"decision": "approve"}, headers=ann).json()
        assert (said["state"], said["answered_by"]) == ("approved", "ann")
        assert said["answers"][0]["verified"] is True
        again = api.post(path, json={"decision": "approve", "by": "Ann"}, headers=ann)
        assert again.status_code == 200
        root = token(api, "root", Scope.ADMIN)
        kinds = [one["kind"] for one in api.get("/audit/people", headers=root).json()["items"]]
        assert kinds.count("approval_approved") == 1


def test_without_identity_a_name_is_needed(api: Harness) -> None:
    """It stands in the record, even if it is taken at its word."""
    approval_id = api.run(stories.awaiting(api.container))
    problem = assert_problem(api.post(f"/approvals/{approval_id}", json={"decision": "deny"}), 422)
    assert problem["errors"][0]["field"] == "by"


def test_who_had_the_agent_act_may_not_approve_what_follows(tmp_path: Path) -> None:
    """A pass asked for with a token is remembered by name, in the incident and in the trail."""
    with guarded(tmp_path) as api:
        ann = token(api, "ann", Scope.INGEST, Scope.OPERATE)
        opened = api.post("/events/deploy", json=DEPLOY, headers=ann).json()
        assert api.post("/agent/run-once?service=payments-api", headers=ann).status_code == 200
        record = api.run(api.container.store.incidents.get(IncidentId(opened["incident_id"])))
        assert record is not None
        assert record.incident.requested_by == "ann"
        newest = api.run(api.container.store.audit_log.entries(after=-1, limit=10))[-1]
        assert (newest.by, newest.kind) == ("ann", "pass_requested")


def test_the_kill_switch_says_whose_token_it_was(tmp_path: Path) -> None:
    """By name, proved, and in the trail."""
    with guarded(tmp_path) as api:
        ann = token(api, "ann", Scope.OPERATE)
        on = api.request(
            "PUT", "/brakes/kill-switch", json={"engaged": True, "reason": "x"}, headers=ann
        ).json()
        assert (on["engaged"], on["by"]) == (True, "ann")
        newest = api.run(api.container.store.audit_log.entries(after=-1, limit=10))[-1]
        assert (newest.by, newest.kind, newest.verified) == ("ann", "kill_switch_engaged", True)


def test_guessing_is_locked_out(tmp_path: Path) -> None:
    """After LOCKOUT_ATTEMPTS wrong tokens others from that address are refused for LOCKOUT_SECONDS."""
    with guarded(tmp_path, lockout_attempts=3, lockout_seconds=60) as api:
        good = token(api, "ann", Scope.READ)
        assert api.get("/incidents").status_code == 401
        for _ in range(3):
            assert api.get("/incidents", headers={"Authorization": "Bearer guess"}).status_code == 401
        answer = api.get("/incidents", headers={"Authorization": "Bearer guess"})
        assert_problem(answer, 429)
        assert int(answer.headers["retry-after"]) == 60
        assert api.get("/healthz").status_code == 200
        assert api.get("/incidents", headers=good).status_code == 200
        api.run(api.clock.advance(60))
        assert api.get("/incidents", headers={"Authorization": "Bearer guess"}).status_code == 401


def test_a_valid_token_is_heard_whatever_others_behind_its_address_guess(tmp_path: Path) -> None:
    """By header, by the cookie of a page, and at the webhook; guesses of a token's form count as well."""
    shaped = "heal_tok_" + "0" * 16 + "_" + "0" * 64
    with guarded(tmp_path, lockout_attempts=1, alertmanager_token=SecretStr("s3cret")) as api:
        good = token(api, "ann", Scope.ADMIN)
        for guess in ("guess", shaped, good["Authorization"].removeprefix("Bearer ")[:-1] + "x"):
            answer = api.get("/incidents", headers={"Authorization": f"Bearer {guess}"})
            assert answer.status_code in (401, 429)
        assert api.get("/incidents", headers=good).status_code == 200
        assert api.post("/events/deploy", json=DEPLOY, headers=good).status_code == 202
        assert api.get("/dashboard", headers=_cookie(good["Authorization"][7:])).status_code == 200
        body = {"version": "4", "alerts": []}
        headers = {"Authorization": "Bearer s3cret"}
        assert api.post("/webhooks/alertmanager", json=body, headers=headers).status_code == 202


def test_an_address_that_does_not_guess_is_not_locked_out(tmp_path: Path) -> None:
    """Requests without any token count for nothing, nor do right ones."""
    with guarded(tmp_path, lockout_attempts=2) as api:
        good = token(api, "ann", Scope.READ)
        for _ in range(5):
            assert api.get("/incidents").status_code == 401
            assert api.get("/incidents", headers=good).status_code == 200


def test_alertmanager_is_heard_with_its_own_token_or_one_of_ours(tmp_path: Path) -> None:
    """A sender on this machine no longer does, once identity is required."""
    body = {"version": "4", "alerts": []}
    with guarded(tmp_path, alertmanager_token=SecretStr("s3cret")) as api:
        assert api.post("/webhooks/alertmanager", json=body).status_code == 401
        for headers in ({"Authorization": "Bearer s3cret"}, token(api, "am", Scope.INGEST)):
            assert api.post("/webhooks/alertmanager", json=body, headers=headers).status_code != 401


# ------------------------------------------------------------------ pages


def test_a_page_sends_people_to_sign_on_and_back(tmp_path: Path) -> None:
    """With a token where there is no issuer; the cookie is kept from scripts and other sites."""
    with guarded(tmp_path, public_url="https://heal.example.com") as api:
        sent = api.get("/dashboard?service=x")
        assert (sent.status_code, sent.headers["location"]) == (
            303,
            "/sign-on/token?to=%2Fdashboard%3Fservice%3Dx",
        )
        form = api.get(sent.headers["location"])
        assert 'value="/dashboard?service=x"' in form.text
        text = token(api, "ann", Scope.READ)["Authorization"].removeprefix("Bearer ")
        signed_on = _sign_on(api, text, to="/dashboard?service=x")
        assert (signed_on.status_code, signed_on.headers["location"]) == (303, "/dashboard?service=x")
        cookie = signed_on.headers["set-cookie"].lower()
        assert all(part in cookie for part in ("httponly", "samesite=lax", "secure", "path=/"))
        page = api.get("/dashboard", headers=_cookie(text))
        assert page.status_code == 200
        assert "ann" in page.text


def _sign_on(api: Harness, text: str, *, to: str = "/dashboard") -> Any:
    return api.post("/sign-on/token", data={"token": text, "to": to}, headers=OURS)


def _cookie(text: str) -> dict[str, str]:
    return {"Cookie": f"heal_session={text}"}


@pytest.mark.parametrize(
    "to",
    [
        "//evil.example",
        "https://evil.example",
        "/\\evil.example",
        "evil",
        "/\x00",
        "",
        "/\té",
        "javascript:x",
    ],
)
def test_signing_on_leads_nowhere_else(tmp_path: Path, to: str) -> None:
    """Whatever the link said, one ends on this agent."""
    with guarded(tmp_path) as api:
        text = token(api, "ann", Scope.READ)["Authorization"].removeprefix("Bearer ")
        assert _sign_on(api, text, to=to).headers["location"] == "/dashboard"


def test_a_wrong_token_does_not_sign_on_and_counts_as_a_guess(tmp_path: Path) -> None:
    """No cookie, and the address is locked out like any other."""
    with guarded(tmp_path, lockout_attempts=2) as api:
        for _ in range(2):
            refused = _sign_on(api, "guess")
            assert refused.status_code == 401
            assert "set-cookie" not in refused.headers
        assert _sign_on(api, "guess").status_code == 429


def test_a_page_for_another_person_says_so(tmp_path: Path) -> None:
    """Signed in, but without the right: a page, not a document."""
    with guarded(tmp_path) as api:
        text = token(api, "ci", Scope.INGEST)["Authorization"].removeprefix("Bearer ")
        page = api.get("/dashboard", headers=_cookie(text))
        assert page.status_code == 403
        assert "text/html" in page.headers["content-type"]
        assert "scope read" in page.text


def test_a_form_answers_in_the_name_of_who_signed_on(tmp_path: Path) -> None:
    """The page asks for no name; the record has the proved one, and the door."""
    with guarded(tmp_path) as api:
        approval_id = api.run(stories.awaiting(api.container))
        text = token(api, "ann", Scope.APPROVE)["Authorization"].removeprefix("Bearer ")
        page = api.get(f"/approvals/{approval_id}/page", headers=_cookie(text)).text
        assert "Answering as ann" in page
        assert 'name="by"' not in page
        answer = api.post(
            f"/dashboard/approvals/{approval_id}",
            data={"decision": "approve", "comment": "", "back": approval_id},
            headers={**_cookie(text), **OURS},
        )
        assert answer.status_code == 303
        approval = api.run(api.container.store.approvals.get(approval_id))
        assert approval is not None
        [said] = approval.answers
        assert (said.by, said.door, said.verified) == ("ann", "page", True)


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}]
)
def test_a_cookie_alone_writes_nothing(tmp_path: Path, headers: dict[str, str]) -> None:
    """A browser sends it along by itself: a write must say that our own page sent it."""
    with guarded(tmp_path) as api:
        approval_id = api.run(stories.awaiting(api.container))
        text = token(api, "ann", Scope.APPROVE)["Authorization"].removeprefix("Bearer ")
        answer = api.post(
            f"/dashboard/approvals/{approval_id}",
            data={"decision": "approve"},
            headers={**_cookie(text), **headers},
        )
        assert answer.status_code == 403
        approval = api.run(api.container.store.approvals.get(approval_id))
        assert approval is not None
        assert approval.state == "pending"


def test_a_reader_may_not_answer_by_form(tmp_path: Path) -> None:
    """Seeing a request is not answering it."""
    with guarded(tmp_path) as api:
        approval_id = api.run(stories.awaiting(api.container))
        text = token(api, "ann", Scope.READ)["Authorization"].removeprefix("Bearer ")
        answer = api.post(
            f"/dashboard/approvals/{approval_id}",
            data={"decision": "approve"},
            headers={**_cookie(text), **OURS},
        )
        assert answer.status_code == 403


def test_a_rebound_name_brings_no_cookie_and_is_not_needed(tmp_path: Path) -> None:
    """With identity the name an agent is asked by does not matter: it is the token that counts."""
    with harness(make_settings(tmp_path, require_identity=True)) as api:
        headers = {**token(api, "ann", Scope.READ), "Host": "heal.example.com"}
        assert api.get("/incidents", headers=headers).status_code == 200


def test_a_page_for_no_person_shows_nothing(tmp_path: Path) -> None:
    """Neither who engaged the kill switch and why, nor whether the agent acts."""
    with guarded(tmp_path) as api:
        ann = token(api, "ann", Scope.OPERATE)
        body = {"engaged": True, "reason": "a breach of the payments database"}
        assert api.request("PUT", "/brakes/kill-switch", json=body, headers=ann).status_code == 200
        page = api.post("/sign-off", headers=OURS)
        assert page.status_code == 200
        for words in ("KILL SWITCH", "breach", "DRY RUN", "LIVE"):
            assert words not in page.text
        text = ann["Authorization"].removeprefix("Bearer ")
        assert "breach" in api.get("/dashboard", headers=_cookie(text)).text


def test_guessing_alertmanagers_token_is_locked_out(tmp_path: Path) -> None:
    """With or without identity; the right one is heard all the while."""
    for number, required in enumerate((True, False)):
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = make_settings(
            folder, require_identity=required, alertmanager_token=SecretStr("s3cret"), lockout_attempts=3
        )
        with harness(settings) as api:
            tried = [
                api.post(
                    "/webhooks/alertmanager",
                    json={"version": "4", "alerts": []},
                    headers={"Authorization": f"Bearer {guess}"},
                ).status_code
                for guess in ("a", "b", "c", "d", "s3cret")
            ]
            assert tried == [401, 401, 401, 429, 202]


def test_a_session_of_another_person_can_be_ended(tmp_path: Path) -> None:
    """By an administrator, with the id that stands in the audit trail."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.ADMIN)
        issued = issue(
            CredentialKind.SESSION,
            "eve",
            roles=["admin"],
            scopes=(),
            by="eve",
            at=api.clock.now(),
            lifetime=timedelta(hours=9),
        )
        eve = Person(name="eve", door=Door.PAGE, verified=True)
        human_decision = HumanDecision(
            at=api.clock.now(), by=eve, kind=HumanDecisionKind.SIGNED_ON, subject=issued.credential.id
        )
        api.run(api.container.store.credentials.add(issued.credential, human_decision))
        hers = {"Authorization": f"Bearer {issued.text}"}
        assert api.get("/tokens", headers=hers).status_code == 200
        assert api.request("DELETE", f"/tokens/{issued.credential.id}", headers=root).status_code == 200
        assert api.get("/tokens", headers=hers).status_code == 401


def test_without_identity_a_proxy_gives_no_access(tmp_path: Path) -> None:
    """Callers from other hosts are refused, except where a signature or a token is required."""
    with harness(make_settings(tmp_path), client=("203.0.113.9", 1)) as api:
        body = {"engaged": False, "by": "x"}
        assert_problem(api.request("PUT", "/brakes/kill-switch", json=body), 403)
        assert_problem(api.get("/incidents"), 403)
        told = assert_problem(api.post("/webhooks/alertmanager", json={}), 403)
        assert "ALERTMANAGER_TOKEN" in told["detail"]
