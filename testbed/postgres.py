"""A private PostgreSQL server that can be restarted and crashed: for soaks and for the store's tests.

It listens on a Unix socket in its directory and, where asked to, on a free
loopback port and one more address. It can follow another one and take its place.
It starts with fsync on, as in production, unless `settings` say otherwise.
PostgreSQL refuses to run as root, so under root it runs as another account. The
supervisor ensures that the server does not outlive its owner.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import psycopg

from testbed import TestbedError
from testbed.freezing import freeze, thaw
from testbed.ports import free_ports
from testbed.supervisor import Process, Supervisor
from testbed.waiting import NotYet, wait_for

START_SECONDS = 60.0
SUPERUSER = "heal"

IN_EARNEST: Mapping[str, str] = {"max_connections": "200", "shared_buffers": "64MB"}
"""Everything about durability as PostgreSQL comes."""

THROWAWAY: Mapping[str, str] = {
    **IN_EARNEST,
    "shared_buffers": "32MB",
    "fsync": "off",
    "full_page_writes": "off",
}
"""Fast and not durable: for tests that never crash the machine."""


def find_programs() -> Path | None:
    """The directory of PostgreSQL's programs: from PATH, or where Debian keeps them."""
    found = shutil.which("postgres")
    if found is not None:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return versions[-1].parent if versions else None


