"""`heal token`, and who one is at a terminal: the first token, a guarded agent, the trail."""

from __future__ import annotations

import json
import os
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.agent.identity.people import Scope
from app.agent.ids import ApprovalId
from app.cli.commands.tokens import line
from app.wire.identity import TokenView
from tests.api.stories import awaiting
from tests.unit.heal_command import Heal, running_agent
from tests.unit.test_cli_people import in_file


@pytest.fixture
def asked(heal: Heal, tmp_path: Path) -> ApprovalId:
    """An approval that is waited for, in the database of the folder."""
    return in_file(tmp_path, awaiting)


def _made(heal: Heal, name: str, *options: str) -> str:
    answer = heal("token", "create", name, *options)
    assert answer.code == 0, answer.text
    return answer.out.strip()


def test_the_first_token_is_made_in_the_database_and_opens_a_guarded_agent(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made while nothing runs; then the agent wants it, and the commands send it."""
    token = _made(heal, "root", "--scope", "admin")
    monkeypatch.setenv("REQUIRE_IDENTITY", "true")
    with running_agent(tmp_path) as url:
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        refused = heal("incidents")
        assert refused.code == 1
        assert "401" in refused.text
        assert "Set HEAL_TOKEN" in refused.text
        monkeypatch.setenv("HEAL_TOKEN", token)
        assert heal("incidents").text == "No incidents."
        other = _made(heal, "ann", "--scope", "operate", "--role", "sre", "--days", "7")
        listed = json.loads(heal("token", "list", "--json").out)["items"]
        assert [one["name"] for one in listed] == ["ann", "root"]
        assert token not in heal("token", "list").out
        monkeypatch.setenv("HEAL_TOKEN", other)
        assert heal("brake", "on", "--reason", "migration").code == 0
        denied = heal("token", "list")
        assert denied.code == 1
        assert "scope admin" in denied.text
        lie = heal("brake", "off", "--by", "ben")
        assert lie.code == 1
        assert "is not ann" in lie.text
        monkeypatch.setenv("HEAL_TOKEN", token)
        assert "revoked" in heal("token", "revoke", listed[0]["id"]).text
        again = heal("token", "revoke", listed[0]["id"])
        assert again.code == 1
        assert "already" in again.text
        trail = heal("audit", "people")
        assert trail.code == 0
        for words in (
            "root (api): token created",
            "ann (api): kill switch engaged: migration",
            "token revoked",
        ):
            assert words in trail.text


def test_with_identity_required_the_database_too_wants_to_know_who_speaks(
    heal: Heal, asked: ApprovalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No name is taken at its word; the token's holder and roles count, and its scopes."""
    reader, approver = _made(heal, "ben", "--scope", "read"), _made(heal, "ann", "--scope", "approve")
    monkeypatch.setenv("REQUIRE_IDENTITY", "true")
    for command in (("approve", asked), ("brake", "on", "--reason", "x")):
        refused = heal(*command, "--by", "eve")
        assert refused.code == 1
        assert "HEAL_TOKEN" in refused.text
    monkeypatch.setenv("HEAL_TOKEN", reader)
    assert "lacks the scope approve" in heal("approve", asked).text
    monkeypatch.setenv("HEAL_TOKEN", approver.replace("heal_tok_", "heal_tok_0")[:-1])
    assert "HEAL_TOKEN is not valid" in heal("approve", asked).text
    monkeypatch.setenv("HEAL_TOKEN", approver)
    assert heal("approve", asked, "--by", "eve").code == 1
    answer = heal("approve", asked, "--json")
    assert answer.code == 0, answer.text
    [said] = json.loads(answer.out)["answers"]
    assert (said["by"], said["door"], said["verified"]) == ("ann", "cli", True)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "--scope"),
        (("--scope", "everything"), "scopes[0]"),
        (("--scope", "read", "--days", "-1"), "days"),
        (("--scope", "read", "--days", "0"), "(given: 0.0). Fix: give a number of days above 0"),
        (("--scope", "reed"), "(given: 'reed'). Fix: send one of"),
        (("--scope", "read", "--role", ""), "roles[0]"),
        (("--scope", "ingest", "--service", "Shop API"), "services[0]"),
        (
            ("--scope", "operate", "--environment", "prod"),
            "the scopes operate cannot be limited to environments or services: only ingest and read can",
        ),
    ],
)
def test_an_unfit_token_is_reported_by_what_does_not_fit(
    heal: Heal, options: tuple[str, ...], told: str
) -> None:
    """Nothing is made."""
    answer = heal("token", "create", "ci", *options)
    assert answer.code in {1, 2}
    assert told in answer.text


