"""The kill switch over HTTP: who, why, since when, and what cannot set it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.harness import Harness, assert_problem

PATH = "/brakes/kill-switch"
ON = {"engaged": True, "by": "ann", "reason": "database migration"}


def test_a_switch_that_nobody_touched_is_released(api: Harness) -> None:
    """No name is made up for it."""
    assert api.get(PATH).json() == {"engaged": False, "by": None, "reason": "", "at": None}


def test_it_is_engaged_and_released(api: Harness) -> None:
    """Each setting says who, why and when, and holds in the store that every worker reads."""
    engaged = api.request("PUT", PATH, json=ON)
    assert engaged.status_code == 200
    assert engaged.json() == {**ON, "at": "2026-02-20T17:02:00Z"}
    assert api.get(PATH).json() == engaged.json()
    brake = api.run(api.container.store.brake())
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
    """The field is named, with the mend, and the switch stays as it was."""
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
