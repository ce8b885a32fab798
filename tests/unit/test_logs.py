"""The log as one JSON object a line: incident ids, tracebacks, and no credentials."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import httpx2
import pytest

from app.logs import JsonLines, about_incident
from app.redaction import remember
from tests.unit.heal_command import REPOSITORY, agent_process

INCIDENT = "inc_" + "ab" * 16
SECRET = "correct-horse-battery-staple"


def line(message: str, *arguments: object, failed: bool = False) -> dict[str, str]:
    """What is printed of one record."""
    record = logging.LogRecord("app.x", logging.ERROR, "x.py", 1, message, arguments, None)
    if failed:
        record.exc_info = (ValueError, ValueError(f"refused password={SECRET}"), None)
    printed = JsonLines().format(record)
    assert "\n" not in printed
    parsed: dict[str, str] = json.loads(printed)
    return parsed


def test_a_line_names_the_incident_it_is_about() -> None:
    """By its text, or by what is under way; other lines name none."""
    assert line("incident %s opened", INCIDENT)["incident"] == INCIDENT
    assert "incident" not in line("elected: this process runs sweep")
    with about_incident(INCIDENT):
        assert line("the cluster is not called for now")["incident"] == INCIDENT
    assert "incident" not in line("afterwards")


def test_no_credential_and_no_second_line_is_printed() -> None:
    """Secrets of the settings are taken out of text and traceback; what was posted forges no line."""
    remember([SECRET])
    found = line('answered 401: %s\n{"level": "info"}', SECRET, failed=True)
    assert SECRET not in json.dumps(found)
    assert found["error"].startswith("ValueError: refused")
    assert (found["level"], found["logger"]) == ("error", "app.x")
    assert set(found) == {"time", "level", "logger", "message", "error"}


def test_an_agent_prints_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first line to its last, the server's and those of requests included."""
    monkeypatch.setenv("LOG_FORMAT", "json")
    monkeypatch.setenv("DATABASE_URL", "sqlite:///heal.db")
    (tmp_path / "runbooks").symlink_to(REPOSITORY / "runbooks")
    event = {"service": "shop", "environment": "prod", "version": "2", "status": "failed"}
    with agent_process(tmp_path) as (url, _):
        body = {**event, "timestamp": "2026-02-20T17:00:00Z"}
        incident = httpx2.post(f"{url}/events/deploy", json=body).json()["incident_id"]
        # A pass waits for one that is under way, so the incident has ended when it is answered.
        httpx2.post(f"{url}/agent/run-once?service=shop", timeout=120)
    printed = [json.loads(one) for one in (tmp_path / "agent.log").read_text().splitlines()]
    about = [one["message"] for one in printed if one.get("incident") == incident]
    assert "opened: deploy failed" in about[0]
    assert any("ended: escalated" in one for one in about)
    assert {"uvicorn.error", "uvicorn.access"} <= {one["logger"] for one in printed}
