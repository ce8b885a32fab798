"""axe-core over the page as it stands: violations of WCAG 2.2 AA."""

from __future__ import annotations

from pathlib import Path

from playwright.sync_api import Page

_SCRIPT = Path(__file__).parent / "assets" / "axe-4.14.1.min.js"
_RUN = """
async () => {
  const rules = { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] };
  const found = await axe.run(document, rules);
  return found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" | ")}`);
}
"""


def violations(page: Page) -> list[str]:
    """Each broken rule with the elements that break it."""
    page.evaluate(_SCRIPT.read_text(encoding="utf-8"))
    found: list[str] = page.evaluate(_RUN)
    return found
