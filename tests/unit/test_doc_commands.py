"""Every `heal` command that a page, a note or a message shows exists, with those options and arguments."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import app

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/NOTES.txt")])
HEAL = typer.main.get_command(app)

_BLOCK = re.compile(r"^( *)```(sh|bash|console|)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_ANY_BLOCK = re.compile(r"^ *```.*?^ *```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(heal(?: [^`\n]+)?)`")
_SHOWN = re.compile(r"(?:^|&& |\| | -- )(?:[A-Z_]+=\S+ +)*(heal(?: [^|;&>]*)?)(?=$|[|;&>])")
_PLACEHOLDER = re.compile(r"\[?[A-Z][A-Z_]*\]?(?:\.\.\.)?|\.\.\.|<[^>]+>")


def _commands(text: str) -> Iterator[tuple[str, bool]]:
    """Each command of a page, and whether it stands in a block, where it has to be complete."""
    for _, _, body in _BLOCK.findall(text):
        for line in body.replace("\\\n", " ").splitlines():
            shown = _SHOWN.search(line.split(" #")[0].strip().removeprefix("$ "))
            if shown is not None and not line.strip().startswith("#"):
                yield shown[1], True
    for command in _INLINE.findall(_ANY_BLOCK.sub("", text)):
        yield command, False


def fault(command: str, *, whole: bool) -> str | None:
    """What is wrong with a command; None when it exists with those options and arguments."""
    tokens = shlex.split(command.replace("$(", "").replace(")", ""), comments=True)[1:]
    found: Any = HEAL
    while tokens and hasattr(found, "commands") and not tokens[0].startswith("-"):
        if tokens[0] not in found.commands:
            return None if _PLACEHOLDER.fullmatch(tokens[0]) else f"no command {tokens[0]}"
        found = found.commands[tokens.pop(0)]
    return _of_arguments(found, tokens, whole=whole)


def _of_arguments(command: Any, tokens: list[str], *, whole: bool) -> str | None:
    options = {
        name: one
        for one in command.params
        if one.param_type_name == "option"
        for name in (*one.opts, *one.secondary_opts)
    }
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    given, positional = set(), 0
    left = list(tokens)
    while left:
        token = left.pop(0)
        name, _, value = token.partition("=")
        if not token.startswith("-"):
            positional += 1
        elif name not in {*options, "--help", "-h", "--install-completion", "--show-completion"}:
            return f"no option {name}"
        elif name in options:
            given.add(options[name].name)
            if not options[name].is_flag and not value and left:
                left.pop(0)
    if any(one.nargs == -1 for one in arguments):
        return None
    if positional > len(arguments) and "..." not in tokens:
        return f"{positional} arguments, takes {len(arguments)}"
    if whole and "..." not in tokens:
        if positional < sum(one.required for one in arguments):
            return "an argument is missing"
        missing = [one.name for one in options.values() if one.required and one.name not in given]
        return f"without the option {missing[0]}" if missing else None
    return None


@pytest.mark.parametrize(
    ("command", "whole", "said"),
    [
        ("heal db backup FILE", True, None),
        ("heal db backup", True, "an argument is missing"),
        ("heal db backup", False, None),
        ("heal db backups FILE", False, "no command backups"),
        ("heal db restore FILE --force", False, "no option --force"),
        ("heal db verify FILE", False, "1 arguments, takes 0"),
        ("heal brake on", True, "without the option reason"),
        ('heal brake on --reason "two words"', True, None),
        ("heal COMMAND --help", False, None),
        ("heal runbooks simulate [SCENARIO]...", False, None),
    ],
)
def test_the_check_knows_commands_options_and_arguments(command: str, whole: bool, said: str | None) -> None:
    """The check itself: each kind of mistake has its words."""
    assert fault(command, whole=whole) == said


def test_every_command_in_a_page_exists() -> None:
    """In blocks with every required part; nothing is executed."""
    shown = [(page, *one) for page in PAGES for one in _commands(page.read_text())]
    assert len(shown) > 100
    wrong = [
        f"{page.relative_to(ROOT)}: `{command}`: {said}"
        for page, command, whole in shown
        if (said := fault(command, whole=whole)) is not None
    ]
    assert wrong == []


def test_every_command_in_a_message_exists() -> None:
    """Errors, findings and help texts name commands, too."""
    texts = [
        node.value
        for path in sorted((ROOT / "app").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "`heal " in node.value
    ]
    commands = [command for text in texts for command in _INLINE.findall(text)]
    assert len(commands) > 30
    wrong = [(one, said) for one in commands if (said := fault(one, whole=False)) is not None]
    assert wrong == []


def test_every_page_stands_in_the_navigation_of_the_site() -> None:
    """`make docs` fails for a page that no section lists; this says so in a moment."""
    source = ast.parse((ROOT / "scripts/site/conf.py").read_text())
    (sections,) = [
        node.value
        for node in source.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "SECTIONS"
    ]
    listed = {page for pages in ast.literal_eval(sections).values() for page in pages.split()}
    assert listed == {page.stem for page in (ROOT / "docs").glob("*.md")} | {"adr/README"}
