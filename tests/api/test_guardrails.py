"""The kill switch over HTTP: who, why, since when, and what cannot set it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.api.harness import Harness, assert_problem, harness, make_settings
from tests.api.stories import failed_often

PATH = "/brakes/kill-switch"
ON = {"engaged": True, "by": "ann", "reason": "database migration"}


def test_an_untouched_switch_is_released(api: Harness) -> None:
    """No name is made up for it."""
    assert api.get(PATH).json() == {"engaged": False, "by": None, "reason": "", "at": None}


def test_it_is_engaged_and_released(api: Harness) -> None:
    """Each setting says who, why and when, and holds in the store that every worker reads."""
    engaged = api.request("PUT", PATH, json=ON)
    assert engaged.status_code == 200
    assert engaged.json() == {**ON, "at": "2026-02-20T17:02:00Z"}
    assert api.get(PATH).json() == engaged.json()
    brake = api.run(api.container.store.guardrails.kill_switch())
    assert brake is not None
    assert brake.engaged
    api.run(api.clock.advance(60))
    released = api.request("PUT", PATH, json={"engaged": False, "by": "bob"})
    assert released.json() == {"engaged": False, "by": "bob", "reason": "", "at": "2026-02-20T17:03:00Z"}
    assert api.get(PATH).json() == released.json()


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"engaged": True, "by": "ann"}, "reason"),
        ({**ON, "reason": ""}, "reason"),
        ({**ON, "reason": "a" * 1001}, "reason"),
        ({**ON, "engaged": "yes"}, "engaged"),
        ({**ON, "engaged": 1}, "engaged"),
        ({**ON, "by": " "}, "by"),
        ({"engaged": False}, "by"),
        ({**ON, "until": "tomorrow"}, "until"),
    ],
)
def test_a_setting_that_is_none_is_refused(api: Harness, body: dict[str, Any], field: str) -> None:
    """The field is named, with the fix, and the switch stays as it was."""
    document = assert_problem(api.request("PUT", PATH, json=body), 422)
    assert document["errors"][0]["field"] == field
    assert api.get(PATH).json()["engaged"] is False


def test_another_sites_page_cannot_set_it(api: Harness) -> None:
    """Neither engage nor, which is worse, release."""
    api.request("PUT", PATH, json=ON)
    off = {"engaged": False, "by": "evil"}
    for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert_problem(api.request("PUT", PATH, json=off, headers=headers), 403)
    assert api.get(PATH).json()["engaged"] is True


def test_only_reading_and_putting_is_served(api: Harness) -> None:
    """A POST by mistake sets nothing."""
    assert_problem(api.post(PATH, json=ON), 405)


# ------------------------------------------------------------ everything that holds actions back


def test_without_guardrails_everything_is_reported_free(api: Harness) -> None:
    """The kill switch as it stands, no window, no breaker."""
    told = api.get("/brakes").json()
    assert told == {"kill_switch": api.get(PATH).json(), "freezes": [], "circuits": []}


def test_windows_are_reported_with_when_they_hold(tmp_path: Path) -> None:
    """One that holds now, one that comes; with whom they concern."""
    windows = [
        {"name": "now", "cron": "0 17 * * *", "hours": 1, "environments": ["prod"]},
        {"name": "weekend", "cron": "0 18 * * FRI", "hours": 60, "time_zone": "Europe/Berlin"},
    ]
    with harness(make_settings(tmp_path, freeze_windows=windows)) as api:
        now, weekend = api.get("/brakes").json()["freezes"]
    assert now == {
        "name": "now",
        "environments": ["prod"],
        "services": [],
        "holds_until": "2026-02-20T18:00:00Z",
        "next_start": "2026-02-21T17:00:00Z",
    }
    assert weekend["holds_until"] == "2026-02-23T05:00:00Z"


def test_an_open_breaker_is_reported_and_closed_by_hand(api: Harness) -> None:
    """By name and with a reason; failures before that count no more, and another's breaker stays."""
    api.run(failed_often(api.container))
    (circuit,) = api.get("/brakes").json()["circuits"]
    assert (circuit["environment"], circuit["service"]) == ("prod", "payments-api")
    assert "the last 3 actions did not help" in circuit["reason"]
    body = {"environment": "prod", "service": "elsewhere", "by": "ann", "reason": "the registry is back"}
    other = api.post("/brakes/circuits/close", json=body)
    assert len(other.json()["circuits"]) == 1
    api.run(api.clock.advance(1))
    closed = api.post("/brakes/circuits/close", json={**body, "service": "payments-api"})
    assert closed.status_code == 200
    assert closed.json()["circuits"] == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"by": "ann"}, "reason"),
        ({"by": "ann", "reason": ""}, "reason"),
        ({"reason": "x"}, "by"),
        ({"by": " ", "reason": "x"}, "by"),
        ({"by": "ann", "reason": "x", "service": "Not A Name", "environment": "prod"}, "service"),
        ({"by": "ann", "reason": "x", "all": True}, "all"),
    ],
)
def test_a_closing_that_says_too_little_is_refused(api: Harness, body: dict[str, Any], field: str) -> None:
    """The field is named."""
    document = assert_problem(api.post("/brakes/circuits/close", json=body), 422)
    assert document["errors"][0]["field"] == field


def test_half_a_service_closes_nothing(api: Harness) -> None:
    """Without its environment it could be another one's breaker, or the cluster's."""
    body = {"by": "ann", "reason": "x", "service": "payments-api"}
    assert_problem(api.post("/brakes/circuits/close", json=body), 422)
