"""Kills an agent in the middle of a load and looks for every event that it had acknowledged."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2

from testbed.ports import free_ports

ROOT = Path(__file__).resolve().parent.parent
CONNECTIONS = 32
ENOUGH = 2_000
"""Events are acknowledged before the kill."""
PATIENCE_SECONDS = 120.0


def lost_after_kill() -> dict[str, int]:
    """How many events were acknowledged before `kill -9`, and how many of them are not on record."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        acknowledged = asyncio.run(_acknowledged(Path(folder)))
        with sqlite3.connect(Path(folder) / "bench.db") as database:
            kept = {row[0] for row in database.execute("SELECT id FROM signals")}
    return {
        "acknowledged_before_kill": len(acknowledged),
        "lost_after_kill": len(acknowledged - kept),
    }


async def _acknowledged(folder: Path) -> set[str]:
    """The ids of signals that an agent acknowledged until it was killed."""
    [port] = free_ports(1)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "uvicorn", "app.main:app", "--port", str(port), "--no-access-log", "--log-level", "warning"),
        cwd=folder,
        env={
            **os.environ,
            "DATABASE_URL": f"sqlite:///{folder / 'bench.db'}",
            "RUNBOOKS_DIR": str(ROOT / "runbooks"),
            "PYTHONPATH": str(ROOT),
            "LOG_LEVEL": "warning",
        },
    )
    found: set[str] = set()
    try:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE_SECONDS
        ) as client:
            await _ready(client)
            events = _events()
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(_send(client, events, found, process))
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
    return found


async def _ready(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    return
            except httpx2.TransportError:
                pass
            await asyncio.sleep(0.1)


def _events() -> Iterator[dict[str, object]]:
    began, number = datetime.now(UTC) - timedelta(minutes=10), 0
    while True:
        number += 1
        yield {
            "service": f"service-{number % 50}",
            "environment": "prod",
            "error_rate": 0.01,
            "crash_looping": number % 100 == 0,
            "timestamp": (began + timedelta(microseconds=number)).isoformat(),
        }


async def _send(
    client: httpx2.AsyncClient,
    events: Iterator[dict[str, object]],
    found: set[str],
    process: asyncio.subprocess.Process,
) -> None:
    """Send until the agent is gone; the connection that sees enough answers kills it."""
    headers = {"Content-Type": "application/json"}
    while process.returncode is None:
        try:
            answer = await client.post("/events/metric", content=json.dumps(next(events)), headers=headers)
        except httpx2.TransportError:
            return
        if answer.status_code == 202:
            found.add(answer.json()["signal_id"])
        if len(found) >= ENOUGH and process.returncode is None:
            process.kill()
            return
