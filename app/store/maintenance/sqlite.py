"""Backup and restore of a SQLite file, by SQLite's online backup.

A copy is one consistent state, taken beside a running agent; it is a single file without a
write-ahead log.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from app.errors import ConfigurationError, PermanentError
from app.store.database.sqlite import BUSY_SECONDS, migrate_file
from app.store.fleet import only_process
from app.store.maintenance.files import RECORDS, REVISION_TABLE, any_record

_BESIDE = ("-wal", "-shm", "-journal")
"""Files that SQLite keeps beside a database in use."""


def back_up(source: Path, file: Path) -> None:
    """Copy the database into an existing, empty file, and check the copy."""
    if not source.is_file():
        raise ConfigurationError(f"DATABASE_URL: there is no database {source}")
    _copy(source, file)


def restore(file: Path, target: Path, *, replace: bool) -> Path | None:
    """Put a migrated copy of the backup at the target; returns where a database with records is kept.

    At every moment the target is the old database or the new one as a whole: a process that is
    killed leaves no gap in which an agent would start with an empty database.
    """
    with closing(only_process(target)):
        filled = _filled(target)
        if filled and not replace:
            raise PermanentError(
                f"{target} has records; restore into another file, or give --replace to set it aside"
            )
        fresh = target.with_name(f"{target.name}.restoring")
        try:
            _remove(fresh)
            fresh.touch(mode=0o600)
            _copy(file, fresh)
            migrate_file(fresh)
            kept = _set_aside(target) if filled else None
            _remove_beside(target)
            fresh.replace(target)
            _make_durable(target.parent)
        except OSError as error:
            raise PermanentError(f"{target} cannot be written: {error.strerror or error}") from error
        finally:
            _remove(fresh)
            fresh.with_name(f"{fresh.name}.lock").unlink(missing_ok=True)
        return kept


def schema_of(path: Path) -> str | None:
    """The schema of the file; None where there is none yet."""
    if not path.is_file():
        return None
    with _opened(path) as database:
        return _schema(database) if REVISION_TABLE in _tables(database) else None


def _copy(source: Path, target: Path) -> None:
    with _opened(source) as database:
        if REVISION_TABLE not in _tables(database):
            raise PermanentError(f"{source} is not a database of this agent")
        with _opened(target) as copy:
            database.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
            found = [row[0] for row in copy.execute("PRAGMA integrity_check(5)")]
            if found != ["ok"]:
                raise PermanentError(f"{source} is damaged: {'; '.join(map(str, found))}")
    _flush(target)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection to an existing file; `PermanentError` for one that SQLite cannot read."""
    try:
        address = f"{path.absolute().as_uri()}?mode=rw"
        with closing(sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS)) as database:
            yield database
    except sqlite3.Error as error:
        raise PermanentError(f"{path} cannot be used: {error}") from error


def _tables(database: sqlite3.Connection) -> set[str]:
    return {row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def _schema(database: sqlite3.Connection) -> str | None:
    row = database.execute(f"SELECT version_num FROM {REVISION_TABLE}").fetchone()  # noqa: S608 - a constant
    return None if row is None else str(row[0])


def _filled(path: Path) -> bool:
    """Whether the file holds records; `PermanentError` for a database of another program."""
    if not path.is_file() or path.stat().st_size == 0:
        return False
    with _opened(path) as database:
        present = _tables(database)
        if present and REVISION_TABLE not in present:
            raise PermanentError(f"{path} is a database of another program; name another file")
        return any(database.execute(any_record(table)).fetchone() for table in RECORDS if table in present)


def _set_aside(path: Path) -> Path:
    """Give the database a second name; what SQLite kept beside it is in the file since it was last closed."""
    kept = path.with_name(f"{path.name}.replaced-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    if kept.exists():
        raise PermanentError(f"{kept} exists; move it away")
    if (left := path.with_name(f"{path.name}-wal")).exists() and left.stat().st_size:
        raise PermanentError(f"{left} is in use; stop every process that has {path.name} open")
    try:
        kept.hardlink_to(path)
    except OSError:  # a file system without links
        part = kept.with_name(f"{kept.name}.part")
        shutil.copy2(path, part)
        _flush(part)
        part.rename(kept)
    return kept


def _flush(file: Path) -> None:
    with file.open("rb") as written:
        os.fsync(written.fileno())


def _make_durable(folder: Path) -> None:
    """The names in the folder survive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_beside(path: Path) -> None:
    for suffix in _BESIDE:
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def _remove(path: Path) -> None:
    _remove_beside(path)
    path.unlink(missing_ok=True)
