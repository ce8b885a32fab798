"""A private PostgreSQL cluster for tests: on a Unix socket in a temporary directory, gone afterwards.

Use it as a plugin: `pytest_plugins = ["tests.contract.postgres"]`, then ask for
`postgres_url` (a migrated database for one test) or `postgres` (the cluster).
PostgreSQL refuses to run as root, so under root it runs as another account.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from app.store import open_store

START_SECONDS = 120.0
_SUPERUSER = "heal"
_TEMPLATE = "heal_template"


def find_programs() -> Path | None:
    """The directory of PostgreSQL's programs: from PATH, or where Debian keeps them."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parent if versions else None


@dataclass
class PostgresCluster:
    """A running server; databases in it are copies of a migrated template."""

    programs: Path
    directory: Path
    account: str | None
    """The account to run as; None for the present one."""
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        data = self.directory / "data"
        self._run("initdb", "-D", str(data), "-U", _SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync")
        log = (self.directory / "log").open("wb")
        with log:
            self.process = subprocess.Popen(
                [
                    str(self.programs / "postgres"),
                    *("-D", str(data), "-k", str(self.directory), "-c", "listen_addresses="),
                    *("-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200"),
                    *("-c", "shared_buffers=32MB", "-c", "timezone=Asia/Kathmandu"),
                ],
                stdout=log,
                stderr=subprocess.STDOUT,
                user=self.account,
                cwd=self.directory,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self.directory / "log").read_text())
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(START_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.send_signal(signal.SIGQUIT)
                self.process.wait(START_SECONDS)

    def url(self, database: str) -> str:
        return f"postgresql://{_SUPERUSER}@/{database}?host={self.directory}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside any transaction."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self, template: str | None = None) -> str:
        """A new database; its name."""
        name = f"heal_{uuid4().hex}"
        source = "" if template is None else f" TEMPLATE {template} {self._copying}"
        self.execute(f"CREATE DATABASE {name}{source}")
        return name

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE {database} WITH (FORCE)")

    @cached_property
    def _copying(self) -> str:
        """How to copy a template fastest: without fsync file by file; version 14 has no choice."""
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            return "STRATEGY FILE_COPY" if connection.info.server_version >= 150_000 else ""

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            capture_output=True,
            user=self.account,
            cwd=self.directory,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(done.stderr.decode())


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in accounts)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A server for the whole run, with a migrated template database."""
    programs = find_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    with tempfile.TemporaryDirectory(prefix="heal-pg-") as name:
        directory = Path(name)
        account = _unprivileged()
        if account is not None:
            shutil.chown(directory, account)
        cluster = PostgresCluster(programs=programs, directory=directory, account=account)
        try:
            cluster.start()
            cluster.execute(f"CREATE DATABASE {_TEMPLATE}")
            asyncio.run(_migrate(cluster.url(_TEMPLATE)))
            yield cluster
        finally:
            cluster.stop()


@pytest.fixture
def postgres_url(postgres: PostgresCluster) -> Iterator[str]:
    """The URL of a migrated database that belongs to one test."""
    database = postgres.create(_TEMPLATE)
    yield postgres.url(database)
    postgres.drop(database)


async def _migrate(url: str) -> None:
    store = await open_store(url)
    await store.close()
