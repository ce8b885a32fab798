"""The claim's heartbeat: while a step waits for a call, its claim is renewed.

A call may take longer than a lease. Without the heartbeat a peer would take the
incident over in the middle of the step, which is safe (every write is fenced) but
throws the step's work away, again and again, for as long as the call stays slow.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from app.agent.ports.store.claims import Claim, ClaimRepository
from app.clock import Clock
from app.errors import AgentError, ClaimLost

log = logging.getLogger(__name__)


@asynccontextmanager
async def renewed(
    claims: ClaimRepository, claim: Claim, lease: timedelta, clock: Clock
) -> AsyncIterator[None]:
    """Renew the claim three times in each lease until the block ends.

    A lost claim is logged once; the fencing token makes the store refuse further writes of the step.
    """
    beating = asyncio.create_task(_beat(claims, claim, lease, clock))
    try:
        yield
    finally:
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def _beat(claims: ClaimRepository, claim: Claim, lease: timedelta, clock: Clock) -> None:
    while True:
        await clock.sleep(lease.total_seconds() / 3)
        try:
            await claims.renew(claim, lease, clock.now())
        except ClaimLost as lost:
            # A step that has just closed the incident also ends here: this is not a loss.
            log.info("the claim on %s is no longer renewed: %s", claim.incident_id, lost)
            return
        except AgentError as error:
            log.warning("the claim on %s could not be renewed: %s", claim.incident_id, error)
