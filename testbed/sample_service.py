"""A small HTTP service with real metrics, which answers as the pods behind it would.

`testbed.fleet` runs one for each Deployment and passes it the ready pods;
requests go round those pods, as a Service spreads them. Without a ready pod the
answer is 503.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

import httpx2
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from testbed.behaviour import image_words

SLOW_SECONDS = 1.5
LONGEST_SECONDS = 2.0
ERRORS_RATIO = 0.5
_DEPENDENCY_TIMEOUT_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manners:
    """How one pod answers requests."""

    fail_ratio: float = 0.0
    """Share of its requests that it answers with 500."""
    latency_seconds: float = 0.0
    dependency_url: str | None = None
    """Called for every request; its failure is ours."""


def manners_of(image: str, settings: Mapping[str, str]) -> Manners:
    """From the image's words (`errors`, `slow`) and the container's environment and mounted configuration.

    Settings are FAIL_RATIO, LATENCY_SECONDS and DEPENDENCY_URL. A number that is
    none means that the service fails every request, as a program with a broken
    configuration does.
    """
    words = image_words(image)
    try:
        ratio = float(settings.get("FAIL_RATIO", ERRORS_RATIO if "errors" in words else 0.0))
        latency = float(settings.get("LATENCY_SECONDS", SLOW_SECONDS if "slow" in words else 0.0))
    except ValueError:
        return Manners(fail_ratio=1.0)
    return Manners(
        fail_ratio=min(max(ratio, 0.0), 1.0),
        latency_seconds=min(max(latency, 0.0), LONGEST_SECONDS),
        dependency_url=settings.get("DEPENDENCY_URL") or None,
    )


class Network(Protocol):
    """Finds other services by the names that they have inside a cluster."""

    def route(self, host: str, port: int | None) -> tuple[str, int] | None:
        """Where a connection really goes; None when there is no such host."""
        ...


class _Backend:
    """One ready pod; spreads its failures evenly instead of throwing dice."""

    def __init__(self, manners: Manners) -> None:
        self.manners = manners
        self._due = 0.0

    def fails(self) -> bool:
        self._due += self.manners.fail_ratio
        if self._due < 1.0:
            return False
        self._due -= 1.0
        return True


class SampleService:
    """One service's front door: an ASGI application with metrics of its own."""

    def __init__(self, network: Network, http: httpx2.AsyncClient) -> None:
        self._network = network
        self._http = http
        self._backends: dict[str, _Backend] = {}
        self._turn = 0
        registry = CollectorRegistry()
        self._requests = Counter("http_requests", "Answered requests.", ["code"], registry=registry)
        self._durations = Histogram(
            "http_request_duration_seconds", "Time to answer a request.", registry=registry
        )
        self._ready_pods = Gauge("ready_pods", "Pods that get traffic.", registry=registry)
        self._registry = registry
        for code in ("200", "500", "503"):
            self._requests.labels(code=code)  # a counter that exists from the start has a rate from the start
        self.app = Starlette(routes=[Route("/metrics", self._metrics), Route("/{path:path}", self._answer)])

    def set_pods(self, pods: Mapping[str, Manners]) -> None:
        """The ready pods by their uid; traffic goes round them in turn from now on."""
        self._backends = {
            uid: old if (old := self._backends.get(uid)) and old.manners == manners else _Backend(manners)
            for uid, manners in pods.items()
        }
        self._ready_pods.set(len(pods))

    async def _metrics(self, _: Request) -> Response:
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)

    async def _answer(self, _: Request) -> Response:
        started = time.perf_counter()
        code, text = await self._serve()
        self._durations.observe(time.perf_counter() - started)
        self._requests.labels(code=str(code)).inc()
        return PlainTextResponse(text + "\n", status_code=code)

    async def _serve(self) -> tuple[int, str]:
        backends: Sequence[_Backend] = tuple(self._backends.values())
        if not backends:
            return 503, "no pod is ready"
        self._turn += 1
        backend = backends[self._turn % len(backends)]
        if backend.manners.latency_seconds:
            await asyncio.sleep(backend.manners.latency_seconds)
        if backend.fails():
            return 500, "internal error"
        trouble = await self._call_dependency(backend.manners.dependency_url)
        return (500, trouble) if trouble else (200, "ok")

    async def _call_dependency(self, url: str | None) -> str | None:
        """None when all went well, else what went wrong."""
        if url is None:
            return None
        try:
            parts = urlsplit(url)
            target = self._network.route(parts.hostname or "", parts.port)
            if target is None:
                return f"dependency {url}: no such host"
            host, port = target
            answer = await self._http.get(
                f"http://{host}:{port}{parts.path or '/'}", timeout=_DEPENDENCY_TIMEOUT_SECONDS
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            return f"dependency {url}: {type(error).__name__}: {error}"
        return f"dependency {url}: answered {answer.status_code}" if answer.status_code >= 500 else None
