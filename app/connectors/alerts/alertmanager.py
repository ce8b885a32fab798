"""Deliveries of Alertmanager, and of senders that write its format, as signals. Pure.

Called by the webhook router. One alert is fingerprint + startsAt + status: a
repeated delivery is the same signal twice, a re-fire is a new one. An alert
without a usable fingerprint is identified by its labels.

Every alert is read by itself: what cannot be read or mapped is reported beside
the others. Grafana sends the same form as version "1", with more fields.

An alert is about the service that its labels name, the first of these that is
there: `service`, `service_name`, `app_kubernetes_io_name`, `app`, `deployment`,
`pod` (the Deployment behind the pod), `job`. `app.connectors.alerts.labels` says
which spellings count, whose labels are set aside, and how the environment follows
from namespace, environment and cluster. Where `SERVICE_WORKLOADS` names the
Deployment, that service wins.

Staleness is judged by delivery: Alertmanager repeats what is true now, so an
alert that has been firing for hours is as current as one that began this second.
An alert that resolved long ago opens nothing anyway.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated

import msgspec

from app.agent.models import Alert, Signal, Trigger
from app.agent.observer import new_signal
from app.config import Settings
from app.connectors.alerts.labels import (
    Owners,
    PodRef,
    Unmapped,
    cluster_of,
    pod_to_ask,
    service_of,
)
from app.connectors.text import shorten
from app.errors import Invalid
from app.redaction import redacted

TRIGGER_LABEL = "heal_trigger"
MOST_UNMAPPED = 1_000
"""Entries that an answer names; more than any sender's group holds."""

_VERSIONS = (None, "4", "1", 4, 1)
"""Of Alertmanager since 0.6, and of Grafana; look-alikes leave it out."""
_NO_DATA = frozenset({"DatasourceNoData", "DatasourceError"})
"""What Grafana calls an alert for a rule that it could not evaluate, whatever the rule's own labels say."""
_STATE_REASON = "grafana_state_reason"
_FINGERPRINT = re.compile("[0-9a-fA-F]{1,64}")
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
_NEVER_STALE = timedelta.max
_MAX_SUMMARY = 500
_MAX_LABELS = 64
_MAX_LABEL_CHARACTERS = 2_000
"""Names and values together: more is not kept with the reason that the alert is."""

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Alert:
    """One alert with every field in a form that can be used."""

    name: str
    firing: bool
    suppressed: bool
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    fingerprint: str
    starts_at: datetime
    ends_at: datetime | None


