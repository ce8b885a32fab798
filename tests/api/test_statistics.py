"""Statistics over HTTP: JSON, CSV without formulas, the page that keeps its view, `heal stats`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from app.agent.analytics.report import Counted, DecisionCount, ReasonCount, StatsFilter, report
from app.agent.analytics.times import share_of
from app.agent.guardrails.limits import UNLIMITED
from app.agent.models import ActionName, DecisionKind
from app.wire.statistics import StatsView, csv_of
from tests.api.harness import NOW, Harness, assert_problem
from tests.api.stories import awaiting, failed_often, proposed
from tests.browser.hostile import HOSTILE_TEXTS
from tests.unit.heal_command import Heal, heal

__all__ = ["heal"]


def test_statistics_of_stories(api: Harness) -> None:
    """A dry run, a pending approval and two escalations: counted where they belong."""
    api.run(proposed(api.container))
    api.run(awaiting(api.container, service="cart"))
    api.run(failed_often(api.container, service="shop", times=2))
    found = api.get("/v1/stats?since=1h&until=2026-02-20T18:00:00Z").json()
    assert found["ends"] == {
        "incidents": 4,
        "recovered": 0,
        "recovered_without_action": 0,
        "resolved_by_hand": 0,
        "escalated": 2,
        "proposed": 1,
        "active": 1,
        "restore_seconds_mean": None,
    }
    assert found["interval"] == "day"
    assert [one["cause"] for one in found["causes"]] == ["bad_release"]
    assert [(one["service"], one["incidents"]) for one in found["services"]] == [
        ("shop", 2),
        ("cart", 1),
        ("payments-api", 1),
    ]
    assert found["approvals"]["states"] == {"pending": 1, "used": 2}
    assert found["approvals"]["wait"]["count"] == 2
    assert found["budget"]["actions"] == 2
    assert "30 minutes" in found["time_saved"]["assumption"]
    one = api.get("/v1/stats?until=2026-02-20T18:00:00Z&service=cart&severity=critical").json()
    assert one["ends"]["incidents"] == 1
    assert one["budget"]["actions"] == 0
    dry = api.get("/v1/stats?until=2026-02-20T18:00:00Z&service=payments-api").json()
    assert [(score["runbook"], score["proposed"]) for score in dry["shadow"]] == [
        ("roll-back-bad-release@2", 1)
    ]


@pytest.mark.parametrize(
    "query",
    ["since=soon", "since=1d&until=2d", "cause=luck", "severity=huge", "interval=hour", "manual_minutes=-1"],
)
def test_a_query_that_is_none_is_refused(api: Harness, query: str) -> None:
    """With the field and the fix, on the API and on the page, which keeps what was entered."""
    assert_problem(api.get(f"/v1/stats?{query}"), 422)
    assert_problem(api.get(f"/v1/stats.csv?{query}"), 422)
    page = api.get(f"/dashboard/analytics?{query}")
    assert page.status_code == 422
    assert 'role="alert"' in page.text


def test_csv_holds_every_figure_and_no_formula(api: Harness) -> None:
    """Reasons are text from outside: none begins with what a spreadsheet runs."""
    hostile = ["=1+1", "+cmd", "-2+3", "@SUM(A1)", "\t=1", "  =1", "\r=1", *HOSTILE_TEXTS]
    reasons = tuple(ReasonCount(decision=DecisionKind.DENY, reason=text, number=1) for text in hostile)
    denied = DecisionCount(
        action=ActionName.ROLLBACK, decision=DecisionKind.DENY, result=None, dry_run=True, number=3
    )
    counted = Counted(reasons=reasons, decisions=(denied,))
    where = StatsFilter(since=NOW, until=NOW.replace(year=2027))
    rows = list(csv.reader(io.StringIO(csv_of(StatsView.of(report(where, counted), UNLIMITED)), newline="")))
    assert all(len(row) == 4 for row in rows)
    assert not [cell for row in rows for cell in row if cell.lstrip(" ").startswith(tuple("=+-@\t\r\n"))]
    assert ["decision", "rollback deny (dry run)", "not ended", "3"] in rows
    inert = [f"'{text}" if text.lstrip(" ")[:1] in "=+-@\t\r\n" else text for text in hostile]
    assert [row[1] for row in rows if row[0] == "reason"] == inert
    answer = api.get("/v1/stats.csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert "attachment" in answer.headers["content-disposition"]
    assert answer.text.startswith("section,item,figure,value\r\n")


def test_the_ends_of_an_interval_are_exact() -> None:
    """No rest of rounding where nothing, or everything, was a hit."""
    for of in range(1, 40):
        assert (share_of(0, of).low, share_of(of, of).high) == (0.0, 1.0)


def test_the_page_keeps_its_view(api: Harness) -> None:
    """Filters stay filled in, the export has them, and the short address leads there."""
    api.run(proposed(api.container, text="<script>alert(1)</script>"))
    view = "since=90d&environment=prod&severity=critical&manual_minutes=45"
    page = api.get(f"/dashboard/analytics?{view}")
    assert page.status_code == 200
    assert f"/v1/stats.csv?{view.replace('&', '&amp;')}" in page.text
    assert '<option value="90d" selected>' in page.text
    assert 'value="45"' in page.text
    assert "45 minutes" in page.text
    assert "<script>alert" not in page.text
    assert " style=" not in page.text
    short = api.get(f"/analytics?{view}", follow_redirects=False)
    assert short.headers["location"] == f"/dashboard/analytics?{view}"
    assert "No incident was opened in this period" in api.get("/dashboard/analytics?service=other").text


def test_heal_stats_reads_the_store(api: Harness, heal: Heal, tmp_path: Path) -> None:
    """Without an agent the SQLite file is counted, as table, JSON and CSV."""
    api.run(proposed(api.container))
    url = f"sqlite:///{tmp_path}/heal.db"
    (tmp_path / ".env").write_text(f"DATABASE_URL={url}\nPORT=9\n")
    asked = ("stats", "--since", "2020-01-01T00:00:00Z")
    assert "bad release" in heal(*asked).out
    assert json.loads(heal(*asked, "-o", "json").out)["ends"]["proposed"] == 1
    assert "incidents,,proposed,1" in heal(*asked, "--csv").out
