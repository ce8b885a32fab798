"""Repositories: classes over one database whose methods are units of work.

A method marked with one of the decorators below takes a `Connection` after `self` and runs inside its own
transaction; its callers await it without the connection. Code that runs inside the transaction of another
repository is a function with a `Connection` parameter.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Literal, ParamSpec, TypeAlias, TypeVar

from sqlalchemy import Connection

from app.store.database.port import Database, Work

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S", bound="Repository")

Unit: TypeAlias = Callable[Concatenate[S, Connection, P], T]
"""A method as written."""
Method: TypeAlias = Callable[Concatenate[S, P], Coroutine[Any, Any, T]]
"""The same method as called."""

MOST_BATCHES = 20
"""Batches of one call of a pruning method; the next call continues with the rest."""


class Repository:
    """One aggregate over one database."""

    def __init__(self, database: Database) -> None:
        self.database = database

    async def in_batches(self, work: Work[int], size: int) -> int:
        """Each batch in its own transaction, until a batch is not full; return the total."""
        total = 0
        for _ in range(MOST_BATCHES):
            done = await self.database.write(work)
            total += done
            if done < size:
                break
        return total


def _unit(
    how: Literal["read", "write"], *, urgent: bool = False
) -> Callable[[Unit[S, P, T]], Method[S, P, T]]:
    def decorator(method: Unit[S, P, T]) -> Method[S, P, T]:
        async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> T:
            @functools.wraps(method)
            def work(connection: Connection) -> T:
                return method(self, connection, *args, **kwargs)

            if how == "read":
                return await self.database.read(work, urgent=urgent)
            return await self.database.write(work, urgent=urgent)

        functools.update_wrapper(run, method)
        return run

    return decorator


reads = _unit("read")
"""Over one consistent snapshot that contains every finished write."""
reads_urgently = _unit("read", urgent=True)
"""The same in the lane that is reserved for operators."""
writes = _unit("write")
"""In one transaction, durable when the caller has its answer."""
writes_urgently = _unit("write", urgent=True)
"""The same in the lane that is reserved for operators."""
