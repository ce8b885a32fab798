"""A loopback HTTP server between the connector and its API server that misbehaves on demand.

With an upstream it relays and can cut, freeze or swallow; without one it only
gives the answer that a test configures.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import yaml

DEADLINE_SECONDS = 120.0


class Fate(StrEnum):
    """What becomes of a request that is not simply relayed or answered."""

    RELAY = "relay"
    CLOSE = "close"
    """The connection is closed without an answer, and nothing is sent on."""
    HANG = "hang"
    """Neither answered nor closed, and nothing is sent on."""
    SWALLOW = "swallow"
    """Sent on; the answer is thrown away and the connection closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer made up by the test."""

    code: int
    body: bytes = b"{}"
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "application/json"),)
    then_cut: bool = False
    """The connection breaks in the middle of the body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    method: str
    target: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """By their names in lower case."""

    @property
    def watches(self) -> bool:
        return "watch=true" in self.target


Rule = Callable[[Request], Fate | Answer]


def status(code: int, message: str, **more: object) -> Answer:
    """A Kubernetes Status object as an answer."""
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message}
    return Answer(code=code, body=json.dumps({**body, **more}).encode())


@dataclass(slots=True)
class Loopback:
    """A running server; change `rule` at any time."""

    url: str
    rule: Rule
    upstream: str | None
    ca: ssl.SSLContext | None
    requests: list[Request] = field(default_factory=list)
    thawed: asyncio.Event = field(default_factory=asyncio.Event)
    """While this is cleared, relayed streams are held open and carry nothing."""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    live: set[asyncio.StreamWriter] = field(default_factory=set)

    server: asyncio.Server | None = None

    def stop_listening(self) -> None:
        """From now on connections are refused; those that are open live on."""
        assert self.server is not None
        self.server.close()

    async def until(self, holds: Callable[[list[Request]], bool]) -> None:
        """Return once the requests seen so far fulfil `holds`; fails at a deadline."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not holds(self.requests):
                self.arrived.clear()
                await self.arrived.wait()

    def cut(self) -> None:
        """Break every open connection."""
        for writer in self.live:
            writer.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.live.add(writer)
        try:
            with suppress(OSError, asyncio.IncompleteReadError):
                await self._serve(reader, writer)
        finally:
            self.live.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        method, target, _ = lines[0].split(" ")
        request = Request(method=method, target=target, body=body, headers=headers)
        self.requests.append(request)
        self.arrived.set()
        fate = self.rule(request)
        if isinstance(fate, Answer):
            writer.write(_encoded(fate))
            await writer.drain()
        elif fate is Fate.HANG:
            await reader.read()
        elif fate in (Fate.RELAY, Fate.SWALLOW):
            await self._relay(lines, body, None if fate is Fate.SWALLOW else writer)

    async def _relay(self, lines: list[str], body: bytes, writer: asyncio.StreamWriter | None) -> None:
        assert self.upstream is not None
        url = urlsplit(self.upstream)
        kept = [line for line in lines if line and not line.lower().startswith(("host:", "connection:"))]
        head = "\r\n".join([*kept, f"Host: {url.netloc}", "Connection: close", "", ""])
        source, sink = await asyncio.open_connection(url.hostname, url.port, ssl=self.ca)
        try:
            sink.write(head.encode("latin-1") + body)
            await sink.drain()
            while data := await source.read(65536):
                await self.thawed.wait()
                if writer is not None:
                    writer.write(data)
                    await writer.drain()
        finally:
            sink.close()


def _encoded(answer: Answer) -> bytes:
    length = len(answer.body) + (1000 if answer.then_cut else 0)
    lines = [f"HTTP/1.1 {answer.code} Answer", f"Content-Length: {length}", "Connection: close"]
    lines += [f"{name}: {value}" for name, value in answer.headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body


def relay(_: Request) -> Fate:
    """The rule that lets everything through."""
    return Fate.RELAY


def _upstream(kubeconfig: Path) -> tuple[str, ssl.SSLContext]:
    cluster = yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]
    authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
    return cluster["server"], ssl.create_default_context(cadata=authority)


@asynccontextmanager
async def loopback(rule: Rule = relay, *, kubeconfig: Path | None = None) -> AsyncIterator[Loopback]:
    """Serve on a free port; `kubeconfig` names the upstream API server."""
    upstream, ca = (None, None) if kubeconfig is None else _upstream(kubeconfig)
    made = Loopback(url="", rule=rule, upstream=upstream, ca=ca)
    made.thawed.set()
    server = made.server = await asyncio.start_server(made.serve, "127.0.0.1", 0, limit=2**20)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        made.cut()
        server.close()


def kubeconfig_for(url: str, folder: Path, *, like: Path | None = None) -> Path:
    """A kubeconfig for the loopback server, with the credentials of another one where given."""
    user: dict[str, str] = {"token": "not-a-real-token"}
    if like is not None:
        user = yaml.safe_load(like.read_text())["users"][0]["user"]
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "loopback", "cluster": {"server": url}}],
        "users": [{"name": "agent", "user": user}],
        "contexts": [{"name": "loopback", "context": {"cluster": "loopback", "user": "agent"}}],
        "current-context": "loopback",
    }
    path = folder / "loopback.kubeconfig"
    path.write_text(yaml.safe_dump(content))
    return path
