"""Words that people read: none of the product's texts uses a word that the style table replaces."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

REPLACED = {
    "told": "reported",
    "tells": "reports",
    "anew": "again",
    "mend": "fix",
    "nobody": "no one, or name the role",
    "by now": "now",
    "whoever": "the person who",
    "somebody": "a person, another process",
    "anybody": "any person, any process",
    "everybody": "every person, every process",
    "in vain": "without success, timed out",
    "in earnest": "with writes allowed, in production",
    "in good order": "regularly",
    "one's own": "custom, the agent's own",
    "unwell": "unhealthy",
    "trouble": "incident, fault",
    "astray": "discrepancy",
    "sign on": "sign in",
    "sign-on": "sign-in",
    "signed on": "signed in",
    "sign off": "sign out",
    "taken at their word": "not authenticated",
    "broke off": "closed by peer",
    "not to be had": "unavailable",
    "alibi": "counter-evidence",
    "accusation": "change score",
    "taken back": "undone",
    "suffer": "fail",
    "deed": "action, decision",
    "errand": "task",
    "courier": "sender",
    "brakes": "guardrails",
}
"""A word, and what the field says instead."""

WORDS = re.compile(
    r"(?<![\w/.:-])(?<!single )(" + "|".join(map(re.escape, REPLACED)) + r")(?![\w/:-])", re.IGNORECASE
)

CODE = re.compile(r"`[^`]*`|\{[%{][^}]*\}|\]\([^)]*\)|class=\"[^\"]*\"")
"""Code, addresses of links and style classes."""

NOT_READ = ("INSERT ", "self-healing-devops-agent ")
"""How statements of SQL and salts of signatures begin, which no person reads."""

NO_PROSE = re.compile(r"[\w./:{}-]+")
"""Keys, paths and names: one word without spaces is no sentence."""


def _sentences(path: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        if not NO_PROSE.fullmatch(node.value.strip()) and not node.value.startswith(NOT_READ):
            yield node.lineno, node.value


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, documented) and (text := ast.get_docstring(node, clean=False)) is not None:
            yield node.body[0].lineno, text


@pytest.mark.parametrize("folder", ["tests", "testbed", "scripts", "bench"])
def test_no_docstring_beside_the_product_uses_a_replaced_word(folder: str) -> None:
    """Docstrings of tests, of the test bed, of scripts and of benches."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r}, better {REPLACED[match[0].lower()]!r}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line, text in _docstrings(path)
        for match in WORDS.finditer(CODE.sub("", text))
    ]
    assert found == []


def test_no_message_uses_a_replaced_word() -> None:
    """Messages, log lines, help texts, timeline sentences and docstrings of `app`."""
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match[0]!r}, better {REPLACED[match[0].lower()]!r}"
        for path in sorted((ROOT / "app").rglob("*.py"))
        for line, text in _sentences(path)
        for match in WORDS.finditer(text)
    ]
    assert found == []


@pytest.mark.parametrize("pattern", ["app/web/templates/*.html", ".env.example", "docs/*.md", "README.md"])
def test_no_page_uses_a_replaced_word(pattern: str) -> None:
    """Pages, settings and documents; code between backticks is what the code says."""
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]!r}, better {REPLACED[match[0].lower()]!r}"
        for path in sorted(ROOT.glob(pattern))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        for match in WORDS.finditer(CODE.sub("", line))
    ]
    assert found == []
