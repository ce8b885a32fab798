"""The image runs as another user on a read-only root, with the secrets of compose, and stops in order."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from testbed.ports import free_ports
from testbed.waiting import NotYet, wait_for
from tests.image.containers import ROOT, Images

pytestmark = pytest.mark.real

COMPOSE = ROOT / "deploy" / "compose"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Images:
    """Built once from the working copy."""
    made = Images(folder=tmp_path_factory.mktemp("images"))
    made.build()
    return made


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """What `./prepare` of compose writes."""
    there = tmp_path / "compose"
    shutil.copytree(COMPOSE, there, ignore=shutil.ignore_patterns(".env", ".secrets"))
    subprocess.run([there / "prepare"], check=True, capture_output=True)
    return there / ".secrets"


@pytest.fixture
def agent(images: Images, secrets: Path) -> Iterator[tuple[str, str]]:
    """A container that serves, by its name and address."""
    (port,) = free_ports(1)
    token = f"{secrets}/admin-token:/run/secrets/admin-token:ro"
    settings = {
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "REQUIRE_IDENTITY": "true",
        "INITIAL_ADMIN_TOKEN_FILE": "/run/secrets/admin-token",
        "HTTP_PROXY": "http://127.0.0.1:9",
        "http_proxy": "http://127.0.0.1:9",
    }
    environment = [part for name, value in settings.items() for part in ("-e", f"{name}={value}")]
    with images.running("-v", token, *environment) as name:
        url = f"http://127.0.0.1:{port}"

        def ready() -> bool | NotYet:
            try:
                answer = httpx2.get(f"{url}/readyz", trust_env=False, timeout=10)
            except httpx2.HTTPError as error:
                return NotYet(f"{error}; {images.podman('logs', name, check=False).stderr[-500:]}")
            return answer.status_code == 200 or NotYet(answer.text)

        wait_for("a container that is ready", ready, timeout_seconds=60)
        yield name, url


def test_the_agent_in_the_image_serves_people_with_a_token(
    images: Images, agent: tuple[str, str], secrets: Path
) -> None:
    """Its health check passes on the port of PORT, past a proxy; without a token nothing is answered."""
    name, url = agent
    token = (secrets / "admin-token").read_text()
    assert images.podman("healthcheck", "run", name, check=False).returncode == 0
    assert httpx2.get(f"{url}/v1/incidents", trust_env=False).status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx2.get(f"{url}/v1/incidents", headers=headers, trust_env=False).json()["items"] == []
    assert "heal_build_info" in httpx2.get(f"{url}/metrics", headers=headers, trust_env=False).text
    assert images.podman("exec", name, "heal", "runbooks", "check").returncode == 0


def test_the_container_runs_without_root_and_writes_only_data_and_tmp(
    images: Images, agent: tuple[str, str]
) -> None:
    """And ends by itself when it is stopped."""
    name, url = agent
    assert images.podman("exec", name, "id", "-u").stdout.strip() == "10001"
    for folder in ("/", "/opt/heal", "/run/secrets", "/etc"):
        assert images.podman("exec", name, "touch", f"{folder}/written", check=False).returncode != 0, folder
    for folder in ("/data", "/tmp"):  # noqa: S108 - inside the container
        images.podman("exec", name, "touch", f"{folder}/written")
    images.podman("stop", "--time", "60", name)
    assert images.podman("inspect", name, "--format", "{{.State.ExitCode}}").stdout.strip() == "0"
    with pytest.raises(httpx2.HTTPError):
        httpx2.get(f"{url}/healthz", trust_env=False)
