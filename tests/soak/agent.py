"""The product's own processes over the counting stand-in: the `heal` command with one part swapped.

Everything is the product's own but the adapters of the world, which are those
of `tests.soak.connector`. Arguments are those of `heal`, for example
`run --role worker`. The environment names the stand-in (SOAK_TARGET) and a
folder (SOAK_OWNERS) in which each start leaves its name as owner of claims.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import app.bootstrap
from app.bootstrap import Adapters, Container, assemble
from app.clock import Clock
from app.config import Settings
from tests.soak.connector import StandIn


def connect_stand_in(
    settings: Settings,
    clock: Clock,
) -> tuple[Adapters, Callable[[], Awaitable[None]]]:
    """As `app.bootstrap.connect_world`: no writer in a dry run."""
    found = StandIn.at(os.environ["SOAK_TARGET"])
    world = Adapters(
        reader=found.reader,
        rehearsal=found.rehearsal,
        writer=None if settings.dry_run else found.writer,
        watch=found.watch,
        metrics=found.metrics,
    )
    return world, found.line.close


def assemble_and_sign(*arguments: Any, **named: Any) -> Container:
    """As `app.bootstrap.assemble`; leaves a file named after the owner that says which start it is."""
    container = assemble(*arguments, **named)
    owner = Path(os.environ["SOAK_OWNERS"]) / container.loop.owner
    owner.write_text(str(os.getpid()))
    return container


def main() -> None:
    app.bootstrap.connect_world = connect_stand_in
    app.bootstrap.assemble = assemble_and_sign
    from app.cli import main as heal  # the swap comes first: later imports may take the names with them

    heal()


if __name__ == "__main__":
    main()
