"""A process of the fleet that executes commands from its input, until it is killed or its input ends.

Run as `python -m tests.contract.fleet_member DATABASE_URL OWNER`. It enters, says so,
and answers each line of its input with a line: `claim INCIDENT` and `elect DUTY` with
what came of it, `open SERVICE` with the incident's id. At the end of its input it leaves.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

from app.agent.ids import IncidentId, ServiceKey
from app.agent.ports.store import Store
from app.agent.ports.workers import Fleet
from app.store import open_shared
from tests.contract.store_values import NOW, opened

LONG = timedelta(days=1)
"""So long that no lease ends in a test by itself."""


@dataclass(kw_only=True)
class Member:
    """Such a process, seen from the test."""

    process: asyncio.subprocess.Process

    async def tell(self, *words: str) -> str:
        """Its answer to a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{' '.join(words)}\n".encode())
        return await self.hear()

    async def hear(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(120):
            return (await self.process.stdout.readline()).decode().strip()

    async def kill(self) -> None:
        """As kill -9: it tidies nothing up."""
        self.process.kill()
        await self.process.wait()

    async def dismiss(self) -> None:
        """Let it leave regularly."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        async with asyncio.timeout(120):
            assert await self.process.wait() == 0


@asynccontextmanager
async def member(database_url: str, owner: str) -> AsyncIterator[Member]:
    """A process that has tried to enter; `hear` says whether it has."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.contract.fleet_member", database_url, owner),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        yield Member(process=process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _obey(store: Store, fleet: Fleet, owner: str, line: str) -> str:
    word, _, rest = line.strip().partition(" ")
    match word:
        case "claim":
            claim = await store.claims.take(IncidentId(rest), owner, LONG, NOW)
            return f"token {claim.token}" if claim is not None else "held"
        case "elect":
            return str(await fleet.elect(rest, owner, LONG, NOW))
        case "open":
            return (await opened(store, ServiceKey(environment="prod", service=rest))).id
        case _:
            return f"what is {word}?"


async def _main(database_url: str, owner: str) -> None:
    store, fleet = await open_shared(database_url)
    await fleet.enter(owner)
    print("entered", flush=True)  # noqa: T201 - its way of speaking
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(await _obey(store, fleet, owner, line), flush=True)  # noqa: T201 - as above
    await fleet.leave()
    await store.close()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
