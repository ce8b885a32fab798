"""The shipped notifications of Argo CD, rendered and sent by its own engine to a running agent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from testbed.notifications import notifications
from tests.unit.heal_command import REPOSITORY, agent_process

pytestmark = pytest.mark.real

SHIPPED = REPOSITORY / "deploy" / "argocd" / "notifications.yaml"
REVISION = "b" * 40
TOKEN = f"heal_tok_{'a' * 16}_{'b' * 64}"


def application(phase: str, **metadata: Any) -> dict[str, Any]:
    """An Application after a sync that began just now."""
    finished = {} if phase == "Running" else {"finishedAt": "2026-11-20T12:01:00Z"}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Application",
        "metadata": {"name": "shop", "namespace": "argocd", **metadata},
        "spec": {"destination": {"namespace": "prod"}},
        "status": {
            "sync": {"revision": REVISION},
            "operationState": {
                "phase": phase,
                "startedAt": "2026-11-20T12:00:00Z",
                "syncResult": {"revision": REVISION},
                **finished,
            },
        },
    }


def written(folder: Path, name: str, document: Any) -> str:
    path = folder / name
    path.write_text(yaml.safe_dump(document))
    return str(path)


def options(folder: Path, url: str, token: str = TOKEN) -> tuple[str, ...]:
    """The files of docs/gitops.md: the shipped ConfigMap with the address of this agent, and the token."""
    config = yaml.safe_load(SHIPPED.read_text())
    service = config["data"]["service.webhook.heal"]
    assert "http://heal-self-healing-devops-agent.healing.svc:8000" in service
    config["data"]["service.webhook.heal"] = re.sub(r"http://\S+", url, service)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "argocd-notifications-secret"},
        "stringData": {"heal-token": token},
    }
    return (
        *("--config-map", written(folder, "config.yaml", config)),
        *("--secret", written(folder, "secret.yaml", secret)),
    )


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Failed"])
def test_one_condition_holds_for_each_phase_of_a_sync(phase: str, tmp_path: Path) -> None:
    """So that a sync sends two notifications: its start, and how it ended."""
    app = written(tmp_path, "app.yaml", application(phase))
    nowhere = options(tmp_path, "http://127.0.0.1:9")
    found = notifications("trigger", "run", "heal-sync", app, *nowhere, folder=tmp_path)
    assert found.returncode == 0, found.stderr
    (held,) = [line for line in found.stdout.splitlines() if line.endswith("true")]
    assert f"'{phase}'" in held


def test_a_sync_becomes_a_deploy_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each template is accepted with the token; a repeat is the same change; another token is refused."""
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path}/heal.db")
    monkeypatch.setenv("RUNBOOKS_DIR", str(REPOSITORY / "runbooks"))
    monkeypatch.setenv("REQUIRE_IDENTITY", "true")
    monkeypatch.setenv("INITIAL_ADMIN_TOKEN", TOKEN)
    with agent_process(tmp_path) as (url, _):
        headers = {"Authorization": f"Bearer {TOKEN}"}

        def notify(template: str, phase: str, token: str = TOKEN, **metadata: Any) -> str:
            app = written(tmp_path, "app.yaml", application(phase, **metadata))
            sent = notifications(
                *("template", "notify", template, app, "--recipient", "heal:heal"),
                *options(tmp_path, url, token),
                folder=tmp_path,
            )
            return sent.stdout + sent.stderr

        for template, phase in (
            ("heal-started", "Running"),
            ("heal-succeeded", "Succeeded"),
            ("heal-succeeded", "Succeeded"),
            ("heal-failed", "Failed"),
        ):
            assert "failed to notify" not in notify(template, phase)
        notify("heal-succeeded", "Succeeded", labels={"app.kubernetes.io/name": "cart"})
        assert "401" in notify("heal-failed", "Failed", "heal_tok_" + "c" * 16 + "_" + "d" * 64)
        scraped = httpx2.get(f"{url}/metrics", headers=headers, trust_env=False).text
        found = httpx2.get(f"{url}/incidents", headers=headers, trust_env=False).json()["items"]
    assert "heal_signals_accepted_total 5.0" in scraped
    assert 'heal_signals_total{disposition="deduplicated"} 1.0' in scraped
    assert [(one["service"], one["environment"]) for one in found] == [("shop", "prod")]
