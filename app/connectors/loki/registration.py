"""How Loki is registered as a source of logs."""

from __future__ import annotations

from app.connectors.kinds import LogSourceKind
from app.connectors.loki.logs import LokiLogs

KIND = LogSourceKind(
    name="loki",
    title="Loki",
    settings=("LOKI_URL", "LOKI_TOKEN", "LOKI_TENANT"),
    configured=lambda settings: settings.loki_url is not None,
    connect=LokiLogs.from_settings,
)
