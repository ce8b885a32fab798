"""People handle incidents: acknowledge, assign, note, take over, hand back, resolve; search and sort."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.agent.models import IncidentState
from app.connectors.traces.otlp import OtlpTracer
from app.spans import tracing
from tests.api.harness import METRIC, Harness, assert_problem, harness, make_settings
from tests.api.stories import awaiting, escalated, failed_often, opened, proposed

ANN = {"by": "ann"}


def _act(api: Harness, incident_id: str, act: str, **body: Any) -> dict[str, Any]:
    response = api.post(f"/v1/incidents/{incident_id}/{act}", json={**ANN, **body})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_an_incident_shows_who_has_seen_it_and_who_owns_it(api: Harness) -> None:
    """Acknowledge, assign and note are in the incident, its timeline and the audit trail of people."""
    incident_id = api.run(opened(api.container))
    seen = _act(api, incident_id, "acknowledge", comment="on it")
    assert seen["acknowledged"]["by"] == "ann"
    assert (seen["severity"], seen["waits_for"]) == ("critical", "agent")
    assert _act(api, incident_id, "assign", owner="ben")["owner"] == "ben"
    assert _act(api, incident_id, "assign", owner=None)["owner"] is None
    _act(api, incident_id, "notes", text="the provider is down")
    messages = [line["message"] for line in api.get(f"/v1/incidents/{incident_id}").json()["timeline"]]
    assert messages[-4:] == [
        "Acknowledged by ann: on it.",
        "ann assigned the incident to ben.",
        "ann removed the owner ben.",
        "Note by ann: the provider is down",
    ]
    kinds = [entry["kind"] for entry in api.get("/v1/audit/people").json()["items"]]
    assert kinds == [
        "incident_acknowledged",
        "incident_assigned",
        "incident_assigned",
        "incident_note_added",
    ]


def test_the_agent_stops_on_an_incident_that_a_person_has_taken_over(api: Harness) -> None:
    """A pass does nothing until it is handed back, and the awaited approval is void."""
    approval_id = api.run(awaiting(api.container))
    incident_id = approval_id.replace("apr_", "inc_")
    taken = _act(api, incident_id, "take-over", comment="I know this one")
    assert (taken["state"], taken["owner"], taken["waits_for"]) == ("open", "ann", "person")
    assert "ann handles it" in taken["next_step"]
    late = api.post(f"/approvals/{approval_id}", json={"decision": "approve", "by": "ben"})
    assert assert_problem(late, 409)["type"].endswith("approval-void")
    length = len(api.get(f"/incidents/{incident_id}").json()["timeline"])
    report = api.post("/agent/run-once?service=payments-api").json()
    assert report["steps"] == []
    other = api.post(f"/v1/incidents/{incident_id}/take-over", json={"by": "ben"})
    assert "taken over by ann" in assert_problem(other, 409)["detail"]
    assert len(api.get(f"/incidents/{incident_id}").json()["timeline"]) == length
    assert _act(api, incident_id, "hand-back")["taken_over"] is None
    assert api.post("/agent/run-once?service=payments-api").json()["steps"] != []


def test_a_person_who_resolves_ends_the_trace(api: Harness) -> None:
    """Once: not again for one that the agent had ended, and for no second answer."""
    exporter = InMemorySpanExporter()
    tracer = OtlpTracer(exporter, role="all", processor=SimpleSpanProcessor(exporter))

    def whole() -> list[tuple[object, object]]:
        found = [one.attributes or {} for one in exporter.get_finished_spans() if one.name == "incident"]
        return [(one["heal.incident.id"], one["heal.state"]) for one in found]

    with tracing(tracer):
        incident_id = api.run(opened(api.container))
        for _ in range(2):
            _act(api, incident_id, "resolve", reason="cleared the queue")
            api.run(api.clock.advance(60))
        assert whole() == [(incident_id, "resolved_by_hand")]
        approval_id = api.run(awaiting(api.container))
        api.run(escalated(api.container, approval_id))
        before = whole()
        api.run(api.clock.advance(3600))
        _act(api, approval_id.replace("apr_", "inc_"), "resolve", reason="rolled back by hand")
        assert whole() == before


def test_a_resolved_incident_makes_room_for_the_next_one(api: Harness) -> None:
    """It has ended, says who resolved it and how, and the next breach opens a new one."""
    incident_id = api.run(opened(api.container))
    resolved = _act(api, incident_id, "resolve", reason="cleared the queue")
    assert resolved["state"] == "resolved_by_hand"
    assert resolved["closed_at"] is not None
    assert resolved["resolved"]["by"] == "ann"
    assert resolved["summary"].startswith("Resolved by hand by ann: cleared the queue.")
    again = api.post(f"/v1/incidents/{incident_id}/acknowledge", json=ANN)
    assert "has ended (resolved by hand)" in assert_problem(again, 409)["detail"]
    event = {**METRIC, "timestamp": "2026-02-20T17:01:59Z"}
    disposition = api.post("/events/metric", json=event).json()
    assert disposition["incident_id"] != incident_id


def test_an_escalated_incident_is_open_until_a_person_resolves_it(api: Harness) -> None:
    """`closed_at` is null meanwhile, wherever an incident is shown; then it is the time of the resolution."""
    approval_id = api.run(awaiting(api.container))
    api.run(escalated(api.container, approval_id))
    incident_id = approval_id.replace("apr_", "inc_")
    shown = api.get(f"/incidents/{incident_id}").json()
    assert (shown["state"], shown["closed_at"]) == ("escalated", None)
    listed = api.get("/v1/incidents?state=escalated").json()["items"]
    assert [(one["id"], one["closed_at"]) for one in listed] == [(incident_id, None)]
    assert "Closed: not yet" in api.get(f"/v1/incidents/{incident_id}/postmortem").text
    api.run(api.clock.advance(3600))
    resolved = _act(api, incident_id, "resolve", reason="rolled back by hand")
    assert resolved["state"] == "resolved_by_hand"
    assert resolved["closed_at"] == resolved["resolved"]["at"] is not None
    stats = api.get("/v1/stats").json()
    assert (stats["ends"]["resolved_by_hand"], stats["ends"]["escalated"]) == (1, 0)
    assert stats["restore"]["count"] == 1


@pytest.mark.parametrize(
    ("act", "body", "field"),
    [
        ("acknowledge", {}, "by"),
        ("assign", {"by": "ann"}, "owner"),
        ("assign", {"by": "ann", "owner": ""}, "owner"),
        ("notes", {"by": "ann", "text": ""}, "text"),
        ("notes", {"by": "ann", "text": "two\nlines"}, "text"),
        ("resolve", {"by": "ann"}, "reason"),
        ("take-over", {"by": "ann", "force": True}, "force"),
    ],
)
def test_what_does_not_fit_names_the_field(api: Harness, act: str, body: Any, field: str) -> None:
    """A request without a name, a reason or a text is refused with the fix, and records nothing."""
    incident_id = api.run(opened(api.container))
    document = assert_problem(api.post(f"/v1/incidents/{incident_id}/{act}", json=body), 422)
    assert [error["field"] for error in document["errors"]] == [field]
    assert api.get("/audit/people").json()["items"] == []


def test_an_unknown_incident_is_not_found(api: Harness) -> None:
    """Each act answers 404 for an id that does not exist."""
    for act in ("acknowledge", "take-over", "hand-back"):
        assert_problem(api.post(f"/v1/incidents/inc_{'0' * 32}/{act}", json=ANN), 404)


def test_incidents_are_searched_filtered_and_sorted(api: Harness) -> None:
    """`q`, repeated `state`, `sort` and relative times, the same with and without a version in the path."""
    api.run(opened(api.container, "shop"))
    api.run(proposed(api.container))

    def found(query: str) -> list[str]:
        both = [api.get(f"{base}/incidents?{query}") for base in ("", "/v1")]
        assert both[0].status_code == 200, both[0].text
        assert both[0].json() == both[1].json()
        return [item["service"] for item in both[0].json()["items"]]

    assert found("q=PAYMENTS+roll") == ["payments-api"]
    assert found("q=sho_") == []
    assert sorted(found("state=open&state=proposed")) == ["payments-api", "shop"]
    assert found("state=open") == ["shop"]
    assert found("sort=opened_at") == found("sort=-opened_at")[::-1]
    assert found("since=1h&q=shop") == ["shop"]
    assert found("until=1h") == []
    for query in ("sort=owner", "service=a&service=b", "since=1x", "state=ended"):
        assert_problem(api.get(f"/incidents?{query}"), 422)


def test_every_state_has_a_name(api: Harness) -> None:
    """The contract lists the states; a new one is added to it on purpose."""
    schema = api.get("/openapi.json").json()["components"]["schemas"]["IncidentState"]
    assert schema["enum"] == [state.value for state in IncidentState]
    assert "resolved_by_hand" in schema["enum"]


@pytest.fixture
def acting(tmp_path: Path) -> Iterator[Harness]:
    """An agent that acts, with an incident whose rollback did not help."""
    with harness(make_settings(tmp_path, dry_run=False, allow_high_risk_actions=True)) as api:
        api.run(failed_often(api.container, times=1))
        yield api


def test_an_undo_is_requested_once_and_on_record(acting: Harness) -> None:
    """The incident is open again, shows the request, and the same request again changes nothing."""
    incident_id = acting.get("/v1/incidents").json()["items"][0]["id"]
    page = acting.get(f"/dashboard/incidents/{incident_id}").text
    assert f'action="/dashboard/incidents/{incident_id}/undo"' in page
    asked = _act(acting, incident_id, "undo", reason="the column is needed")
    assert (asked["state"], asked["closed_at"]) == ("open", None)
    assert (asked["undo"]["by"], asked["undo"]["outcome"]) == ("ann", None)
    assert asked["undo"]["undoes"] == [asked["actions"][0]["id"]]
    assert "requested undo" in asked["next_step"]
    shown = acting.get(f"/dashboard/incidents/{incident_id}").text
    assert "<h3>Undo requested by ann</h3>" in shown
    length = len(acting.get(f"/incidents/{incident_id}").json()["timeline"])
    again = _act(acting, incident_id, "undo", reason="the column is needed")
    assert again["undo"] == asked["undo"]
    other = acting.post(f"/v1/incidents/{incident_id}/undo", json={"by": "ben", "reason": "please"})
    assert "ann requested the undo already" in assert_problem(other, 409)["detail"]
    assert len(acting.get(f"/incidents/{incident_id}").json()["timeline"]) == length
    assert acting.get("/v1/audit/people").json()["items"][-1]["kind"] == "incident_undo_requested"
    taken = _act(acting, incident_id, "take-over")
    assert taken["undo"]["outcome"] == "refused"


def test_an_undo_that_cannot_work_is_refused_before_it_is_recorded(acting: Harness) -> None:
    """With the reason, from the API and on the page, which shows no button then."""
    incident_id = acting.get("/v1/incidents").json()["items"][0]["id"]
    acting.request("PUT", "/brakes/kill-switch", json={"engaged": True, "by": "ann", "reason": "migration"})
    refused = acting.post(f"/v1/incidents/{incident_id}/undo", json={**ANN, "reason": "needed"})
    assert "the kill switch is engaged by ann: migration" in assert_problem(refused, 409)["detail"]
    page = acting.get(f"/dashboard/incidents/{incident_id}").text
    assert "Unavailable: the kill switch is engaged by ann: migration." in page
    assert f"{incident_id}/undo" not in page
    assert acting.get(f"/v1/incidents/{incident_id}").json()["undo"] is None


def test_nothing_to_undo_is_said(api: Harness) -> None:
    """An incident in which the agent changed nothing has no undo."""
    incident_id = api.run(opened(api.container))
    refused = api.post(f"/v1/incidents/{incident_id}/undo", json={**ANN, "reason": "needed"})
    assert "there is nothing to undo" in assert_problem(refused, 409)["detail"]
    assert_problem(api.post(f"/v1/incidents/{incident_id}/undo", json=ANN), 422)
