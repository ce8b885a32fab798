"""Which error of ours stands for which error of a driver."""

from __future__ import annotations

import sqlite3

import asyncpg  # type: ignore[import-untyped]  # asyncpg ships no type information
import pytest
from sqlalchemy import exc

from app.errors import ClaimLost, Forbidden, Invalid, PermanentError, TransientError
from app.store.database.port import translated


@pytest.mark.parametrize(
    ("driver", "ours"),
    [
        (asyncpg.AdminShutdownError("going down"), TransientError),
        (asyncpg.DeadlockDetectedError("deadlock"), TransientError),
        (asyncpg.TooManyConnectionsError("too many"), TransientError),
        (asyncpg.ReadOnlySQLTransactionError("a standby"), TransientError),
        (asyncpg.InvalidPasswordError("no"), Forbidden),
        (asyncpg.InsufficientPrivilegeError("no"), Forbidden),
        (asyncpg.NotNullViolationError("null"), Invalid),
        (asyncpg.ProgramLimitExceededError("index row too long"), Invalid),
        (asyncpg.UndefinedTableError("no table"), PermanentError),
        (exc.OperationalError("s", {}, sqlite3.OperationalError("database is locked")), TransientError),
        (exc.IntegrityError("s", {}, sqlite3.IntegrityError("UNIQUE")), Invalid),
        (exc.ProgrammingError("s", {}, sqlite3.ProgrammingError("closed")), PermanentError),
        (
            exc.InternalError("s", {}, sqlite3.InternalError("gone"), connection_invalidated=True),
            TransientError,
        ),
        (exc.StatementError("bad", "s", {}, ValueError("no zone")), Invalid),
        (exc.TimeoutError("pool"), TransientError),
        (ConnectionRefusedError("refused"), TransientError),
        (TimeoutError(), TransientError),
    ],
)
def test_a_driver_error_becomes_the_callers_decision(driver: Exception, ours: type[Exception]) -> None:
    """Exactly this class: a `TransientError` is retried, an `Invalid` is shown, and so on."""
    told = translated(driver)
    assert type(told) is ours
    assert not str(told).endswith(": ")


def test_our_own_errors_and_unknown_ones_stay_as_they_are() -> None:
    """A defect must surface as itself."""
    for error in (ClaimLost("lost"), ZeroDivisionError("defect")):
        assert translated(error) is error
