"""`heal audit signals` as an operator uses it: over a file, over a running agent, and on a loss."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import httpx2
import pytest

from tests.unit.heal_command import Heal, running_agent

EVENT = {
    "service": "shop",
    "environment": "prod",
    "version": "2",
    "status": "succeeded",
    "timestamp": "2026-02-20T17:00:00Z",
}


@pytest.fixture
def posted(heal: Heal, tmp_path: Path) -> Path:
    """The file of an agent that took three events, one of them twice."""
    events = [EVENT, {**EVENT, "version": "3"}, EVENT]
    with running_agent(tmp_path) as url:
        assert httpx2.post(f"{url}/events/deploy", json=events).status_code == 202
        answer = heal("audit", "signals", "--url", url)
        assert answer.code == 0, answer.text
        assert "3 accepted 1 deduplicated 2 ignored 3 accounted for" in answer.text
    return tmp_path / "heal.db"


def test_what_adds_up_is_said_so(heal: Heal, posted: Path) -> None:
    """Without an agent the file is read; the exit code is for scripts, the JSON for programs."""
    answer = heal("audit", "signals")
    assert answer.code == 0
    assert "Every accepted signal is accounted for; no discrepancies." in answer.out
    found = json.loads(heal("audit", "signals", "--json", "--deep", "--since", "1d").out)
    assert (found["adds_up"], found["accepted"], found["accounted"], found["deep"]) == (True, 3, 3, True)
    assert found["present"] == {"deduplicated": 1, "ignored": 2}


def test_a_loss_is_reported_with_its_day_and_exits_with_one(heal: Heal, posted: Path) -> None:
    """A row was deleted behind the agent's back."""
    with sqlite3.connect(posted) as database:
        database.execute("DELETE FROM signals WHERE disposition = 'ignored' AND number = 1")
    answer = heal("audit", "signals", "--deep")
    assert answer.code == 1
    assert "3 accepted, 2 accounted for" in answer.out
    assert "discrepancy: repeats_nothing" in answer.out
    assert "do not add up" in answer.err
    assert json.loads(heal("audit", "signals", "--json").out)["adds_up"] is False


def test_wrong_use_is_reported_in_one_line(heal: Heal) -> None:
    """A time that is none, a deep look through HTTP, a database that is not there."""
    for arguments, told in (
        (("--since", "yesterday"), "is not a valid time"),
        (("--deep", "--url", "http://127.0.0.1:1"), "reads the database directly"),
        ((), "no database"),
        (("--deep",), "--deep reads the database, and there is no database"),
    ):
        answer = heal("audit", "signals", *arguments)
        assert answer.code == 1
        assert told in answer.err
        assert "Traceback" not in answer.err
