"""A process that posts healthy samples and prints the id of each once it is acknowledged, until it is killed.

Run as `python -m tests.contract.sample_acknowledger DATABASE_URL FIRST`: its samples are
observed at every second moment, beginning with that one, so that two processes with 0 and 1
never post the same one.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta
from itertools import count

from app.agent.ids import ServiceKey
from app.agent.models import PostedSample, PostedSamples
from app.agent.ports.store.signals import HealthySamples
from app.store import open_store
from tests.contract.store_values import NOW
from tests.contract.test_store_lane import RULES, SENDER

CALLERS = 6
SERVICES = 3


async def main(url: str, first: int) -> None:
    store = await open_store(url)
    moments = count(first, 2)

    async def call() -> None:
        while True:
            moment = next(moments)
            at = NOW + timedelta(milliseconds=moment)
            posted = PostedSamples(
                samples=[
                    PostedSample(
                        key=ServiceKey(environment="prod", service=f"s{moment // 2 % SERVICES}"),
                        observed_at=at,
                        error_rate=0.01,
                        p95_latency_ms=100.0,
                        crash_looping=None,
                    )
                ],
                received_at=at,
                stale_after=timedelta(minutes=15),
                sender=SENDER,
            )
            answer = await store.signals.accept_samples(posted, RULES, dry_run=True)
            [one] = answer.accepted() if isinstance(answer, HealthySamples) else answer
            os.write(1, f"{moment} {one.signal_id}\n".encode())

    await asyncio.gather(*(call() for _ in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
