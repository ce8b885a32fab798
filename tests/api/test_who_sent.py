"""Who sent a signal is on record, held to what the token is for, and may not approve what rests on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.agent.identity import tokens
from app.agent.identity.people import (
    Door,
    Person,
    Reach,
    Scope,
)
from tests.api.harness import DEPLOY, METRIC, Harness, assert_problem, harness, make_settings
from tests.api.people import guarded, token

ALERTS = "/webhooks/alertmanager"


def _alert(service: str, namespace: str = "prod", print_: str = "aa01") -> dict[str, Any]:
    return {
        "status": "firing",
        "labels": {"alertname": "HighErrorRate", "namespace": namespace, "service": service},
        "annotations": {},
        "startsAt": "2026-02-20T17:01:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": print_,
    }


def _delivery(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {"version": "4", "alerts": list(alerts)}


def _limited(api: Harness, *scopes: Scope, reach: Reach) -> dict[str, str]:
    issued = api.run(
        tokens.create(
            api.container.store.credentials,
            "pipeline",
            scopes=scopes,
            roles=(),
            lifetime=None,
            by=Person(name="root", door=Door.CLI),
            at=api.clock.now(),
            reach=reach,
        )
    )
    return {"Authorization": f"Bearer {issued.text}"}


def _sender(api: Harness, signal_id: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/signals/{signal_id}", headers=headers or {}).json()["sender"]
    return found


# ------------------------------------------------------------------ on record


def test_without_identity_the_address_is_who_sent_it(api: Harness) -> None:
    """In the signal, and in the data of the timeline's entry."""
    opened = api.post("/events/deploy", json=DEPLOY).json()
    address = {"kind": "address", "name": "127.0.0.1", "token_id": None, "address": "127.0.0.1"}
    assert _sender(api, opened["signal_id"]) == address
    timeline = api.get(f"/incidents/{opened['incident_id']}").json()["timeline"]
    assert timeline[0]["data"]["senders"] == [address]


