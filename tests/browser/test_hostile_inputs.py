"""Hostile texts that arrive by the product's own inputs stay text on the pages that show them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from app.agent.workload import LogTail, ObjectRef
from app.bootstrap import Adapters
from app.clock import SystemClock
from app.sandbox.objects import Template
from tests.browser.conftest import Served, Watched
from tests.browser.hostile import HOSTILE_TEXTS
from tests.browser.stage import staged
from tests.stories import ACTING, NAMESPACE, SERVICE

pytestmark = pytest.mark.browser

MARKUP = "main img, main script, main iframe, main object, main svg:not(#plot svg), main form form"


def _stays_text(page: Page) -> None:
    assert page.locator(MARKUP).count() == 0
    assert page.evaluate("window.hostile") is None


def _requests_of(page: Page) -> list[str]:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    return asked


def test_hostile_alerts_stay_text(served: Served, watched: Watched) -> None:
    """Names, labels, annotations and links of fifty alerts: on three pages."""
    page = watched.page
    now = SystemClock().now().isoformat()
    alerts = [
        {
            "status": "firing",
            "labels": {
                "alertname": text,
                "namespace": "payments",
                "deployment": "payments-api",
                "severity": text,
                "heal_trigger": "high_error_rate",
            },
            "annotations": {"summary": text, "description": text, "runbook_url": text},
            "startsAt": now,
            "generatorURL": text,
            "fingerprint": f"{number:016x}",
        }
        for number, text in enumerate(HOSTILE_TEXTS)
    ]
    answer = page.request.post(
        f"{served.url}/webhooks/alertmanager",
        data={"version": "4", "groupKey": HOSTILE_TEXTS[0], "status": "firing", "alerts": alerts},
    )
    assert answer.status == 202, answer.text()
    items = answer.json()["items"]
    assert {item["disposition"] for item in items} == {"opened", "joined"}, items
    [incident_id] = {item["incident_id"] for item in items}
    asked = _requests_of(page)
    for path in ("/dashboard", f"/dashboard/incidents/{incident_id}", "/dashboard/services"):
        page.goto(served.url + path)
        expect(page.locator("main")).to_contain_text("payments-api")
        _stays_text(page)
    page.goto(f"{served.url}/dashboard/incidents/{incident_id}")
    expect(page.locator("main")).to_contain_text("<script>")
    assert [url for url in asked if not url.startswith(served.url)] == []
    assert watched.faults == []


def test_hostile_values_of_a_difference_stay_text(tmp_path: Path, watched: Watched) -> None:
    """The approval of a revert shows the old and the new value of a ConfigMap."""
    page = watched.page
    everything = " ".join(HOSTILE_TEXTS)
    with staged(tmp_path, **ACTING, approval_for_risks=frozenset({"high"})) as stage:
        world = stage.story.world
        world.put_config_map(NAMESPACE, "shop-config", {"GREETING": "hello", "FAIL_RATIO": "0"})
        template = Template(image="shop:1", memory_limit="256Mi", config_maps=("shop-config",))
        stage.story.deploy(template=template)
        stage.run(stage.story.live(180))
        world.put_config_map(NAMESPACE, "shop-config", {"GREETING": everything, "FAIL_RATIO": "0.9"})
        asked = _requests_of(page)
        approval = stage.run(stage.story.live_until_asked())
        for path in ("/dashboard/approvals", f"/dashboard/incidents/{approval.incident_id}"):
            page.goto(stage.url + path)
            expect(page.locator("main")).to_contain_text("<script>")
            _stays_text(page)
        assert [url for url in asked if not url.startswith(stage.url)] == []
    assert [fault for fault in watched.faults if not fault.startswith("failed:")] == []


class _HostileLogs:
    """Every container logs all hostile texts."""

    async def tail(self, pod: ObjectRef, container: str, *, previous: bool) -> LogTail:
        return LogTail(lines=tuple(f"ERROR {text}" for text in HOSTILE_TEXTS), previous=previous)


def test_hostile_logs_stay_text(tmp_path: Path, watched: Watched) -> None:
    """The patterns of the logs of a crashing container, in the timeline and in the handover."""
    page = watched.page

    def connected(world: Adapters) -> Adapters:
        return replace(world, logs=_HostileLogs())

    with staged(tmp_path, connected=connected, dry_run=False) as stage:
        stage.story.deploy()
        stage.run(stage.story.live(180))
        stage.story.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        incident_id = stage.run(stage.story.live_until_ended()).incident.id
        asked = _requests_of(page)
        page.goto(f"{stage.url}/dashboard/incidents/{incident_id}")
        expect(page.locator("main")).to_contain_text("Patterns of logs")
        expect(page.locator("main")).to_contain_text("<script>")
        _stays_text(page)
        assert [url for url in asked if not url.startswith(stage.url)] == []
    assert [fault for fault in watched.faults if not fault.startswith("failed:")] == []
