"""What the agent needs to know of Prometheus besides its answers."""

from __future__ import annotations

from datetime import timedelta

from app.config import Settings
from app.connectors.kinds import MetricPace, MetricSourceKind
from app.connectors.observability import Indicator
from app.connectors.prometheus.promql import duration
from app.connectors.prometheus.source import PrometheusSource


def _pace(settings: Settings) -> MetricPace:
    return MetricPace(
        window=duration(settings.prometheus_window),
        every=timedelta(seconds=settings.prometheus_poll_seconds),
        at_once=settings.prometheus_concurrency,
    )


KIND = MetricSourceKind(
    name="prometheus",
    title="Prometheus",
    settings=("PROMETHEUS_URL", "PROMETHEUS_BEARER_TOKEN"),
    queries={
        Indicator.ERROR_RATE: "PROMETHEUS_ERROR_RATE_QUERY",
        Indicator.P95_LATENCY_MS: "PROMETHEUS_P95_QUERY",
        Indicator.REQUEST_RATE: "PROMETHEUS_REQUEST_RATE_QUERY",
    },
    configured=lambda settings: settings.prometheus_url is not None,
    connect=PrometheusSource.from_settings,
    pace=_pace,
)
