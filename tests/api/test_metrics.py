"""`GET /metrics`: what a monitoring system reads of the agent itself."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.api.routes.metrics import figures
from app.connectors.peer_breaker import PeerBreaker
from app.errors import TransientError
from app.spans import metered
from tests.api.harness import METRIC, Harness


def samples(api: Harness) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample of a scrape; none remembered from an earlier one."""
    api.app.state.figures = figures()
    answer = api.request("GET", "/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_a_scrape_shows_signals_incidents_and_requests(api: Harness) -> None:
    """Counters grow with what happens, and each family appears once."""
    before = samples(api)
    assert before["heal_signals_accepted_total", ()] == 0
    assert before["heal_open_incidents", (("state", "open"),)] == 0
    with metered(api.container.measures):
        api.request("POST", "/events/metric", json=METRIC)
        after = samples(api)
        api.request("POST", "/agent/run-once?service=payments-api")
    ran = samples(api)
    assert after["heal_signals_accepted_total", ()] == 1
    assert after["heal_open_incidents", (("state", "open"),)] == 1
    assert after["heal_figures_up", ()] == 1
    posted = (("method", "POST"), ("route", "/events/metric"), ("status", "202"))
    assert after["heal_http_requests_total", posted] == 1
    opened = (("disposition", "opened"),)
    assert (before["heal_signals_total", opened], after["heal_signals_total", opened]) == (0, 1)
    assert ran["heal_stage_seconds_count", (("stage", "diagnose"),)] == 1
    assert ("heal_decisions", (("decision", "deny"),)) in ran
    assert (ran["heal_budget_used_actions", ()], ran["heal_budget_limit_actions", ()]) == (0, 100)
    text = api.request("GET", "/metrics").text
    families = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(families) == len(set(families))


def test_a_path_that_matches_no_route_adds_no_label_value(api: Harness) -> None:
    """A scanner cannot fill the registry."""
    for number in range(5):
        api.request("GET", f"/no/such/{number}")
    routes = {
        dict(labels).get("route") for name, labels in samples(api) if name == "heal_http_requests_total"
    }
    assert routes <= {"other", "/metrics"}


def test_a_database_that_does_not_answer_is_a_sample(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scrape itself succeeds: an alert rule reads `heal_figures_up`."""

    async def silent(*_: Any) -> None:
        raise TransientError("the database does not answer")

    monkeypatch.setattr(type(api.container.store.figures), "figures", silent)
    found = samples(api)
    assert found["heal_figures_up", ()] == 0
    assert not any(name == "heal_due_incidents" for name, _ in found)


def test_a_peer_that_fails_is_shown_as_down(api: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its calls count by result."""
    peer = PeerBreaker(name="Prometheus")
    monkeypatch.setattr(type(api.container), "peers", (peer,))

    async def refused() -> None:
        raise TransientError("connection refused")

    assert samples(api)["heal_connector_up", (("peer", "Prometheus"),)] == 1
    for _ in range(2):
        with pytest.raises(TransientError):
            api.run(peer.ask(refused))
    found = samples(api)
    assert found["heal_connector_up", (("peer", "Prometheus"),)] == 0
    for result in ("failed", "rejected"):
        assert found["heal_connector_calls_total", (("peer", "Prometheus"), ("result", result))] == 1


def test_figures_are_read_once_for_several_scrapes(api: Harness) -> None:
    """A signal within the time that figures are reused shows in the next read."""
    samples(api)
    api.request("POST", "/events/metric", json=METRIC)
    assert "heal_signals_accepted_total 0.0" in api.request("GET", "/metrics").text
