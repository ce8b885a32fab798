"""`GET /audit/signals`: the sum over what the API accepted."""

from __future__ import annotations

from datetime import timedelta

from tests.api.harness import DEPLOY, METRIC, Harness, assert_problem


def test_the_sum_covers_every_accepted_event(api: Harness) -> None:
    """By what became of each; a refused list and a repeated request count nothing."""
    headers = {"Idempotency-Key": "k"}
    for _ in range(2):
        assert api.post("/events/deploy", json=DEPLOY, headers=headers).status_code == 202
    assert api.post("/events/metric", json=[METRIC, METRIC]).status_code == 202
    assert api.post("/events/metric", json=[METRIC, {}]).status_code == 422
    answer = api.get("/audit/signals")
    assert answer.status_code == 200
    found = answer.json()
    assert (found["adds_up"], found["accepted"], found["accounted"]) == (True, 3, 3)
    assert found["present"] == {"opened": 1, "joined": 1, "deduplicated": 1}
    assert found["strays"] == []


def test_since_takes_the_day_of_arrival(api: Harness) -> None:
    """Later days hold nothing of today's."""
    api.post("/events/deploy", json=DEPLOY)
    today = api.clock.now().isoformat()
    tomorrow = (api.clock.now() + timedelta(days=1)).isoformat()
    assert api.get("/audit/signals", params={"since": today}).json()["accepted"] == 1
    later = api.get("/audit/signals", params={"since": tomorrow}).json()
    assert (later["accepted"], later["adds_up"]) == (0, True)


def test_what_is_a_discrepancy_is_named(api: Harness) -> None:
    """An incident that has not moved for a while: no worker runs here."""
    opened = api.post("/events/deploy", json=DEPLOY).json()
    api.run(api.clock.advance(600))
    found = api.get("/audit/signals").json()
    assert found["adds_up"] is False
    assert [(discrepancy["kind"], discrepancy["id"]) for discrepancy in found["strays"]] == [
        ("nobody_drives", opened["incident_id"])
    ]


def test_a_wrong_question_is_refused(api: Harness) -> None:
    """A time without an offset, and what it does not know."""
    assert_problem(api.get("/audit/signals", params={"since": "2026-02-20"}), 422)
    assert_problem(api.get("/audit/signals", params={"deep": "true"}), 422)
