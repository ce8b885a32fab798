"""A stand-in for Datadog's query API: known series, both versions, limits of requests and outages.

Answers in the published form: points every ten seconds, null where a series has no
value, no series at all where it never had one. The real service cannot be run here.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.contract.metric_worlds import LENGTH, NOW, Phase

STEP_MS = 10_000
_METRIC = re.compile(r"[a-z0-9]+:trace\.http\.request(?P<kind>\.hits|\.errors)?\{(?P<tags>[^}]*)\}")
_FORMULA = re.compile(r"(?:(?P<factor>\d+) \* )?(?P<name>[a-z]\w*)")


@dataclass(slots=True, kw_only=True)
class Datadog:
    """What it knows, and how it behaves."""

    services: Mapping[str, tuple[Phase, ...]]
    refuse: tuple[int, dict[str, str]] | None = None
    """A status and headers instead of an answer."""
    body: bytes | None = None
    """A body instead of an answer."""
    requests: list[Any] = field(default_factory=list)
    url: str = ""

    def points(self, query: str, start: int, end: int) -> dict[int, float | None]:
        """The series of one metric query; empty where it never had a value."""
        found = _METRIC.search(query)
        if found is None:
            return {}
        tags = dict(tag.split(":", 1) for tag in found["tags"].split(","))
        phases = self.services.get(tags["service"], ())
        series = {
            at: _value(phases, found["kind"], at) for at in range(start - start % STEP_MS, end, STEP_MS)
        }
        known = any(value is not None for value in series.values())
        return {at: value for at, value in series.items() if at >= start} if known else {}

    def second(self, body: Mapping[str, Any]) -> Any:
        """`POST /api/v2/query/timeseries`."""
        asked = body["data"]["attributes"]
        named = {
            one["name"]: self.points(one["query"], asked["from"], asked["to"]) for one in asked["queries"]
        }
        times = sorted({at for points in named.values() for at in points})
        series, values = [], []
        for index, formula in enumerate(asked["formulas"]):
            found = _FORMULA.fullmatch(formula["formula"])
            assert found is not None, formula
            points, factor = named[found["name"]], int(found["factor"] or 1)
            if points:
                series.append({"group_tags": [], "query_index": index, "unit": None})
                row = [points.get(at) for at in times]
                values.append([None if value is None else value * factor for value in row])
        attributes = {"series": series, "times": times, "values": values}
        return {"data": {"type": "timeseries_response", "id": "0", "attributes": attributes}}

    def first(self, query: Mapping[str, list[str]]) -> Any:
        """`GET /api/v1/query`."""
        start, end = int(query["from"][0]) * 1000, int(query["to"][0]) * 1000
        series = []
        for index, one in enumerate(re.split(r",(?![^{]*\})", query["query"][0])):
            factor = 1000 if one.startswith("1000 * ") else 1
            points = self.points(one, start, end)
            if points:
                pointlist = [
                    [float(at), None if value is None else value * factor] for at, value in points.items()
                ]
                series.append({"query_index": index, "interval": 10, "pointlist": pointlist, "metric": one})
        return {"status": "ok", "series": series, "query": query["query"][0]}


def _value(phases: tuple[Phase, ...], kind: str | None, at: int) -> float | None:
    begin = (NOW - LENGTH).timestamp() * 1000
    for phase in phases:
        if begin <= at and at + STEP_MS <= phase.until.timestamp() * 1000:
            requests = 2 * (phase.good + phase.bad)
            if kind == ".hits":
                return float(requests)
            if kind == ".errors":
                return 2.0 * phase.bad if phase.bad else None
            return phase.latency_ms / 1000 if requests else None
    return None


@contextmanager
def serving(services: Mapping[str, tuple[Phase, ...]]) -> Iterator[Datadog]:
    """Run it on a loopback port."""
    world = Datadog(services=services)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(body, lambda: world.second(body))

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            self._answer(query, lambda: world.first(query))

        def _answer(self, asked: Any, answer: Any) -> None:
            world.requests.append(asked)
            keys = (self.headers.get("DD-API-KEY"), self.headers.get("DD-APPLICATION-KEY"))
            headers: dict[str, str] = {}
            status = 200 if keys == ("api", "app") else 403
            if world.refuse is not None:
                status, headers = world.refuse
            content = (
                world.body or json.dumps(answer() if status == 200 else {"errors": ["refused"]}).encode()
            )
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            """Nothing: pytest shows what fails."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    world.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield world
    finally:
        server.shutdown()
        server.server_close()
