"""Connects the collector that the settings name, and loads its library only then."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import unquote

from app.config import Settings
from app.errors import ConfigurationError
from app.spans import tracing

CLOSE_SECONDS = 2.0
"""How long the spans of the last seconds may take to be delivered at the end of the process."""


@asynccontextmanager
async def traced(settings: Settings) -> AsyncIterator[None]:
    """Trace incidents while the context lasts, where OTEL_EXPORTER_OTLP_ENDPOINT is set.

    Raises `ConfigurationError` without the extra 'traces'.
    """
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        yield
        return
    try:
        from app.connectors.traces.otlp import OtlpTracer, otlp_exporter  # the extra is optional
    except ImportError:
        why = "OTEL_EXPORTER_OTLP_ENDPOINT needs the extra 'traces': pip install '.[traces]'"
        raise ConfigurationError(why) from None
    headers = settings.otel_exporter_otlp_headers
    exporter = otlp_exporter(endpoint, headers_of("" if headers is None else headers.get_secret_value()))
    tracer = OtlpTracer(exporter, role=settings.role)
    try:
        with tracing(tracer):
            yield
    finally:
        await tracer.aclose(CLOSE_SECONDS)


def headers_of(text: str) -> dict[str, str]:
    """`name=value,name=value` with values as in URLs; raises `ConfigurationError`, which shows none."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = part.partition("=")
        if not separator or not name.strip():
            raise ConfigurationError("OTEL_EXPORTER_OTLP_HEADERS: write name=value, separated by commas")
        found[name.strip().lower()] = unquote(value.strip())
    return found
