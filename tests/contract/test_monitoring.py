"""The shipped alert rules and dashboard, held by Prometheus' own programs against a real exposition."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from app.agent.audit.figures import AgentFigures
from app.agent.freshness.watchdog import WatchdogState
from app.agent.models import DecisionKind, IncidentState, OutcomeKind
from app.agent.ports.streams import StreamProgress
from app.measures.exposition import Exposed, PeerCalls, exposition
from app.measures.process import Measures
from tests.contract.metric_worlds import prometheus

pytestmark = pytest.mark.real

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
RULES = FOLDER / "alerts.yaml"
DOCUMENT = FOLDER.parents[1] / "docs" / "monitoring.md"
AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)

FIGURES = AgentFigures(
    at=AT,
    accepted_signals=10,
    pending_signals=0,
    oldest_pending_signal_at=None,
    open_incidents=dict.fromkeys(IncidentState, 0),
    ended_incidents=dict.fromkeys(IncidentState, 0),
    due_incidents=0,
    oldest_due_incident_at=None,
    executing_actions=0,
    finished_actions=dict.fromkeys(OutcomeKind, 0),
    decisions=dict.fromkeys(DecisionKind, 0),
    budgeted_actions=0,
    pending_approvals=0,
    oldest_pending_approval_at=None,
    failing_postings=0,
    kill_switch_engaged=False,
    live_workers=1,
)
HEALTHY = Exposed(
    version="0.1.0",
    role="all",
    dry_run=True,
    idle_seconds={"driver": 0.5},
    peers={"the cluster": PeerCalls(answered=3)},
    reachable={"the cluster": True},
    streams={"kafka": StreamProgress(lag=0)},
    informer_ages={"": {"Deployment": 30.0}},
    budget=100,
    figures=FIGURES,
    now=AT,
    watchdog=WatchdogState(since=AT, silence=timedelta(), missing=False),
)
EARLIER = AT - timedelta(hours=1)

FAULTS: dict[str, Exposed | None] = {
    "HealAgentDown": None,
    "HealNoWorker": replace(
        HEALTHY, figures=replace(FIGURES, due_incidents=1, oldest_due_incident_at=EARLIER)
    ),
    "HealDriverStuck": replace(HEALTHY, idle_seconds={"driver": 90.0}),
    "HealDatabaseDown": replace(HEALTHY, figures=None),
    "HealSignalsPending": replace(
        HEALTHY, figures=replace(FIGURES, pending_signals=1, oldest_pending_signal_at=EARLIER)
    ),
    "HealInformerSilent": replace(HEALTHY, informer_ages={"": {"Deployment": 1000.0}}),
    "HealConnectorDown": replace(HEALTHY, reachable={"the cluster": False}),
    "HealStreamLag": replace(HEALTHY, streams={"kafka": StreamProgress(lag=20_000)}),
    "HealNotificationsFailing": replace(HEALTHY, figures=replace(FIGURES, failing_postings=2)),
    "HealActionsOfUnknownOutcome": replace(
        HEALTHY,
        figures=replace(FIGURES, finished_actions={**FIGURES.finished_actions, OutcomeKind.UNKNOWN: 1}),
    ),
    "HealKillSwitchEngaged": replace(HEALTHY, figures=replace(FIGURES, kill_switch_engaged=True)),
    "HealWatchdogMissing": replace(
        HEALTHY, watchdog=WatchdogState(since=EARLIER, silence=AT - EARLIER, missing=True)
    ),
}
"""What each rule watches, as the agent exposes it; None: the agent exposes nothing."""


def _measures(*, defects: int = 0) -> Measures:
    measures = Measures.of_process()
    measures.passes.labels("defect").inc(defects)
    with measures.stage("verify"):
        measures.signals(["opened"])
    measures.note_request("GET", "/metrics", 200, 0.01)
    measures.note_request("GET", "/readyz", 503, 0.01)
    measures.note_request("POST", "/events/metric", 503, 0.01)
    return measures


def _series(text: str) -> list[str]:
    """The samples of an exposition, by name and labels with the labels of a scrape."""
    found = []
    for line in text.splitlines():
        if line and not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            labels = 'instance="a:8000",job="heal"'
            found.append(
                (f"{name[:-1]},{labels}}}" if name.endswith("}") else f"{name}{{{labels}}}") + f" {value}"
            )
    return found


def _constant(exposed: Exposed | None) -> list[dict[str, str]]:
    """Input series of promtool: the same value every minute for two hours."""
    if exposed is None:
        return []
    series = [line.rsplit(" ", 1) for line in _series(exposition(_measures(), exposed).decode())]
    return [{"series": name, "values": f"{value}x120"} for name, value in (*series, _UP)]


_UP = ('up{instance="a:8000",job="heal"}', "1")


def _rules() -> list[str]:
    """The names of the shipped rules."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["alert"] for group in groups for rule in group["rules"]]


