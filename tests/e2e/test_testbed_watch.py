"""The bed's client loses nothing when a watch ends: quietly, abruptly, or because its version expired."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from testbed.kubeapi import Api, Gone, Listed, Pod, Seen
from testbed.pki import User, create_pki, write_kubeconfig


def _pod(name: str, version: int) -> dict[str, object]:
    return {
        "metadata": {"name": name, "uid": name, "resourceVersion": str(version)},
        "spec": {},
        "status": {},
    }


def _event(kind: str, name: str, version: int) -> str:
    return json.dumps({"type": kind, "object": _pod(name, version)}) + "\n"


class _Server:
    """Answers each list with the next of `lists`, each watch with the next of `watches`."""

    def __init__(self) -> None:
        self.lists = [[_pod("a", 1)], [_pod("b", 20)], [_pod("c", 30)], [_pod("d", 40)]]
        self.watches = [
            ("200 OK", _event("ADDED", "x", 2), "quiet"),
            ("200 OK", _event("MODIFIED", "x", 3) + _event("DELETED", "a", 4), "abrupt"),
            ("410 Gone", "{}", "quiet"),
            ("200 OK", json.dumps({"type": "ERROR", "object": {"code": 410}}) + "\n", "quiet"),
        ]
        self.watched_from: list[str] = []

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = (await reader.readuntil(b"\r\n\r\n")).decode()
        query = parse_qs(urlsplit(request.split(" ")[1]).query)
        if "watch" not in query:
            content = json.dumps({"metadata": {"resourceVersion": "10"}, "items": self.lists.pop(0)})
            await self._answer(writer, "200 OK", content, "quiet")
        elif self.watches:
            self.watched_from.append(query["resourceVersion"][0])
            await self._answer(writer, *self.watches.pop(0))
        else:
            await reader.read()  # stays open until the client leaves
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, status: str, content: str, end: str) -> None:
        chunk = f"{len(content):x}\r\n{content}\r\n" + ("0\r\n\r\n" if end == "quiet" else "")
        head = f"HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
        writer.write((head + chunk).encode())
        await writer.drain()
        writer.close()


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[_Server, Api]]:
    """The server above, and a client of it."""
    script = _Server()
    server = await asyncio.start_server(script.handle, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    kubeconfig = tmp_path / "kubeconfig"
    write_kubeconfig(kubeconfig, server=url, ca=create_pki(tmp_path / "pki").ca, user=User.new("someone"))
    api = Api(kubeconfig)
    yield script, api
    await api.close()
    server.close()


async def test_watch_survives_every_way_of_ending(served: tuple[_Server, Api]) -> None:
    """A quiet end resumes where it was; after a break, a 410 or an ERROR event the watch lists again."""
    script, api = served
    changes: list[str] = []
    async with asyncio.timeout(120):
        async for change in api.follow("/api/v1/pods", Pod):
            if isinstance(change, Listed):
                changes.append("listed " + ",".join(pod.metadata.name for pod in change.objects))
            elif isinstance(change, Seen):
                changes.append(f"seen {change.object.metadata.name}")
            elif isinstance(change, Gone):
                changes.append(f"gone {change.object.metadata.name}")
            if not script.lists:
                break
    assert changes == ["listed a", "seen x", "seen x", "gone a", "listed b", "listed c", "listed d"]
    assert script.watched_from == ["10", "2", "10", "10"]
