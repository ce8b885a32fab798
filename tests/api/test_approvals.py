"""People are asked and answer: once, by name, on record, whatever a sender repeats."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import pytest

from app.agent.models import ApprovalState
from tests.api.harness import Harness, assert_problem
from tests.api.stories import awaiting, given_up, opened, used

YES = {"decision": "approve", "by": "ann", "comment": "seen with the release team"}
NO = {"decision": "deny", "by": "bob"}


def _incident(api: Harness, approval_id: str) -> dict[str, Any]:
    incident_id = api.get(f"/approvals/{approval_id}").json()["incident_id"]
    found: dict[str, Any] = api.get(f"/incidents/{incident_id}").json()
    return found


def test_what_is_waited_for_is_listed_with_all_it_is_bound_to(api: Harness) -> None:
    """Incident, service, action in full, plan hash, state of the object, reasons, expiry."""
    approval_id = api.run(awaiting(api.container))
    (item,) = api.get("/approvals?state=pending").json()["items"]
    assert item["id"] == approval_id
    assert item["incident_id"] == approval_id.replace("apr_", "inc_")
    assert (item["service"], item["environment"], item["action"]) == ("payments-api", "prod", "rollback")
    assert item["planned"]["risk"] == "high"
    assert item["planned"]["parameters"] == {"to_revision": 7}
    assert item["planned"]["target"] == {
        "kind": "Deployment",
        "namespace": "payments",
        "name": "payments-api",
    }
    assert item["plan_hash"] == _incident(api, approval_id)["plan"]["hash"]
    assert item["target_token"] == "uid-7/3"
    assert "APPROVAL_FOR_RISKS" in item["reasons"][0]
    assert item["requested_at"] == "2026-02-20T17:02:00Z"
    assert item["expires_at"] == "2026-02-20T21:02:00Z"
    assert (item["state"], item["decision"], item["answered_by"]) == ("pending", None, None)
    assert api.get(f"/approvals/{approval_id}").json() == item


def test_an_incident_says_what_it_waits_for(api: Harness) -> None:
    """The pending approval stands in the incident, with its id, until it is answered."""
    approval_id = api.run(awaiting(api.container))
    incident = _incident(api, approval_id)
    assert incident["state"] == "awaiting_approval"
    assert incident["pending_approval"]["id"] == approval_id
    assert [one["id"] for one in incident["approvals"]] == [approval_id]
    api.post(f"/approvals/{approval_id}", json=YES)
    answered = _incident(api, approval_id)
    assert answered["pending_approval"] is None
    assert answered["approvals"][0]["state"] == "approved"
    assert "approved by ann: seen with the release team" in answered["timeline"][-1]["message"]


def test_an_incident_that_awaits_no_one_says_so(api: Harness) -> None:
    """The fields are there all the same."""
    incident_id = api.run(opened(api.container))
    incident = api.get(f"/incidents/{incident_id}").json()
    assert incident["pending_approval"] is None
    assert incident["approvals"] == []


@pytest.mark.parametrize(("said", "state"), [(YES, "approved"), (NO, "denied")], ids=["yes", "no"])
def test_an_answer_is_recorded_and_makes_the_incident_due(
    api: Harness, said: dict[str, str], state: str
) -> None:
    """The record says who, when and why; the loop need not wait for the expiry."""
    approval_id = api.run(awaiting(api.container))
    due_before = api.run(api.container.store.claims.next_due())
    assert due_before is not None
    assert due_before > api.clock.now()
    api.run(api.clock.advance(60))
    view = api.post(f"/approvals/{approval_id}", json=said)
    assert view.status_code == 200
    told = view.json()
    assert (told["state"], told["decision"]) == (state, said["decision"])
    assert (told["answered_by"], told["comment"]) == (said["by"], said.get("comment", ""))
    assert told["answered_at"] == "2026-02-20T17:03:00Z"
    due = api.run(api.container.store.claims.next_due())
    assert due is not None
    assert due <= api.clock.now()


def test_the_same_answer_again_is_answered_with_the_record(api: Harness) -> None:
    """A sender that never heard of the first answer repeats it; the first comment and time stand."""
    approval_id = api.run(awaiting(api.container))
    first = api.post(f"/approvals/{approval_id}", json=YES)
    api.run(api.clock.advance(60))
    again = api.post(f"/approvals/{approval_id}", json={**YES, "comment": "again"})
    assert again.status_code == 200
    assert again.json() == first.json()
    lines = [line["message"] for line in _incident(api, approval_id)["timeline"]]
    assert sum("approved by ann" in line for line in lines) == 1


@pytest.mark.parametrize(
    "late",
    [{**NO}, {**YES, "by": "bob"}, {**YES, "decision": "deny"}],
    ids=["another says no", "another says yes", "the same changes their mind"],
)
def test_the_first_answer_stands(api: Harness, late: dict[str, str]) -> None:
    """A later answer gets the name of the person who was first."""
    approval_id = api.run(awaiting(api.container))
    api.post(f"/approvals/{approval_id}", json=YES)
    document = assert_problem(api.post(f"/approvals/{approval_id}", json=late), 409)
    assert document["type"].endswith(":already-answered")
    assert "by ann" in document["detail"]
    assert api.get(f"/approvals/{approval_id}").json()["answered_by"] == "ann"


def test_of_many_at_once_one_counts(api: Harness) -> None:
    """Twenty people click at the same moment: one answer is recorded, nineteen get that person's name."""
    approval_id = api.run(awaiting(api.container))

    async def click(number: int, client: httpx2.AsyncClient) -> httpx2.Response:
        said = {"decision": "approve", "by": f"p{number}"}
        return await client.post(f"/approvals/{approval_id}", json=said)

    async def all_click() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(transport=api.transport, base_url="http://127.0.0.1:8000") as client:
            return await asyncio.gather(*(click(number, client) for number in range(20)))

    answers = api.run(all_click())
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    first = next(answer.json()["answered_by"] for answer in answers if answer.status_code == 200)
    assert all(f"by {first}" in a.json()["detail"] for a in answers if a.status_code == 409)


