"""Spans for a collector over OTLP/HTTP.

They are queued in memory and sent by a thread of the SDK: a collector that is slow or away delays
nothing, and what the queue cannot hold is dropped. Attributes hold ids, names and verdicts, without
credentials; exceptions are noted by one redacted line.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, Status, StatusCode, TraceFlags

from app.redaction import redacted
from app.version import package_version

SERVICE = "self-healing-devops-agent"

_EXPORT_SECONDS = 5.0
_SEND_EVERY_MILLISECONDS = 1000
_LONGEST = 256
_HEX = re.compile(r"inc_([0-9a-f]{32})")

_under_way: ContextVar[Span | None] = ContextVar("span", default=None)


class _Ids(RandomIdGenerator):
    """Random ids, and those of an incident for its own span."""

    def __init__(self) -> None:
        self.given: ContextVar[tuple[int, int] | None] = ContextVar("ids", default=None)

    def generate_trace_id(self) -> int:
        given = self.given.get()
        return super().generate_trace_id() if given is None else given[0]

    def generate_span_id(self) -> int:
        given = self.given.get()
        return super().generate_span_id() if given is None else given[1]


class OtlpTracer:
    """A `Tracer` over the OpenTelemetry SDK."""

    def __init__(self, exporter: SpanExporter, *, role: str, processor: SpanProcessor | None = None) -> None:
        """`processor`: how spans reach the exporter; None: in batches, from a thread."""
        self._ids = _Ids()
        about = {"service.name": SERVICE, "service.version": package_version(), "heal.role": role}
        self._provider = TracerProvider(
            resource=Resource(about),
            sampler=ParentBased(ALWAYS_ON),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(
            processor
            or BatchSpanProcessor(
                exporter,
                schedule_delay_millis=_SEND_EVERY_MILLISECONDS,
                export_timeout_millis=_EXPORT_SECONDS * 1000,
            )
        )
        self._tracer = self._provider.get_tracer(SERVICE)

    @contextmanager
    def stage(self, name: str, incident_id: str, facts: Mapping[str, str]) -> Iterator[None]:
        """A span that lasts as long as the context."""
        span = self._tracer.start_span(name, _within(incident_id), attributes=_attributes(incident_id, facts))
        token = _under_way.set(span)
        try:
            yield
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, _short(f"{type(error).__name__}: {error}")))
            raise
        finally:
            _under_way.reset(token)
            span.end()

    def note(self, facts: Mapping[str, str]) -> None:
        """Add to the span of the stage under way."""
        span = _under_way.get()
        if span is not None:
            span.set_attributes(_attributes(None, facts))

    def past(self, name: str, incident_id: str, began_ns: int, facts: Mapping[str, str]) -> None:
        """A span that ends now."""
        attributes = _attributes(incident_id, facts)
        began = began_ns or time.time_ns()
        self._tracer.start_span(name, _within(incident_id), attributes=attributes, start_time=began).end()

    def ended(
        self, incident_id: str, opened_at: datetime, closed_at: datetime, facts: Mapping[str, str]
    ) -> None:
        """The span of the whole incident."""
        token = self._ids.given.set(ids_of(incident_id))
        try:
            span = self._tracer.start_span(
                "incident",
                Context(),
                attributes=_attributes(incident_id, facts),
                start_time=_nanoseconds(opened_at),
            )
        finally:
            self._ids.given.reset(token)
        span.end(_nanoseconds(closed_at))

    async def aclose(self, seconds: float) -> None:
        """Send what is queued, for at most so long; the rest is dropped."""
        loop, done = asyncio.get_running_loop(), asyncio.Event()

        def shut() -> None:
            self._provider.shutdown()
            try:
                loop.call_soon_threadsafe(done.set)
            except RuntimeError:
                return  # the process did not wait for it

        # A thread that the interpreter does not wait for: the collector may be away.
        threading.Thread(target=shut, name="traces", daemon=True).start()
        try:
            async with asyncio.timeout(seconds):
                await done.wait()
        except TimeoutError:
            return


def otlp_exporter(endpoint: str, headers: Mapping[str, str]) -> SpanExporter:
    """Sends spans to `endpoint`/v1/traces; it connects on first use."""
    return OTLPSpanExporter(
        endpoint=f"{endpoint.rstrip('/')}/v1/traces", headers=dict(headers), timeout=_EXPORT_SECONDS
    )


def ids_of(incident_id: str) -> tuple[int, int]:
    """The trace of an incident and the span of the whole of it: the same in every process."""
    digest = hashlib.sha256(incident_id.encode()).hexdigest()
    known = _HEX.fullmatch(incident_id)
    return int(known[1] if known else digest[:32], 16) or 1, int(digest[-16:], 16) or 1


def _within(incident_id: str) -> Context:
    trace_id, span_id = ids_of(incident_id)
    whole = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))
    return trace.set_span_in_context(NonRecordingSpan(whole), Context())


def _attributes(incident_id: str | None, facts: Mapping[str, str]) -> dict[str, str]:
    found = {f"heal.{name}": _short(str(value)) for name, value in facts.items() if value}
    return found if incident_id is None else {"heal.incident.id": incident_id, **found}


def _short(text: str) -> str:
    return redacted(text)[:_LONGEST]


def _nanoseconds(at: datetime) -> int:
    return round(at.timestamp() * 1_000_000) * 1000