class PostgresServer:
    """One server over one data directory; not started by being made."""

    def __init__(
        self,
        supervisor: Supervisor,
        directory: Path,
        *,
        settings: Mapping[str, str] = IN_EARNEST,
        tcp: bool = True,
        address: str | None = None,
        within: Sequence[str] = (),
    ) -> None:
        """Raises `TestbedError` where PostgreSQL is not installed.

        `address` is one besides loopback, served to its own network. `within` goes
        before the server's command: what runs it in a network namespace, say.
        """
        programs = find_programs()
        if programs is None:
            raise TestbedError("PostgreSQL is not installed (Debian: apt-get install postgresql)")
        self.directory = directory
        self.port = free_ports(1)[0] if tcp else 5432
        """Of the loopback address where `tcp`; also names the Unix socket."""
        self._tcp = tcp
        self._address = address
        self._within = within
        self._programs = programs
        self._supervisor = supervisor
        self._settings = settings
        self._account = _unprivileged()
        self._process: Process | None = None

    def start(self) -> None:
        """Start it, after a crash with recovery; returns when it takes statements. Creates the data once."""
        if not self._data.exists():
            self._create_data()
        command = [
            *self._within,
            *self._as_account(),
            str(self._programs / "postgres"),
            *("-D", str(self._data), "-k", str(self.directory), "-p", str(self.port)),
            *("-c", f"listen_addresses={','.join(self._addresses)}"),
        ]
        for name, value in self._settings.items():
            command += ["-c", f"{name}={value}"]
        self._process = self._supervisor.start("postgres", command, log=self.directory / "log")
        wait_for("PostgreSQL to answer", self._answers, timeout_seconds=START_SECONDS, interval_seconds=0.05)

    def follow(self, primary: PostgresServer) -> None:
        """Start as a streaming copy of `primary`, read-only until `promote`; it must not have data yet."""
        self._prepare()
        source = f"host={primary.directory} port={primary.port} user={SUPERUSER} application_name=standby"
        self._run("pg_basebackup", "-D", str(self._data), "-d", source, "-R", "-X", "stream", "-c", "fast")
        self.start()

    def promote(self) -> None:
        """Stop following and take writes; returns when it does."""
        self.execute("SELECT pg_promote(true)")

    def freeze(self) -> None:
        """Stop every process where it stands: connections stay, and nothing is answered."""
        postmaster = self._postmaster()
        freeze(postmaster)  # it starts no session from here on
        freeze(*_children(postmaster))

    def thaw(self) -> None:
        """Let them go on."""
        postmaster = self._postmaster()
        thaw(*_children(postmaster), postmaster)

    def stop(self) -> None:
        """Shut down regularly and close every session. Safe to repeat."""
        self._end(signal.SIGINT)

    def restart(self) -> None:
        """As an operator does: every session is broken off, nothing is lost."""
        self.stop()
        self.start()

    def crash(self) -> None:
        """`kill`, then a start that recovers from the write-ahead log."""
        self.kill()
        self.start()

    def kill(self) -> None:
        """kill -9 of every process of the server at once; returns when they are gone."""
        postmaster = self._postmaster()
        doomed = (postmaster, *_children(postmaster))
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_for("PostgreSQL to be gone", lambda: _all_gone(doomed), timeout_seconds=START_SECONDS)
        self._end(signal.SIGINT)

    def url(self, database: str = "postgres") -> str:
        """Over TCP where it listens there, else over the socket."""
        return self.tcp_url(database) if self._tcp else self.socket_url(database)

    def tcp_url(self, database: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        return f"postgresql://{SUPERUSER}@/{database}?host={self.directory}&port={self.port}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run statements outside any transaction of ours."""
        with psycopg.connect(self.socket_url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def create(self, template: str | None = None) -> str:
        """A new database; its name."""
        name = f"heal_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}" + ("" if template is None else f" TEMPLATE {template}"))
        return name

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE {database} WITH (FORCE)")

    @property
    def pid(self) -> int | None:
        """The postmaster's, while it runs."""
        return None if self._process is None else self._process.pid

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _addresses(self) -> tuple[str, ...]:
        loopback = ("127.0.0.1",) if self._tcp else ()
        return loopback if self._address is None else (*loopback, self._address)

    def _create_data(self) -> None:
        self._prepare()
        options = ("-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--no-sync")
        self._run("initdb", "-D", str(self._data), *options)
        if self._address is not None:
            with (self._data / "pg_hba.conf").open("a") as rules:
                rules.write("host all all samenet trust\n")

    def _prepare(self) -> None:
        """Give the directory to the account that the server runs as."""
        if self._account is not None:
            shutil.chown(self.directory, self._account)

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [*self._as_account(), str(self._programs / program), *arguments],
            capture_output=True,
            cwd=self.directory,
            check=False,
        )
        if done.returncode != 0:
            raise TestbedError(f"{program} failed: {done.stderr.decode(errors='replace')}")

    def _postmaster(self) -> int:
        if self._process is None:
            raise TestbedError("PostgreSQL is not running")
        return self._process.pid

    def _as_account(self) -> list[str]:
        if self._account is None:
            return []
        group = str(pwd.getpwnam(self._account).pw_gid)
        return ["setpriv", f"--reuid={self._account}", f"--regid={group}", "--clear-groups"]

    def _answers(self) -> bool | NotYet:
        if self._process is not None:
            self._process.check()
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return NotYet(str(error))
        return True

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.exit_code() is None:
            os.kill(process.pid, how)
            wait_for(
                "PostgreSQL to stop",
                lambda: NotYet("it runs") if process.exit_code() is None else True,
                timeout_seconds=START_SECONDS,
            )
        process.stop()


@contextmanager
def postgres_server(
    supervisor: Supervisor,
    *,
    settings: Mapping[str, str] = IN_EARNEST,
    tcp: bool = True,
    address: str | None = None,
    within: Sequence[str] = (),
) -> Iterator[PostgresServer]:
    """A started server in a temporary directory, stopped and gone afterwards."""
    with TemporaryDirectory(prefix="heal-pg-") as name:
        server = PostgresServer(
            supervisor, Path(name), settings=settings, tcp=tcp, address=address, within=within
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in accounts)


def _children(pid: int) -> tuple[int, ...]:
    """The processes that `pid` started and that still run."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return tuple(int(word) for word in text.split())


def _all_gone(pids: tuple[int, ...]) -> bool | NotYet:
    """Whether every one has ended; one that its parent has not asked for yet has."""
    left = [pid for pid in pids if _runs(pid)]
    return NotYet(f"{left} still run") if left else True


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
