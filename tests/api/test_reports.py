"""What a page draws and a review takes along: the chart of an incident, and its post-mortem."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from app.agent.models import SliSample
from app.agent.timeline import verify_chain
from app.terms import slo_thresholds
from app.web.postmortem import text as markdown_text
from app.web.story import grouped
from app.wire.chart import ChartView
from tests.api.harness import METRIC, NOW, Harness, assert_problem
from tests.api.stories import awaiting, failed_often, opened, proposed
from tests.browser.hostile import HOSTILE_TEXTS


def test_the_chart_shows_levels_objectives_and_marks(api: Harness) -> None:
    """Samples oldest first, the SLO, and what happened: opened, asked, answered, closed."""
    approval_id = api.run(awaiting(api.container))
    incident_id = approval_id.replace("apr_", "inc_")
    api.run(api.clock.advance(30))
    api.post("/events/metric", json={**METRIC, "error_rate": 0.3, "timestamp": "2026-02-20T17:02:30Z"})
    api.post(f"/approvals/{approval_id}", json={"decision": "deny", "by": "ann"})
    chart = api.get(f"/v1/incidents/{incident_id}/chart").json()
    assert [sample["error_rate"] for sample in chart["samples"]] == [0.13, 0.3]
    assert chart["slo"] == {"max_error_rate": 0.05, "max_p95_latency_ms": 1000.0}
    assert [mark["text"] for mark in chart["marks"]] == [
        "Incident opened",
        "Deploy of 1.15.0 failed",
        "Approval of rollback requested",
        "Rollback denied by ann",
    ]
    assert chart["measured"] is False
    assert_problem(api.get(f"/v1/incidents/inc_{'0' * 32}/chart"), 404)


def test_measured_and_posted_samples_are_never_mixed(api: Harness) -> None:
    """Where the agent's own source has samples, only those are drawn."""
    incident_id = api.run(opened(api.container))
    record = api.run(api.container.store.incidents.get(incident_id))
    assert record is not None
    samples = [
        SliSample(at=NOW, error_rate=0.4),
        SliSample(at=NOW + timedelta(seconds=5), error_rate=0.1, measured=True),
        SliSample(at=NOW - timedelta(hours=1), error_rate=0.2, measured=True),
    ]
    slo = slo_thresholds(api.container.settings)
    chart = ChartView.of(record, samples, (), slo, NOW + timedelta(minutes=1))
    assert [sample.error_rate for sample in chart.samples] == [0.1]
    assert chart.measured


def test_a_post_mortem_holds_the_story_and_its_proof(api: Harness) -> None:
    """Cause, decisions, outcome, timeline and the state of the chain, as Markdown and as JSON."""
    incident_id = api.run(proposed(api.container))
    answer = api.get(f"/v1/incidents/{incident_id}/postmortem")
    assert answer.headers["content-disposition"] == f'attachment; filename="{incident_id}.md"'
    assert answer.headers["content-type"].startswith("text/markdown")
    for part in (
        "# payments-api in prod: proposed",
        "**bad release** (88%)",
        "against: latency",
        "intact.",
    ):
        assert part in answer.text
    whole = api.get(f"/v1/incidents/{incident_id}/postmortem?format=json").json()
    assert whole == api.get(f"/v1/incidents/{incident_id}").json()
    record = api.run(api.container.store.incidents.get(incident_id))
    assert record is not None
    assert verify_chain(record.incident.id, record.timeline)
    assert_problem(api.get(f"/v1/incidents/{incident_id}/postmortem?format=pdf"), 422)