def test_too_late_is_too_late(api: Harness) -> None:
    """After the expiry no answer is accepted, whether or not the loop has looked already."""
    approval_id = api.run(awaiting(api.container))
    api.run(api.clock.advance(4 * 3600))
    document = assert_problem(api.post(f"/approvals/{approval_id}", json=YES), 409)
    assert document["type"].endswith(":approval-expired")
    api.run(given_up(api.container, approval_id))
    assert api.get(f"/approvals/{approval_id}").json()["state"] == "expired"
    document = assert_problem(api.post(f"/approvals/{approval_id}", json=YES), 409)
    assert document["type"].endswith(":approval-expired")


def test_what_is_gone_cannot_be_approved(api: Harness) -> None:
    """The incident has moved on: the approval is void."""
    approval_id = api.run(awaiting(api.container))
    api.run(given_up(api.container, approval_id))
    document = assert_problem(api.post(f"/approvals/{approval_id}", json=YES), 409)
    assert document["type"].endswith(":approval-void")
    assert api.get(f"/approvals/{approval_id}").json()["answered_by"] is None


def test_a_yes_that_was_used_is_still_that_persons_yes(api: Harness) -> None:
    """After the action was decided the record reads used, and a repetition of the yes is no conflict."""
    approval_id = api.run(awaiting(api.container))
    api.post(f"/approvals/{approval_id}", json=YES)

    api.run(used(api.container, approval_id))
    again = api.post(f"/approvals/{approval_id}", json=YES)
    assert again.status_code == 200
    assert (again.json()["state"], again.json()["decision"]) == ("used", "approve")
    (action,) = _incident(api, approval_id)["actions"]
    assert action["approval"] == approval_id
    assert_problem(api.post(f"/approvals/{approval_id}", json=NO), 409)


