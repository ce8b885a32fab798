"""What Grafana changes in the webhook of Alertmanager. Pure.

A contact point sends the same form with another version and more fields. Grafana also
sends an alert where a rule had no data or failed; that is a telemetry outage, and no
symptom of the service (promise 8).
"""

from __future__ import annotations

from collections.abc import Mapping

from app.connectors.alerts.delivery import AlertEntry, Dialect

_NO_DATA = frozenset({"DatasourceNoData", "DatasourceError"})
"""The names of alerts for a rule that could not be evaluated, whatever the rule's own labels say."""
_STATE_REASON = "grafana_state_reason"


def _is_about_telemetry(alert: AlertEntry, annotations: Mapping[str, str]) -> bool:
    why = annotations.get(_STATE_REASON) or alert.labels.get(_STATE_REASON, "")
    return alert.name in _NO_DATA or (alert.firing and any(word in why for word in ("NoData", "Error")))


DIALECT = Dialect(
    title="Grafana",
    payload="a Grafana contact point",
    versions=("1",),
    telemetry=_is_about_telemetry,
)
