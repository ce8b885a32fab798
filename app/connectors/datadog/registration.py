"""What the agent needs to know of Datadog besides its answers."""

from __future__ import annotations

from datetime import timedelta

from app.config import Settings
from app.connectors.datadog.source import DatadogSource
from app.connectors.kinds import MetricPace, MetricSourceKind
from app.connectors.observability import Indicator


def _pace(settings: Settings) -> MetricPace:
    return MetricPace(
        window=timedelta(seconds=settings.datadog_window_seconds),
        every=timedelta(seconds=settings.datadog_poll_seconds),
        at_once=settings.datadog_concurrency,
    )


KIND = MetricSourceKind(
    name="datadog",
    title="Datadog",
    settings=("DATADOG_API_KEY", "DATADOG_APP_KEY"),
    queries={
        Indicator.ERROR_RATE: "DATADOG_ERRORS_QUERY",
        Indicator.P95_LATENCY_MS: "DATADOG_P95_QUERY",
        Indicator.REQUEST_RATE: "DATADOG_REQUESTS_QUERY",
    },
    configured=lambda settings: settings.datadog_api_key is not None,
    connect=DatadogSource.from_settings,
    pace=_pace,
)
