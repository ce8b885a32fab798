"""The webhook of a Datadog monitor: transitions, tags, cycles, and what Datadog leaves unrendered."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from app.agent.models import Alert
from app.config import Settings
from app.connectors.alerts.datadog import FORMAT
from app.connectors.alerts.delivery import AlertEntry, UnmappedAlert
from app.errors import Invalid

TEMPLATE = Path(__file__).parents[2] / "deploy" / "datadog" / "webhook.json"
AT = datetime(2026, 2, 20, 17, 0, tzinfo=UTC)
SETTINGS = Settings(_env_file=None)


def sent(**changes: Any) -> dict[str, Any]:
    """A rendered template: every value is a text."""
    return {
        "alert_transition": "Triggered",
        "alert_cycle_key": "6913104211447312398",
        "alert_id": "42",
        "aggreg_key": "9bd4ac313a4d1e8fae2482df7b77628",
        "org_id": "7",
        "title": "High error rate on payments-api",
        "summary": "more than 5% of requests fail",
        "scope": "env:prod,service:payments-api",
        "tags": "env:prod,monitor,service:payments-api,team:pay",
        "date": str(int(AT.timestamp() * 1000)),
        "link": "https://app.datadoghq.com/monitors/42",
        **changes,
    }


def read(**changes: Any) -> AlertEntry | UnmappedAlert:
    (entry,) = FORMAT.read(sent(**changes)).entries
    return entry


def alert(**changes: Any) -> Alert:
    batch = FORMAT.read(sent(**changes)).batch(settings=SETTINGS, received_at=AT + timedelta(minutes=10))
    assert batch.unmapped == ()
    (signal,) = batch.signals
    assert str(signal.key) == "payments-api in prod"
    assert isinstance(signal.payload, Alert)
    return signal.payload


@pytest.mark.parametrize(
    ("transition", "firing", "telemetry"),
    [
        ("Triggered", True, False),
        ("Re-Triggered", True, False),
        ("Warn", True, False),
        ("Re-Warn", True, False),
        ("Triggered from Warn", True, False),
        ("Renotify", True, False),
        ("No Data", True, True),
        ("Re-No Data", True, True),
        ("Recovered", False, False),
        ("Recovered from No Data", False, False),
    ],
)
def test_each_transition_has_its_meaning(transition: str, firing: bool, telemetry: bool) -> None:
    """Missing data is a fault of the telemetry, and no symptom (promise 8)."""
    found = alert(alert_transition=transition)
    assert (found.firing, found.telemetry) == (firing, telemetry)


def test_a_recovery_ends_the_alert_that_it_belongs_to() -> None:
    """Its time differs; the cycle is the same."""
    later = str(int((AT + timedelta(minutes=9)).timestamp()))
    assert alert(alert_transition="Recovered", date=later).identity == alert().identity
    assert alert(alert_cycle_key="1").identity != alert().identity


def test_other_groups_of_a_monitor_are_other_alerts() -> None:
    """One monitor watches many services."""
    assert read(aggreg_key="other", alert_cycle_key="5") != read()
    assert alert(aggreg_key="other").fingerprint != alert().fingerprint


@pytest.mark.parametrize("key", ["$ALERT_CYCLE_KEY", "", None, {"a": 1}, "x" * 500])
def test_without_a_usable_cycle_a_recovery_still_ends_its_alert(key: Any) -> None:
    """A variable that Datadog does not know stays as it was written."""
    fired, recovered = alert(alert_cycle_key=key), alert(alert_cycle_key=key, alert_transition="Recovered")
    assert fired.identity == recovered.identity


def test_a_service_is_not_guessed_from_several() -> None:
    """Tags of a monitor over many services name all of them; the scope names the one that is alerting."""
    tags = "env:prod,service:shop,service:cart"
    for changes in ({"scope": ""}, {"scope": "$ALERT_SCOPE"}, {"scope": "env:prod"}):
        entry = read(tags=tags, **changes)
        assert isinstance(entry, UnmappedAlert)
        assert "tag service has several values (cart, shop); group the monitor by service" in entry.reason
    one = read(tags=tags, scope="service:shop")
    assert isinstance(one, AlertEntry)
    assert one.labels["service"] == "shop"
    same = read(tags="env:prod,service:shop,service:shop,team:a,team:b", scope="")
    assert isinstance(same, AlertEntry)


def test_numbers_come_as_text_or_as_numbers() -> None:
    """Templates quote them or not."""
    assert (
        alert(alert_id=42, org_id=7, alert_cycle_key=6913104211447312398).fingerprint == alert().fingerprint
    )
    assert alert(date=AT.timestamp()).starts_at == AT
    assert alert(date=AT.isoformat()).starts_at == AT


def test_variables_that_were_left_unrendered_are_missing() -> None:
    """They are neither a service nor a title."""
    entry = read(scope="$ALERT_SCOPE", title="$ALERT_TITLE")
    assert isinstance(entry, AlertEntry)
    assert entry.name == "unnamed monitor"
    assert not any(value.startswith("$") for value in entry.labels.values())


def test_the_first_value_of_a_tag_counts() -> None:
    """The scope of the alert comes before the tags of the monitor."""
    assert alert(tags="service:other,env:staging").name


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alert_transition": "$ALERT_TRANSITION"}, "alert_transition: is missing"),
        ({"date": "$DATE"}, "date"),
        ({"date": "9" * 400}, "date"),
        ({"date": "2026-02-20T17:00:00"}, "no offset"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_field(changes: dict[str, Any], message: str) -> None:
    """The author of the template sees what to change."""
    with pytest.raises(Invalid, match=message):
        FORMAT.read(sent(**changes))


@pytest.mark.parametrize("body", [[], "text", 5, None])
def test_a_body_that_is_no_object_is_refused(body: object) -> None:
    """With the name of the template."""
    with pytest.raises(Invalid, match=r"webhook\.json"):
        FORMAT.read(body)


def test_an_unknown_transition_is_reported_and_opens_nothing() -> None:
    """A sender's novelty is a recorded disposition, not an error."""
    entry = read(alert_transition="Snoozed")
    assert isinstance(entry, UnmappedAlert)
    assert "snoozed" in entry.reason


def test_the_shipped_template_has_every_field_that_is_read() -> None:
    """And only variables as values."""
    template = json.loads(TEMPLATE.read_text())
    assert set(template) == set(sent())
    assert all(value.startswith("$") for value in template.values())
