"""Screenshots of every page, in each look: `python -m tests.browser.screenshots FOLDER`.

The pages hold an incident that the agent healed, one that awaits approval, and a year of
analytics, so that a person can look at each of them; `docs/console.md` has the checklist.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.api.stories import awaiting, failed_often, opened, proposed
from tests.browser.conftest import CHROMIUM, FLAGS, Served
from tests.browser.stage import Staged, staged
from tests.stories import ACTING, NAMESPACE, SERVICE

LOOKS = {
    "light": {"color_scheme": "light", "viewport": {"width": 1280, "height": 900}},
    "dark": {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}},
    # A window of 1280 pixels at 200% has half of them for the layout.
    "zoom": {"color_scheme": "light", "viewport": {"width": 640, "height": 450}, "device_scale_factor": 2},
    "phone": {"color_scheme": "light", "viewport": {"width": 390, "height": 844}},
}


def filled(stage: Staged) -> dict[str, str]:
    """Incidents that ended in every way; the addresses of the pages by name."""
    stage.story.deploy(replicas=4)
    stage.run(stage.story.live(180))
    stage.story.world.release(NAMESPACE, SERVICE, "shop:2-errors")
    healed = stage.run(stage.story.live_until_ended()).incident.id
    dry = stage.run(proposed(stage.container, service="search"))
    waiting = stage.run(awaiting(stage.container, service="cart"))
    stage.run(failed_often(stage.container, service="mail", times=2))
    stage.run(opened(stage.container, "payments-worker"))
    stage.run(stage.story.clock.advance(30))
    return {
        "board": "/dashboard",
        "board-search": "/dashboard?q=cart",
        "board-nothing": "/dashboard?q=no-such-text",
        "board-error": "/dashboard?state=odd",
        "incident-healed": f"/dashboard/incidents/{healed}",
        "incident-dry-run": f"/dashboard/incidents/{dry}",
        "incident-waiting": f"/dashboard/incidents/{waiting.replace('apr_', 'inc_')}",
        "incident-unknown": "/dashboard/incidents/none",
        "approval": f"/approvals/{waiting}/page",
        "approvals": "/dashboard/approvals",
        "operations": "/dashboard/operations",
        "analytics": "/dashboard/analytics?since=365d",
        "analytics-error": "/dashboard/analytics?since=soon",
        "services": "/dashboard/services",
        "service": f"/dashboard/services/{NAMESPACE}/{SERVICE}",
        "runbooks": "/dashboard/runbooks",
        "policies": "/dashboard/policies",
        "api": "/docs",
    }


def take(served: Served, pages: dict[str, str], folder: Path) -> None:
    """One file for each page and look, and one of an incident on paper."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for look, options in LOOKS.items():
            context = browser.new_context(**options)  # type: ignore[arg-type]  # as the table has them
            page = context.new_page()
            page.set_default_timeout(120_000)
            for name, path in pages.items():
                page.goto(served.url + path)
                if name == "incident-healed":
                    page.locator("#plot[data-drawn]").wait_for()
                if name == "api":
                    page.locator(".opblock").first.wait_for()
                page.screenshot(path=folder / f"{name}-{look}.png", full_page=True)
                if name == "incident-healed" and look == "dark":
                    page.pdf(path=folder / f"{name}.pdf", format="A4")
                    page.emulate_media(media="print")
                    page.screenshot(path=folder / f"{name}-print.png", full_page=True)
                    page.emulate_media(media="screen")
            context.close()
        browser.close()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch, staged(Path(scratch), **ACTING) as stage:
        take(stage, filled(stage), folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
