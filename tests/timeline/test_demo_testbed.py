"""The demo on a real control plane: `make testbed` in one terminal, `make demo` in another."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dotenv import dotenv_values
from lightkube import Client, KubeConfig
from lightkube.resources.apps_v1 import Deployment

REPOSITORY = Path(__file__).resolve().parents[2]
ENVIRONMENT, SERVICE = "prod", "payments-api"
UP_SECONDS = 900.0
"""Programs may have to be built first."""

pytestmark = pytest.mark.real


def _environment() -> dict[str, str]:
    inherited = {k: v for k, v in os.environ.items() if k not in ("KUBECONFIG", "PROMETHEUS_URL", "DRY_RUN")}
    return {
        **inherited,
        "PYTHONPATH": str(REPOSITORY),
        "DATABASE_URL": "sqlite:///heal.db",
        "PORT": "9",
        "TESTBED_AGENT_URL": "http://127.0.0.1:9",
    }


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder in which a test bed is up."""
    folder = tmp_path_factory.mktemp("bed")
    (folder / "runbooks").symlink_to(REPOSITORY / "runbooks")
    command = [sys.executable, "-m", "testbed"]
    with (folder / "bed.log").open("w") as log:
        up = subprocess.Popen([*command, "up"], cwd=folder, env=_environment(), stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + UP_SECONDS
        while not (folder / ".testbed" / "env").is_file():
            if up.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"the bed did not come up:\n{(folder / 'bed.log').read_text()}")
            time.sleep(0.5)
        yield folder
    finally:
        subprocess.run([*command, "down"], cwd=folder, env=_environment(), check=False)
        up.terminate()
        up.wait(timeout=300)


def heal(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from app.cli import main; main()", *arguments]
    return subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, timeout=1500, check=False
    )


def _image(folder: Path) -> str:
    """The image of the demo's Deployment."""
    env = dotenv_values(folder / ".testbed" / "env")
    config = KubeConfig.from_file(env["TESTBED_ADMIN_KUBECONFIG"] or "").get()
    client = Client(config)
    spec = client.get(Deployment, SERVICE, namespace=ENVIRONMENT).spec
    assert spec is not None
    assert spec.template.spec is not None
    return spec.template.spec.containers[0].image or ""


def in_order(text: str, *parts: str) -> bool:
    position = 0
    for part in parts:
        position = text.find(part, position)
        if position < 0:
            return False
    return True


def test_the_demo_heals_a_real_deployment(bed: Path) -> None:
    """Released, seen by the real Prometheus, rolled back on the real API server, proved recovered."""
    done = heal(bed, "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_order(
        done.stdout,
        "REAL CLUSTER",
        "The pipeline releases",
        "Opened by",
        "Most likely bad release",
        "Rehearsal (dryRun=All): the API server accepts rollback",
        "rollback done",
        "Service healthy",
        "Verdict: recovered",
        "Closed: recovered",
    ), done.stdout
    assert "recovered" in heal(bed, "incidents", "--environment", "prod").stdout


def test_the_dry_run_on_a_real_deployment_proposes_and_puts_the_image_back(bed: Path) -> None:
    """The agent changes nothing; the demo takes its bad release back, so that the next one starts well."""
    done = heal(bed, "demo", "--dry-run")
    assert done.returncode == 0, done.stdout + done.stderr
    assert in_order(done.stdout, "nothing was written", "Closed: proposed", "restored the good image"), (
        done.stdout
    )
    assert "rollback done" not in done.stdout
    assert _image(bed).endswith(f"{SERVICE}:1.14.2")