class _Delivery(msgspec.Struct, rename="camel"):
    alerts: list[object]
    version: object = None
    truncated_alerts: Annotated[int, msgspec.Meta(ge=0)] | None = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnmappedAlert:
    """An alert that became no signal, and what would have to change for it to become one."""

    fingerprint: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint}): {self.reason}" if self.fingerprint else self.reason


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertBatch:
    """One delivery, taken apart."""

    signals: tuple[Signal, ...]
    unmapped: tuple[UnmappedAlert, ...]
    """Also holds one entry without a fingerprint when Alertmanager itself left alerts out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """One delivery, read: its alerts in order, and what could not be read."""

    entries: tuple[_Alert | UnmappedAlert, ...]
    truncated: int = 0

    def pods_to_ask(self, settings: Settings) -> tuple[PodRef, ...]:
        """The pods whose owners name services, in order and without repeats."""
        found = (pod_to_ask(one.labels, settings) for one in self.entries if isinstance(one, _Alert))
        return tuple(dict.fromkeys(pod for pod in found if pod is not None))

    def batch(self, *, settings: Settings, received_at: datetime, owners: Owners | None = None) -> AlertBatch:
        """The signals of the alerts that name a service; the others with a reason."""
        signals: list[Signal] = []
        unmapped: list[UnmappedAlert] = []
        for one in self.entries:
            if isinstance(one, UnmappedAlert):
                unmapped.append(one)
                continue
            try:
                signals.append(_signal(one, settings, received_at, owners))
            except Unmapped as reason:
                unmapped.append(UnmappedAlert(fingerprint=one.fingerprint, name=one.name, reason=str(reason)))
        if self.truncated:
            unmapped.append(
                UnmappedAlert(
                    fingerprint="",
                    name="",
                    reason=f"Alertmanager truncated {self.truncated} alerts from this delivery; "
                    "raise max_alerts of its webhook_config or set it to 0",
                )
            )
        return AlertBatch(signals=tuple(signals), unmapped=tuple(unmapped))


def alerts_to_signals(
    payload: object, *, settings: Settings, received_at: datetime, owners: Owners | None = None
) -> AlertBatch:
    """The signals of one decoded delivery, in its order; raises `Invalid` as `read_delivery` does."""
    return read_delivery(payload).batch(settings=settings, received_at=received_at, owners=owners)


def read_delivery(payload: object) -> AlertDelivery:
    """The alerts of one decoded delivery.

    Raises `Invalid`, naming the field and the fix, for what is no delivery, or
    holds nothing that can be read. One odd alert among others is kept as an
    `UnmappedAlert`, because Alertmanager drops a refused delivery as a whole.
    """
    try:
        delivery = msgspec.convert(payload, _Delivery)
    except (msgspec.ValidationError, RecursionError) as error:
        raise _as_invalid(error, "") from None
    if delivery.version not in _VERSIONS or isinstance(delivery.version, bool):
        raise Invalid(
            f"version: is {shorten(str(delivery.version), 40)!r}; send the webhook of Alertmanager "
            '(version "4") or of a Grafana contact point (version "1")'
        )
    entries: list[_Alert | UnmappedAlert] = []
    refusals: list[Invalid] = []
    for index, value in enumerate(delivery.alerts):
        try:
            entries.append(_read(value))
        except (msgspec.ValidationError, RecursionError) as error:
            refusals.append(_as_invalid(error, f"alerts[{index}]"))
            entries.append(
                UnmappedAlert(fingerprint="", name=_name_of(value, index), reason=str(refusals[-1]))
            )
    if refusals and len(refusals) == len(entries):
        raise refusals[0]
    return AlertDelivery(entries=tuple(entries), truncated=delivery.truncated_alerts or 0)


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


def _read(value: object) -> _Alert:
    raw = msgspec.convert(value, _Raw)
    status = raw.status.lower()
    if status not in ("firing", "resolved", "suppressed"):
        raise msgspec.ValidationError("Invalid status, neither firing nor resolved - at `$.status`")
    labels = _texts(raw.labels)
    return _Alert(
        name=shorten(labels.get("alertname", ""), 200) or "unnamed alert",
        firing=status == "firing",
        suppressed=status == "suppressed",
        labels=labels,
        annotations=_texts(raw.annotations),
        fingerprint=_fingerprint(raw.fingerprint, labels),
        starts_at=raw.starts_at,
        ends_at=_end(raw.ends_at),
    )


def _texts(value: object) -> dict[str, str]:
    """Names to texts: a number or a truth value is written out, anything else that is no text left out."""
    found: dict[str, str] = {}
    for name, item in value.items() if isinstance(value, dict) else ():
        if isinstance(item, str):
            found[str(name)] = item
        elif isinstance(item, bool | int | float):
            found[str(name)] = json.dumps(item)
    return found


def _fingerprint(given: object, labels: Mapping[str, str]) -> str:
    """The sender's own, or one made of the labels, which are what identifies an alert."""
    if isinstance(given, str) and _FINGERPRINT.fullmatch(given):
        return given
    written = json.dumps([sorted(labels.items()), given if isinstance(given, str) else ""])
    return hashlib.sha256(written.encode("utf-8", "backslashreplace")).hexdigest()[:16]


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
    return Invalid(f"{shorten(field, 100)}: {shorten(problem)}; {_mend(field)}")


def _mend(field: str) -> str:
    if field.endswith(("startsAt", "endsAt")):
        return "send a time with an offset, such as 2026-02-20T17:00:00Z"
    return "send the body of an Alertmanager webhook as Alertmanager writes it"


