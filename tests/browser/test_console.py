"""The console in a real browser: live, by keyboard, accessible, and deaf to hostile text."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from app.agent.models import IncidentState, KillSwitch
from tests.api.stories import awaiting, opened, proposed
from tests.browser.axe import violations
from tests.browser.conftest import Served, Watched, serving
from tests.browser.hostile import HOSTILE_TEXTS
from tests.browser.stage import staged
from tests.stories import ACTING, NAMESPACE, SERVICE

pytestmark = pytest.mark.browser


def test_an_incident_is_watched_from_open_to_recovered(tmp_path: Path, watched: Watched) -> None:
    """Board and incident page follow the agent without a reload, and one approval acts once."""
    page = watched.page
    with staged(tmp_path, **ACTING, approval_for_risks=frozenset({"high"})) as stage:
        stage.story.deploy()
        stage.run(stage.story.live(180))
        page.goto(f"{stage.url}/dashboard")
        loads: list[str] = []
        page.on("load", lambda loaded: loads.append(loaded.url))
        expect(page.get_by_text("No incidents")).to_be_visible()
        stage.story.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        stage.run(stage.story.live_until_asked())
        expect(page.get_by_role("link", name="approve or deny", exact=True)).to_be_visible()
        assert loads == []
        page.get_by_role("link", name=SERVICE, exact=True).click()
        page.get_by_role("region", name="Approve the rollback?").get_by_label("Your name").fill("ann")
        # The stream may show the answer before the page that answers the form has loaded.
        with page.expect_event("load"):
            page.get_by_role("button", name="Approve").click()
        expect(page.get_by_text("approved by ann")).not_to_have_count(0)
        loads.clear()
        record = stage.run(stage.story.live_until_ended())
        assert record.incident.state is IncidentState.RECOVERED
        assert len(record.intents) == 1
        expect(page.locator("h1 .state")).to_have_text("recovered")
        expect(page.locator("#plot[data-drawn]")).to_be_visible()
        expect(page.locator("#marks")).to_contain_text("Rollback started on Deployment prod/shop")
        assert loads == []
    assert [fault for fault in watched.faults if not fault.startswith("failed:")] == []


def test_a_person_takes_over_and_hands_back(tmp_path: Path, watched: Watched) -> None:
    """The agent does nothing while a person has the incident, and goes on afterwards."""
    page = watched.page
    with staged(tmp_path, **ACTING, approval_for_risks=frozenset({"high"})) as stage:
        stage.story.deploy()
        stage.run(stage.story.live(180))
        stage.story.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        incident_id = stage.run(stage.story.live_until_asked()).incident_id
        page.goto(f"{stage.url}/dashboard/incidents/{incident_id}")
        page.get_by_role("region", name="How to stop").get_by_label("Your name").fill("ann")
        page.get_by_role("button", name="Take over").click()
        expect(page.get_by_text("ann handles it; the agent has stopped.")).to_be_visible()
        expect(page.get_by_role("button", name="Approve")).to_have_count(0)
        before = len(stage.run(stage.story.load(incident_id)).timeline)
        stage.run(stage.story.live(60))
        held = stage.run(stage.story.load(incident_id))
        assert [entry.message for entry in held.timeline[before:] if entry.stage != "observe"] == []
        page.get_by_role("region", name="How to stop").get_by_label("Your name").fill("ben")
        page.get_by_role("button", name="Hand back to the agent").click()
        expect(page.get_by_role("button", name="Take over")).to_be_visible()
        stage.run(stage.story.live_until_asked())
        expect(page.get_by_role("button", name="Approve")).to_be_visible()


def test_the_kill_switch_takes_the_approve_button_away(served: Served, watched: Watched) -> None:
    """Engaged from the operations page; the inbox then says why approving has no effect."""
    served.run(awaiting(served.container))
    page = watched.page
    page.goto(f"{served.url}/dashboard/approvals")
    expect(page.get_by_role("button", name="Approve")).to_be_visible()
    other = page.context.new_page()
    other.goto(f"{served.url}/dashboard/operations")
    other.get_by_label("Your name").fill("ann")
    other.get_by_label("Reason").fill("migration")
    other.get_by_role("button", name="Engage the kill switch").click()
    expect(other.get_by_text("Engaged: no new action starts.")).to_be_visible()
    expect(page.get_by_text("Approving has no effect now")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    expect(page.get_by_role("button", name="Deny")).to_be_visible()
    assert watched.faults == []


def test_a_page_connects_again_after_a_restart(tmp_path: Path, watched: Watched) -> None:
    """It says that the connection is lost, and catches up with what happened meanwhile."""

    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    page = watched.page
    with serving(tmp_path, listening=listening) as first:
        page.goto(f"{first.url}/dashboard")
        expect(page.get_by_role("status")).to_have_text("Live")
    expect(page.get_by_role("status")).to_have_text("No connection, trying again")
    again = socket.create_server(("127.0.0.1", port))
    with serving(tmp_path, listening=again) as second:
        second.run(opened(second.container))
        expect(page.get_by_role("link", name="payments-api", exact=True)).to_be_visible()
        expect(page.get_by_role("status")).to_have_text("Live")


def test_hostile_texts_stay_text_on_every_page(served: Served, watched: Watched) -> None:
    """Of versions, reasons, notes, names and searches nothing runs, nothing loads, nothing is markup."""
    page = watched.page
    everything = " ".join(HOSTILE_TEXTS)
    incident_id = served.run(proposed(served.container, text=everything))
    waiting = served.run(awaiting(served.container, service="cart", text=everything))
    notes = f"{served.url}/v1/incidents/{incident_id}/notes"
    for number, text in enumerate(HOSTILE_TEXTS):
        plain = "".join(c if c.isprintable() else " " for c in text)
        answer = page.request.post(notes, data={"by": plain[:150], "text": f"{number} {plain}"[:900]})
        assert answer.ok, answer.text()
    served.run(_engage(served, everything[:900]))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for path in (
        "/dashboard",
        f"/dashboard/incidents/{incident_id}",
        f"/dashboard/incidents/{waiting.replace('apr_', 'inc_')}",
        "/dashboard/approvals",
        "/dashboard/operations",
    ):
        page.goto(served.url + path)
        expect(page.locator("main")).to_contain_text("<script>")
        assert (
            page.locator("main img, main script, main iframe, main object, main svg, main form form").count()
            == 0
        )
        assert page.evaluate("window.hostile") is None
    for text in HOSTILE_TEXTS[:8]:
        page.goto(f"{served.url}/dashboard")
        page.get_by_label("Search").fill("".join(c for c in text if c.isprintable())[:180])
        page.get_by_role("button", name="Filter").click()
        expect(page.get_by_role("link", name="Clear")).to_be_visible()
        assert page.evaluate("window.hostile") is None
    assert [url for url in asked if not url.startswith(served.url)] == []
    assert watched.faults == []


def test_the_board_is_used_by_keyboard(served: Served, watched: Watched) -> None:
    """`/` searches, `j` and `k` walk the incidents, Enter opens one, `?` lists the keys."""
    served.run(opened(served.container, "shop"))
    served.run(opened(served.container, "cart"))
    page = watched.page
    page.goto(f"{served.url}/dashboard")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="shop", exact=True)).to_be_focused()
    page.keyboard.press("j")
    expect(page.get_by_role("link", name="cart", exact=True)).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("cart")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name="shop", exact=True)).to_have_count(0)
    assert "q=cart" in page.url
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="How to stop")).to_be_visible()


@pytest.fixture(params=["light", "dark"])
def in_berlin(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = chromium.new_context(color_scheme=request.param, timezone_id="Europe/Berlin")
    yield context.new_page()
    context.close()


def test_every_page_meets_wcag(served: Served, in_berlin: Page) -> None:
    """axe-core finds no violation of WCAG 2.2 AA; times are in the viewer's zone, UTC on hover."""
    page = in_berlin
    incident_id = served.run(proposed(served.container))
    waiting = served.run(awaiting(served.container, service="cart"))
    served.run(_engage(served, "migration"))
    for path in (
        "/dashboard",
        "/dashboard?q=nothing",
        "/dashboard?state=odd",
        f"/dashboard/incidents/{incident_id}",
        f"/dashboard/incidents/{waiting.replace('apr_', 'inc_')}",
        f"/approvals/{waiting}/page",
        "/dashboard/approvals",
        "/dashboard/operations",
        "/dashboard/analytics",
        "/dashboard/analytics?since=soon",
        "/dashboard/services",
        "/dashboard/services/prod/cart",
        "/dashboard/runbooks",
        "/dashboard/policies",
        "/dashboard/incidents/none",
    ):
        page.goto(served.url + path)
        assert violations(page) == [], path
    page.goto(f"{served.url}/docs")
    expect(page.locator(".opblock").first).to_be_visible()
    page.locator(".opblock-summary-control").first.click()
    expect(page.locator(".opblock-body").first).to_be_visible()
    assert violations(page) == [], "/docs"
    assert page.evaluate(_BRIGHTNESS) == page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
    page.goto(f"{served.url}/dashboard/incidents/{incident_id}")
    at = page.locator(".facts time").first
    expect(at).to_contain_text("GMT+")
    assert str(at.get_attribute("title")).endswith(" UTC")


