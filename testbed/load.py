"""A bounded load generator: so many requests a second to each sample service of a namespace.

`python -m testbed.load`, started by `testbed.world`. It reads the fleet's file of
targets, so services that appear later get their share; it ends by itself when
its time is over.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import Counter
from pathlib import Path

import httpx2

from testbed.fleet import read_targets

_IN_FLIGHT = 200
_TIMEOUT_SECONDS = 5.0


class Load:
    """One generator over all services of one namespace."""

    def __init__(self, targets: Path, namespace: str, rps: float, http: httpx2.AsyncClient) -> None:
        self._targets = targets
        self._namespace = namespace
        self._pause = 1 / rps
        self._http = http
        self._flying: set[asyncio.Task[None]] = set()
        self.answers: Counter[str] = Counter()
        """Status code, or the error's class, to how often."""

    async def run(self, seconds: float) -> None:
        """Evenly spaced requests; what would exceed the bound in flight is left out and counted."""
        end = time.monotonic() + seconds
        due = time.monotonic()
        while (now := time.monotonic()) < end:
            if now < due:
                await asyncio.sleep(due - now)
            due = max(due + self._pause, now - 1)  # after a stall, catch up by a second at most
            for (namespace, _), address in read_targets(self._targets).items():
                if namespace == self._namespace:
                    self._send(address)
        await asyncio.gather(*self._flying)

    def _send(self, address: str) -> None:
        if len(self._flying) >= _IN_FLIGHT:
            self.answers["not sent"] += 1
            return
        task = asyncio.create_task(self._request(address))
        self._flying.add(task)
        task.add_done_callback(self._flying.discard)

    async def _request(self, address: str) -> None:
        try:
            answer = await self._http.get(f"http://{address}/")
        except httpx2.HTTPError as error:
            self.answers[type(error).__name__] += 1
        else:
            self.answers[str(answer.status_code)] += 1


async def _main(arguments: argparse.Namespace) -> None:
    limits = httpx2.Limits(max_connections=_IN_FLIGHT)
    async with httpx2.AsyncClient(limits=limits, timeout=_TIMEOUT_SECONDS) as http:
        load = Load(arguments.targets, arguments.namespace, arguments.rps, http)
        await load.run(arguments.seconds)
        print(dict(load.answers), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m testbed.load", description=__doc__)
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--rps", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, default=600.0)
    asyncio.run(_main(parser.parse_args()))
