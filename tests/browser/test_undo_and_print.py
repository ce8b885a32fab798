"""The undo form and the printed incident in a real browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import expect

from app.agent.models import ApprovalState, IncidentState
from tests.api.stories import proposed
from tests.browser.conftest import Served, Watched
from tests.browser.stage import Staged, staged
from tests.stories import ACTING, NAMESPACE, SERVICE

pytestmark = pytest.mark.browser


def _rolled_back(stage: Staged) -> str:
    """A bad release was rolled back, and the service recovered; the address of its page."""
    stage.story.deploy(replicas=4)
    stage.run(stage.story.live(180))
    stage.story.world.release(NAMESPACE, SERVICE, "shop:2-errors")
    record = stage.run(stage.story.live_until_ended())
    assert record.incident.state is IncidentState.RECOVERED
    return f"{stage.url}/dashboard/incidents/{record.incident.id}"


def test_a_person_has_a_rollback_undone(tmp_path: Path, watched: Watched) -> None:
    """Requested on the page with name and reason, done once, and the page says who wanted it."""
    page = watched.page
    with staged(tmp_path, **ACTING) as stage:
        page.goto(_rolled_back(stage))
        assert stage.story.image() == "shop:1"
        handle = page.get_by_role("complementary", name="Handling")
        handle.get_by_text("Undo rollback of Deployment prod/shop").click()
        form = page.locator("#act-undo")
        form.get_by_role("button", name="Undo rollback").click()
        assert form.evaluate("one => one.querySelector('form').matches(':invalid')"), "a reason is required"
        form.get_by_label("Your name").fill("ann")
        form.get_by_label("Why it must be undone").fill("the column is needed")
        # The stream may show the request before the page that answers the form has loaded.
        with page.expect_event("load"):
            form.get_by_role("button", name="Undo rollback").dblclick()
        expect(handle.get_by_text("Undo of rollback of Deployment prod/shop requested")).to_be_visible()
        loads: list[str] = []
        page.on("load", lambda loaded: loads.append(loaded.url))
        after = stage.run(stage.story.live_until(lambda one: one.incident.state is IncidentState.ESCALATED))
        assert stage.story.image() == "shop:2-errors"
        assert len([one for one in after.intents if one.undoes is not None]) == 1
        expect(handle.get_by_text("Undone: rollback of Deployment prod/shop")).to_be_visible()
        expect(handle.get_by_text("Requested by ann")).to_be_visible()
        expect(handle.get_by_text("Unavailable")).to_have_count(0)
        expect(page.get_by_text("undo of rollback done").first).to_be_attached()
        expect(page.locator("main")).not_to_contain_text("restore done")
        assert loads == []
    assert [fault for fault in watched.faults if not fault.startswith("failed:")] == []


def test_an_undo_that_cannot_work_is_not_offered(tmp_path: Path, watched: Watched) -> None:
    """While the kill switch is engaged the page shows the reason in place of the form, then the form."""
    page = watched.page
    with staged(tmp_path, **ACTING) as stage:
        address = _rolled_back(stage)
        stage.run(stage.story.brake(engaged=True))
        page.goto(address)
        expect(page.get_by_text("Unavailable: the kill switch is engaged by ann")).to_be_visible()
        expect(page.locator("#act-undo")).to_have_count(0)
        stage.run(stage.story.brake(engaged=False))
        expect(page.locator("#act-undo")).to_be_attached()


_INK = "getComputedStyle(document.querySelector('#plot .u-series:nth-child(2) .u-marker')).borderColor"
"""Of the error rate, as it was drawn last."""


def test_an_incident_is_printed_as_a_document(served: Served, watched: Watched) -> None:
    """The button prints; on paper everything is open, nothing is cut off, and no control is left."""
    incident_id = served.run(proposed(served.container))
    page = watched.page
    page.emulate_media(color_scheme="dark")
    page.add_init_script("window.printed = 0; window.print = () => { window.printed += 1; };")
    # The window of a browser keeps its size when it prints.
    page.add_init_script("addEventListener('resize', (event) => event.stopImmediatePropagation(), true)")
    page.goto(f"{served.url}/dashboard/incidents/{incident_id}")
    page.get_by_role("button", name="Print").click()
    assert page.evaluate("window.printed") == 1
    expect(page.locator("#plot[data-drawn]")).to_be_attached()
    page.evaluate(f"window.theme = {_INK}")
    page.emulate_media(media="print", color_scheme="dark")
    page.wait_for_function(f"{_INK} !== window.theme")
    expect(page.locator("h1")).to_be_visible()
    for text in (
        "release 1.15.0 failed 40 s before",
        "ALLOW_HIGH_RISK_ACTIONS is false",
        "traffic did not rise",
    ):
        expect(page.get_by_text(text).first).to_be_visible()
    shown = (
        "[...document.querySelectorAll('button, input, nav, form')].filter((one) => one.checkVisibility())"
    )
    assert page.evaluate(f"{shown}.map((one) => one.outerHTML)") == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == "light"
    raw = "[...document.querySelectorAll('.entries pre')].filter((one) => one.checkVisibility()).length"
    assert page.evaluate(raw) == 0, "raw data is for the JSON export"
    paper = page.pdf(format="A4")
    assert paper.startswith(b"%PDF")
    assert watched.faults == []


def test_a_pending_approval_is_not_lost_by_an_undo_of_nothing(tmp_path: Path, watched: Watched) -> None:
    """An incident in which nothing was changed offers no undo."""
    page = watched.page
    with staged(tmp_path, **ACTING, approval_for_risks=frozenset({"high"})) as stage:
        stage.story.deploy()
        stage.run(stage.story.live(180))
        stage.story.world.release(NAMESPACE, SERVICE, "shop:2-crash")
        asked = stage.run(stage.story.live_until_asked())
        page.goto(f"{stage.url}/dashboard/incidents/{asked.incident_id}")
        expect(page.get_by_role("button", name="Approve")).to_be_visible()
        expect(page.locator("#act-undo, .undo")).to_have_count(0)
        assert asked.state is ApprovalState.PENDING
