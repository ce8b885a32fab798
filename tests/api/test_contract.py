"""The HTTP contract as documented: bodies, answers, paging, and the report of a pass of the loop."""

from __future__ import annotations

import re
import sqlite3
from dataclasses import replace
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from app.api.routes.health import REMEMBERED_SECONDS, readiness
from app.vitals import STILL_SECONDS, Vitals
from tests.api.harness import DEPLOY, METRIC, Harness, assert_problem, harness, make_settings

INCIDENT_FIELDS = {
    "id",
    "service",
    "environment",
    "state",
    "opened_at",
    "closed_at",
    "triggers",
    "diagnosis",
    "plan",
    "actions",
    "verdict",
}


def _incident(api: Harness) -> dict[str, Any]:
    """The only incident, with its timeline."""
    items = api.get("/incidents").json()["items"]
    assert len(items) == 1
    found: dict[str, Any] = api.get(f"/incidents/{items[0]['id']}").json()
    return found


def test_a_failed_deploy_opens_an_incident(api: Harness) -> None:
    """The body of the contract works as it stands, and the answer leads to the incident."""
    response = api.post("/events/deploy", json=DEPLOY)
    assert response.status_code == 202
    answer = response.json()
    assert answer["disposition"] == "opened"
    assert answer["duplicate_of"] is None
    assert re.fullmatch(r"sig_[0-9a-f]{32}", answer["signal_id"])

    incident = _incident(api)
    assert incident["id"] == answer["incident_id"]
    assert set(incident) >= INCIDENT_FIELDS | {"timeline"}
    assert incident["state"] == "open"
    assert incident["triggers"] == ["deploy_failed"]
    assert incident["opened_at"].endswith("Z")
    assert incident["timeline"][0]["stage"] == "observe"
    assert set(incident["timeline"][0]) >= {"at", "stage", "message", "data", "hash"}


def test_a_bad_metric_joins_the_open_incident(api: Harness) -> None:
    """The second body of the contract adds its triggers to the same incident."""
    opened = api.post("/events/deploy", json=DEPLOY).json()
    joined = api.post("/events/metric", json=METRIC).json()
    assert joined["disposition"] == "joined"
    assert joined["incident_id"] == opened["incident_id"]
    assert "crash_loop" in _incident(api)["triggers"]


def test_old_timestamps_open_a_stale_incident(api: Harness) -> None:
    """Months later the same bodies still open an incident, marked so that no real action follows."""
    api.run(api.clock.advance(timedelta(days=280).total_seconds()))
    assert api.post("/events/deploy", json=DEPLOY).json()["disposition"] == "opened"
    assert _incident(api)["stale"] is True


def test_the_same_event_twice_is_one_observation(api: Harness) -> None:
    """A repeated event names the first signal."""
    first = api.post("/events/deploy", json=DEPLOY).json()
    again = api.post("/events/deploy", json=DEPLOY).json()
    assert again["disposition"] == "deduplicated"
    assert again["duplicate_of"] == first["signal_id"]


def test_a_signal_reports_its_disposition(api: Harness) -> None:
    """The id of the answer leads to the signal with its disposition."""
    answer = api.post("/events/deploy", json=DEPLOY).json()
    signal = api.get(f"/signals/{answer['signal_id']}").json()
    assert signal["kind"] == "deploy"
    assert signal["source"] == "http"
    assert signal["observed_at"] == "2026-02-20T17:00:00Z"
    assert signal["disposition"] == "opened"
    assert signal["incident_id"] == answer["incident_id"]


def test_a_list_is_answered_entry_by_entry(api: Harness) -> None:
    """Each entry has its own disposition, in the order sent."""
    healthy = {**METRIC, "service": "shop", "error_rate": 0.0, "p95_latency_ms": 5, "crash_looping": False}
    response = api.post("/events/metric", json=[healthy, METRIC])
    assert response.status_code == 202
    assert [item["disposition"] for item in response.json()["items"]] == ["ignored", "opened"]


def test_a_list_with_one_misfit_is_refused_as_a_whole(api: Harness) -> None:
    """Nothing of it is recorded."""
    response = api.post("/events/deploy", json=[DEPLOY, {**DEPLOY, "status": "odd"}])
    document = assert_problem(response, 422)
    assert document["errors"][0]["field"] == "[1].status"
    assert document["errors"][0]["value"] == "odd"
    assert api.incidents() == 0


