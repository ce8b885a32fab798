"""The PostgreSQL servers of a URL, and the connection to the first one that accepts writes.

The URL has the same meaning as in libpq: `sslmode`, `sslrootcert`, `host=/socket/dir`, several hosts
(`h1:p1,h2:p2` or `?host=h1,h2&port=p1,p2`) with `target_session_attrs` and the like work. Each host gets
its own time to answer, so that a silent host does not hide its replacement. Called by
`app.store.database.postgresql` for the pool and by `app.store.fleet` for the connection that shows that the
process is alive.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import asyncpg  # type: ignore[import-untyped]  # asyncpg ships no type information
from sqlalchemy import URL

from app.errors import ConfigurationError

CONNECT_SECONDS = 10.0
COMMAND_SECONDS = 20.0
"""When this side gives up on an answer; above the server's own limit, which frees its locks."""

_SHORTEST_CONNECT_SECONDS = 3.0
_NAME = {"application_name": "self-healing-devops-agent"}

LIMITS = {
    # The server notices within some ten seconds that this side was cut off, and frees its locks:
    # by keepalives while nothing is under way, by the user timeout while something is (a NOTIFY, say).
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
    # No statement, wait or forgotten transaction of the agent blocks others for long.
    "statement_timeout": "15000",
    "lock_timeout": "10000",
    "idle_in_transaction_session_timeout": "15000",
}

Connect = Callable[[], Awaitable[Any]]

_NEXT = (OSError, asyncpg.CannotConnectNowError, asyncpg.TargetServerAttributeNotMatched)
"""Reasons to try another server: unreachable, starting or stopping, or read-only."""

_HOSTS = re.compile(
    r"^(?P<scheme>postgres(?:ql)?://)(?P<auth>[^/?#]*@)?(?P<hosts>[^/?#]*,[^/?#]*)(?P<rest>.*)$"
)
_HOST = re.compile(r"^(?P<host>\[[^\]]*\]|[^:\[\]]+)(?::(?P<port>\d+))?$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The address of one server; None is the driver's default."""

    host: str | None
    port: int | None


def one_host(database_url: str) -> str:
    """The URL with several hosts, in libpq's form, moved to a part that URL parsers do not change.

    Raises ValueError for an invalid host.
    """
    found = _HOSTS.match(database_url)
    if found is None:
        return database_url
    hosts, ports = [], []
    for each in found["hosts"].split(","):
        host = _HOST.match(each)
        if host is None:
            raise ValueError("a host of DATABASE_URL is not understood")
        hosts.append(host["host"].strip("[]"))
        ports.append(host["port"] or "5432")
    path, _, query = found["rest"].partition("?")
    named = f"host={','.join(hosts)}&port={','.join(ports)}"
    return f"{found['scheme']}{found['auth'] or ''}{path or '/'}?{named}" + (f"&{query}" if query else "")


def servers(url: URL) -> tuple[Server, ...]:
    """In the order in which they are tried; raises `ConfigurationError` for ports that do not match."""
    if url.host:
        return (Server(host=url.host, port=url.port),)
    hosts, ports = _listed(url, "host"), _listed(url, "port")
    if not all(port.isdigit() for port in ports) or len(ports) not in {0, 1, max(1, len(hosts))}:
        raise ConfigurationError(
            f"DATABASE_URL: {shown(url)} is not understood: it needs one port, or one for each host"
        )
    named: list[str | None] = [*hosts] or [None]
    numbers: list[int | None] = [int(port) for port in ports] or [None]
    if len(numbers) == 1:
        numbers *= len(named)
    return tuple(Server(host=host, port=port) for host, port in zip(named, numbers, strict=True))


def connecting(url: URL, *, limits: Mapping[str, str] = LIMITS) -> Connect:
    """A function that creates one connection of the driver.

    With several hosts and no `target_session_attrs` it uses the one that accepts writes. Without `limits`
    there are no timeouts: for migrations.
    """
    candidates = list(servers(url))
    wanted = "read-write" if len(candidates) > 1 and "target_session_attrs" not in url.query else None
    dsn = (
        url.set(drivername="postgresql", host=None, port=None)
        .difference_update_query(["host", "port"])
        .render_as_string(hide_password=False)
    )
    patience = max(_SHORTEST_CONNECT_SECONDS, CONNECT_SECONDS / len(candidates))

    async def attempt(server: Server) -> object:
        try:
            return await asyncpg.connect(
                dsn,
                host=server.host,
                port=server.port,
                target_session_attrs=wanted,
                timeout=patience,
                command_timeout=COMMAND_SECONDS if limits else None,
                server_settings={**_NAME, **limits},
            )
        except ValueError as error:  # the address itself makes no sense to the driver
            raise ConfigurationError(f"DATABASE_URL: {shown(url)} is not understood: {error}") from None

    async def connect() -> object:
        for server in tuple(candidates):
            try:
                connection = await attempt(server)
            except _NEXT as error:
                failure = error
                continue
            # The next connection first tries the server that worked.
            candidates.remove(server)
            candidates.insert(0, server)
            return connection
        if isinstance(failure, asyncpg.TargetServerAttributeNotMatched):
            # In the middle of a failover; it passes like a server that refuses connections.
            raise ConnectionRefusedError(str(failure)) from failure
        raise failure

    return connect


def shown(url: URL) -> str:
    """The URL without secrets, for messages."""
    return url.render_as_string(hide_password=True)


def _listed(url: URL, name: str) -> list[str]:
    given = url.query.get(name, ())
    joined = given if isinstance(given, str) else ",".join(given)
    return [part for part in joined.split(",") if part]