@pytest.mark.parametrize("text", HOSTILE_TEXTS)
def test_foreign_text_has_no_meaning_in_markdown(text: str) -> None:
    """No tag and no link is left unescaped, and nothing starts a line of its own."""
    shown = markdown_text(text)
    assert not re.search(r"(?<!\\)<", shown)
    assert not re.search(r"(?<!\\)\]\(", shown)
    assert "\n" not in shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kubectl -n prod get pods -o wide", "kubectl -n prod get pods -o wide"),
        ("app:1 -> app:2 (revision 2)", "app:1 -> app:2 (revision 2)"),
        ("- item", "\\- item"),
        ("> quote", "\\> quote"),
        ("---", "\\---"),
    ],
)
def test_a_command_can_be_copied_from_the_markdown(text: str, shown: str) -> None:
    """Dashes, arrows and parentheses have no meaning within a line; at its start they are escaped."""
    assert markdown_text(text) == shown


def test_a_post_mortem_of_hostile_texts_is_escaped(api: Harness) -> None:
    """Wherever foreign text can stand in it."""
    incident_id = api.run(proposed(api.container, text=" ".join(HOSTILE_TEXTS)))
    body = api.get(f"/v1/incidents/{incident_id}/postmortem").text
    assert not re.search(r"(?<!\\)<", body)
    assert not re.search(r"(?<!\\)\]\(", body)


def test_signals_that_add_nothing_are_one_line(api: Harness) -> None:
    """Three and more in a row; a signal with a new trigger stands alone."""
    incident_id = api.run(opened(api.container))
    for second in range(5):
        event = {**METRIC, "timestamp": f"2026-02-20T17:01:0{second}Z"}
        api.post("/events/metric", json=event)
    record = api.run(api.container.store.incidents.get(incident_id))
    assert record is not None
    assert [len(group) for group in grouped(record.timeline)] == [1, 1, 5]
    page = api.get(f"/dashboard/incidents/{incident_id}").text
    assert "5 more signals" in page


def test_the_operations_page_closes_a_breaker(api: Harness) -> None:
    """It shows why the breaker is open, and the form closes it in the name of a person."""
    api.run(failed_often(api.container))
    page = api.get("/dashboard/operations")
    assert "did not help" in page.text
    budgets = re.findall(
        r'<meter min="0" max="(\d+)" value="(\d+)"[^>]*></meter> (\d+) of (\d+) left', page.text
    )
    assert budgets
    assert all((left, allowed) == (value, most) for most, value, left, allowed in budgets)
    assert any(left != allowed for *_, left, allowed in budgets)
    form = {"service": "payments-api", "environment": "prod", "by": "ann", "reason": "registry is back"}
    closed = api.post("/dashboard/circuits/close", data=form)
    assert (closed.status_code, closed.headers["location"]) == (303, "/dashboard/operations")
    after = api.get("/dashboard/operations").text
    assert "circuit closed" in after
    assert "The hash chain of" in after
    refused = api.post("/dashboard/kill-switch", data={"engaged": "yes", "by": "ann", "reason": ""})
    assert refused.status_code == 422
    assert (
        api.post("/dashboard/kill-switch", data={"engaged": "yes", "by": "ann", "reason": "x"}).status_code
        == 303
    )
    assert api.get("/brakes/kill-switch").json()["engaged"] is True


def test_foreign_sites_change_nothing(api: Harness) -> None:
    """Every form of the console is refused when the browser reports another site."""
    incident_id = api.run(opened(api.container))
    forms = {
        f"/dashboard/incidents/{incident_id}/take-over": {"by": "ann"},
        f"/dashboard/incidents/{incident_id}/resolve": {"by": "ann", "reason": "x"},
        "/dashboard/kill-switch": {"engaged": "yes", "by": "ann", "reason": "x"},
        "/dashboard/circuits/close": {"by": "ann", "reason": "x"},
    }
    for path, form in forms.items():
        foreign = api.post(path, data=form, headers={"Sec-Fetch-Site": "cross-site"})
        assert foreign.status_code == 403, path
    assert api.get(f"/incidents/{incident_id}").json()["state"] == "open"
    assert api.get("/brakes/kill-switch").json()["engaged"] is False
