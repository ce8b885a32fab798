"""The compose file: secrets are files, `prepare` makes them once, and the agent reads them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from app.agent.identity.people import presented
from app.config import load_settings

FOLDER = Path(__file__).parents[2] / "deploy" / "compose"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """A copy of the folder after `./prepare`."""
    there = tmp_path / "compose"
    shutil.copytree(FOLDER, there, ignore=shutil.ignore_patterns(".env", ".secrets"))
    subprocess.run([there / "prepare"], check=True, capture_output=True)
    return there


def test_each_secret_is_a_file_that_prepare_writes_once(prepared: Path) -> None:
    """A second run changes nothing; no secret is in an environment variable."""
    files = {Path(one["file"]).name for one in COMPOSE["secrets"].values()}
    written = {path.name: path.read_text() for path in (prepared / ".secrets").iterdir()}
    assert written.keys() == files
    subprocess.run([prepared / "prepare"], check=True, capture_output=True)
    assert {path.name: path.read_text() for path in (prepared / ".secrets").iterdir()} == written
    assert not re.search(r"(TOKEN|PASSWORD|DATABASE_URL):", (FOLDER / "compose.yaml").read_text())


def test_only_the_owner_may_enter_their_folder(prepared: Path) -> None:
    """Another user reads none; each file is readable where it is mounted by itself (`make test-image`)."""
    folder = prepared / ".secrets"
    folder.chmod(0o755)  # as written before
    (folder / "scrape-token").chmod(0o600)  # as an editor writes it
    subprocess.run([prepared / "prepare"], check=True, capture_output=True)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_the_agent_reads_them(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process of the agent mounts what its settings name, and requires identity."""
    for role in ("api", "worker", "watch"):
        service = COMPOSE["services"][role]
        for name, value in service["environment"].items():
            if name.endswith("_FILE"):
                secret = value.removeprefix("/run/secrets/")
                assert secret in service["secrets"]
                monkeypatch.setenv(name, str(prepared / ".secrets" / secret))
        assert service["environment"]["REQUIRE_IDENTITY"] == "true"
    settings = load_settings()
    assert settings.database_url.get_secret_value().startswith("postgresql://heal:")
    assert settings.initial_admin_token is not None
    assert presented(settings.initial_admin_token.get_secret_value()) is not None
    assert settings.alertmanager_token is not None


def test_secrets_of_an_older_installation_are_kept(tmp_path: Path) -> None:
    """Version 0.2.0 kept them in .env: the database keeps its password."""
    there = tmp_path / "compose"
    shutil.copytree(FOLDER, there, ignore=shutil.ignore_patterns(".env", ".secrets"))
    (there / ".env").write_text("POSTGRES_PASSWORD=old\nINITIAL_ADMIN_TOKEN=a\nALERTMANAGER_TOKEN=b\n")
    subprocess.run([there / "prepare"], check=True, capture_output=True)
    assert (there / ".secrets" / "database-url").read_text() == "postgresql://heal:old@postgres/heal"
    assert (there / ".secrets" / "admin-token").read_text() == "a"


def test_the_image_is_run_as_the_page_says() -> None:
    """The comment in the Dockerfile shows the commands of docs/install.md, which `make test-image` runs."""
    shown = (FOLDER.parent / "image" / "Dockerfile").read_text()
    page = (FOLDER.parents[1] / "docs" / "install.md").read_text()
    commands = re.findall(r"^#   (.+)$", shown, re.MULTILINE)
    assert len(commands) == 3
    assert all(f"\n{one}\n" in page for one in commands)
