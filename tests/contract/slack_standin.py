"""A stand-in for Slack on the loopback interface: its Web API, its sockets, its clicks, and its faults.

It keeps what is posted, refuses what Slack would refuse, and sends what people
press and type as Slack sends it: signed over HTTP, or in an envelope over a socket.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode
from uuid import uuid4

import aiohttp
from aiohttp import WSMsgType, web

from app.clock import Clock, SystemClock
from tests.contract.eventually import eventually

BOT_TOKEN = "xoxb-1-made-up"
APP_TOKEN = "xapp-1-made-up"
SIGNING_SECRET = "made-up-signing-secret"
CHANNEL = "C0123456789"
BOT = "B0HEAL"
SCOPES = "chat:write,channels:history,commands"

Json = dict[str, Any]  # Any: the stand-in reads JSON of every form, as Slack does
Fault = Callable[["Slack", web.Request, Json], Awaitable[web.StreamResponse | None]]
"""Happens to one call of a method; None lets the call go on."""

_CONTROL = re.compile(r"<(?!!date)")
_ENTITY = re.compile(r"&(?!amp;|lt;|gt;)")


@dataclass(slots=True, kw_only=True)
class Message:
    """One message as Slack keeps it."""

    channel: str
    ts: str
    body: Json
    bot_id: str = BOT
    edits: int = 0

    @property
    def key(self) -> str | None:
        found: str | None = self.body.get("metadata", {}).get("event_payload", {}).get("key")
        return found

    @property
    def blocks(self) -> list[Json]:
        found: list[Json] = self.body.get("blocks", [])
        return found

    @property
    def shown(self) -> str:
        """Every text of the blocks, as it was sent."""
        return "\n".join(one["text"]["text"] for one in self.blocks if "text" in one)

    def button(self, action_id: str) -> Json | None:
        for block in self.blocks:
            for element in block.get("elements", ()):
                if element.get("action_id") == action_id:
                    found: Json = element
                    return found
        return None


@dataclass(slots=True, kw_only=True)
class Slack:
    """One workspace with one channel; change `faults` at any time."""

    url: str = ""
    clock: Clock = field(default_factory=SystemClock)
    """Says when a message was posted."""
    messages: list[Message] = field(default_factory=list)
    calls: list[tuple[str, Json]] = field(default_factory=list)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: Fault | None = None
    """Happens to every call that has no fault of its own."""
    scopes: str = SCOPES
    told: list[Json] = field(default_factory=list)
    """What was posted to response addresses."""
    sockets: list[web.WebSocketResponse] = field(default_factory=list)
    tickets: set[str] = field(default_factory=set)
    acknowledged: dict[str, Json] = field(default_factory=dict)
    """The payload of each envelope's acknowledgement."""
    runner: web.AppRunner | None = None
    site: web.TCPSite | None = None
    _number: int = 0

    @property
    def api_url(self) -> str:
        return f"{self.url}/api/"

    def count(self, method: str) -> int:
        return sum(1 for name, _ in self.calls if name == method)

    def fail(self, method: str, *faults: Fault) -> None:
        """The next calls of the method, one fault each."""
        self.faults.setdefault(method, []).extend(faults)

    def remove(self, ts: str) -> None:
        """A person deletes a message."""
        self.messages = [one for one in self.messages if one.ts != ts]

    async def stop_listening(self) -> None:
        """From now on connections are refused."""
        assert self.site is not None
        await self.site.stop()

    async def listen_again(self) -> None:
        """At the same address; not while it listens."""
        assert self.runner is not None
        self.site = web.TCPSite(self.runner, "127.0.0.1", int(self.url.rpartition(":")[2]))
        await self.site.start()

    # -------------------------------------------------------- the Web API

    async def api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        arguments: Json = dict(request.query)
        if request.method == "POST" and request.can_read_body:
            arguments = await request.json()
        self.calls.append((method, arguments))
        wanted = APP_TOKEN if method == "apps.connections.open" else BOT_TOKEN
        if request.headers.get("Authorization") != f"Bearer {wanted}":
            return refused("invalid_auth")
        pending = self.faults.get(method)
        fault = pending.pop(0) if pending else self.always
        if fault is not None:
            answer = await fault(self, request, arguments)
            if answer is not None:
                return answer
        return self.do(method, arguments)

    def do(self, method: str, arguments: Json) -> web.Response:
        match method:
            case "auth.test":
                answer = {"ok": True, "bot_id": BOT, "user_id": "U0BOT", "team_id": "T1"}
                return web.json_response(answer, headers={"X-OAuth-Scopes": self.scopes})
            case "chat.postMessage":
                return self._post(arguments)
            case "chat.update":
                return self._update(arguments)
            case "conversations.history" | "conversations.replies":
                return self._search(method, arguments)
            case "apps.connections.open":
                ticket = uuid4().hex
                self.tickets.add(ticket)
                return web.json_response(
                    {"ok": True, "url": f"{self.url.replace('http', 'ws', 1)}/link?ticket={ticket}"}
                )
        return refused("unknown_method")

    def _post(self, arguments: Json) -> web.Response:
        wrong = faults_of(arguments)
        if arguments.get("channel") != CHANNEL:
            return refused("channel_not_found")
        thread = arguments.get("thread_ts")
        if thread is not None and not any(one.ts == thread for one in self.messages):
            return refused("thread_not_found")
        if wrong:
            return web.json_response({"ok": False, "error": "invalid_blocks", "errors": wrong})
        self._number += 1
        ts = f"{int(self.clock.now().timestamp())}.{self._number:06d}"
        self.messages.append(Message(channel=CHANNEL, ts=ts, body=arguments))
        return web.json_response({"ok": True, "channel": CHANNEL, "ts": ts})

    def _update(self, arguments: Json) -> web.Response:
        wrong = faults_of(arguments)
        if wrong:
            return web.json_response({"ok": False, "error": "invalid_blocks", "errors": wrong})
        for one in self.messages:
            if one.ts == arguments.get("ts") and one.channel == arguments.get("channel"):
                one.body = {**one.body, **arguments}
                one.edits += 1
                return web.json_response({"ok": True, "channel": CHANNEL, "ts": one.ts})
        return refused("message_not_found")

    def _search(self, method: str, arguments: Json) -> web.Response:
        """Newest first, in pages; metadata only where it is asked for."""
        if arguments.get("channel") != CHANNEL:
            return refused("channel_not_found")
        found = [one for one in self.messages if float(one.ts) >= float(arguments.get("oldest", 0))]
        if method == "conversations.replies":
            parent = arguments["ts"]
            if not any(one.ts == parent for one in self.messages):
                return refused("thread_not_found")
            found = [one for one in found if parent in (one.ts, one.body.get("thread_ts"))]
        else:
            found = [o for o in found if "thread_ts" not in o.body or o.body.get("reply_broadcast")]
        found.reverse()
        start, limit = int(arguments.get("cursor") or 0), int(arguments.get("limit", 100))
        page = found[start : start + limit]
        with_metadata = arguments.get("include_all_metadata") == "1"
        messages = []
        for one in page:
            shown = {"ts": one.ts, "text": one.body.get("text", ""), "bot_id": one.bot_id}
            if with_metadata and "metadata" in one.body:
                shown["metadata"] = one.body["metadata"]
            messages.append(shown)
        more = str(start + limit) if start + limit < len(found) else ""
        return web.json_response(
            {"ok": True, "messages": messages, "response_metadata": {"next_cursor": more}}
        )

    async def respond(self, request: web.Request) -> web.StreamResponse:
        """A response address: the messages that one person alone sees."""
        pending = self.faults.get("response_url")
        body: Json = await request.json()
        if pending:
            answer = await pending.pop(0)(self, request, body)
            if answer is not None:
                return answer
        assert faults_of(body) == []
        self.told.append(body)
        return web.Response(text="ok")

    async def until_told(self, number: int = 1) -> list[str]:
        """The private replies, once there are so many."""

        async def enough() -> bool:
            return len(self.told) >= number

        await eventually(enough, f"{number} private replies")
        assert all(one["response_type"] == "ephemeral" for one in self.told)
        return [one["text"] for one in self.told]

    # -------------------------------------------------------- sockets

    async def link(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self.tickets:
            return web.Response(status=403)
        self.tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"type": "hello", "num_connections": 1})
        self.sockets.append(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT:
                    said = json.loads(message.data)
                    self.acknowledged[said["envelope_id"]] = said.get("payload") or {}
        finally:
            self.sockets.remove(socket)
        return socket

    async def until_linked(self) -> None:
        async def linked() -> bool:
            return bool(self.sockets)

        await eventually(linked, "the agent's socket is connected")

    async def cut_sockets(self) -> None:
        """Every connection breaks without a word."""
        for socket in list(self.sockets):
            transport = socket._req.transport if socket._req is not None else None
            if transport is not None:
                transport.abort()
        await eventually(self._unlinked, "the sockets are gone")

    async def _unlinked(self) -> bool:
        return not self.sockets

    async def push(self, payload: Json, kind: str = "interactive", *, envelope: str | None = None) -> str:
        """Send an envelope to the newest socket; its id."""
        await self.until_linked()
        envelope = envelope or uuid4().hex
        await self.sockets[-1].send_json(
            {
                "type": kind,
                "envelope_id": envelope,
                "payload": payload,
                "accepts_response_payload": kind == "slash_commands",
            }
        )
        return envelope

    async def until_acknowledged(self, *envelopes: str) -> None:
        async def all_of_them() -> bool:
            return set(envelopes) <= set(self.acknowledged)

        await eventually(all_of_them, "the envelopes are acknowledged")

    # -------------------------------------------------------- people

    def click(self, user: str, value: str, *, approve: bool = True, **changes: Any) -> Json:
        """What Slack sends when a person presses a button."""
        action_id = "heal_approve" if approve else "heal_deny"
        return {
            "type": "block_actions",
            "user": {"id": user, "team_id": "T1"},
            "team": {"id": "T1", "domain": "example"},
            "api_app_id": "A1",
            "token": "not-used",
            "trigger_id": f"{uuid4().hex}.1",
            "container": {"type": "message", "message_ts": "1.1", "channel_id": CHANNEL},
            "channel": {"id": CHANNEL, "name": "ops"},
            "response_url": f"{self.url}/respond/{uuid4().hex}",
            "actions": [{"type": "button", "action_id": action_id, "block_id": "b1", "value": value}],
            **changes,
        }

    def typed(self, user: str, text: str, **changes: str) -> dict[str, str]:
        """What Slack sends when a person types a command."""
        return {
            "command": "/heal",
            "text": text,
            "user_id": user,
            "user_name": "somebody",
            "team_id": "T1",
            "channel_id": CHANNEL,
            "api_app_id": "A1",
            "trigger_id": f"{uuid4().hex}.1",
            "response_url": f"{self.url}/respond/{uuid4().hex}",
            **changes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A request as it would arrive; sent again it is a replay."""

    content: bytes
    headers: Mapping[str, str]


def signed(
    body: str,
    *,
    age: float = 0,
    secret: str = SIGNING_SECRET,
    media: str = "application/x-www-form-urlencoded",
) -> Signed:
    """A body with Slack's signature, made so many seconds ago."""
    at = str(int(time.time() - age))
    digest = hmac.new(secret.encode(), f"v0:{at}:{body}".encode(), hashlib.sha256).hexdigest()
    headers = {
        "Content-Type": media,
        "X-Slack-Request-Timestamp": at,
        "X-Slack-Signature": f"v0={digest}",
        "User-Agent": "Slackbot 1.0 (+https://api.slack.com/robots)",
    }
    return Signed(content=body.encode(), headers=headers)


def interaction(payload: Json, **how: Any) -> Signed:
    return signed(urlencode({"payload": json.dumps(payload)}), **how)


def command(fields: dict[str, str], **how: Any) -> Signed:
    return signed(urlencode(fields), **how)


# ---------------------------------------------------------------- faults


def limited(seconds: int) -> Fault:
    """429, with a wait."""

    async def fault(slack: Slack, request: web.Request, arguments: Json) -> web.StreamResponse:
        return web.json_response(
            {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": str(seconds)}
        )

    return fault


async def answer_lost(slack: Slack, request: web.Request, arguments: Json) -> web.StreamResponse | None:
    """It is done, and the connection breaks before the answer arrives."""
    slack.do(request.match_info["method"], arguments)
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def answering(status: int, body: str, media: str = "application/json", *, done: bool = False) -> Fault:
    """Whatever the body says."""

    async def fault(slack: Slack, request: web.Request, arguments: Json) -> web.StreamResponse:
        if done:
            slack.do(request.match_info["method"], arguments)
        return web.Response(status=status, text=body, content_type=media)

    return fault


def saying(error: str, **more: str) -> Fault:
    return answering(200, json.dumps({"ok": False, "error": error, **more}))


async def silence(slack: Slack, request: web.Request, arguments: Json) -> web.StreamResponse | None:
    """The call is done, and the answer is lost."""
    slack.do(request.match_info["method"], arguments)
    await asyncio.Event().wait()
    return None


def refused(error: str) -> web.Response:
    return web.json_response({"ok": False, "error": error})


# ---------------------------------------------------------------- what Slack would refuse


def faults_of(arguments: Json) -> list[str]:
    """What is wrong with a message, as far as Block Kit's limits and forms go."""
    wrong = [] if arguments.get("text") else ["no text"]
    if len(arguments.get("text", "")) > 40_000:
        wrong.append("text is too long")
    blocks = arguments.get("blocks", [])
    if not 1 <= len(blocks) <= 50:
        wrong.append(f"{len(blocks)} blocks")
    for block in blocks:
        wrong += _faults_of_block(block)
    metadata = arguments.get("metadata")
    if metadata is not None and not re.fullmatch(r"\w+", metadata["event_type"]):
        wrong.append("metadata")
    return wrong


def _faults_of_block(block: Json) -> list[str]:
    match block["type"]:
        case "header":
            return _faults_of_text(block["text"], 150, ("plain_text",))
        case "section":
            return _faults_of_text(block["text"], 3000, ("plain_text", "mrkdwn"))
        case "actions":
            elements = block["elements"]
            wrong = [] if 1 <= len(elements) <= 25 else ["number of elements"]
            ids = [one["action_id"] for one in elements]
            if len(set(ids)) != len(ids):
                wrong.append("an action_id is there twice")
            for one in elements:
                wrong += _faults_of_text(one["text"], 75, ("plain_text",))
                if len(one.get("value", "")) > 2000 or len(one.get("url", "")) > 3000:
                    wrong.append("value or url")
                confirm = one.get("confirm")
                if confirm is not None:
                    for name, limit in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)):
                        wrong += _faults_of_text(confirm[name], limit, ("plain_text",))
            return wrong
    return [f"a block of type {block['type']}"]


def _faults_of_text(text: Json, limit: int, kinds: tuple[str, ...]) -> list[str]:
    said = text["text"]
    wrong = [] if 1 <= len(said) <= limit else [f"{len(said)} characters"]
    if text["type"] not in kinds:
        wrong.append(f"text of type {text['type']}")
    if _CONTROL.search(said) or _ENTITY.search(said):
        wrong.append("a text that means something to Slack")
    return wrong


@asynccontextmanager
async def slack_standin() -> AsyncIterator[Slack]:
    """Serve on a free port until the block ends."""
    slack = Slack()
    app = web.Application()
    app.router.add_route("*", "/api/{method}", slack.api)
    app.router.add_post("/respond/{name}", slack.respond)
    app.router.add_get("/link", slack.link)
    slack.runner = web.AppRunner(app, shutdown_timeout=0.1)
    await slack.runner.setup()
    slack.site = web.TCPSite(slack.runner, "127.0.0.1", 0)
    await slack.site.start()
    slack.url = f"http://127.0.0.1:{slack.runner.addresses[0][1]}"
    try:
        yield slack
    finally:
        for socket in list(slack.sockets):
            await socket.close(code=aiohttp.WSCloseCode.GOING_AWAY)
        await slack.runner.cleanup()
