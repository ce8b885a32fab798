"""`heal worker`: one process that moves incidents on and takes signals from streams, without HTTP."""

from __future__ import annotations

import asyncio
import logging
import signal

from app.config import Settings
from app.logs import show_log
from app.workers import running

log = logging.getLogger(__name__)


async def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; the passes under way come to their end first."""
    show_log(settings.log_level)
    told_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, told_to_stop.set)
    async with running(settings) as container:
        log.info("%s works", container.loop.owner)
        await told_to_stop.wait()
