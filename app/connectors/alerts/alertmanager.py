"""The webhook of Alertmanager. Pure.

`format_with` makes the registered format; its dialects are other senders of the same
form. Every alert is read by itself: one that cannot be read is reported beside the
others, because Alertmanager drops a rejected delivery as a whole.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated

import msgspec

from app.connectors.alerts.delivery import (
    AlertDelivery,
    AlertEntry,
    AlertFormat,
    DeliveryToken,
    Dialect,
    UnmappedAlert,
    fingerprint_of,
)
from app.connectors.text import shorten
from app.errors import Invalid

NAME = "alertmanager"

_VERSION = "4"
"""Since 0.6; look-alikes leave it out."""
_EXAMPLE = (
    '{"version":"4","status":"firing","alerts":[{"status":"firing","labels":{"alertname":"HighErrorRate",'
    '"namespace":"prod","service":"payments-api"},"startsAt":"2026-02-20T17:00:00Z","fingerprint":"1"}]}'
)

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class _Delivery(msgspec.Struct, rename="camel"):
    alerts: list[object]
    version: object = None
    truncated_alerts: Annotated[int, msgspec.Meta(ge=0)] | None = 0


def format_with(*dialects: Dialect) -> AlertFormat:
    """The format of Alertmanager, also sent by the senders of these dialects."""
    versions = [_VERSION, *(version for one in dialects for version in one.versions)]
    also = "".join(f" or {one.title} (version {one.versions[0]})" for one in dialects)
    points = "".join(f" or {one.payload}" for one in dialects)
    return AlertFormat(
        name=NAME,
        title="Alertmanager",
        summary=f"Receive a delivery of Alertmanager (webhook version {_VERSION}){also}",
        payload=f"The unchanged payload of Alertmanager{points}.",
        expected="Send the unchanged payload of the Alertmanager webhook (a JSON object with version, status "
        f"and alerts){points and points.replace(' or ', ' or of ', 1)}. Example: {_EXAMPLE}",
        fix=f"configure an Alertmanager webhook{points} with this URL",
        schema={
            "type": "object",
            "required": ["alerts"],
            "properties": {
                "version": {"enum": [*versions]},
                "alerts": {"type": "array", "items": {"type": "object"}},
            },
        },
        read=partial(read_delivery, dialects=dialects),
        is_delivery=is_delivery,
        token=DeliveryToken(
            setting="ALERTMANAGER_TOKEN",
            of=lambda settings: settings.alertmanager_token,
            placed="http_config.authorization.credentials in Alertmanager",
        ),
    )


def read_delivery(payload: object, *, dialects: Sequence[Dialect] = ()) -> AlertDelivery:
    """The alerts of one decoded delivery.

    Raises `Invalid`, naming the field and the fix, for what is no delivery, or
    holds nothing that can be read. One odd alert among others is kept as an
    `UnmappedAlert`.
    """
    try:
        delivery = msgspec.convert(payload, _Delivery)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _as_invalid(error, "") from None
    _check_version(delivery.version, dialects)
    entries: list[AlertEntry | UnmappedAlert] = []
    refusals: list[Invalid] = []
    for index, value in enumerate(delivery.alerts):
        try:
            entries.append(_read(value, dialects))
        except (msgspec.ValidationError, RecursionError) as error:
            refusals.append(_as_invalid(error, f"alerts[{index}]"))
            entries.append(
                UnmappedAlert(fingerprint="", name=_name_of(value, index), reason=str(refusals[-1]))
            )
    if refusals and len(refusals) == len(entries):
        raise refusals[0]
    left_out = (
        f"Alertmanager truncated {delivery.truncated_alerts} alerts from this delivery; "
        "raise max_alerts of its webhook_config or set it to 0"
        if delivery.truncated_alerts
        else ""
    )
    return AlertDelivery(source=NAME, entries=tuple(entries), left_out=left_out)


def _check_version(version: object, dialects: Sequence[Dialect]) -> None:
    known = (_VERSION, *(one for dialect in dialects for one in dialect.versions))
    if version is None or version in known or (type(version) is int and str(version) in known):
        return
    others = "".join(f' or of {one.payload} (version "{one.versions[0]}")' for one in dialects)
    raise Invalid(
        f"version: is {shorten(str(version), 40)!r}; send the webhook of Alertmanager "
        f'(version "{_VERSION}"){others}'
    )


def is_delivery(payload: object) -> bool:
    """Whether a decoded body is a delivery with entries, however odd one of them is."""
    return isinstance(payload, dict) and isinstance(payload.get("alerts"), list) and bool(payload["alerts"])


# ------------------------------------------------------------------ reading one alert


class _Raw(msgspec.Struct, rename="camel"):
    """What an alert must say; everything else is read as far as it can be."""

    status: str
    labels: dict[str, object]
    starts_at: _Time
    fingerprint: object = None
    ends_at: object = None
    annotations: object = None


def _read(value: object, dialects: Sequence[Dialect]) -> AlertEntry:
    raw = msgspec.convert(value, _Raw)
    status = raw.status.lower()
    if status not in ("firing", "resolved", "suppressed"):
        raise msgspec.ValidationError("Invalid status, neither firing nor resolved - at `$.status`")
    labels = _texts(raw.labels)
    annotations = _texts(raw.annotations)
    entry = AlertEntry(
        name=shorten(labels.get("alertname", ""), 200) or "unnamed alert",
        firing=status == "firing",
        suppressed=status == "suppressed",
        labels=labels,
        summary=annotations.get("summary") or annotations.get("description", ""),
        fingerprint=fingerprint_of(raw.fingerprint, labels),
        starts_at=raw.starts_at,
        ends_at=_end(raw.ends_at),
    )
    return replace(entry, telemetry=any(one.telemetry(entry, annotations) for one in dialects))


def _texts(value: object) -> dict[str, str]:
    """Names to texts: a number or a truth value is written out, anything else that is no text left out."""
    found: dict[str, str] = {}
    for name, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, str):
            found[str(name)] = item
        elif isinstance(item, bool | int | float):
            found[str(name)] = json.dumps(item)
    return found


def _end(given: object) -> datetime | None:
    """When it ended; None for what is no time, which says no more than a missing one."""
    try:
        return msgspec.convert(given, _Time) if isinstance(given, str) else None
    except msgspec.ValidationError:
        return None


def _as_invalid(error: Exception, prefix: str) -> Invalid:
    problem, _, path = str(error).partition(" - at `")
    inside = path.rstrip("`").removeprefix("$")
    field = (prefix + inside).removeprefix(".") or "body"
    return Invalid(f"{shorten(field, 100)}: {shorten(problem)}; {_fix(field)}")


def _fix(field: str) -> str:
    if field.endswith(("startsAt", "endsAt")):
        return "send a time with an offset, such as 2026-02-20T17:00:00Z"
    return "send the body of an Alertmanager webhook as Alertmanager writes it"


def _name_of(value: object, index: int) -> str:
    """What an entry that cannot be read calls itself, or its place in the list."""
    labels = value.get("labels") if isinstance(value, dict) else None
    name = labels.get("alertname") if isinstance(labels, dict) else None
    return (shorten(name, 200) if isinstance(name, str) else "") or f"alerts[{index}]"