@pytest.mark.parametrize("name", ["apr_" + "0" * 32, "inc_" + "0" * 32, "nonsense", "apr_%00"])
def test_an_unknown_approval_is_not_found(api: Harness, name: str) -> None:
    """Reading and answering alike."""
    assert_problem(api.get(f"/approvals/{name}"), 404)
    assert_problem(api.post(f"/approvals/{name}", json=YES), 404)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"decision": "maybe"}, "decision"),
        ({"decision": None}, "decision"),
        ({"by": ""}, "by"),
        ({"by": "  "}, "by"),
        ({"by": "a" * 201}, "by"),
        ({"by": "a\u0007"}, "by"),
        ({"by": 7}, "by"),
        ({"comment": "a" * 1001}, "comment"),
        ({"comment": "two\nlines"}, "comment"),
        ({"surplus": 1}, "surplus"),
    ],
)
def test_an_answer_that_is_none_is_refused(api: Harness, change: dict[str, Any], field: str) -> None:
    """The field is named, and nothing is recorded."""
    approval_id = api.run(awaiting(api.container))
    document = assert_problem(api.post(f"/approvals/{approval_id}", json={**YES, **change}), 422)
    assert document["errors"][0]["field"] == field
    assert api.get(f"/approvals/{approval_id}").json()["state"] == "pending"


def test_who_answers_has_to_be_said(api: Harness) -> None:
    """An answer without a name is no answer."""
    approval_id = api.run(awaiting(api.container))
    document = assert_problem(api.post(f"/approvals/{approval_id}", json={"decision": "approve"}), 422)
    assert [error["field"] for error in document["errors"]] == ["by"]


def test_another_sites_page_cannot_answer(api: Harness) -> None:
    """A browser that is turned against the agent is refused, on both doors."""
    approval_id = api.run(awaiting(api.container))
    foreign = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert_problem(api.post(f"/approvals/{approval_id}", json=YES, headers=foreign), 403)
    assert_problem(api.post(f"/dashboard/approvals/{approval_id}", data=YES, headers=foreign), 403)
    assert api.get(f"/approvals/{approval_id}").json()["state"] == "pending"


def test_pages_of_approvals_lose_nothing(api: Harness) -> None:
    """Newest first, each once, and a foreign cursor is refused."""
    asked = []
    for number in range(5):
        asked.append(api.run(awaiting(api.container, service=f"shop-{number}")))
        api.run(api.clock.advance(1))
    seen: list[str] = []
    cursor = None
    while True:
        page = api.get("/approvals", params={"limit": "2"} | ({"cursor": cursor} if cursor else {})).json()
        seen += [item["id"] for item in page["items"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert seen == asked[::-1]
    document = assert_problem(api.get("/approvals?cursor=apr_nonsense"), 422)
    assert document["errors"][0]["field"] == "cursor"


def test_approvals_are_filtered_by_state(api: Harness) -> None:
    """Pending and answered requests differ; an unknown state is refused with the list of states."""
    first = api.run(awaiting(api.container))
    second = api.run(awaiting(api.container, service="shop"))
    api.post(f"/approvals/{first}", json=NO)
    listed = {
        state.value: [item["id"] for item in api.get(f"/approvals?state={state}").json()["items"]]
        for state in ApprovalState
    }
    assert listed["pending"] == [second]
    assert listed["denied"] == [first]
    assert listed["approved"] == []
    document = assert_problem(api.get("/approvals?state=open"), 422)
    assert "'pending'" in document["errors"][0]["mend"]


def test_an_approval_outlives_its_plan(api: Harness) -> None:
    """Once the incident has another plan the old request shows what it was bound to, not the new action."""
    approval_id = api.run(awaiting(api.container))

    api.run(given_up(api.container, approval_id))
    view = api.get(f"/approvals/{approval_id}").json()
    assert view["planned"] is None
    assert (view["state"], view["action"], view["target_token"]) == ("void", "rollback", "uid-7/3")
