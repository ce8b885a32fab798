"""`heal db` and `heal version` as an operator uses them: what they print, and what they exit with."""

from __future__ import annotations

import asyncio
import json
from importlib import metadata
from pathlib import Path

import pytest

from tests.contract.test_store_backup import fill
from tests.unit.heal_command import Heal
from tests.unit.test_cli import tampering


def test_a_database_is_backed_up_restored_and_verified(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 0 where the records verify, 1 where one was altered or a database would be overwritten."""
    asyncio.run(fill("sqlite:///heal.db"))
    assert heal("db", "backup", "copy.db").code == 0
    assert heal("db", "verify", "--file", "copy.db").code == 0
    refused = heal("db", "restore", "copy.db")
    assert (refused.code, "--replace" in refused.err) == (1, True)
    assert "Traceback" not in refused.err
    monkeypatch.setenv("DATABASE_URL", "sqlite:///second.db")
    restored = heal("db", "restore", "copy.db")
    assert restored.code == 0, restored.text
    assert "The records verify." in restored.out
    monkeypatch.delenv("DATABASE_URL")
    with tampering(tmp_path) as database:
        database.execute("UPDATE timeline SET message = 'nothing happened' WHERE sequence = 1")
    answer = heal("db", "verify", "--json")
    assert answer.code == 1
    found = json.loads(answer.out)
    assert found["verified"] is False
    assert "timeline_altered" in found["findings"][0]


def test_upgrade_creates_a_database_once(heal: Heal, tmp_path: Path) -> None:
    """The first call creates it, the second has nothing to do; without one there is nothing to verify."""
    for arguments in (("backup", "copy.db"), ("verify",)):
        missing = heal("db", *arguments)
        assert (missing.code, "there is no database" in missing.err) == (1, True)
    assert "created with schema" in heal("db", "upgrade").out
    assert "nothing to do" in heal("db", "upgrade").out


def test_the_version_names_the_schema(heal: Heal) -> None:
    """What a report of a fault has to name, in one line or as JSON."""
    assert metadata.version("self-healing-devops-agent") in heal("version").out
    assert json.loads(heal("version", "--json").out)["schema"].isdigit()