def _name_of(value: object, index: int) -> str:
    """What an entry that cannot be read calls itself, or its place in the list."""
    labels = value.get("labels") if isinstance(value, dict) else None
    name = labels.get("alertname") if isinstance(labels, dict) else None
    return (shorten(name, 200) if isinstance(name, str) else "") or f"alerts[{index}]"


# ------------------------------------------------------------------ one alert as a signal


def _signal(alert: _Alert, settings: Settings, received_at: datetime, owners: Owners | None) -> Signal:
    starts_at = _starts_at(alert, received_at, timedelta(seconds=settings.signal_max_future_seconds))
    telemetry = _is_about_telemetry(alert)
    status = "telemetry" if telemetry and alert.firing else "firing" if alert.firing else "resolved"
    if alert.suppressed:
        status = "suppressed"
    summary = alert.annotations.get("summary") or alert.annotations.get("description", "")
    return new_signal(
        key=service_of(alert.labels, settings, owners),
        source="alertmanager",
        observed_at=min(starts_at, received_at)
        if alert.firing or alert.suppressed
        else _ended_at(alert, starts_at, received_at),
        received_at=received_at,
        payload=Alert(
            name=alert.name,
            firing=alert.firing,
            fingerprint=alert.fingerprint,
            starts_at=starts_at,
            trigger=None if telemetry else _trigger(alert, settings),
            summary=shorten(summary, _MAX_SUMMARY),
            telemetry=telemetry,
            suppressed=alert.suppressed,
            cluster=cluster_of(alert.labels, settings),
            labels=_kept(alert.labels),
        ),
        stale_after=_NEVER_STALE,
        dedup_key=f"alertmanager:{alert.fingerprint.lower()}:{starts_at.isoformat()}:{status}",
    )


def _kept(labels: Mapping[str, str]) -> tuple[tuple[str, str], ...] | None:
    """All labels, for silences to be matched with; None where they are too long to be kept."""
    if len(labels) > _MAX_LABELS or sum(len(k) + len(v) for k, v in labels.items()) > _MAX_LABEL_CHARACTERS:
        return None
    return tuple(sorted((name, redacted(value)) for name, value in labels.items()))


def _is_about_telemetry(alert: _Alert) -> bool:
    """Whether it fires because a rule had no data or failed, and not because its condition is met."""
    why = alert.annotations.get(_STATE_REASON) or alert.labels.get(_STATE_REASON, "")
    return alert.name in _NO_DATA or (alert.firing and any(word in why for word in ("NoData", "Error")))


def _starts_at(alert: _Alert, received_at: datetime, tolerance: timedelta) -> datetime:
    starts_at = _utc(alert.starts_at)
    if starts_at is None or starts_at < _EARLIEST:
        raise Unmapped(f"startsAt is {alert.starts_at.isoformat()}, which is not a start time")
    if starts_at - received_at > tolerance:
        raise Unmapped(
            f"startsAt {starts_at.isoformat()} is in the future; check the clocks of Prometheus and the agent"
        )
    return starts_at


def _ended_at(alert: _Alert, starts_at: datetime, received_at: datetime) -> datetime:
    """When a resolved alert ended: never before it began, never after it was reported."""
    ends_at = _utc(alert.ends_at) if alert.ends_at is not None else None
    if ends_at is None or ends_at < starts_at:
        return received_at
    return min(ends_at, received_at)


def _utc(at: datetime) -> datetime | None:
    """None at the edges of the calendar, where Alertmanager's year 1 has no UTC in every zone."""
    try:
        return at.astimezone(UTC)
    except OverflowError:
        return None


def _trigger(alert: _Alert, settings: Settings) -> Trigger | None:
    asked = alert.labels.get(TRIGGER_LABEL)
    if asked is None:
        return settings.alert_triggers.get(alert.name)
    try:
        return Trigger(asked)
    except ValueError:
        known = ", ".join(Trigger)
        raise Unmapped(f"label {TRIGGER_LABEL} is {shorten(asked, 80)!r}; use one of {known}") from None
