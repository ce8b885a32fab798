"""The registrations: one line for each alert format, GitOps controller, metric or log source, and channel.

This is the only place outside its own folder and `app.config` that names a vendor;
`tests/unit/test_registries.py` checks that nothing is missing.
"""

from __future__ import annotations

from app.connectors.alerts import alertmanager, grafana, silences
from app.connectors.alerts import datadog as datadog_alerts
from app.connectors.alerts.delivery import AlertFormat
from app.connectors.argocd import registration as argocd
from app.connectors.chat import teams, webhook
from app.connectors.chat.slack import channel as slack
from app.connectors.datadog import registration as datadog
from app.connectors.flux import registration as flux
from app.connectors.kinds import ChannelKind, GitOpsKind, LogSourceKind, MetricSourceKind, SilenceSourceKind
from app.connectors.loki import registration as loki
from app.connectors.paging import opsgenie, pagerduty
from app.connectors.prometheus import registration as prometheus

ALERT_FORMATS: tuple[AlertFormat, ...] = (
    alertmanager.format_with(grafana.DIALECT),
    datadog_alerts.FORMAT,
)
LOG_SOURCES: tuple[LogSourceKind, ...] = (loki.KIND,)
GITOPS: tuple[GitOpsKind, ...] = (argocd.KIND, flux.KIND)
METRIC_SOURCES: tuple[MetricSourceKind, ...] = (prometheus.KIND, datadog.KIND)
SILENCE_SOURCES: tuple[SilenceSourceKind, ...] = (silences.KIND,)
CHANNELS: tuple[ChannelKind, ...] = (
    slack.KIND,
    webhook.KIND,
    teams.KIND,
    pagerduty.KIND,
    opsgenie.KIND,
)

CHAT_PATHS: tuple[str, ...] = tuple(f"/webhooks/{kind.name}" for kind in CHANNELS if kind.inbound is not None)
"""What chats call; they sign their requests themselves."""