def test_the_token_that_sent_a_signal_is_named(tmp_path: Path) -> None:
    """By the name of its holder and by its id, at each of the doors, with the peer's address."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.READ, Scope.ADMIN)
        ci = token(api, "ci", Scope.INGEST)
        [made] = [one for one in api.get("/tokens", headers=root).json()["items"] if one["name"] == "ci"]
        wanted = {"kind": "token", "name": "ci", "token_id": made["id"], "address": "127.0.0.1"}
        told = [
            api.post("/events/deploy", json=DEPLOY, headers=ci).json(),
            api.post("/events/metric", json=[METRIC], headers=ci).json()["items"][0],
            api.post(ALERTS, json=_delivery(_alert("payments-api")), headers=ci).json()["items"][0],
        ]
        assert [_sender(api, one["signal_id"], root) for one in told] == [wanted] * 3


def test_a_webhook_with_its_own_secret_is_named_as_such(tmp_path: Path) -> None:
    """A shared secret identifies no person."""
    with harness(make_settings(tmp_path, alertmanager_token=SecretStr("s3cret"))) as api:
        headers = {"Authorization": "Bearer s3cret"}
        told = api.post(ALERTS, json=_delivery(_alert("shop")), headers=headers).json()["items"][0]
        sender = _sender(api, told["signal_id"])
        assert (sender["kind"], sender["name"], sender["address"]) == ("webhook", "alertmanager", "127.0.0.1")


def test_who_waited_with_a_breach_is_named_when_it_becomes_an_incident(tmp_path: Path) -> None:
    """Samples that had been pending join with their senders."""
    with guarded(tmp_path) as api:
        ci, ann = token(api, "ci", Scope.INGEST), token(api, "ann", Scope.ADMIN)
        sample = {"service": "shop", "environment": "prod", "error_rate": 0.5}
        first = {**sample, "timestamp": "2026-02-20T17:01:50Z"}
        assert api.post("/events/metric", json=first, headers=ci).json()["disposition"] == "pending"
        assert api.post("/agent/run-once?service=shop", headers=ann).status_code == 200
        [incident] = api.get("/incidents", headers=ann).json()["items"]
        timeline = api.get(f"/incidents/{incident['id']}", headers=ann).json()["timeline"]
        assert timeline[0]["data"]["senders"][0]["name"] == "ci"


# ------------------------------------------------------------------ limits


@pytest.mark.parametrize(
    ("reach", "status"),
    [
        (Reach(), 202),
        (Reach(environments=frozenset({"prod"})), 202),
        (Reach(services=frozenset({"payments-api", "shop"})), 202),
        (Reach(environments=frozenset({"prod"}), services=frozenset({"payments-api"})), 202),
        (Reach(environments=frozenset({"staging"})), 403),
        (Reach(services=frozenset({"shop"})), 403),
        (Reach(environments=frozenset({"prod"}), services=frozenset({"shop"})), 403),
    ],
    ids=str,
)
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/events/deploy", DEPLOY),
        ("/events/deploy", [{**DEPLOY, "version": "1"}, DEPLOY]),
        ("/events/metric", METRIC),
        (ALERTS, _delivery(_alert("payments-api"))),
    ],
    ids=["deploy", "list", "metric", "alerts"],
)
def test_a_token_reports_about_what_it_is_for(
    tmp_path: Path, reach: Reach, status: int, path: str, body: Any
) -> None:
    """Anything else is a 403 that says what the token is limited to, and records nothing."""
    with guarded(tmp_path) as api:
        answer = api.post(path, json=body, headers=_limited(api, Scope.INGEST, reach=reach))
        assert answer.status_code == status
        if status == 403:
            detail = assert_problem(answer, 403)["detail"]
            assert "limited to" in detail
            assert "payments-api in prod" in detail
            assert "heal token create" in detail
            read = token(api, "root", Scope.ADMIN)
            assert api.get("/incidents", headers=read).json()["items"] == []


def test_one_entry_beyond_the_token_refuses_the_list_and_names_an_alert(tmp_path: Path) -> None:
    """A list is taken as a whole or not; of a delivery the other alerts are kept."""
    reach = Reach(services=frozenset({"payments-api"}))
    with guarded(tmp_path) as api:
        headers = _limited(api, Scope.INGEST, reach=reach)
        other = {**DEPLOY, "service": "ledger"}
        assert_problem(api.post("/events/deploy", json=[DEPLOY, other], headers=headers), 403)
        body = _delivery(_alert("payments-api"), _alert("ledger", print_="aa02"))
        answer = api.post(ALERTS, json=body, headers=headers)
        assert answer.status_code == 202
        assert [one["disposition"] for one in answer.json()["items"]] == ["opened"]
        assert "limited to services payments-api" in answer.json()["unmapped"][0]["reason"]


def test_limits_are_given_shown_and_on_record(tmp_path: Path) -> None:
    """Over HTTP as with `heal token create`; and a token made before has none."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.ADMIN)
        body = {"name": "ci", "scopes": ["ingest"], "environments": ["prod"], "services": ["shop", "ledger"]}
        made = api.post("/tokens", json=body, headers=root).json()
        assert (made["environments"], made["services"]) == (["prod"], ["ledger", "shop"])
        listed = {one["name"]: one for one in api.get("/tokens", headers=root).json()["items"]}
        assert listed["ci"]["services"] == ["ledger", "shop"]
        assert (listed["root"]["environments"], listed["root"]["services"]) == ([], [])
        newest = api.get("/audit/people", headers=root).json()["items"][-1]
        assert newest["data"]["environments"] == ["prod"]


@pytest.mark.parametrize(
    "body",
    [
        {"scopes": ["ingest", "operate"], "services": ["shop"]},
        {"scopes": ["admin"], "environments": ["prod"]},
        {"scopes": ["ingest"], "services": ["Shop API"]},
        {"scopes": ["ingest"], "environments": ["prod/eu"]},
        {"scopes": ["ingest"], "services": "shop"},
    ],
)
def test_limits_that_would_not_hold_are_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    """A limit says what may be reported: with a scope that it does not bind it would promise too much."""
    with guarded(tmp_path) as api:
        root = token(api, "root", Scope.ADMIN)
        problem = assert_problem(api.post("/tokens", json={"name": "ci", **body}, headers=root), 422)
        assert problem["errors"][0]["mend"]


# ------------------------------------------------------------------ approvals


def test_the_sender_of_a_signal_is_remembered_by_its_incident(tmp_path: Path) -> None:
    """By name, each once, whether it opened the incident or joined it; those who prove nothing are not."""
    with guarded(tmp_path, alertmanager_token=SecretStr("s3cret")) as api:
        ann, ben = token(api, "ann", Scope.INGEST), token(api, "Ben", Scope.INGEST)
        again = token(api, "ANN", Scope.INGEST)
        opened = api.post("/events/deploy", json=DEPLOY, headers=ann).json()
        for headers in (ben, again):
            body = {**METRIC, "error_rate": 0.2 if headers is ben else 0.3}
            assert api.post("/events/metric", json=body, headers=headers).status_code == 202
        secret = {"Authorization": "Bearer s3cret"}
        api.post(ALERTS, json=_delivery(_alert("payments-api")), headers=secret)
        record = api.run(api.container.store.incidents.get(opened["incident_id"]))
        assert record is not None
        assert record.incident.reported_by == ("ann", "Ben")
