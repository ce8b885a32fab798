"""Sphinx builds the pages under `docs/` as a site: `make docs`. A page that no section lists is an error.

The pages are plain Markdown that reads the same without the site. Links to files that are
no pages (templates, code) become their paths: `tests/unit/test_docs.py` checks that those exist.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]

project = "Self-Healing DevOps Agent"
author = "the authors of the Self-Healing DevOps Agent"
root_doc = "docs/README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [
    ".*",
    "app",
    "bench",
    "build",
    "deploy",
    "dist",
    "policies",
    "runbooks",
    "scripts",
    "testbed",
    "tests",
]
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 6
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # examples are shortened with "..."
html_theme = "alabaster"
html_theme_options = {
    "description": "Finds, diagnoses and heals incidents on Kubernetes, safely.",
    "page_width": "1080px",
}
html_show_sourcelink = False

SECTIONS = {
    "Start": "README sandbox tutorial install first-week",
    "Connect": "connectors events services prometheus datadog streams kafka redis kubernetes gitops channels"
    " slack",
    "Decide": "runbooks policy approvals limits guardrails identity sign-in",
    "Operate": "monitoring analytics high-availability workers sizing backup upgrade troubleshoot"
    " audit console",
    "Look up": "configuration cli incidents signals intake conditions",
    "Understand": "architecture promises threat-model comparison adr/README dependencies",
    "Test": "testing simulation bench-healing bench-diagnosis",
}
"""The navigation: the pages of each section, without their suffix."""

MOVED = {"docs/brakes": "guardrails", "docs/sign-on": "sign-in"}
"""Pages that had another name: a browser that asks for the old one is sent to the new one."""

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)


def _navigation() -> str:
    parts = []
    for title, pages in SECTIONS.items():
        listed = ["/README" if title == "Start" and page == "README" else page for page in pages.split()]
        parts.append("\n".join(["```{toctree}", ":hidden:", f":caption: {title}", "", *listed, "```"]))
    parts.append("```{toctree}\n:hidden:\n:caption: Change it\n\n/CONTRIBUTING\n/CHANGELOG\n```")
    return "\n\n".join(parts)


def _records() -> str:
    records = sorted(page.stem for page in (ROOT / "docs" / "adr").glob("0*.md"))
    return "\n".join(["```{toctree}", ":hidden:", "", *records, "```"])


def _without_other_files(page: str, text: str) -> str:
    """The text with each link to a file that is no page replaced by its words and path."""
    folder = posixpath.dirname(page)

    def replaced(found: re.Match[str]) -> str:
        words, target = found[2], found[3]
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.endswith(".md") and (path.startswith("docs/") or "/" not in path):
            return found[0]
        shown = path.removesuffix("/")
        return words if shown in words else f"{words} (`{shown}`)"

    kept: dict[str, str] = {}

    def masked(block: re.Match[str]) -> str:
        name = f"\x00{len(kept)}\x00"
        kept[name] = block[0]
        return name

    whole = _LINK.sub(replaced, _CODE.sub(masked, text))
    for name, block in kept.items():
        whole = whole.replace(name, block)
    return whole


def _read(_app: Sphinx, page: str, source: list[str]) -> None:
    text = _without_other_files(page, source[0])
    if page == root_doc:
        text += "\n\n" + _navigation() + "\n"
    if page == "docs/adr/README":
        text += "\n\n" + _records() + "\n"
    source[0] = text


def _redirect(app: Sphinx, error: Exception | None) -> None:
    if error is None and app.builder.format == "html":
        for old, new in MOVED.items():
            page = f'<!doctype html><meta http-equiv="refresh" content="0; url={new}.html">\n'
            (Path(app.outdir) / f"{old}.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> None:
    app.connect("source-read", _read)
    app.connect("build-finished", _redirect)
