"""The webhook of a Datadog monitor, in the form of the shipped template. Pure.

Datadog sends what the user's template says; `deploy/datadog/webhook.json` is the one
that is read here. Every value is a text, a number as well, and a variable that
Datadog does not know for a monitor stays as it was written (`$ALERT_SCOPE`): it
counts as missing. Each message has a time of its own, so a recovery is linked to
its alert by `$ALERT_CYCLE_KEY`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

from app.connectors.alerts.delivery import (
    AlertDelivery,
    AlertEntry,
    AlertFormat,
    DeliveryToken,
    UnmappedAlert,
    fingerprint_of,
)
from app.connectors.text import shorten
from app.errors import Invalid

NAME = "datadog"

_UNRENDERED = re.compile(r"\$[A-Z][A-Z0-9_]*(\[[^\]]*\])?")
_NO_DATA = ("no data", "re-no data")
_FIRING = ("triggered", "re-triggered", "warn", "re-warn", "renotify", "alert")
_ONE_EACH = ("service", "env")
"""Tags that name what the alert is about: one of two values would be a guess."""
_MOST_NAMED = 5
_RECOVERED = "recovered"
_CYCLE = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_MILLIS_FROM = 10_000_000_000
"""A number of seconds above this is milliseconds: Datadog's `$DATE`."""
_TEMPLATE = "deploy/datadog/webhook.json"
_EXAMPLE = (
    '{"alert_transition":"Triggered","alert_id":"1","alert_cycle_key":"17","title":"High error rate",'
    '"tags":"service:payments-api,env:prod","date":"1771606800000"}'
)


def _read(payload: object) -> AlertDelivery:
    """The alert of one decoded body; raises `Invalid`, naming the field and the fix."""
    if not isinstance(payload, dict):
        raise Invalid(f"body: is not an object; use the template {_TEMPLATE}")
    given = {str(name): _text(value) for name, value in payload.items()}
    transition = given.get("alert_transition", "").strip().lower()
    if not transition:
        raise Invalid(
            f"alert_transition: is missing or not rendered; use the template {_TEMPLATE} in a monitor"
        )
    labels = _labels(given)
    name = shorten(given.get("title", ""), 200) or "unnamed monitor"
    fingerprint = fingerprint_of(_identity(given), labels)
    recovered, no_data = transition.startswith(_RECOVERED), transition.startswith(_NO_DATA)
    if not (recovered or no_data or transition.startswith(_FIRING)):
        reason = (
            f"alert_transition is {shorten(transition, 80)!r}: neither an alert, a recovery nor missing data"
        )
        return _unmapped(fingerprint, name, reason)
    if contradiction := _contradiction(given):
        return _unmapped(fingerprint, name, contradiction)
    at = _time(given)
    entry = AlertEntry(
        name=name,
        firing=not recovered,
        labels=labels,
        fingerprint=fingerprint,
        starts_at=at,
        ends_at=at if recovered else None,
        summary=given.get("summary", ""),
        telemetry=no_data,
        cycle=_cycle(given),
    )
    return AlertDelivery(source=NAME, entries=(entry,))


def _text(value: object) -> str:
    """A value as text; empty for what is no text or number, and for a variable left as written."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return ""
    text = str(value).strip()
    return "" if _UNRENDERED.fullmatch(text) else text


def _labels(given: Mapping[str, str]) -> dict[str, str]:
    """The tags of the scope, then the others; of a tag that is given twice the first value counts."""
    labels: dict[str, str] = {}
    for field in ("scope", "tags"):
        for tag in given.get(field, "").split(","):
            name, colon, value = tag.strip().partition(":")
            if colon and name and value and not _UNRENDERED.fullmatch(value):
                labels.setdefault(name, value)
    labels["alertname"] = shorten(given.get("title", ""), 200) or "unnamed monitor"
    return labels


def _contradiction(given: Mapping[str, str]) -> str:
    """Why the tags do not say which service or environment the alert is about; empty where they do.

    A monitor carries every tag of what it watches. The scope names the group that is alerting.
    """
    scope = _values(given.get("scope", ""))
    for name, found in _values(given.get("tags", "")).items():
        if name in _ONE_EACH and name not in scope and len(found) > 1:
            listed = ", ".join(shorten(one, 63) for one in sorted(found)[:_MOST_NAMED])
            return f"tag {name} has several values ({listed}); group the monitor by {name}"
    return ""


def _values(tags: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for tag in tags.split(","):
        name, _, value = tag.strip().partition(":")
        if value and not _UNRENDERED.fullmatch(value):
            found.setdefault(name, set()).add(value)
    return found


def _unmapped(fingerprint: str, name: str, reason: str) -> AlertDelivery:
    return AlertDelivery(
        source=NAME, entries=(UnmappedAlert(fingerprint=fingerprint, name=name, reason=reason),)
    )


def _identity(given: Mapping[str, str]) -> str:
    """The monitor and the group that it is about; the same over all its alerts."""
    return "/".join(given.get(field, "") for field in ("org_id", "alert_id", "aggreg_key", "scope"))


def _cycle(given: Mapping[str, str]) -> str:
    """The key of the cycle; a constant without one, so that a recovery still ends its alert."""
    key = given.get("alert_cycle_key", "")
    return key if _CYCLE.fullmatch(key) else "no-cycle-key"


def _time(given: Mapping[str, str]) -> datetime:
    """`date` in seconds or milliseconds since 1970, or as ISO 8601 with an offset; `Invalid` otherwise."""
    text = given.get("date", "")
    try:
        if re.fullmatch(r"\d{9,17}(\.\d+)?", text):
            seconds = float(text)
            return datetime.fromtimestamp(seconds / 1000 if seconds > _MILLIS_FROM else seconds, UTC)
        at = datetime.fromisoformat(text)
    except (ValueError, OverflowError, OSError):
        raise Invalid(f"date: is {shorten(text, 40)!r}; send $DATE, milliseconds since 1970") from None
    if at.tzinfo is None:
        raise Invalid(f"date: {shorten(text, 40)!r} has no offset; send $DATE, milliseconds since 1970")
    return at.astimezone(UTC)


def _is_delivery(payload: object) -> bool:
    return isinstance(payload, dict) and "alert_transition" in payload


FORMAT = AlertFormat(
    name=NAME,
    title="Datadog",
    summary="Receive an alert of a Datadog monitor",
    payload=f"The payload of the template {_TEMPLATE}.",
    expected=f"Send the payload of the template {_TEMPLATE}. Example: {_EXAMPLE}",
    fix=f"create a webhook in Datadog with this URL and the template {_TEMPLATE}",
    schema={
        "type": "object",
        "required": ["alert_transition", "date"],
        "properties": {
            "alert_transition": {"type": "string"},
            "alert_cycle_key": {"type": ["string", "number"]},
            "alert_id": {"type": ["string", "number"]},
            "date": {"type": ["string", "number"]},
            "scope": {"type": "string"},
            "tags": {"type": "string"},
            "title": {"type": "string"},
        },
    },
    read=_read,
    is_delivery=_is_delivery,
    token=DeliveryToken(
        setting="DATADOG_WEBHOOK_TOKEN",
        of=lambda settings: settings.datadog_webhook_token,
        placed="the custom header Authorization of the webhook in Datadog",
    ),
)
