"""The alerts that Alertmanager holds, read as if it had delivered them. Pure.

`GET /api/v2/alerts` names the same fingerprints, labels and starts as a delivery, so an
alert that was delivered as well is recognised as the same signal.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Annotated, Any

import msgspec

from app.connectors.alerts.alertmanager import NAME, read_delivery
from app.connectors.alerts.delivery import AlertDelivery
from app.connectors.text import shorten
from app.errors import PermanentError


class _Receiver(msgspec.Struct):
    name: str


class _Identified(msgspec.Struct):
    fingerprint: Annotated[str, msgspec.Meta(pattern="^[0-9a-fA-F]{1,64}$")]


class _AlertStatus(msgspec.Struct, rename="camel"):
    state: str
    silenced_by: list[str] = []
    inhibited_by: list[str] = []


class _Labelled(msgspec.Struct):
    labels: dict[str, str]


class _Held(msgspec.Struct):
    status: _AlertStatus
    receivers: list[_Receiver]


def parameters(receiver: str, *, muted: bool = False) -> Mapping[str, str]:
    """The query for alerts that fire, are neither silenced nor inhibited, and go to that receiver.

    `muted`: with those that are silenced.
    """
    return {
        "active": "true",
        "silenced": "true" if muted else "false",
        "inhibited": "false",
        "unprocessed": "false",
        "receiver": f"^{re.escape(receiver)}$",
    }


def of_name(name: str) -> Mapping[str, str]:
    """The query for every alert of that name, or of any, that has not ended: muted too, for any receiver."""
    quoted = name.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    everything = dict.fromkeys(("active", "silenced", "inhibited", "unprocessed"), "true")
    return {**everything, "filter": f'alertname="{quoted}"'} if name else everything


def fingerprints(body: bytes) -> frozenset[str]:
    """The fingerprints in an answer; `PermanentError` where one alert has none that can be read."""
    try:
        given = msgspec.json.decode(body, type=list[_Identified])
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _no_list_of_alerts(error) from None
    return frozenset(one.fingerprint.lower() for one in given)


def label_sets(body: bytes) -> tuple[Mapping[str, str], ...]:
    """The labels of each alert of an answer; `PermanentError` for what is no list of alerts."""
    try:
        return tuple(one.labels for one in msgspec.json.decode(body, type=list[_Labelled]))
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _no_list_of_alerts(error) from None


def as_delivery(body: bytes, receiver: str, own: Container[str]) -> AlertDelivery:
    """The alerts of an answer; `PermanentError` for what is no list of alerts.

    `own`: the ids of the agent's own silences, which mute no alert for the agent.
    """
    try:
        given: list[dict[str, Any]] = msgspec.json.decode(body, type=list[dict[str, Any]])
        firing = [one for one in given if _goes_to(msgspec.convert(one, _Held), receiver, own)]
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise _no_list_of_alerts(error) from None
    if not firing:
        return AlertDelivery(source=NAME, entries=())
    return read_delivery({"alerts": [{**one, "status": "firing"} for one in firing]})


def _no_list_of_alerts(error: Exception) -> PermanentError:
    return PermanentError(
        f"unexpected response from Alertmanager to a list of alerts ({shorten(str(error))}); "
        "is ALERTMANAGER_URL the address of Alertmanager?"
    )


def _goes_to(held: _Held, receiver: str, own: Container[str]) -> bool:
    status = held.status
    muted_by_agent = (
        bool(status.silenced_by) and not status.inhibited_by and all(one in own for one in status.silenced_by)
    )
    return (status.state == "active" or muted_by_agent) and any(
        one.name == receiver for one in held.receivers
    )
