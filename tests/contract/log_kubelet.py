"""A stand-in for the part of a kubelet that a real API server asks for the log of a container."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import parse_qs, urlsplit


class LogKubelet:
    """Answers `/containerLogs/...` over TLS, with the bounds and `previous` as a kubelet does."""

    def __init__(self, current: tuple[str, ...], previous: tuple[str, ...] | None) -> None:
        self._current = current
        self._previous = previous
        self._server: asyncio.Server | None = None
        self.silent = False
        """Accepts requests and answers none."""
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self, certificate: Path, key: Path) -> int:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in self._open:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if self.silent:
                await reader.read()
                return
            status, body = self._answer(head.split(b" ")[1].decode())
            writer.write(
                f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n"
                "Connection: close\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _answer(self, target: str) -> tuple[str, bytes]:
        asked = {name: values[0] for name, values in parse_qs(urlsplit(target).query).items()}
        lines = self._previous if asked.get("previous") == "true" else self._current
        if lines is None:
            return "400 Bad Request", b"previous terminated container not found"
        kept = lines[-int(asked["tailLines"]) :]
        return "200 OK", "".join(f"{line}\n" for line in kept).encode()[: int(asked["limitBytes"])]
