"""The bounds within which the parts of a process end, once it was asked to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

from app.errors import AgentError

log = logging.getLogger(__name__)

DRIVER_SECONDS = 4.0
"""For how long passes under way may go on once the server has stopped."""
WORK_SECONDS = 1.0
LEAVE_SECONDS = 1.5
CLOSE_SECONDS = 2.0


async def within(seconds: float, what: str, work: Awaitable[object]) -> None:
    """Wait for a part of the shutdown; what hangs or fails is logged and left behind."""
    try:
        async with asyncio.timeout(seconds):
            await work
    except TimeoutError:
        log.warning("%s did not stop within %g s and was abandoned", what, seconds)
    except AgentError as error:
        log.warning("%s failed: %s", what, error)
