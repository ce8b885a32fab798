"""Where the console spends processor time: `python -m bench.console_cpu [--profile FILE]`.

The product's application on a small PostgreSQL of its own, asked in this process without a
socket, so that a profile shows the code of the pages alone. `bench.console` measures limits.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import httpx2

from bench.console_database import SERVING, fill, loaded_in, server_of
from bench.console_history import Size
from testbed.supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent
INCIDENTS = 1_500
ENTRIES = 20
PAGES: Mapping[str, str] = {
    "board": "/dashboard",
    "incident page": "/dashboard/incidents/{id}",
    "approvals": "/dashboard/approvals",
    "analytics, a year": "/dashboard/analytics?since=365d",
    "operations": "/dashboard/operations",
}
_LINES = 30


async def _run(url: str, until: datetime, rounds: int, profile: Path | None) -> None:
    from app.agent.ports.store.incidents import IncidentFilter
    from app.bootstrap import Adapters, assemble
    from app.clock import SystemClock
    from app.config import load_settings
    from app.main import create_app
    from app.store import open_store

    settings = load_settings()
    store = await open_store(url)
    while await store.statistics.roll_up(until):
        pass
    app = create_app(settings)
    app.state.container = assemble(settings, clock=SystemClock(), store=store, world=Adapters())
    newest = (await store.incidents.find(IncidentFilter(), limit=1, cursor=None)).items[0].incident.id
    transport = httpx2.ASGITransport(app=app, client=("127.0.0.1", 1))
    out = None if profile is None else profile.open("w")
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
        for name, path in PAGES.items():
            asked = path.format(id=newest)
            for _ in range(2):
                answer = await client.get(asked)
                if answer.status_code != 200:
                    raise SystemExit(f"{asked} answered {answer.status_code}: {answer.text[:300]}")
            began = time.process_time()
            for _ in range(rounds):
                await client.get(asked)
            each = (time.process_time() - began) / rounds
            print(
                f"{name}: {1000 * each:.1f} ms of processor time, {len(answer.content):,} bytes", flush=True
            )
            if out is not None:
                profiler = cProfile.Profile(time.process_time)
                profiler.enable()
                for _ in range(rounds):
                    await client.get(asked)
                profiler.disable()
                out.write(f"{rounds} requests of the page: {name}\n")
                pstats.Stats(profiler, stream=out).strip_dirs().sort_stats("tottime").print_stats(_LINES)
    if out is not None:
        out.close()
    await store.close()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--profile", type=Path, help="where the profile of each page is written")
    arguments.add_argument("--rounds", type=int, default=10)
    arguments.add_argument(
        "--reuse", type=Path, metavar="FOLDER", help="the database that `bench.console --keep` loaded into it"
    )
    given = arguments.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.chmod(0o755)  # PostgreSQL runs as an account of its own under root
        until = datetime.now(UTC)
        if given.reuse is None:
            size = Size(incidents=INCIDENTS, entries=ENTRIES, until=until)
            loaded = fill(folder, size, lambda line: print(line, file=sys.stderr))
        else:
            folder, loaded = given.reuse, loaded_in(given.reuse)
        supervisor = Supervisor()
        stack.callback(supervisor.close)
        server = server_of(supervisor, folder, SERVING)
        server.start()
        url = server.url(loaded.database)
        os.environ |= {"DATABASE_URL": url, "RUNBOOKS_DIR": str(ROOT / "runbooks"), "LOG_LEVEL": "warning"}
        asyncio.run(_run(url, until, given.rounds, given.profile))
        server.stop()


if __name__ == "__main__":
    main()
