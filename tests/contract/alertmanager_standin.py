"""A stand-in for Alertmanager's API v2: alerts and silences, by a clock of the test, with faults.

It holds what `tests/contract/silence_suite.py` proves of the real program as well.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.unit.loopback import Request, loopback, reply

LATER = timedelta(days=1)


@dataclass(kw_only=True)
class AlertmanagerStandIn:
    """Alerts for one receiver, and the silences that mute them."""

    now: Callable[[], datetime]
    receiver: str = "heal"
    url: str = ""
    alerts: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By fingerprint."""
    silences: list[dict[str, Any]] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    """Method and path of every request that may change a silence."""
    status: int = 200
    """Of every answer about silences; 200: as asked."""
    loses: bool = False
    """The next write takes effect, and its answer is lost."""
    drops: bool = False
    """The next write is lost."""

    async def __call__(self, request: Request, writer: asyncio.StreamWriter) -> None:
        answer = reply(*self._answer(request))
        writes = request.method != "GET" and "silence" in request.path
        if writes and (self.drops or self.loses):
            self.drops = self.loses = False
            writer.close()
            return
        await answer(request, writer)

    def _answer(self, request: Request) -> tuple[int, object]:
        about_silences = request.path.startswith("/api/v2/silence")
        if about_silences and request.method != "GET":
            self.writes.append(f"{request.method} {request.path}")
            if self.drops:
                return 200, {}
        if about_silences and self.status != 200:
            return self.status, "not now"
        match request.method, request.path.split("/")[3:]:
            case "GET", ["silences"]:
                return 200, [{**one, "status": {"state": self._state(one)}} for one in self.silences]
            case "POST", ["silences"]:
                return self._create(json.loads(request.body))
            case "DELETE", ["silence", silence_id]:
                return self._expire(silence_id)
            case "POST", ["alerts"]:
                for one in json.loads(request.body):
                    self.post(one["labels"], _time(one["startsAt"]), _time(one.get("endsAt")))
                return 200, {}
            case "GET", ["alerts"]:
                return 200, self._listed(request.query)
        return 404, "no such path"

    def post(
        self, labels: dict[str, str], starts_at: datetime | None, ends_at: datetime | None = None
    ) -> str:
        """An alert fires, or has ended; its fingerprint."""
        fingerprint = hashlib.sha256(json.dumps(labels, sort_keys=True).encode()).hexdigest()[:16]
        known = self.alerts.get(fingerprint)
        began = known["startsAt"] if known else (starts_at or self.now()).isoformat()
        self.alerts[fingerprint] = {
            "labels": labels,
            "annotations": {},
            "fingerprint": fingerprint,
            "startsAt": began,
            "endsAt": (ends_at or self.now() + LATER).isoformat(),
            "updatedAt": self.now().isoformat(),
            "receivers": [{"name": self.receiver}],
        }
        return fingerprint

    def in_force(self) -> list[dict[str, Any]]:
        return [one for one in self.silences if self._state(one) == "active"]

    def muting(self, labels: dict[str, str]) -> list[str]:
        """The ids of the silences in force that mute an alert with these labels."""
        return [
            one["id"]
            for one in self.in_force()
            if all(labels.get(m["name"], "") == m["value"] for m in one["matchers"])
        ]

    def _listed(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        found = []
        for one in self.alerts.values():
            muted = self.muting(one["labels"])
            state = "suppressed" if muted else "active"
            wanted = query.get("silenced" if muted else "active", ["true"]) == ["true"]
            receiver = query.get("receiver", [f"^{re.escape(self.receiver)}$"])[0]
            name = query.get("filter", [f'alertname="{one["labels"]["alertname"]}"'])[0]
            if (
                wanted
                and _time(one["endsAt"], self.now()) > self.now()
                and re.fullmatch(receiver, self.receiver)
                and name == f'alertname="{one["labels"]["alertname"]}"'
            ):
                status = {"state": state, "silencedBy": muted, "inhibitedBy": []}
                found.append({**one, "status": status})
        return found

    def _create(self, wanted: dict[str, Any]) -> tuple[int, object]:
        if not wanted["matchers"] or _time(wanted["endsAt"], self.now()) <= self.now():
            return 400, "invalid silence"
        silence_id = f"silence-{len(self.silences)}"
        self.silences.append({**wanted, "id": silence_id, "updatedAt": self.now().isoformat()})
        return 200, {"silenceID": silence_id}

    def _expire(self, silence_id: str) -> tuple[int, object]:
        for one in self.silences:
            if one["id"] == silence_id:
                if self._state(one) == "expired":
                    return 500, "silence already expired"
                one["endsAt"] = self.now().isoformat()
                return 200, b""
        return 404, b""

    def _state(self, one: dict[str, Any]) -> str:
        now = self.now()
        if _time(one["endsAt"], now) <= now:
            return "expired"
        return "active" if _time(one["startsAt"], now) <= now else "pending"


def _time(text: str | None, otherwise: datetime | None = None) -> Any:
    return datetime.fromisoformat(text) if text else otherwise


@asynccontextmanager
async def alertmanager_standin(now: Callable[[], datetime]) -> AsyncIterator[AlertmanagerStandIn]:
    """Serve it on the loopback interface until the block ends."""
    standin = AlertmanagerStandIn(now=now)
    async with loopback(standin) as served:
        standin.url = served.url
        yield standin
