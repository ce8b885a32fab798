"""Alertmanager's deliveries, as captured from the real one, over the webhook route."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from tests.api.harness import NOW, Harness, assert_problem, harness, make_settings

PATH = "/webhooks/alertmanager"
TOKEN = "s3cret-\u00e4"


def _alert(**changes: Any) -> dict[str, Any]:
    alert = {
        "status": "firing",
        "labels": {"alertname": "HighErrorRate", "namespace": "payments", "deployment": "payments-api"},
        "annotations": {"summary": "error rate 25% on payments-api"},
        "startsAt": "2026-02-20T17:01:33.234Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://monitoring.example:9790/graph",
        "fingerprint": "cc1ab10f0675e3f7",
    }
    return {**alert, **changes}


def _delivery(*alerts: dict[str, Any]) -> dict[str, Any]:
    return {
        "version": "4",
        "groupKey": '{}:{alertname="HighErrorRate"}',
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "healer",
        "groupLabels": {"alertname": "HighErrorRate"},
        "commonLabels": {"alertname": "HighErrorRate"},
        "commonAnnotations": {},
        "externalURL": "http://monitoring.example:9793",
        "alerts": list(alerts),
    }


def test_a_firing_alert_opens_an_incident(api: Harness) -> None:
    """A delivery is answered entry by entry; a repeated delivery is one observation."""
    response = api.post(PATH, json=_delivery(_alert()))
    assert response.status_code == 202
    first = response.json()["items"][0]
    assert first["disposition"] == "opened"
    again = api.post(PATH, json=_delivery(_alert())).json()["items"][0]
    assert again["disposition"] == "deduplicated"
    assert again["duplicate_of"] == first["signal_id"]


def test_a_resolved_alert_joins_its_incident(api: Harness) -> None:
    """The same fingerprint with another status is another observation of the same incident."""
    first = api.post(PATH, json=_delivery(_alert())).json()["items"][0]
    resolved = _alert(status="resolved", endsAt="2026-02-20T17:01:50Z")
    joined = api.post(PATH, json=_delivery(resolved)).json()["items"][0]
    assert joined["disposition"] == "joined"
    assert joined["incident_id"] == first["incident_id"]


def test_an_alert_without_a_service_is_reported(api: Harness) -> None:
    """It is named with the reason, and does not keep the others of its group out."""
    nameless = _alert(labels={"alertname": "Nameless"}, fingerprint="00")
    answer = api.post(PATH, json=_delivery(nameless, _alert())).json()
    assert len(answer["items"]) == 1
    assert [(one["name"], one["fingerprint"]) for one in answer["unmapped"]] == [("Nameless", "00")]
    assert answer["unmapped"][0]["reason"]
    only = api.post(PATH, json=_delivery(nameless))
    assert only.status_code == 202
    assert only.json()["items"] == []


@pytest.mark.parametrize("payload", [{}, [], {"version": "4"}, {"version": "4", "alerts": [1]}, "text", None])
def test_what_alertmanager_never_sends_is_refused(api: Harness, payload: Any) -> None:
    """A malformed delivery is a 422, and records nothing."""
    body = json.dumps(payload)
    assert_problem(api.post(PATH, content=body, headers={"Content-Type": "application/json"}), 422)
    assert api.incidents() == 0


@pytest.mark.parametrize("body", [b"", b"  \n"])
def test_an_empty_delivery_is_answered_with_an_example(api: Harness, body: bytes) -> None:
    """The detail says what belongs there, and the example in it is taken."""
    headers = {"Content-Type": "application/json"}
    answer = api.post(PATH, content=body, headers=headers)
    assert_problem(answer, 400)
    detail = answer.json()["detail"]
    assert detail.startswith("The body is empty. Send the unchanged payload of the Alertmanager webhook")
    example = detail[detail.index("{") :]
    assert api.post(PATH, content=example, headers=headers).json()["items"][0]["incident_id"]


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer wrong", "Basic s3cret", "s3cret", "Bearer s3cret", "bearer  "],
)
def test_a_wrong_token_is_refused(tmp_path: Path, authorization: str | None) -> None:
    """With a token set, even a sender on this machine has to know it."""
    settings = make_settings(tmp_path, alertmanager_token=SecretStr(TOKEN))
    headers = {} if authorization is None else {"Authorization": authorization}
    with harness(settings) as api:
        response = api.post(PATH, json=_delivery(_alert()), headers=headers)
        assert_problem(response, 401)
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert TOKEN not in response.text
        assert api.incidents() == 0


def test_the_right_token_is_heard_from_anywhere(tmp_path: Path) -> None:
    """The token is what decides, not the address."""
    settings = make_settings(tmp_path, alertmanager_token=SecretStr(TOKEN))
    headers = [("Authorization", f"Bearer {TOKEN}".encode())]
    with harness(settings, client=("203.0.113.7", 1)) as api:
        assert api.post(PATH, json=_delivery(_alert()), headers=headers).status_code == 202


@pytest.mark.parametrize(
    ("address", "status"),
    [("127.0.0.1", 202), ("::1", 202), ("::ffff:127.0.0.1", 202), ("203.0.113.7", 403), ("10.0.0.1", 403)],
)
def test_without_a_token_only_this_machine_is_heard(tmp_path: Path, address: str, status: int) -> None:
    """The answer to others names the setting."""
    with harness(make_settings(tmp_path), client=(address, 1)) as api:
        response = api.post(PATH, json=_delivery(_alert()))
        assert response.status_code == status
        if status == 403:
            assert "ALERTMANAGER_TOKEN" in assert_problem(response, 403)["detail"]


def test_a_recovery_of_a_datadog_monitor_ends_its_alert(api: Harness) -> None:
    """The recovery has another time and the same cycle: a late repeat of the alert opens nothing."""
    fired = {
        "alert_transition": "Triggered",
        "alert_cycle_key": "17",
        "alert_id": "1",
        "title": "High error rate",
        "tags": "service:payments-api,env:prod,heal_trigger:high_error_rate",
        "date": str(int(NOW.timestamp() * 1000) - 60_000),
    }
    recovered = {**fired, "alert_transition": "Recovered", "date": str(int(NOW.timestamp() * 1000))}
    answers = [
        api.request("POST", "/webhooks/datadog", json=body).json()["items"][0]["disposition"]
        for body in (fired, fired, recovered, {**fired, "alert_transition": "Renotify"})
    ]
    assert answers == ["opened", "deduplicated", "joined", "deduplicated"]