def _firing(folder: Path, series: list[dict[str, str]]) -> set[str]:
    """The rules that fire after 90 minutes: promtool reports those for which none was expected."""
    file = folder / "test.yaml"
    silent = [{"eval_time": "90m", "alertname": alert, "exp_alerts": []} for alert in _rules()]
    test = {"interval": "1m", "input_series": series, "alert_rule_test": silent}
    file.write_text(
        yaml.safe_dump({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]})
    )
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, check=False)
    report = done.stdout + done.stderr
    firing = set(re.findall(r"alertname: (\w+)", report))
    assert bool(firing) == bool(done.returncode), report
    return firing


def test_rules_and_exposition_are_valid() -> None:
    """By promtool; names and help texts follow the conventions."""
    subprocess.run(["promtool", "check", "rules", RULES], check=True, capture_output=True)
    text = exposition(_measures(), HEALTHY)
    checked = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    ours = [line for line in checked.stderr.decode().splitlines() if line.startswith("heal_")]
    assert ours == []


def test_a_healthy_agent_fires_no_rule(tmp_path: Path) -> None:
    """The rules are quiet at night unless there is something to do."""
    assert _firing(tmp_path, _constant(HEALTHY)) == set()


@pytest.mark.parametrize("alert", FAULTS)
def test_each_fault_fires_its_rule(alert: str, tmp_path: Path) -> None:
    """And no rule of another fault."""
    assert _firing(tmp_path, _constant(FAULTS[alert])) == {alert}


COUNTED = {
    "HealDefects": 'heal_passes_total{result="defect"',
    "HealDeliveriesMissed": "heal_missed_alerts_total",
    "HealRequestsUnavailable": 'heal_http_requests_total{method="POST",route="/events/metric",status="503"',
}
"""Rules on a counter, by the series that they watch."""
ONCE, EVERY_MINUTE = "0x80 1x40", "0x60 1+1x60"
GROWTH = {**dict.fromkeys(COUNTED, ONCE), "HealRequestsUnavailable": EVERY_MINUTE}
"""How the counter grows where its rule fires."""


@pytest.mark.parametrize("alert", COUNTED)
def test_a_counter_that_grows_fires_its_rule(alert: str, tmp_path: Path) -> None:
    """Once within a quarter of an hour, or all the time."""
    assert _firing(tmp_path, _growing(COUNTED[alert], GROWTH[alert])) == {alert}


def _growing(name: str, values: str) -> list[dict[str, str]]:
    """A healthy agent, but for the counters whose series begin like this."""
    series = _constant(HEALTHY)
    found = [one for one in series if one["series"].startswith(name)]
    assert found, name
    for one in found:
        one["values"] = values
    return series


def test_a_moment_without_service_and_an_agent_that_is_not_ready_fire_no_rule(tmp_path: Path) -> None:
    """Senders repeat what met one restart of the database; probes of an agent that starts are no faults."""
    once = _growing(COUNTED["HealRequestsUnavailable"], "0x87 1x33")
    assert _firing(tmp_path, once) == set()
    probes = _growing('heal_http_requests_total{method="GET",route="/readyz"', EVERY_MINUTE)
    assert _firing(tmp_path, probes) == set()


def test_every_rule_has_its_fault() -> None:
    """A new rule needs a row in the table above."""
    rules = {
        rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
    }
    assert rules == {*FAULTS, *COUNTED}


def test_every_metric_is_documented() -> None:
    """By its name in the text, `_total` included."""
    text = exposition(_measures(), HEALTHY).decode()
    kinds = dict(re.findall(r"^# TYPE (heal_\w+) (\w+)$", text, re.MULTILINE))
    exposed = {name for name in kinds if not name.endswith("_created")}
    documented = set(re.findall(r"^\| `(heal_\w+)`", DOCUMENT.read_text(), re.MULTILINE))
    assert documented == exposed


def test_every_query_of_the_dashboard_has_data(tmp_path: Path) -> None:
    """Executed by a real Prometheus over two scrapes of a real exposition."""
    end = datetime.now(UTC)
    lines: dict[str, list[str]] = {}
    for back in range(20, -1, -1):
        at = int((end - timedelta(seconds=15 * back)).timestamp())
        for line in _series(exposition(_measures(), HEALTHY).decode()):
            lines.setdefault(line.split("{")[0], []).append(f"{line} {at}")
    text = "\n".join(line for family in lines.values() for line in family)
    dashboard: dict[str, Any] = json.loads((FOLDER / "dashboard.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    assert len(queries) > 20
    with prometheus(tmp_path, openmetrics=text) as url:
        for query in queries:
            answer = httpx2.get(
                f"{url}/api/v1/query", params={"query": query, "time": end.timestamp()}, trust_env=False
            ).json()
            assert answer["status"] == "success", (query, answer)
            assert answer["data"]["result"], query
