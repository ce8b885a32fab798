"""The dashboard in a real browser: it stays fresh, works by keyboard and runs nothing foreign."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from app.agent.models import ApprovalState, KillSwitch
from tests.api.stories import awaiting, opened, proposed
from tests.browser.conftest import Served, Watched

pytestmark = pytest.mark.browser

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"

_CONTRAST = """
() => {
  const parse = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const linear = (v) => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
    const [x, y, z] = [r / 255, g / 255, b / 255].map(linear);
    return .2126 * x + .7152 * y + .0722 * z;
  };
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.checkVisibility() || element.closest(".hidden, .skip, option")) continue;
    const a = light(parse(getComputedStyle(element).color)), b = light(behind(element));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) poor.push(`${element.className || element.tagName} ${ratio.toFixed(2)}`);
  }
  return poor;
}
"""


def test_an_incident_is_found_and_read(served: Served, watched: Watched) -> None:
    """From the root to the story of one incident, with nothing blocked and no script error on the way."""
    incident_id = served.run(proposed(served.container))
    page = watched.page
    page.goto(served.url)
    expect(page.get_by_role("heading", name="Incidents")).to_be_visible()
    expect(page.get_by_text("DRY RUN", exact=True)).to_be_visible()
    page.get_by_role("link", name="payments-api").click()
    expect(page).to_have_url(f"{served.url}/dashboard/incidents/{incident_id}")
    for title in ("Observe", "Diagnose", "Plan", "Decide and execute", "Verify", "Learn"):
        expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.get_by_text("ALLOW_HIGH_RISK_ACTIONS is false")).to_be_visible()
    expect(page.get_by_text("traffic did not rise")).to_be_hidden()
    page.get_by_text("2 runbooks not chosen").click()
    expect(page.get_by_text("traffic did not rise")).to_be_visible()
    assert watched.faults == []


def test_filters_work(served: Served, watched: Watched) -> None:
    """What does not fit disappears, and clearing brings it back."""
    served.run(opened(served.container, "shop"))
    served.run(proposed(served.container))
    page = watched.page
    page.goto(f"{served.url}/dashboard")
    page.get_by_label("State").select_option("open")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("link", name="shop")).to_be_visible()
    expect(page.get_by_role("link", name="payments-api")).to_have_count(0)
    page.get_by_role("link", name="Clear").click()
    expect(page.get_by_role("link", name="payments-api")).to_be_visible()
    assert watched.faults == []


def test_a_new_incident_appears_by_itself(served: Served, watched: Watched) -> None:
    """The list keeps itself fresh without touching what a person is typing."""
    page = watched.page
    page.clock.install()
    page.goto(f"{served.url}/dashboard")
    expect(page.get_by_text("No incidents")).to_be_visible()
    page.get_by_label("Service").fill("half-typed")
    served.run(opened(served.container))
    page.clock.run_for(6_000)
    expect(page.get_by_role("link", name="payments-api")).to_be_visible()
    expect(page.get_by_label("Service")).to_have_value("half-typed")
    assert watched.faults == []


def test_an_open_record_stays_open_while_the_story_goes_on(served: Served, watched: Watched) -> None:
    """A refresh keeps what was opened, and stops once the incident has ended."""
    incident_id = served.run(opened(served.container))
    page = watched.page
    page.clock.install()
    page.goto(f"{served.url}/dashboard/incidents/{incident_id}")
    page.locator("#entry-0 summary").click()
    served.run(served.container.loop.run_once("payments-api", "prod"))
    page.clock.run_for(6_000)
    expect(page.locator("#diagnose h3")).to_be_visible()
    expect(page.locator("#entry-0 pre")).to_be_visible()
    assert watched.faults == []


def test_a_click_counts_although_the_page_changes_between_press_and_release(
    served: Served, watched: Watched
) -> None:
    """A refresh waits until the pointer is released."""
    incident_id = served.run(opened(served.container))
    page = watched.page
    page.clock.install()
    page.goto(f"{served.url}/dashboard/incidents/{incident_id}")
    expect(page.locator("#live-status")).to_have_text("Live")
    expect(page.locator("#marks li")).not_to_have_count(0)  # the chart moves what is below it
    page.locator("#entry-0 summary").hover()
    page.mouse.down()
    with page.expect_response(lambda one: one.url.endswith(incident_id)):
        served.run(served.container.loop.run_once("payments-api", "prod"))
        page.clock.run_for(200)
    page.mouse.up()
    page.clock.run_for(6_000)
    expect(page.locator("#diagnose h3")).to_be_visible()
    expect(page.locator("#entry-0 pre")).to_be_visible()


def test_a_click_counts_although_the_chart_arrives_between_press_and_release(
    served: Served, watched: Watched
) -> None:
    """The chart is drawn after the release: what is under the pointer stays there."""
    incident_id = served.run(opened(served.container))
    page = watched.page
    held: list[Route] = []
    pressed = False

    def hold(route: Route) -> None:
        if pressed:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/incidents/*/chart*", hold)
    with page.expect_request("**/v1/incidents/*/chart*"):
        page.goto(f"{served.url}/dashboard/incidents/{incident_id}")
    page.locator("#entry-0 summary").hover()
    page.mouse.down()
    pressed = True
    with page.expect_response("**/v1/incidents/*/chart*") as answered:
        for route in held:
            route.continue_()
    answered.value.finished()
    page.mouse.up()
    expect(page.locator("#entry-0 pre")).to_be_visible()
    expect(page.locator("#marks li")).not_to_have_count(0)


def test_updates_can_be_paused(served: Served, watched: Watched) -> None:
    """While paused the page asks for nothing; resumed, it catches up."""
    page = watched.page
    page.clock.install()
    page.goto(f"{served.url}/dashboard")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("status")).to_have_text("Paused")
    served.run(opened(served.container))
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(120_000)
    assert asked == []
    page.get_by_role("button", name="Resume").click()
    page.clock.run_for(10_000)
    expect(page.get_by_role("link", name="payments-api")).to_be_visible()


def test_a_lost_connection_is_said(served: Served, watched: Watched) -> None:
    """A page that shows old data says so."""
    page = watched.page
    page.clock.install()
    page.goto(f"{served.url}/dashboard")
    page.context.set_offline(True)
    page.clock.run_for(6_000)
    expect(page.get_by_role("status")).to_have_text("No connection, trying again")
    page.context.set_offline(False)
    page.clock.run_for(6_000)
    expect(page.get_by_role("status")).to_have_text("Live")


def test_hostile_text_runs_nothing(served: Served, watched: Watched) -> None:
    """Markup in every place that outside text can reach is shown, never run, also after a refresh."""
    incident_id = served.run(proposed(served.container, text=HOSTILE))
    page = watched.page
    for path in ("/dashboard", f"/dashboard/incidents/{incident_id}"):
        page.goto(served.url + path)
        expect(page.get_by_text(HOSTILE).first).to_be_visible()
        assert page.locator("main img, main script").count() == 0
    assert watched.faults == []


def test_the_keyboard_is_enough(served: Served, watched: Watched) -> None:
    """Skip link, then the incident, reached and opened with Tab and Enter."""
    served.run(proposed(served.container))
    page = watched.page
    page.goto(f"{served.url}/dashboard")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id").startswith("to-inc_"):
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Observe")).to_be_visible()


@pytest.fixture(params=["light", "dark"])
def themed(chromium: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = chromium.new_context(color_scheme=request.param)
    yield context.new_page()
    context.close()


def test_text_can_be_read_in_light_and_dark(served: Served, themed: Page) -> None:
    """Every text has a contrast of at least 4.5 to 1 (WCAG AA)."""
    incident_id = served.run(proposed(served.container))
    served.run(opened(served.container, "shop"))
    waiting = served.run(awaiting(served.container, service="cart")).replace("apr_", "inc_")
    served.run(_engage(served, True))
    incidents = (f"/dashboard/incidents/{one}" for one in (incident_id, waiting))
    for path in ("/dashboard", *incidents, "/dashboard?state=odd"):
        themed.goto(served.url + path)
        assert themed.evaluate(_CONTRAST) == []


def test_nothing_is_cut_off_on_a_phone(served: Served, watched: Watched) -> None:
    """No page is wider than a small screen."""
    text = "a-very-long-version-" + "9" * 100
    incident_id = served.run(proposed(served.container, text=text))
    waiting = served.run(awaiting(served.container, service="cart", text=text)).replace("apr_", "inc_")
    page = watched.page
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/dashboard", *(f"/dashboard/incidents/{one}" for one in (incident_id, waiting))):
        page.goto(served.url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_tables_become_lists_on_a_phone(served: Served, watched: Watched) -> None:
    """Every service and decision is readable without scrolling sideways."""
    approval_id = served.run(awaiting(served.container, service="recommendations-api"))
    page = watched.page
    answer = {"decision": "deny", "by": "somebody-with-a-long-name@example.com"}
    assert page.request.post(f"{served.url}/approvals/{approval_id}", data=answer).ok
    page.set_viewport_size({"width": 360, "height": 740})
    for path in ("/dashboard/services", "/dashboard/operations"):
        page.goto(served.url + path)
        assert page.locator(".narrow").count() == 1
        hidden = "[...document.querySelectorAll('.scroll')].map(one => one.scrollWidth - one.clientWidth)"
        assert page.evaluate(hidden) == [0], path


def test_the_api_page_works_without_internet(served: Served, watched: Watched) -> None:
    """Swagger UI comes from this server, runs under the policy, and its requests are let through."""
    page = watched.page
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{served.url}/docs")
    page.locator("#operations-events-post_deploy_events_deploy_post").get_by_role("button").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table tbody .response-col_status").first).to_contain_text("202")
    assert all(url.startswith((served.url, "data:", "blob:")) for url in asked)
    assert watched.faults == []


def test_an_approval_is_given_by_keyboard_and_mouse(served: Served, watched: Watched) -> None:
    """Enter in a field answers nothing; the button does, and the page shows who said yes."""
    approval_id = served.run(awaiting(served.container))
    page = watched.page
    page.goto(f"{served.url}/dashboard")
    page.get_by_role("link", name="approve or deny", exact=True).click()
    page.locator("#approval").get_by_label("Your name").fill("ann")
    page.locator("#approval").get_by_label("Your name").press("Enter")
    page.locator("#approval").get_by_label("Comment").fill("seen with the release team")
    page.locator("#approval").get_by_label("Comment").press("Enter")
    pending = served.run(served.container.store.approvals.get(approval_id))
    assert pending is not None
    assert pending.state is ApprovalState.PENDING
    page.get_by_role("button", name="Approve").dblclick()
    expect(page.get_by_text("approved by ann (seen with the release team)")).to_be_visible()
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)
    answered = served.run(served.container.store.approvals.get(approval_id))
    assert answered is not None
    assert (answered.state, answered.answered_by) == (ApprovalState.APPROVED, "ann")
    assert [fault for fault in watched.faults if not fault.startswith("failed:")] == []


def test_an_answer_half_typed_survives_the_refresh(served: Served, watched: Watched) -> None:
    """The story goes on around the form: text and cursor stay where they are."""
    approval_id = served.run(awaiting(served.container))
    page = watched.page
    page.clock.install()
    page.goto(f"{served.url}/dashboard/incidents/{approval_id.replace('apr_', 'inc_')}")
    page.locator("#approval").get_by_label("Your name").fill("ann")
    comment = page.locator("#approval").get_by_label("Comment")
    comment.fill("seen team")
    page.evaluate("document.activeElement.setSelectionRange(5, 5)")  # in one step: a refresh swaps the field
    served.run(_engage(served, True))
    page.clock.run_for(6_000)
    expect(page.get_by_text("KILL SWITCH", exact=True)).to_be_visible()
    page.keyboard.type("with ")
    expect(comment).to_have_value("seen with team")
    expect(page.locator("#approval").get_by_label("Your name")).to_have_value("ann")
    served.run(_engage(served, False))
    page.clock.run_for(6_000)
    expect(page.get_by_text("KILL SWITCH", exact=True)).to_have_count(0)
    assert watched.faults == []


async def _engage(served: Served, engaged: bool) -> None:
    now = served.container.clock.now()
    await served.container.store.guardrails.set_kill_switch(
        KillSwitch(engaged=engaged, by="ann", reason="migration", at=now)
    )
