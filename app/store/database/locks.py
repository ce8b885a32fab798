"""Locks that serialise units of work by name, for the length of their transaction.

SQLite has one writer and needs no locks. PostgreSQL gets advisory locks on a bounded number of slots: names
that share a slot may wait for each other unnecessarily. Slots are always taken in ascending order, and the
spaces in their order here, so that two units never deadlock.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from enum import IntEnum

from sqlalchemy import Connection, text

SLOTS = 1024


class Space(IntEnum):
    """The subject of a lock; the numbers avoid collisions with other users of the same database."""

    SCHEMA = 0x48450001
    IDEMPOTENCY = 0x48450002
    SERVICE = 0x48450003
    HISTORY = 0x48450004
    ALIVE = 0x48450005
    BUDGET = 0x48450006
    TRAIL = 0x48450007
    COUNTED_DAY = 0x48450008
    """Of a day since 1970: shared by every change of its records, in triggers of the database."""
    COUNTED_BLOCK = 0x48450009


def hold(connection: Connection, space: Space, names: Iterable[str]) -> None:
    """Wait until no other transaction holds one of `names`, and keep them until this one ends."""
    if connection.dialect.name != "postgresql":
        return
    slots = sorted({zlib.crc32(name.encode("utf-8", "replace")) % SLOTS for name in names})
    connection.execute(
        text(
            "SELECT pg_advisory_xact_lock(CAST(:space AS int), slot)"
            " FROM unnest(CAST(:slots AS int[])) AS slot"
        ),
        {"space": int(space), "slots": slots},
    )


def take(connection: Connection, space: Space, number: int) -> bool:
    """Take the lock until the transaction ends, unless another one has it or shares it."""
    if connection.dialect.name != "postgresql":
        return True
    taken = connection.execute(
        text("SELECT pg_try_advisory_xact_lock(CAST(:space AS int), CAST(:number AS int))"),
        {"space": int(space), "number": number},
    ).scalar_one()
    return bool(taken)
