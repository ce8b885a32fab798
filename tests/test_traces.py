"""Traces of incidents from signal to verdict, over the real SDK and to a real receiver of OTLP over HTTP."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app import spans
from app.agent.models import IncidentState
from app.config import Settings
from app.connectors.traces.connect import headers_of, traced
from app.connectors.traces.otlp import OtlpTracer, ids_of, otlp_exporter
from app.errors import ConfigurationError
from app.redaction import remember
from tests.stories import KEY, story

INCIDENT = f"inc_{'0a' * 16}"
STAGES = {"intake", "observe", "diagnose", "plan", "decide", "execute", "verify"}
SECRET = "5e3c7a91b24d60f8"


def _settings(url: str, **changes: Any) -> Settings:
    return Settings(_env_file=None, otel_exporter_otlp_endpoint=url, **changes)


async def test_an_incident_is_one_trace_from_signal_to_verdict(tmp_path: Path) -> None:
    """Each stage with the incident's id under the span of the whole; the verdict in it."""
    exporter = InMemorySpanExporter()
    tracer = OtlpTracer(exporter, role="all", processor=SimpleSpanProcessor(exporter))
    with spans.tracing(tracer):
        async with story(tmp_path, dry_run=False, allow_high_risk_actions=True) as stage:
            stage.deploy()
            await stage.live(400)
            stage.world.release("prod", KEY.service, "shop:2-errors")
            record = await stage.live_until_ended()
    assert record.incident.state is IncidentState.RECOVERED
    trace_id, root_id = ids_of(record.incident.id)
    assert f"inc_{trace_id:032x}" == record.incident.id
    found = [one for one in exporter.get_finished_spans() if one.context.trace_id == trace_id]
    assert {one.name for one in found} >= {
        "intake",
        "observe",
        "diagnose",
        "plan",
        "decide",
        "execute",
        "verify",
    }
    assert {(one.attributes or {})["heal.incident.id"] for one in found} == {record.incident.id}
    (whole,) = [one for one in found if one.name == "incident"]
    assert (whole.context.span_id, whole.parent) == (root_id, None)
    assert {one.parent.span_id for one in found if one.parent is not None} == {root_id}
    facts = {name: value for one in found for name, value in (one.attributes or {}).items()}
    assert (facts["heal.verdict"], facts["heal.state"]) == ("recovered", "recovered")
    assert "recovered" in {
        (one.attributes or {}).get("heal.verdict") for one in found if one.name == "verify"
    }
    assert (facts["heal.decision"], facts["heal.action"]) == ("allow", "rollback")


def test_a_failed_stage_is_marked_without_its_credentials() -> None:
    """One redacted line; no traceback."""
    exporter = InMemorySpanExporter()
    tracer = OtlpTracer(exporter, role="all", processor=SimpleSpanProcessor(exporter))
    remember([SECRET])
    with spans.tracing(tracer):
        with pytest.raises(ValueError, match="refused"):
            _failing_stage()
        spans.note(action="outside of every stage")
    (span,) = exporter.get_finished_spans()
    assert (span.status.is_ok, span.events) == (False, ())
    assert "refused" in str(span.status.description)
    assert SECRET not in span.to_json()


def _failing_stage() -> None:
    with spans.stage("decide", INCIDENT, service=SECRET):
        spans.note(action=f"token={SECRET}")
        raise ValueError(f"refused: password={SECRET}")


@contextmanager
def _receiver() -> Iterator[tuple[str, list[tuple[str, dict[str, str], ExportTraceServiceRequest]]]]:
    """A collector on the loopback address: its address, and what it was sent."""
    got: list[tuple[str, dict[str, str], ExportTraceServiceRequest]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            headers = {name.lower(): value for name, value in self.headers.items()}
            got.append((self.path, headers, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", got
    finally:
        server.shutdown()
        server.server_close()


async def test_a_collector_receives_the_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over OTLP/HTTP, with the configured headers; what is queued at the end is sent too."""
    with _receiver() as (url, got):
        async with traced(
            _settings(url + "/", otel_exporter_otlp_headers=f"Authorization=Bearer%20{SECRET}")
        ):
            with spans.stage("verify", INCIDENT):
                spans.note(verdict="recovered")
        assert not spans.begun()
    ((path, received, request),) = got
    assert (path, received["authorization"]) == ("/v1/traces", f"Bearer {SECRET}")
    (resource,) = request.resource_spans
    about = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (about["service.name"], about["heal.role"]) == ("self-healing-devops-agent", "all")
    (span,) = resource.scope_spans[0].spans
    assert (span.name, span.trace_id.hex()) == ("verify", INCIDENT.removeprefix("inc_"))
    assert {one.key for one in span.attributes} == {"heal.incident.id", "heal.verdict"}


async def test_a_collector_that_does_not_answer_delays_nothing() -> None:
    """More spans than the queue holds are recorded, and the end of the process does not wait for it."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        tracer = OtlpTracer(otlp_exporter(url, {}), role="all")
        with spans.tracing(tracer):
            for _ in range(3000):
                with spans.stage("verify", INCIDENT):
                    spans.note(verdict="cannot tell")
        await tracer.aclose(0.1)


def test_without_a_collector_nothing_is_loaded() -> None:
    """An agent that traces nothing pays nothing."""
    assert spans.stage("verify", INCIDENT) is spans.stage("decide", INCIDENT)
    loaded = "[name for name in sys.modules if name.startswith('opentelemetry.sdk')]"
    program = f"import sys, app.main, app.workers; print({loaded})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


async def test_what_cannot_trace_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address that is none, headers of another form, and a missing extra are named."""
    with pytest.raises(ValueError, match="OTEL_EXPORTER_OTLP_ENDPOINT"):
        _settings("collector:4317")
    with pytest.raises(ConfigurationError, match="OTEL_EXPORTER_OTLP_HEADERS") as caught:
        headers_of(SECRET)
    assert SECRET not in str(caught.value)
    monkeypatch.setitem(sys.modules, "app.connectors.traces.otlp", None)
    with pytest.raises(ConfigurationError, match="extra 'traces'"):
        async with traced(_settings("http://127.0.0.1:1")):
            pass