def test_a_token_with_limits_says_so(heal: Heal) -> None:
    """As it was asked for, in the list and in JSON."""
    limits = ("--environment", "prod", "--service", "shop", "--service", "ledger")
    _made(heal, "ci", "--scope", "ingest", *limits)
    assert "about environments prod and services ledger, shop only" in heal("token", "list").text
    [listed] = json.loads(heal("token", "list", "--json").out)["items"]
    assert (listed["environments"], listed["services"]) == (["prod"], ["ledger", "shop"])


def test_a_trail_that_was_altered_is_reported(heal: Heal, tmp_path: Path) -> None:
    """A change past the database's own refusal still breaks the chain: exit code 1, with the entry."""
    for name in ("one", "two"):
        _made(heal, name, "--scope", "read")
    assert heal("audit", "people").code == 0
    with sqlite3.connect(tmp_path / "heal.db") as connection:
        connection.execute("DROP TRIGGER audit_trail_no_update")
        connection.execute("UPDATE audit_trail SET actor = 'eve' WHERE sequence = 1")
    answer = heal("audit", "people")
    assert answer.code == 1
    assert "altered at entry 1" in answer.text


def test_heal_run_listens_on_this_machine_only_without_identity(
    heal: Heal, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whatever HOST says: what it listens on is a loopback address, and the log says why."""
    monkeypatch.setenv("HOST", "0.0.0.0")  # noqa: S104 - the setting under test
    with running_agent(tmp_path):
        said = (tmp_path / "agent.log").read_text()
    assert "running on http://127.0.0.1:" in said
    assert "HOST=0.0.0.0 is not listened on" in said


def test_the_database_asks_for_an_administrator_once_there_is_one(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write access to the file is not enough by itself: making and revoking need HEAL_TOKEN or --recover."""
    _made(heal, "probe", "--scope", "read")
    root = _made(heal, "root", "--scope", "admin")
    [probe] = [
        one for one in json.loads(heal("token", "list", "--json").out)["items"] if one["name"] == "probe"
    ]
    for command in (("create", "eve", "--scope", "admin"), ("revoke", probe["id"])):
        refused = heal("token", *command)
        assert refused.code == 1
        assert "set HEAL_TOKEN" in refused.text
        assert "--recover" in refused.text
    monkeypatch.setenv("HEAL_TOKEN", root)
    _made(heal, "ann", "--scope", "approve")


def test_a_recovery_is_recorded_with_the_user_of_the_operating_system(
    heal: Heal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user comes from the user id of the process, not from a name in the environment."""
    _made(heal, "root", "--scope", "admin")
    monkeypatch.setenv("REQUIRE_IDENTITY", "true")
    monkeypatch.setenv("LOGNAME", "somebody-else")
    monkeypatch.setenv("HEAL_TOKEN", "heal_tok_lost")
    _made(heal, "new-root", "--scope", "admin", "--recover")
    newest = json.loads(heal("audit", "people", "--json").out)[-1]
    assert newest["data"]["recovery"] is True
    assert newest["data"]["os_user"].endswith(f"uid {os.getuid()})")
    assert "somebody-else" not in newest["data"]["os_user"]
    assert newest["verified"] is False
    assert "recovery without HEAL_TOKEN" in heal("audit", "people").text


def test_a_recovery_does_not_go_through_an_agent(heal: Heal) -> None:
    """It writes to the database, so an address of an agent beside it is a mistake."""
    answer = heal("token", "create", "root", "--scope", "admin", "--recover", "--url", "http://127.0.0.1:1")
    assert answer.code == 1
    assert "leave --url out" in answer.text


def test_tokens_are_prepared_while_an_agent_without_identity_runs(
    heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It makes no tokens itself, so an administrator's token counts in the database."""
    root = _made(heal, "root", "--scope", "admin")
    with running_agent(tmp_path) as url:
        monkeypatch.setenv("PORT", url.rpartition(":")[2])
        monkeypatch.setenv("HEAL_TOKEN", root)
        _made(heal, "ann", "--scope", "approve")


def test_a_session_without_scopes_of_its_own_is_reported_by_its_roles() -> None:
    """Its scopes are those of the roles, looked up at every request."""
    view = TokenView(
        id="ses_1",
        name="ann@example.com",
        scopes=[],
        roles=["sre", "lead"],
        created_at=datetime(2026, 2, 20, 17, 0, tzinfo=UTC),
        created_by="ann@example.com",
        expires_at=None,
        revoked_at=None,
        revoked_by=None,
        last_used_at=None,
    )
    assert line(view) == "ses_1  ann@example.com: roles sre, lead; until revoked; never used"
    assert "ann@example.com: read, roles sre, lead;" in line(view.model_copy(update={"scopes": [Scope.READ]}))
