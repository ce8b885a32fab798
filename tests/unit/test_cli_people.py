"""What people say from a terminal: who approved, who denied, who stopped everything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import pytest

from app.agent.identity.people import Person
from app.agent.ids import ApprovalId
from app.bootstrap import Adapters, Container, assemble
from app.clock import SystemClock
from app.store import open_store
from tests.api.harness import make_settings
from tests.api.stories import awaiting, failed_often
from tests.unit.heal_command import Heal, free_port, running_agent

T = TypeVar("T")


def in_file(folder: Path, work: Callable[[Container], Awaitable[T]]) -> T:
    """Do something in the database that the commands of this test use."""

    async def run() -> T:
        settings = make_settings(folder)
        store = await open_store(settings.database_url.get_secret_value())
        container = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
        try:
            return await work(container)
        finally:
            await container.close()

    return asyncio.run(run())


@pytest.fixture
def asked(heal: Heal, tmp_path: Path) -> ApprovalId:
    """An approval that is waited for, in the database of the folder."""
    return in_file(tmp_path, awaiting)


def test_what_waits_is_listed_with_what_it_is_about(heal: Heal, asked: ApprovalId) -> None:
    """Action, object, risk, service, reason and expiry: enough to decide."""
    answer = heal("approvals")
    assert answer.code == 0
    assert asked in answer.text
    assert "rollback on Deployment payments/payments-api (high risk) for payments-api in prod" in answer.text
    assert "pending, until" in answer.text
    assert "APPROVAL_FOR_RISKS requires an approval" in answer.text
    listed = json.loads(heal("approvals", "--json").out)
    assert [item["id"] for item in listed["items"]] == [asked]
    assert heal("approvals", "--state", "denied").text == "No approvals."


@pytest.mark.parametrize(("command", "state"), [("approve", "approved"), ("deny", "denied")])
def test_an_answer_names_the_user_and_the_comment(
    heal: Heal, asked: ApprovalId, monkeypatch: pytest.MonkeyPatch, command: str, state: str
) -> None:
    """The operating system's name for the user, unless another is given; it stands in the story."""
    monkeypatch.setenv("LOGNAME", "ann")
    answer = heal(command, asked, "--comment", "seen with the release team")
    assert (answer.code, answer.text) == (0, f"rollback for payments-api in prod: {state} by ann.")
    assert heal("approvals").text == "No approval is pending."
    told = heal("approvals", "--state", "all").text
    assert f": {state} by ann (seen with the release team)" in told
    story = heal("show", asked.replace("apr_", "inc_"))
    assert f"{state} by ann: seen with the release team" in story.text
    assert f"{asked} rollback on Deployment" in story.text


def test_a_used_approval_names_who_approved_it(heal: Heal, tmp_path: Path) -> None:
    """The agent uses it, a person approved it."""
    in_file(tmp_path, failed_often)
    assert ": used, approved by ann" in heal("approvals", "--state", "all").text


def test_the_same_again_is_no_error_and_another_answer_is(heal: Heal, asked: ApprovalId) -> None:
    """A second person learns who was first."""
    assert heal("deny", asked, "--by", "ann").code == 0
    assert heal("deny", asked, "--by", "ann").code == 0
    late = heal("approve", asked, "--by", "bob")
    assert late.code == 1
    assert "already denied by ann" in late.err
    assert json.loads(heal("approvals", "--state", "denied", "--json").out)["items"][0]["id"] == asked


def test_an_unknown_approval_and_an_unusable_name_are_said(heal: Heal, asked: ApprovalId) -> None:
    """Exit code 1, the fix, no traceback, and nothing answered."""
    unknown = heal("approve", "apr_" + "0" * 32, "--by", "ann")
    assert unknown.code == 1
    assert "`heal approvals`" in unknown.text
    unusable = heal("approve", asked, "--by", "a\u0007")
    assert unusable.code == 1
    assert "by: " in unusable.err
    assert asked in heal("approvals").text


def test_a_shell_without_a_user_must_say_who(
    heal: Heal, asked: ApprovalId, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container the user may have no name; none is made up."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    answer = heal("approve", asked)
    assert answer.code == 2
    assert "--by" in answer.err
    assert heal("approve", asked, "--by", "ann").code == 0


def test_the_brake_goes_on_and_off(heal: Heal, asked: ApprovalId) -> None:
    """Who, since when and why; a reason is needed to engage it."""
    assert "released; it was never engaged" in heal("brake", "show").text
    assert heal("brake").text == heal("brake", "show").text
    assert heal("brake", "on", "--reason", "", "--by", "ann").code == 1
    engaged = heal("brake", "on", "--reason", "database migration", "--by", "ann")
    assert engaged.code == 0
    assert "engaged: no new action begins (by ann, " in engaged.text
    shown = heal("brake", "show")
    assert shown.text == engaged.text
    assert json.loads(heal("brake", "show", "--json").out)["reason"] == "database migration"
    assert "released (by bob, " in heal("brake", "off", "--by", "bob").text
    assert json.loads(heal("brake", "show", "--json").out)["engaged"] is False


@pytest.mark.parametrize(
    "command",
    [
        ("approvals",),
        ("approve", "apr_" + "0" * 32),
        ("brake", "show"),
        ("brake", "on", "--reason", "migration"),
    ],
)
def test_without_agent_and_database_nothing_is_created(
    heal: Heal, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """A kill switch on an empty database would stop nothing; the message says what is missing."""
    answer = heal(*command)
    assert answer.code == 1
    assert "heal run" in answer.err
    assert not (tmp_path / "heal.db").exists()


def test_a_server_that_does_not_answer_is_said_without_its_password(
    heal: Heal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an agent the database itself is written; out of reach, nothing was engaged."""
    monkeypatch.setenv("DATABASE_URL", f"postgresql://heal:s3cret@127.0.0.1:{free_port()}/heal")
    answer = heal("brake", "on", "--reason", "migration", "--by", "ann")
    assert answer.code == 1
    assert "s3cret" not in answer.text
    assert "Traceback" not in answer.text


def test_control_characters_never_reach_the_terminal(heal: Heal, asked: ApprovalId, tmp_path: Path) -> None:
    """What another door let in is printed as text."""

    async def hostile(container: Container) -> None:
        at = container.clock.now() + timedelta(seconds=1)
        await container.store.approvals.answer(
            asked, approve=True, by=Person(name="\x1b[31mann"), comment="\x1b]0;owned\x07", at=at
        )

    in_file(tmp_path, hostile)
    for arguments in (("approvals", "--state", "all"), ("show", asked.replace("apr_", "inc_"))):
        assert "\x1b" not in heal(*arguments).out


def test_a_running_agent_is_reached_over_http(
    heal: Heal, asked: ApprovalId, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through `--url` from anywhere; nothing is made or read where the command runs."""
    with running_agent(tmp_path) as url:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert asked in heal("approvals", "--url", url).text
        engaged = heal("brake", "on", "--reason", "migration", "--by", "ann", "--url", url)
        assert "engaged" in engaged.text
        assert heal("brake", "show", "--url", url).text == engaged.text
        assert heal("deny", asked, "--by", "ann", "--url", url).code == 0
        late = heal("approve", asked, "--by", "bob", "--url", url)
        assert late.code == 1
        assert "denied by ann" in late.err
        assert heal("approve", "apr_none", "--by", "bob", "--url", url).code == 1
        assert list((tmp_path / "elsewhere").iterdir()) == []