@pytest.mark.parametrize("status", ["started", "succeeded", "failed", "cancelled"])
def test_every_deploy_status_is_taken(api: Harness, status: str) -> None:
    """Only a failed one opens an incident."""
    answer = api.post("/events/deploy", json={**DEPLOY, "status": status, "irreversible": True}).json()
    assert answer["disposition"] == ("opened" if status == "failed" else "ignored")


def test_null_indicators_are_no_data(api: Harness) -> None:
    """An indicator that is not known may be null, as long as another one is known."""
    body = {**METRIC, "p95_latency_ms": None, "error_rate": None}
    assert api.post("/events/metric", json=body).json()["disposition"] == "opened"


def test_times_are_stored_in_utc(api: Harness) -> None:
    """An offset is understood and turned into UTC."""
    answer = api.post("/events/deploy", json={**DEPLOY, "timestamp": "2026-02-20T18:00:00.250+01:00"}).json()
    assert api.get(f"/signals/{answer['signal_id']}").json()["observed_at"] == "2026-02-20T17:00:00.250000Z"


def test_an_idempotency_key_repeats_the_first_answer(api: Harness) -> None:
    """The same request with the same key records nothing again."""
    headers = {"Idempotency-Key": "build-4711"}
    first = api.post("/events/deploy", json=DEPLOY, headers=headers)
    again = api.post("/events/deploy", json=DEPLOY, headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json()


@pytest.mark.parametrize("path", ["/events/deploy", "/events/metric"])
def test_an_idempotency_key_is_bound_to_its_request(api: Harness, path: str) -> None:
    """Another body or another path under the same key is refused by name."""
    headers = {"Idempotency-Key": "build-4711"}
    api.post("/events/deploy", json=DEPLOY, headers=headers)
    other = {**DEPLOY, "version": "1.16.0"} if path == "/events/deploy" else METRIC
    document = assert_problem(api.post(path, json=other, headers=headers), 422)
    assert document["errors"][0]["field"] == "Idempotency-Key"


@pytest.mark.parametrize("key", ["", "a" * 256, "with space", "caf\u00e9", "tab\there"])
def test_an_unusable_idempotency_key_is_refused(api: Harness, key: str) -> None:
    """A key is 1 to 255 visible ASCII characters."""
    headers = [("Idempotency-Key", key.encode("latin-1"))]
    document = assert_problem(api.post("/events/deploy", json=DEPLOY, headers=headers), 422)
    assert document["errors"][0]["field"] == "Idempotency-Key"
    assert api.incidents() == 0


def test_two_idempotency_keys_are_refused(api: Harness) -> None:
    """It would be left to chance which one counts."""
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    assert_problem(api.post("/events/deploy", json=DEPLOY, headers=headers), 422)


def test_incidents_are_paged_newest_first(api: Harness) -> None:
    """Following the cursor shows every incident once; the last page has none."""
    for number in range(5):
        api.post("/events/deploy", json={**DEPLOY, "service": f"service-{number}"})
        api.run(api.clock.advance(1))
    seen, cursor, pages = [], None, 0
    while cursor is not None or pages == 0:
        params = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
        page = api.get("/incidents", params=params).json()
        seen += [item["service"] for item in page["items"]]
        cursor, pages = page["next"], pages + 1
    assert seen == [f"service-{number}" for number in (4, 3, 2, 1, 0)]
    assert pages == 3


def test_incidents_are_filtered(api: Harness) -> None:
    """Service, environment, state and time each narrow the list."""
    api.post("/events/deploy", json=DEPLOY)
    api.post("/events/deploy", json={**DEPLOY, "environment": "staging"})
    opened_at = _at(api)
    cases = {
        "": 2,
        "service=payments-api": 2,
        "service=shop": 0,
        "environment=staging": 1,
        "state=open": 2,
        "state=recovered": 0,
        f"since={opened_at}": 2,
        f"until={opened_at}": 0,
        "since=2020-01-01T00:00:00%2B01:00&until=2026-02-20T17:02:01Z": 2,
    }
    assert {query: len(api.get(f"/incidents?{query}").json()["items"]) for query in cases} == cases


def _at(api: Harness) -> str:
    return str(api.get("/incidents").json()["items"][0]["opened_at"])


def test_a_list_leaves_timelines_to_the_single_incident(api: Harness) -> None:
    """Lists stay small however long a timeline grows."""
    api.post("/events/deploy", json=DEPLOY)
    item = api.get("/incidents").json()["items"][0]
    assert set(item) >= INCIDENT_FIELDS
    assert "timeline" not in item


def test_run_once_reports_what_it_did(api: Harness) -> None:
    """The README's story: diagnosis, plan, denied rollback, dry-run outcome and the steps of this pass."""
    api.post("/events/deploy", json=DEPLOY)
    api.post("/events/metric", json=METRIC)
    before = len(_incident(api)["timeline"])
    response = api.post("/agent/run-once?service=payments-api")
    assert response.status_code == 200
    answer = response.json()
    incident = answer["incidents"][0]
    assert answer["service"] == "payments-api"
    assert answer["environment"] is None
    assert incident["diagnosis"]["cause"]
    assert 0 <= incident["diagnosis"]["confidence"] <= 1
    assert incident["diagnosis"]["evidence"]
    assert incident["plan"]["hash"]
    assert incident["dry_run"] is True
    rollbacks = [action for action in incident["actions"] if action["name"] == "rollback"]
    assert rollbacks
    assert all(action["decision"] == "deny" for action in rollbacks)
    assert all(action["reasons"] for action in incident["actions"])
    assert all(action["dry_run"] for action in incident["actions"])
    assert len(incident["timeline"]) == before + len(answer["steps"])
    assert answer["steps"]
    assert {step["incident_id"] for step in answer["steps"]} == {incident["id"]}
    assert "payments-api in prod" in answer["summary"]
    assert incident == api.get(f"/incidents/{incident['id']}").json()


def test_run_once_judges_without_waiting(api: Harness) -> None:
    """A single sample over the threshold waits for its for-duration, unless a person asks now."""
    sample = {**METRIC, "crash_looping": None}
    assert api.post("/events/metric", json=sample).json()["disposition"] == "pending"
    answer = api.post("/agent/run-once?service=payments-api&environment=prod").json()
    assert answer["incidents"][0]["triggers"] == ["high_error_rate", "high_latency"]


def test_run_once_for_an_unknown_service_says_so(api: Harness) -> None:
    """No incidents, no steps, and a sentence that names the fix."""
    answer = api.post("/agent/run-once?service=nobody&environment=prod").json()
    assert answer["incidents"] == []
    assert answer["steps"] == []
    assert "No data for nobody in prod" in answer["summary"]
    assert "/events/metric" in answer["summary"]


def test_run_once_for_a_healthy_service_says_so(api: Harness) -> None:
    """A healthy service and an unknown service get different answers."""
    api.post("/events/metric", json={**METRIC, "error_rate": 0, "p95_latency_ms": 5, "crash_looping": False})
    answer = api.post("/agent/run-once?service=payments-api").json()
    assert answer["incidents"] == []
    assert "Nothing to do for payments-api" in answer["summary"]


def test_health_and_readiness(api: Harness) -> None:
    """Both answer while the store does."""
    assert api.get("/healthz").json() == {"status": "ok"}
    assert api.get("/version").json() == {
        "version": metadata.version("self-healing-devops-agent"),
        "sandbox": False,
    }
    ready = api.get("/readyz").json()
    assert ready["status"] == "ready"
    assert {check["name"] for check in ready["checks"]} >= {"store"}


def test_a_timeline_is_given_in_parts(api: Harness) -> None:
    """The parts together are the whole, and nothing else of the incident changes."""
    api.post("/events/deploy", json=DEPLOY)
    api.post("/agent/run-once?service=payments-api")
    whole = _incident(api)
    assert whole["timeline_next"] is None
    entries: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        part = api.get(f"/incidents/{whole['id']}?timeline_limit=2{cursor}").json()
        assert len(part["timeline"]) <= 2
        assert {**part, "timeline": None, "timeline_next": None} == {**whole, "timeline": None}
        entries += part["timeline"]
        cursor = None if part["timeline_next"] is None else f"&timeline_cursor={part['timeline_next']}"
    assert entries == whole["timeline"]
    assert len(entries) > 4


@pytest.mark.parametrize(
    "query", ["timeline_limit=0", "timeline_limit=501", "timeline_cursor=-1", f"timeline_cursor={2**63}"]
)
def test_a_part_that_is_none_is_refused(api: Harness, query: str) -> None:
    """Numbers that no timeline has are a mistake of the caller's."""
    assert_problem(api.get(f"/incidents/inc_{'0' * 32}?{query}"), 422)


def test_readiness_is_remembered_for_seconds(tmp_path: Path) -> None:
    """A hundred probes cost one look; a change shows as soon as the answer has aged."""
    looks: list[float] = []
    now = [0.0]

    async def look() -> None:
        looks.append(now[0])

    with harness(make_settings(tmp_path)) as api:
        api.app.state.container = replace(api.container, checks=(("counted", look),))
        api.app.state.readiness = readiness(monotonic=lambda: now[0])
        for _ in range(100):
            assert api.get("/readyz").status_code == 200
        assert len(looks) == 1
        now[0] = REMEMBERED_SECONDS
        assert api.get("/readyz").status_code == 200
        assert len(looks) == 2


@pytest.mark.parametrize("replaced", [True, False])
def test_a_database_file_that_is_not_the_one_opened_is_not_ready(tmp_path: Path, replaced: bool) -> None:
    """What is written to a file that has no name any more is lost when the process ends."""
    with harness(make_settings(tmp_path)) as api:
        file = tmp_path / "heal.db"
        if replaced:
            (tmp_path / "restored.db").write_bytes(file.read_bytes())
            (tmp_path / "restored.db").replace(file)
        else:
            file.unlink()
        document = assert_problem(api.get("/readyz"), 503)
        assert [error["field"] for error in document["errors"]] == ["store"]
        assert "replaced or removed" in document["detail"]


def test_a_store_that_cannot_write_is_not_ready(tmp_path: Path) -> None:
    """A database that still answers reads, and takes nothing more, cannot record a signal."""
    with harness(make_settings(tmp_path)) as api:
        with sqlite3.connect(tmp_path / "heal.db") as other:
            other.execute(
                "CREATE TRIGGER full BEFORE UPDATE ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
            other.execute(
                "CREATE TRIGGER full_too BEFORE INSERT ON leases BEGIN SELECT RAISE(ABORT, 'disk full'); END"
            )
        document = assert_problem(api.get("/readyz"), 503)
        assert [error["field"] for error in document["errors"]] == ["store"]


def test_a_driver_that_does_not_move_is_not_ready(tmp_path: Path) -> None:
    """Everything answers, and nothing is worked on: an orchestrator has to know."""
    now = [0.0]
    vitals = Vitals(monotonic=lambda: now[0])
    with harness(make_settings(tmp_path)) as api:
        api.app.state.container = replace(api.container, checks=(("driver", vitals.check),))
        api.app.state.readiness = readiness(monotonic=lambda: now[0])
        vitals.moved("driver")
        assert api.get("/readyz").status_code == 200
        now[0] = STILL_SECONDS + 1
        document = assert_problem(api.get("/readyz"), 503)
        assert [error["field"] for error in document["errors"]] == ["driver"]
        vitals.moved("driver")
        now[0] += REMEMBERED_SECONDS
        assert api.get("/readyz").status_code == 200


def test_a_store_that_is_gone_means_try_again(tmp_path: Path) -> None:
    """Events, lists and readiness answer 503 with the failing part; the process is still up."""
    with harness(make_settings(tmp_path)) as api:
        api.run(api.container.store.close())
        for response in (
            api.post("/events/deploy", json=DEPLOY),
            api.get("/incidents"),
            api.get("/readyz"),
            api.post("/agent/run-once?service=payments-api"),
        ):
            assert_problem(response, 503)
            assert int(response.headers["retry-after"]) >= 1
        document = assert_problem(api.get("/readyz"), 503)
        assert [error["field"] for error in document["errors"]] == ["store"]
        assert api.get("/dashboard").status_code == 503
        assert api.get("/healthz").status_code == 200
