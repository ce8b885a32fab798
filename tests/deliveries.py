"""Deliveries of alerts, read as the webhook of their format reads them."""

from __future__ import annotations

from datetime import datetime

from app.config import Settings
from app.connectors.alerts.delivery import AlertBatch
from app.connectors.alerts.labels import Owners
from app.connectors.registry import ALERT_FORMATS

_FORMATS = {one.name: one for one in ALERT_FORMATS}


def alerts_to_signals(
    payload: object,
    *,
    settings: Settings,
    received_at: datetime,
    owners: Owners | None = None,
    name: str = "alertmanager",
) -> AlertBatch:
    """The signals of one decoded delivery, in its order; raises `Invalid` as the format's reader does."""
    return _FORMATS[name].read(payload).batch(settings=settings, received_at=received_at, owners=owners)
