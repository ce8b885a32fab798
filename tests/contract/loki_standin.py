"""A stand-in for Loki, made from its published HTTP API: `query_range` and `labels`, with tenants and limits.

Not Loki: it knows selectors of equal labels, and no other part of the query language.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

from tests.contract.loopback import Answer, Fate, Request

_SELECTOR = re.compile(r'\{(?:[a-z_][a-z0-9_]*="(?:[^"\\]|\\.)*"(?:, )?)+\}')
_MATCHER = re.compile(r'([a-z_][a-z0-9_]*)=("(?:[^"\\]|\\.)*")')
_MOST_ENTRIES = 5_000


@dataclass(slots=True)
class LokiStandIn:
    """A rule for `loopback`: lines by their labels, each with its time in nanoseconds."""

    streams: list[tuple[dict[str, str], list[tuple[int, str]]]] = field(default_factory=list)
    token: str | None = None
    queries: list[dict[str, str]] = field(default_factory=list)
    instead: Answer | Fate | None = None
    """Answered to everything."""

    def __call__(self, request: Request) -> Answer | Fate:
        if self.instead is not None:
            return self.instead
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            return Answer(code=401, body=b"no org id")
        address = urlsplit(request.target)
        if address.path == "/loki/api/v1/labels":
            return _success(["namespace", "pod", "container"])
        if address.path != "/loki/api/v1/query_range":
            return Answer(code=404, body=b"404 page not found")
        asked = {name: values[0] for name, values in parse_qs(address.query).items()}
        self.queries.append(asked)
        return self._streams(asked)

    def _streams(self, asked: dict[str, str]) -> Answer:
        if _SELECTOR.fullmatch(asked["query"]) is None:
            return Answer(code=400, body=b"parse error at line 1, col 1: syntax error")
        wanted = {name: json.loads(value) for name, value in _MATCHER.findall(asked["query"])}
        limit = int(asked.get("limit", "100"))
        if limit > _MOST_ENTRIES:
            return Answer(code=400, body=b"max entries limit per query exceeded")
        start, end = int(asked["start"]), int(asked["end"])
        found = [
            (at, line, number)
            for number, (labels, lines) in enumerate(self.streams)
            if all(labels.get(name, "") == value for name, value in wanted.items())
            for at, line in lines
            if start <= at < end
        ]
        backward = asked.get("direction", "backward") == "backward"
        kept = sorted(found, key=lambda entry: entry[0], reverse=backward)[:limit]
        result = [
            {"stream": labels, "values": [[str(at), line] for at, line, of in kept if of == number]}
            for number, (labels, _) in enumerate(self.streams)
            if any(of == number for *_, of in kept)
        ]
        return _success({"resultType": "streams", "result": result, "stats": {}})


def _success(data: object) -> Answer:
    return Answer(code=200, body=json.dumps({"status": "success", "data": data}).encode())
