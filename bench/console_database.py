"""The database that `bench.console` measures: load it once, keep it in a folder, measure it later."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from app.errors import TransientError
from app.store import open_store
from bench.console_history import Size, chain, engine_of, load, played_in
from testbed.postgres import IN_EARNEST, THROWAWAY, PostgresServer
from testbed.supervisor import Supervisor

_MEMORY = {"shared_buffers": "1GB", "effective_cache_size": "4GB", "maintenance_work_mem": "512MB"}
_LOADING = {
    **THROWAWAY,
    **_MEMORY,
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "4GB",
    "autovacuum": "off",
}
SERVING: Mapping[str, str] = {**IN_EARNEST, **_MEMORY}
"""Settings of PostgreSQL while it is measured."""
_ATTEMPTS = 20
_SAMPLED = 90
_DESCRIPTION = "loaded.json"


class NotLoadedError(Exception):
    """A folder without a completely loaded database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What a folder holds; written last, so that an interrupted load is never measured."""

    database: str
    incidents: int
    entries: int
    """Timeline entries of each incident."""
    ids: Sequence[str]
    """Incidents of the whole year whose timelines carry the hashes of their chains."""
    load_seconds: float
    count_days_seconds: float


def server_of(supervisor: Supervisor, folder: Path, settings: Mapping[str, str]) -> PostgresServer:
    """PostgreSQL over the data of this folder, not started."""
    return PostgresServer(supervisor, folder / "postgres", settings=settings)


def loaded_in(folder: Path) -> Loaded:
    """What was kept in this folder. Raises `NotLoadedError`."""
    try:
        return Loaded(**json.loads((folder / _DESCRIPTION).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise NotLoadedError(f"{folder} holds no loaded database (load it with --keep): {error}") from None


def fill(folder: Path, size: Size, say: Callable[[str], None]) -> Loaded:
    """Load a year of incidents into a new database of this folder; the server is stopped afterwards."""
    played_folder, data = folder / "played", folder / "postgres"
    played_folder.mkdir()
    data.mkdir()
    supervisor = Supervisor()
    try:
        played = played_in(played_folder)
        server = server_of(supervisor, folder, _LOADING)
        server.start()
        database = server.create()
        url = server.url(database)
        asyncio.run(_migrate(url))
        begun = time.perf_counter()
        load(url, played, size, say)
        load_seconds = round(time.perf_counter() - begun, 1)
        begun = time.perf_counter()
        asyncio.run(_count_days(url, size.until))
        count_days_seconds = round(time.perf_counter() - begun, 1)
        ids = sample(url, _SAMPLED)
        chain(url, ids)
        asyncio.run(_count_days(url, size.until))
        server.execute("VACUUM ANALYZE", database)
        server.stop()
    finally:
        supervisor.close()
    loaded = Loaded(
        database=database,
        incidents=size.incidents,
        entries=size.entries,
        ids=ids,
        load_seconds=load_seconds,
        count_days_seconds=count_days_seconds,
    )
    (folder / _DESCRIPTION).write_text(json.dumps(asdict(loaded), indent=2) + "\n")
    return loaded


def bring_up_to_date(url: str) -> None:
    """The newest schema, and every day counted: a measurement ends with stale days."""
    asyncio.run(_migrate(url))
    asyncio.run(_count_days(url, datetime.now(UTC)))


def sample(url: str, number: int) -> list[str]:
    """Incidents of the whole year, active ones among them."""
    engine = engine_of(url)
    with engine.connect() as connection:
        # Ids are hashes of numbers: neighbours are of any day.
        some = text("SELECT id FROM incidents WHERE id >= 'inc_8' ORDER BY id LIMIT :number")
        found = [row.id for row in connection.execute(some, {"number": number})]
        active = connection.execute(text("SELECT id FROM incidents WHERE closed_at IS NULL LIMIT 10"))
        found += [row.id for row in active]
    engine.dispose()
    random.Random(7).shuffle(found)  # noqa: S311 - reproducible on purpose
    return found


def gigabytes(url: str) -> float:
    """Size of the database."""
    engine = engine_of(url)
    with engine.connect() as connection:
        size = int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())
    engine.dispose()
    return round(size / 1e9, 2)


async def _migrate(url: str) -> None:
    await (await open_store(url)).close()


async def _count_days(url: str, now: datetime) -> None:
    """As the sweep does, until no day is left."""
    store = await open_store(url)
    left = _ATTEMPTS
    while left:
        try:
            if not await store.statistics.roll_up(now):
                break
        except TransientError:  # a busy machine: the next sweep continues
            left -= 1
            if not left:
                raise
    await store.close()