_BRIGHTNESS = """
() => {
  const colour = getComputedStyle(document.querySelector(".opblock-tag")).color;
  return Math.min(...colour.match(/[0-9]+/g).slice(0, 3).map(Number)) > 150;
}
"""
"""Whether the text of the API reference is bright, as on a dark ground."""


@pytest.mark.parametrize("width", [1024, 1200, 1280, 1440])
def test_the_top_bar_has_one_row(served: Served, watched: Watched, width: int) -> None:
    """At the widths of laptops; a phone scrolls its links sideways."""
    page = watched.page
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"{served.url}/dashboard")
    expect(page.locator("#live-toggle")).to_be_visible()
    links = page.locator(".top nav a").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect().top)"
    )
    assert len(set(links)) == 1, links
    middles = page.locator(".top > *").evaluate_all(
        "all => all.map((one) => one.getBoundingClientRect()).map((box) => (box.top + box.bottom) / 2)"
    )
    assert max(middles) - min(middles) < 6, middles


async def _engage(served: Served, reason: str) -> None:
    now = served.container.clock.now()
    await served.container.store.guardrails.set_kill_switch(
        KillSwitch(engaged=True, by="ann", reason=reason, at=now)
    )


def test_the_page_to_sign_in_by_token_meets_wcag(tmp_path: Path, in_berlin: Page) -> None:
    """The form, and the form after a token that is not known."""
    with serving(tmp_path, require_identity=True) as served:
        in_berlin.goto(f"{served.url}/sign-on/token")
        assert violations(in_berlin) == []
        in_berlin.get_by_label("Your API token").fill("no-such-token")
        in_berlin.get_by_role("button", name="Sign in").click()
        expect(in_berlin.get_by_role("alert")).to_be_visible()
        assert violations(in_berlin) == []
