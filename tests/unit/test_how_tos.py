"""The commands of the how-tos, run in order as they stand, on a database with one incident."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from app.agent.ids import IntentId
from app.agent.ports.gitops import RevertRequest
from app.cli.commands.doctor import examine
from app.config import load_settings
from app.connectors.findings import Status
from app.connectors.git.connect import connect_repositories
from app.connectors.git.pull_requests import PullRequestWriter
from app.connectors.registry import ALERT_FORMATS
from app.errors import Forbidden, Invalid
from tests.api.stories import awaiting
from tests.deliveries import alerts_to_signals
from tests.unit.heal_command import REPOSITORY, Heal
from tests.unit.test_cli_people import in_file

PAGES = ("first-week", "troubleshoot", "backup", "upgrade", "high-availability")
ELSEWHERE = {
    "heal run --role api": "tests/contract/test_roles.py",
    "heal run --role worker": "tests/contract/test_roles.py",
    "heal run --role watch": "tests/contract/test_roles.py",
    "heal watch": "tests/unit/test_cli_sandbox.py",
    "heal runbooks simulate": "tests/timeline/test_sandbox_scenarios.py",
    "helm upgrade heal": "tests/contract/test_chart.py",
}
"""Commands that do not end, take a minute or need a cluster, and the test that runs them."""

_BLOCK = re.compile(r"^ *```sh\n(.*?)^ *```", re.DOTALL | re.MULTILINE)


def commands(page: str) -> list[str]:
    """The lines of its shell blocks."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    lines = [line.strip() for block in _BLOCK.findall(text) for line in block.splitlines()]
    return [line for line in lines if not any(line.startswith(one) for one in ELSEWHERE)]


@pytest.mark.parametrize("page", PAGES)
def test_each_command_of_a_how_to_succeeds(
    page: str, heal: Heal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the ids and folders of this machine in place of those of the page."""
    monkeypatch.setenv("LOGNAME", "ann")
    monkeypatch.setenv("AUDIT_ANCHOR_DIR", str(tmp_path / "anchors"))
    (tmp_path / "policies").symlink_to(REPOSITORY / "policies")
    (tmp_path / "backups").mkdir()
    approval_id = in_file(tmp_path, awaiting)
    found = commands(page)
    assert found or page == "high-availability"
    for command in found:
        words = shlex.split(command.replace("/backups/", f"{tmp_path}/backups/"), comments=True)
        answering = words[1] in ("approve", "deny")
        own = approval_id if answering else approval_id.replace("apr_", "inc_")
        if words[1:3] == ["db", "restore"]:
            monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/empty.db")
        answer = heal(*(own if word == "ID" else word for word in words[1:]))
        assert answer.code == 0, (command, answer.text)


def test_what_runs_elsewhere_runs_there() -> None:
    """The tests that the exceptions name exist."""
    assert all((REPOSITORY / name).is_file() for name in ELSEWHERE.values())


def settings_blocks(page: str, first: str) -> list[dict[str, str]]:
    """The blocks of settings on a page that begin with this name, each as name to value."""
    text = (REPOSITORY / "docs" / f"{page}.md").read_text()
    found = []
    for block in _BLOCK.findall(text):
        lines = shlex.split(block, comments=True)
        if lines and lines[0].startswith(f"{first}="):
            found.append(dict(line.split("=", 1) for line in lines))
    return found


@pytest.mark.parametrize(
    ("forge", "repository"),
    [("github", "https://github.com/example/shop.git"), ("gitlab", "https://gitlab.com/example/shop.git")],
)
async def test_the_settings_for_reverts_connect(
    forge: str, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As they stand, without a dry run; an address over SSH is refused, as the page says."""
    (block,) = [one for one in settings_blocks("gitops", "ARGOCD_URL") if one["GIT_REVERT"] == forge]
    for name, value in {**block, "ARGOCD_TOKEN": "t", "DRY_RUN": "false"}.items():
        monkeypatch.setenv(name, value)
    writer = connect_repositories(load_settings())
    assert isinstance(writer, PullRequestWriter)
    request = RevertRequest(
        intent_id=IntentId("int_1"),
        repository=repository,
        target_revision="main",
        path="apps",
        good="not a commit",
        bad="b" * 40,
        title="Revert",
        body="",
    )
    with pytest.raises(Invalid, match="names no commit"):  # after the address was accepted
        await writer._branches.find(request)
    over_ssh = replace(request, repository="git@github.com:example/shop.git")
    with pytest.raises(Forbidden, match="GIT_REPOSITORIES does not list"):
        await writer._branches.find(over_ssh)


def test_the_contact_point_of_grafana_names_a_route_and_a_scheme_that_exist() -> None:
    """The provisioning file of the page, read as YAML."""
    text = (REPOSITORY / "docs" / "prometheus.md").read_text()
    (block,) = re.findall(r"```yaml\n( *apiVersion: 1\n.*?)```", text, re.DOTALL)
    (receiver,) = yaml.safe_load(block)["contactPoints"][0]["receivers"]
    path = urlsplit(receiver["settings"]["url"]).path
    assert path in {f"/webhooks/{one.name}" for one in ALERT_FORMATS}
    assert (receiver["type"], receiver["settings"]["authorization_scheme"]) == ("webhook", "Bearer")


async def test_doctor_warns_in_a_dry_run_where_git_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an image without it: the start after the dry run would fail."""
    (block, _) = settings_blocks("gitops", "ARGOCD_URL")
    for name, value in {**block, "ARGOCD_URL": "http://127.0.0.1:9", "ARGOCD_TOKEN": "t"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = {one.check: one async for one in examine(load_settings())}["reverts"]
    assert found.status is Status.WARN
    assert "GIT_REVERT needs the program git" in found.message


async def test_doctor_warns_of_reverts_without_a_gitops_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    """GIT_REVERT alone reverts nothing: only the rollback of a GitOps controller leads to a revert."""
    (block, _) = settings_blocks("gitops", "ARGOCD_URL")
    for name in ("GIT_REVERT", "GIT_REPOSITORIES", "GITHUB_TOKEN"):
        if name in block:
            monkeypatch.setenv(name, block[name])
    (found,) = [one async for one in examine(load_settings()) if one.check == "reverts"]
    assert found.status is Status.WARN
    assert "GIT_REVERT has no effect: neither Argo CD nor Flux is configured" in found.message
    assert "ARGOCD_URL or FLUX_ENABLED" in found.fix


def test_the_test_of_a_contact_point_is_listed_as_unmapped() -> None:
    """Grafana's own test alert names no service: nothing is opened, and the sender sees why."""
    labels = {"alertname": "TestAlert", "instance": "Grafana"}
    alert = {
        "status": "firing",
        "labels": labels,
        "annotations": {"summary": "Notification test"},
        "startsAt": "2026-02-20T17:00:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "57c6d9296de2ad39",
        "values": None,
    }
    body = {"receiver": "heal", "status": "firing", "version": "1", "orgId": 1, "alerts": [alert]}
    batch = alerts_to_signals(
        body, settings=load_settings(), received_at=datetime(2026, 2, 20, 17, tzinfo=UTC)
    )
    assert batch.signals == ()
    (unmapped,) = batch.unmapped
    assert unmapped.reason.startswith("no label names the environment")
