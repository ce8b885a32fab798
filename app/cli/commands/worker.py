"""`heal worker`: a process without HTTP that processes incidents and reads signals from streams."""

from __future__ import annotations

import logging

from app.config import Settings
from app.logs import show_log
from app.stopping import Stop
from app.workers import running

log = logging.getLogger(__name__)


async def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT; passes in progress get a few seconds to finish."""
    show_log(settings.log_level, settings.log_format)
    stop = Stop()
    with stop.on_signals():
        async with running(settings, stop) as container:
            log.info("%s works", container.loop.owner)
            await stop.wait()
