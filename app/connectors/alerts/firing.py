"""The alerts that Alertmanager holds, read as if it had delivered them. Pure.

`GET /api/v2/alerts` names the same fingerprints, labels and starts as a delivery, so an
alert that was delivered as well is recognised as the same signal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec

from app.connectors.alerts.alertmanager import NAME, read_delivery
from app.connectors.alerts.delivery import AlertDelivery
from app.connectors.text import shorten
from app.errors import PermanentError


class _Receiver(msgspec.Struct):
    name: str


class _Standing(msgspec.Struct):
    state: str


class _Held(msgspec.Struct):
    status: _Standing
    receivers: list[_Receiver]


def parameters(receiver: str) -> Mapping[str, str]:
    """The query for alerts that fire, are neither silenced nor inhibited, and go to that receiver."""
    return {
        "active": "true",
        "silenced": "false",
        "inhibited": "false",
        "unprocessed": "false",
        "receiver": f"^{re.escape(receiver)}$",
    }


def as_delivery(body: bytes, receiver: str) -> AlertDelivery:
    """The alerts of an answer; `PermanentError` for what is no list of alerts."""
    try:
        given: list[dict[str, Any]] = msgspec.json.decode(body, type=list[dict[str, Any]])
        firing = [one for one in given if _goes_to(msgspec.convert(one, _Held), receiver)]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise PermanentError(
            f"unexpected response from Alertmanager to a list of alerts ({shorten(str(error))}); "
            "is ALERTMANAGER_URL the address of Alertmanager?"
        ) from None
    if not firing:
        return AlertDelivery(source=NAME, entries=())
    return read_delivery({"alerts": [{**one, "status": "firing"} for one in firing]})


def _goes_to(held: _Held, receiver: str) -> bool:
    return held.status.state == "active" and any(one.name == receiver for one in held.receivers)
