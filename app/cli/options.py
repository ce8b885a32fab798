"""Shared parts of the command line: options, settings, output, exit codes."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from pydantic import BaseModel
    from rich.console import Console

    from app.config import Settings

T = TypeVar("T")

_PIPED_WIDTH = 160

EXIT_CODES = "Exit codes: 0 success, 1 failure or a finding, 2 wrong usage, 130 interrupted."

Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of a running agent. Default: HOST and PORT; if none responds, the SQLite file.",
    ),
]
StoryListener = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of a running agent. Default: HOST and PORT; if none responds, the database.",
    ),
]
By = Annotated[
    str | None,
    typer.Option(
        "--by",
        help="Your name, for the record. Default: the holder of HEAL_TOKEN, or the user of this shell.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_settings() -> Settings:
    """The settings; raises `CommandFailed` that names each invalid one."""
    from app.cli.commands.errors import CommandFailed
    from app.config import load_settings
    from app.errors import ConfigurationError

    try:
        return load_settings()
    except ConfigurationError as error:
        raise CommandFailed(str(error)) from error


def user_of(settings: Settings) -> str | None:
    """The user of the shell; None when HEAL_TOKEN identifies the person."""
    from app.cli.commands.errors import CommandFailed
    from app.cli.commands.speaker import shell_user

    if settings.heal_token is not None:
        return None
    try:
        return shell_user()
    except CommandFailed as error:
        raise typer.BadParameter(str(error), param_hint="--by") from None


def console(*, wide: bool = False) -> Console:
    """Where people read; `wide` prints every column, whatever the width of the terminal."""
    from rich.console import Console

    piped = not sys.stdout.isatty()
    narrow = not wide and not (piped and "COLUMNS" not in os.environ)
    return Console(highlight=False, width=None if narrow else _PIPED_WIDTH)


def finished(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine to its end."""
    return asyncio.run(work)


def print_error(message: str) -> None:
    typer.secho(f"heal: {message}", fg=typer.colors.RED, err=True)


class Output(StrEnum):
    """How a command prints what it found."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"


OutputOption = Annotated[
    Output,
    typer.Option("-o", "--output", help="table, wide (every column), json or yaml."),
]


def structured(view: BaseModel | Sequence[BaseModel], output: Output, *, as_json: bool = False) -> str | None:
    """The answer as JSON or YAML; None where it is shown to people."""
    import json

    wanted = Output.JSON if as_json else output
    if wanted not in (Output.JSON, Output.YAML):
        return None
    value = (
        [one.model_dump(mode="json") for one in view]
        if isinstance(view, Sequence)
        else view.model_dump(mode="json")
    )
    if wanted is Output.JSON:
        return json.dumps(value, indent=2, ensure_ascii=False)
    import yaml

    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True).rstrip("\n")
