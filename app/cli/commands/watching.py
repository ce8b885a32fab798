"""`heal watch`: the newest incidents, read again every few seconds."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.live import Live
from rich.table import Table

from app.cli.commands.incidents import Wanted, list_incidents
from app.cli.commands.output import incident_table
from app.config import Settings


async def follow(
    settings: Settings, url: str | None, wanted: Wanted, console: Console, *, seconds: float | None
) -> None:
    """Show the list, and again after every interval in seconds; None: once."""
    if seconds is None:
        console.print(await _table(settings, url, wanted, console))
        return
    first = await _table(settings, url, wanted, console)
    with Live(first, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while True:
            await asyncio.sleep(seconds)
            live.update(await _table(settings, url, wanted, console), refresh=True)


async def _table(settings: Settings, url: str | None, wanted: Wanted, console: Console) -> Table | str:
    page = await list_incidents(settings, url, wanted)
    return incident_table(console, page.items) if page.items else "No incidents."
