"""A migrated SQLite file for each test, copied from one that this process made once.

Migrating takes a hundred times as long as copying. Tests of migrations start
without a file.
"""

from __future__ import annotations

import asyncio
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from app.store import open_store


def migrated(path: Path) -> str:
    """The URL of a database at `path`; a file that is there already is left as it is."""
    if not path.exists():
        path.write_bytes(_template())
    return f"sqlite:///{path}"


@cache
def _template() -> bytes:
    with tempfile.TemporaryDirectory(prefix="heal-template-") as folder:
        path = Path(folder) / "heal.db"
        with ThreadPoolExecutor(max_workers=1) as elsewhere:  # the caller's event loop may be running
            elsewhere.submit(asyncio.run, _migrate(f"sqlite:///{path}")).result()
        return path.read_bytes()


async def _migrate(url: str) -> None:
    await (await open_store(url)).close()
