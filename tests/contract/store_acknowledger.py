"""A process that accepts signals and prints the id of each one once it is acknowledged, until it is killed.

Run as `python -m tests.contract.store_acknowledger DATABASE_URL`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from uuid import uuid4

from app.agent.ids import ServiceKey, SignalId
from app.store import open_store
from tests.contract.store_values import Deciding, signal

CALLERS = 12


async def main(url: str) -> None:
    store = await open_store(url)

    async def call(caller: int) -> None:
        key = ServiceKey(environment="prod", service=f"service-{caller % 4}")
        while True:
            name = uuid4().hex
            one = replace(signal(key=key, dedup_key=name), id=SignalId(f"sig_{name}"))
            await store.signals.accept(
                [one], Deciding(), dry_run=True, idempotency_key=name, request_hash="h"
            )
            os.write(1, f"{one.id}\n".encode())

    await asyncio.gather(*(call(caller) for caller in range(CALLERS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
